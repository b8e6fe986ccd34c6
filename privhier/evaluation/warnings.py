"""Warnings that a run's own numbers call for: what must not be quoted without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from privhier.evaluation.result import Score, TaskScores, TaskUtility

CHANCE = 0.5
"""AUC of guessing, a macro mean of one-vs-rest AUCs included."""
NOT_LEARNED = "NOT LEARNED"
REFERENCE_FAILED = "REFERENCE NOT LEARNED"
"""Of the networks beside the run: not loud, as the run's own numbers stand."""
COLLAPSED = "CODE COLLAPSED"
GUESSES = "does no better than guessing"
LOUD = (NOT_LEARNED, COLLAPSED)
"""How warnings begin without which no number of the run may be quoted."""


def score_warnings(
    utility: Mapping[str, TaskUtility], references: Mapping[str, Mapping[str, TaskUtility]]
) -> list[str]:
    """Every warning that scores call for, most urgent first.

    Args:
        utility: The run's, by task.
        references: Utility of the unprotected networks beside it, by name.
    """
    found = list(_guessing(utility))
    for name, theirs in references.items():
        for where, scores in _failing(theirs):
            found.append(
                f"{REFERENCE_FAILED}: {where} of the reference {name} {GUESSES}: {scores}. The run may be "
                "read, not its distance to that reference; try more epochs (schedule) or more images"
            )
    return found


def code_warnings(code: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with how letters are used.

    Args:
        code: A group of letters each: ``letters``, ``used`` of them, and ``records`` that were looked at,
            which are what can be used at most.

    Example:
        >>> code_warnings([{"letters": 16, "used": 9}])
        []
    """
    return [
        f"{COLLAPSED}: group {number + 1} of {len(code)} uses {group['used']} of its {group['letters']} "
        "letters, less than half: the others cost accuracy under randomized response and say nothing; choose "
        "fewer letters (model.bottleneck.letters) or another fit (model.bottleneck.fit)"
        for number, group in enumerate(code)
        if 2 * group["used"] < min(group["letters"], group.get("records", group["letters"]))
    ]


def loud(warnings: Sequence[str]) -> list[str]:
    """Those of a result's warnings that must be seen before any of its numbers.

    Example:
        >>> loud(["3 files were skipped", "NOT LEARNED: task smiling at the cloud ..."])
        ['NOT LEARNED: task smiling at the cloud ...']
    """
    return [warning for warning in warnings if warning.startswith(LOUD)]


def brief(warning: str) -> str:
    """What a warning says, without its numbers and its remedy.

    Example:
        >>> brief("NOT LEARNED: task a at the cloud does no better than guessing: AUC [0.4, 0.6] where ...")
        'NOT LEARNED: task a at the cloud does no better than guessing'
    """
    return ": ".join(warning.split(": ")[:2])


def unquotable(warnings: Sequence[str]) -> list[str]:
    """Why no number of a run may be quoted, briefly: its loud warnings; empty where all may.

    Example:
        >>> unquotable(["3 files were skipped", "NOT LEARNED: task a does no better than guessing: AUC ..."])
        ['NOT LEARNED: task a does no better than guessing']
    """
    return [brief(warning) for warning in loud(warnings)]


def at_guessing(scores: TaskScores, classes: int) -> dict[str, tuple[Score, float]]:
    """Scores of one place that do not exclude guessing, their interval reaching down to it, and what it has.

    Guessing has an AUC of 0.5 and a balanced accuracy of one over the number of classes.
    """
    known = {"AUC": (scores.auc, CHANCE), "balanced accuracy": (scores.balanced_accuracy, 1 / classes)}
    return {name: (score, guess) for name, (score, guess) in known.items() if score.low <= guess}


def _guessing(utility: Mapping[str, TaskUtility]) -> Iterator[str]:
    for where, scores in _failing(utility):
        yield (
            f"{NOT_LEARNED}: {where} {GUESSES}: {scores}. Its leakage says nothing about a network that "
            "works; try more epochs (schedule), a longer warm-up (edge.warmup_epochs), more images, less "
            "noise or a lighter defense (defense.options)"
        )


def _failing(utility: Mapping[str, TaskUtility]) -> Iterator[tuple[str, str]]:
    """A task at a place, and its scores that reach down to guessing."""
    for task, scores in utility.items():
        for place, at in {"cloud": scores.cloud, "edge exit": scores.edge_exit}.items():
            told = [
                f"{name} {_interval(score.low, score.high)} where guessing has {guess:.3f}"
                for name, (score, guess) in at_guessing(at, len(scores.classes)).items()
            ]
            if told:
                yield f"task {task} at the {place}", " and ".join(told)


def _interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]"
