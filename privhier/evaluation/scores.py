"""From predictions and truth to scores with intervals. The victims' truth is used here, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privhier.evaluation.result import AttackScores, Score, TaskScores, WorstAttack
from privhier.metrics.classification import (
    balanced_accuracy,
    balanced_accuracy_resampled,
    macro_auc,
    macro_auc_resampled,
    top1,
    top1_resampled,
)
from privhier.metrics.intervals import Interval, group_bootstrap_weights, max_interval, percentile_interval
from privhier.seeding import numpy_stream

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Records that are scored together, and the bootstrap over their groups.

    Attributes:
        truth: int64 ``(n,)``.
        n_classes: K.
        weights: ``(R, n)``, how often each record is in each bootstrap resample of the groups.
        confidence: Of the intervals, e.g. 0.95.
    """

    truth: IntArray
    n_classes: int
    weights: npt.NDArray[np.int16]
    confidence: float

    @classmethod
    def draw(
        cls,
        truth: IntArray,
        n_classes: int,
        groups: IntArray,
        *,
        resamples: int,
        confidence: float,
        seed: int,
        name: str,
    ) -> Sample:
        """Resample ``groups`` with replacement, ``resamples`` times, with the stream ``name``."""
        weights = group_bootstrap_weights(groups, resamples, numpy_stream(seed, "bootstrap", name))
        return cls(truth, n_classes, weights, confidence)

    @property
    def majority(self) -> float:
        """Share of the largest class."""
        return float(np.bincount(self.truth).max() / len(self.truth))


@dataclass(frozen=True)
class Curve:
    """One statistic of one predictor: its value on the sample and on every resample."""

    value: float
    resampled: Values

    def score(self, sample: Sample) -> Score | None:
        """The value with its percentile interval; None where it is not defined."""
        if not np.isfinite(self.value):
            return None
        interval = percentile_interval(self.value, self.resampled, sample.confidence)
        return as_score(interval, len(sample.truth))


def as_score(interval: Interval, n: int) -> Score:
    """An interval on ``n`` records as a score."""
    return Score(value=interval.value, low=interval.low, high=interval.high, n=n)


def auc_curve(sample: Sample, probabilities: FloatArray) -> Curve:
    """(Macro one-vs-rest) AUC of ``probabilities (n, K)``."""
    value = macro_auc(probabilities, sample.truth)
    return Curve(value, macro_auc_resampled(probabilities, sample.truth, sample.weights))


def balanced_accuracy_curve(sample: Sample, predictions: IntArray) -> Curve:
    """Mean recall over the classes of ``predictions (n,)``."""
    value = balanced_accuracy(predictions, sample.truth, sample.n_classes)
    resampled = balanced_accuracy_resampled(predictions, sample.truth, sample.n_classes, sample.weights)
    return Curve(value, resampled)


def gain(sample: Sample, cloud: Sequence[Curve], edge: Sequence[Curve]) -> Score:
    """What the cloud adds: the mean over tasks of its curve minus the edge exit's, paired by resample.

    Both are scored on the same releases of the same people under the same resamples, so what an easy
    resample adds to both cancels: the interval is narrower than that of two scores on their own.

    Args:
        sample: The records, or those of the first of several tasks.
        cloud: One curve a task.
        edge: The same of the edge exit.
    """
    value = float(np.mean([c.value - e.value for c, e in zip(cloud, edge, strict=True)]))
    each = [c.resampled - e.resampled for c, e in zip(cloud, edge, strict=True)]
    interval = percentile_interval(value, np.mean(each, axis=0), sample.confidence)
    return Score(value=interval.value, low=interval.low, high=interval.high, n=len(sample.truth))


def top1_curve(sample: Sample, predictions: IntArray) -> Curve:
    """Share of right ``predictions (n,)``."""
    resampled = top1_resampled(predictions, sample.truth, sample.weights)
    return Curve(top1(predictions, sample.truth), resampled)


def worst_score(sample: Sample, curves: Sequence[Curve]) -> Score | None:
    """The largest value; its interval is that of the maximum over the attackers in each resample."""
    finite = [curve for curve in curves if np.isfinite(curve.value)]
    if not finite:
        return None
    values = np.array([curve.value for curve in finite])
    resampled = np.stack([curve.resampled for curve in finite])
    return as_score(max_interval(values, resampled, sample.confidence)[1], len(sample.truth))


def defined(score: Score | None) -> Score:
    """The score; a score that must be there but is not defined is a bug, not a result."""
    if score is None:
        raise ValueError("a score that must exist is undefined")
    return score


def bayes_rule(probabilities: FloatArray, prior: Values) -> IntArray:
    """The decision that maximizes balanced accuracy: ``argmax p_k / prior_k``.

    ``prior`` are the training labels' class shares; plain argmax favors the larger class as soon as
    there is noise.
    """
    return np.asarray((probabilities / prior).argmax(1), dtype=np.int64)


def task_scores(sample: Sample, probabilities: FloatArray, prior: Values) -> tuple[TaskScores, Curve, Curve]:
    """One task at one place: the scores, and the curves of AUC and balanced accuracy."""
    predictions = bayes_rule(probabilities, prior)
    curves = auc_curve(sample, probabilities), balanced_accuracy_curve(sample, predictions)
    scores = TaskScores(
        auc=defined(curves[0].score(sample)), balanced_accuracy=defined(curves[1].score(sample))
    )
    return scores, *curves


def mean_score(samples: Sequence[Sample], curves: Sequence[Curve]) -> Score:
    """Mean over tasks scored on the same records with the same resamples."""
    value = float(np.mean([curve.value for curve in curves]))
    resampled = np.mean([curve.resampled for curve in curves], axis=0)
    return defined(Curve(value, resampled).score(samples[0]))


@dataclass(frozen=True)
class Scored:
    """All attackers on one attribute, scored, with what their intervals were made of.

    Attributes:
        worst: The worst of them on test records, score by score.
        attacks: Each of them, worst first.
        curves: Attack to score to curve; those on training records as ``training/SCORE``.
        n: Records (for people: pairs) behind each score, by the same names.
        confidence: Of the intervals.
    """

    worst: WorstAttack
    attacks: list[AttackScores]
    curves: Mapping[str, Mapping[str, Curve]]
    n: Mapping[str, int]
    confidence: float


@dataclass(frozen=True)
class Outcome:
    """What one attacker said about the test and the training victims."""

    name: str
    representation: str
    probabilities: FloatArray
    predictions: IntArray
    validation: float
    selected: dict[str, object]
    queries: int


def classification_leakage(
    test: Sample, training: Sample | None, outcomes: Sequence[Outcome], *, identity: bool
) -> tuple[WorstAttack, list[AttackScores]]:
    """The worst of all attackers on one attribute, and each of them: see ``score_attackers``."""
    found = score_attackers(test, training, outcomes, identity=identity)
    return found.worst, found.attacks


def score_attackers(
    test: Sample, training: Sample | None, outcomes: Sequence[Outcome], *, identity: bool
) -> Scored:
    """Score all attackers on one attribute, worst first.

    ``outcomes`` hold the test victims' rows first, the training victims' rows after them. The leading
    score is the AUC; for ``identity`` (known people) it is top-1, and there is no AUC.
    """
    n = len(test.truth)
    lead = "top1" if identity else "auc"
    curves: dict[str, dict[str, Curve]] = {}
    scored = []
    for outcome in outcomes:
        curves[outcome.name] = _curves(test, outcome.probabilities[:n], outcome.predictions[:n], identity)
        trained = (
            _curves(training, outcome.probabilities[n:], outcome.predictions[n:], identity)
            if training is not None
            else {}
        )
        curves[outcome.name] |= {f"training/{name}": curve for name, curve in trained.items()}
        own = {name: curve.score(test) for name, curve in curves[outcome.name].items() if "/" not in name}
        scored.append(
            AttackScores(
                attack=outcome.name,
                repr=outcome.representation,
                **own,
                training_records=_present(training, trained),
                validation=outcome.validation if np.isfinite(outcome.validation) else None,
                selected=outcome.selected,
                queries=outcome.queries,
            )
        )
    order = sorted(scored, key=lambda attack: -curves[attack.attack][lead].value)
    names = [name for name in next(iter(curves.values())) if "/" not in name]
    worst = WorstAttack(
        attack=order[0].attack,
        **{name: worst_score(test, [curves[a.attack][name] for a in order]) for name in names},
        training_records={
            name: score
            for name in (names if training is not None else [])
            if training is not None
            and (score := worst_score(training, [curves[a.attack][f"training/{name}"] for a in order]))
        },
    )
    sizes = {name: len(test.truth) for name in names}
    if training is not None:
        sizes |= {f"training/{name}": len(training.truth) for name in names}
    return Scored(worst, order, curves, sizes, test.confidence)


def _curves(
    sample: Sample, probabilities: FloatArray, predictions: IntArray, identity: bool
) -> dict[str, Curve]:
    curves = {"balanced_accuracy": balanced_accuracy_curve(sample, predictions)}
    if identity:  # one AUC against the rest for each of hundreds of people says nothing that top-1 does not
        return {"top1": top1_curve(sample, predictions), **curves}
    return {"auc": auc_curve(sample, probabilities), **curves}


def _present(sample: Sample | None, curves: dict[str, Curve]) -> dict[str, Score]:
    if sample is None:
        return {}
    scores = {name: curve.score(sample) for name, curve in curves.items()}
    return {name: score for name, score in scores.items() if score is not None}
