"""One more attack on a finished run, from then on a part of what the run claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from privhier.assessment.additions import Asked, asked, check_applies, extended, named_by, number_of
from privhier.assessment.context import Context
from privhier.config import Choice
from privhier.errors import ResultError
from privhier.evaluation.additions import Addition, read_additions, write_additions
from privhier.evaluation.headline import headline
from privhier.evaluation.result import Result
from privhier.process.source import git_state
from privhier.session.opening import Session
from privhier.session.stages import attacked, report
from privhier.tracking.again import taken_up
from privhier.training.trained import Trained


@dataclass(frozen=True)
class Added:
    """What became of a wish to add attacks.

    Attributes:
        result: The run's result, with them.
        before: The result until then.
        new: What was added.
        skipped: Of what was already there: a sentence each.
        tracking_failure: Why MLflow does not have it; None: it has, or the run was never tracked.
    """

    result: Result
    before: Result
    new: list[Addition] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    tracking_failure: str | None = None


def add_attacks(session: Session, trained: Trained, choices: Sequence[Choice], *, command: str) -> Added:
    """Run more attacks on a finished run's stored releases, and record them as additions.

    The configuration and its hash stay what they were. What is there already is not done again. Nothing is
    written before every attack has ended well, but for the answers of finished ones under ``attacks/``.

    Args:
        session: The run.
        trained: Its network.
        choices: The attacks.
        command: For the report.

    Raises:
        ConfigError: No such attack or option, or one that does not apply to this run.
        ResultError: The run has no result, or the attackers it has would now reach less.
        GuaranteeError: A score above its ceiling or certificate: the guarantee is wrong.
    """
    wanted = [asked(choice) for choice in choices]
    folder = session.folder
    with session.hold(wait=True):
        before = Result.of_run(folder.sealed, folder.result)
        stored = read_additions(folder.sealed, folder.additions)
        additions, skipped = list(stored), list[str]()
        for one in wanted:
            config = extended(session.config, additions)
            if not named_by(config, one):
                additions.append(_addition(session, one, number_of(config, one.choice, one.section)))
            elif named_by(session.config, one):
                skipped.append(
                    f"{one.representation} is one of the attackers that the run is configured with"
                )
            elif earlier := _same(before.additions, one):
                skipped.append(f"{one.representation} was added on {earlier.date}")
        new = [one for one in additions if one not in before.additions]
        if not new:
            return Added(before, before, skipped=skipped)
        subject = replace(session, config=extended(session.config, additions))
        check_applies(Context(subject, trained), new)
        tracker, untracked = taken_up(session.config, folder.root)
        try:
            result = attacked(session, trained, additions).model_copy(update={"git": before.git})
            _check_not_lowered(before, result)
        except BaseException:
            tracker.finish("FINISHED")  # as it was: the run itself did not fail
            raise
        write_additions(folder.sealed, folder.additions, additions)
        result.write(folder.result)
        report(session, result, trained, command=command)
        tracker.log_additions(result, new)
        tracker.log_artifacts(folder.root)
        tracker.finish("FINISHED")
    return Added(result, before, new, skipped, untracked or tracker.failure)


def _addition(session: Session, one: Asked, name: str) -> Addition:
    return Addition(
        section=one.section,
        attack=one.choice.name,
        name=name,
        options=dict(one.choice.options),
        seed=session.config.seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        git=git_state(),
    )


def _same(additions: Sequence[Addition], one: Asked) -> Addition | None:
    """The addition that is this very attack, options and all."""
    for other in additions:
        if other.section == one.section:
            known = asked(Choice(name=other.attack, options=other.options))
            if known.representation == one.representation:
                return other
    return None


def _check_not_lowered(before: Result, after: Result) -> None:
    """Who is added may find more, never less: else the attackers from before are not those of the result."""
    for attribute, leakage in before.leakage.items():
        old, new = headline(leakage), headline(after.leakage[attribute])
        if old is None or (new is not None and new.score.value >= old.score.value - _ROUNDING):
            continue
        raise ResultError(
            key=f"leakage of {attribute}",
            value=None if new is None else new.score.value,
            rule=f"is below the {old.score.value} that {old.attack} reached: what the run's own attackers "
            "answered is not there any more, or is scored otherwise now",
            remedy="Attack the run anew with its own attackers first: privhier attack RUN",
        )


_ROUNDING = 1e-9
