"""What makes a run's leakage say nothing: a task that was not learned, attackers who fail on the images."""

from __future__ import annotations

from dataclasses import dataclass

from privhier.evaluation.headline import (
    METRIC_NAMES,
    certified_bounds,
    chance,
    finite,
    leading_metric,
    telling,
    worst_of,
)
from privhier.evaluation.result import AttributeLeakage, Result, Score
from privhier.evaluation.warnings import GUESSES, NOT_LEARNED, at_guessing, loud

_LEARN = (
    "train longer (schedule) or on more images, warm up longer (edge.warmup_epochs), add less noise "
    "(release) or choose a lighter defense (defense.options), and run again"
)
_ATTACK = (
    "give the attackers more images (attacks.auxiliary), choose stronger ones (attacks.attribute), or an "
    "attribute that faces show, and run again"
)


@dataclass(frozen=True)
class Verdict:
    """Why the leakage of a run, or of one of its attributes, says nothing.

    Attributes:
        what: One plain sentence.
        remedy: What to do, beginning in lower case.
    """

    what: str
    remedy: str


def verdicts(result: Result) -> list[Verdict]:
    """All that apply, the task's first; empty for a run whose leakage may be read."""
    found = []
    tasks = not_learned(result)
    if tasks:
        told = ", ".join(f"{task} ({name} {_shown(score)})" for task, (name, score) in tasks.items())
        found.append(
            Verdict(
                f"The task was not learned: the cloud does no better than guessing at {told}, so what leaks, "
                "or does not, says nothing about a network that works.",
                _LEARN,
            )
        )
    weak = failing_on_images(result)
    for name, score in weak.items():
        metric = leading_metric(result.leakage[name].worst)
        told = METRIC_NAMES[metric] if metric else "score"
        proven = _proven(result.leakage[name])
        found.append(
            Verdict(
                f"The leakage of {name} says nothing: the same attackers do no better than guessing even on "
                f"the raw images ({told} {_shown(score)})"
                f"{'; what is certified holds all the same' if proven else ''}.",
                _ATTACK,
            )
        )
    return found


def not_learned(result: Result) -> dict[str, tuple[str, Score]]:
    """Tasks at which the cloud's interval reaches down to guessing, with the score of which it does."""
    found: dict[str, tuple[str, Score]] = {}
    for task, utility in result.utility.items():
        for name, (score, _) in at_guessing(utility.cloud, len(utility.classes)).items():
            found.setdefault(task, (name, score))
    return found


def beside_verdicts(result: Result) -> list[str]:
    """The loud warnings that say more than the verdicts do."""
    told = tuple(f"{NOT_LEARNED}: task {task} at the cloud {GUESSES}" for task in not_learned(result))
    return [warning for warning in loud(result.warnings) if not warning.startswith(told)]


def failing_on_images(result: Result) -> dict[str, Score]:
    """Attributes whose attackers' interval on the raw images reaches down to guessing, with their score."""
    scores = {name: _on_images(leakage) for name, leakage in result.leakage.items()}
    return {
        name: score
        for name, score in scores.items()
        if score is not None
        and (metric := leading_metric(result.leakage[name].worst)) is not None
        and score.low <= chance(result.leakage[name], metric)
    }


def _proven(leakage: AttributeLeakage) -> bool:
    certified = leakage.certified
    return certified is not None and any(telling(b) is not None for b in certified_bounds(certified).values())


def _on_images(leakage: AttributeLeakage) -> Score | None:
    """None where nobody attacked the images, or not with this score."""
    score = worst_of(leakage.raw_image_attack, leading_metric(leakage.worst))
    return score if score is not None and finite(score) else None


def _shown(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
