"""What the bench's entries hold, in the shapes the scorer takes."""

from __future__ import annotations

import numpy as np

from privhier.attacks.base import AttackResult
from privhier.attacks.bench import BenchEntry
from privhier.datasets.base import FloatArray
from privhier.evaluation.result import AttackScores, Score
from privhier.evaluation.scores import Outcome


def outcome(entry: BenchEntry) -> Outcome:
    """What an attribute attacker said, ready to be scored."""
    result = finished(entry)
    if result.probabilities is None or result.predictions is None:
        raise TypeError(f"{entry.name} gave no probabilities")
    return Outcome(
        name=entry.name,
        representation=repr(entry.attack),
        probabilities=result.probabilities,
        predictions=result.predictions,
        validation=result.validation,
        selected=dict(result.selected),
        queries=result.queries,
    )


def described(entry: BenchEntry, score: Score, training: dict[str, Score]) -> AttackScores:
    """A verification attacker with its scores."""
    result = finished(entry)
    return AttackScores(
        attack=entry.name,
        repr=repr(entry.attack),
        verification_auc=score,
        training_records=training,
        validation=result.validation if np.isfinite(result.validation) else None,
        selected=dict(result.selected),
        queries=result.queries,
    )


def finished(entry: BenchEntry) -> AttackResult:
    """The result of an attack that was not refused."""
    if entry.result is None:
        raise TypeError(f"{entry.name} was refused: {entry.refusal}")
    return entry.result


def reconstructions(entry: BenchEntry) -> FloatArray:
    """The pictures a reconstruction attacker drew."""
    pictures = finished(entry).reconstructions
    if pictures is None:
        raise TypeError(f"{entry.name} gave no reconstructions")
    return pictures
