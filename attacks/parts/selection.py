"""What an attribute attacker selects on its own: split, score, sign, decision rule. No victim truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.attacks.base import AttackResult
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.metrics.classification import macro_auc
from privhier.seeding import numpy_stream

VALIDATION_SHARE = 0.2
SCORED_DRAWS = 4
"""Draws of a held-out record that are scored: more than one steadies the choice, all would be slow."""
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
_DEVIATIONS = 1.96
"""Of the AUC of a guesser, from 0.5 to the end of its 95 percent interval."""


@dataclass(frozen=True)
class OwnSplit:
    """The attacker's own split: int64 row numbers of the auxiliary set, sorted, disjoint by group."""

    train: IntArray
    validation: IntArray


def own_split(
    labels: IntArray, groups: IntArray, rng: np.random.Generator, share: float = VALIDATION_SHARE
) -> OwnSplit:
    """Split records by group, every class in proportion; records with a label below 0 are left out.

    A class with at least two groups has at least one on each side, so that thresholds of rare
    classes can be chosen. A group's class is that of one of its records, drawn at random.

    Args:
        labels: int64 ``(n,)``; -1 is "not known".
        groups: int64 ``(n,)``.
        rng: The attacker's stream.
        share: Share of the groups that validates, in (0, 1).
    """
    known = rng.permutation(np.flatnonzero(labels >= 0))
    unique, first = np.unique(groups[known], return_index=True)
    group_class = labels[known[first]]
    held_out: list[npt.NDArray[np.int64]] = []
    for value in np.unique(group_class):
        members = rng.permutation(unique[group_class == value])
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out.append(members[:count])
    is_validation = np.isin(groups[known], np.concatenate(held_out))
    return OwnSplit(
        train=np.sort(known[~is_validation]).astype(np.int64),
        validation=np.sort(known[is_validation]).astype(np.int64),
    )


def auc_score(probabilities: FloatArray, labels: IntArray) -> float:
    """AUC in [0, 1]: binary, or the macro one-vs-rest mean over the classes that occur; 0.5 if none can."""
    value = macro_auc(probabilities, labels)
    return 0.5 if math.isnan(value) else value


def is_inverted(probabilities: FloatArray, labels: IntArray, groups: IntArray | None = None) -> bool:
    """Whether a binary attacker is below chance, and chance lies outside the 95 percent interval.

    A sign turned on less is a coin toss, which makes half of those who know little guess worse. The width is
    that of a guesser's AUC, ``(n + 1) / (12 n0 n1)`` squared (Mann and Whitney, 1947), of groups: a record's
    draws and a person's photos say nearly the same. Ties make it narrower, so that this is on the safe side.

    Args:
        probabilities: ``(n, 2)``.
        labels: ``(n,)`` of 0 and 1.
        groups: ``(n,)`` rows of one number are not independent; None: all are.
    """
    if groups is None:
        groups = np.arange(len(labels))
    negatives, positives = (len(np.unique(groups[labels == k])) for k in (0, 1))
    if not negatives or not positives:
        return False
    deviation = ((negatives + positives + 1) / (12 * negatives * positives)) ** 0.5
    return bool(auc_score(probabilities, labels) < 0.5 - _DEVIATIONS * deviation)


def balanced_accuracy(predictions: IntArray, labels: IntArray) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(predictions[labels == k] == k).mean() for k in np.unique(labels)]))


@dataclass(frozen=True)
class DecisionRule:
    """How probabilities become predictions; the probabilities themselves stay as they are.

    Attributes:
        flip: Binary only: the attacker was clearly below chance on its own validation split
            (``is_inverted``), so its two columns are swapped.
        weights: One factor a class; the prediction is the argmax of ``weights * probabilities``
            (binary: a threshold of ``weights[0] / (weights[0] + weights[1])``).
    """

    flip: bool
    weights: tuple[float, ...]

    def orient(self, probabilities: FloatArray) -> FloatArray:
        """Swap the columns of ``(n, 2)`` if the sign is flipped."""
        return np.ascontiguousarray(probabilities[:, ::-1]) if self.flip else probabilities

    def predict(self, oriented: FloatArray) -> IntArray:
        """int64 ``(n,)`` from oriented probabilities ``(n, K)``."""
        return np.asarray(np.argmax(oriented * np.asarray(self.weights), axis=1), dtype=np.int64)


def choose_rule(
    probabilities: FloatArray,
    labels: IntArray,
    priors: FloatArray,
    *,
    top1: bool,
    groups: IntArray | None = None,
) -> DecisionRule:
    """The rule that does best on the attacker's own validation records.

    Binary: the threshold with the highest balanced accuracy, smoothed over neighboring thresholds
    because the highest single point of a noisy curve is a bad estimate of the best one. Several
    classes: ``probability / prior ** power`` with the power chosen (1 is Bayes' rule for balanced
    accuracy when the probabilities are calibrated). ``top1``: plain argmax, which is Bayes' rule
    for plain accuracy. ``groups``: as ``is_inverted``, which decides the sign.
    """
    n_classes = probabilities.shape[1]
    if top1:
        return DecisionRule(False, (1.0,) * n_classes)
    if n_classes == 2:
        flip = is_inverted(probabilities, labels, groups)
        scores = probabilities[:, 0 if flip else 1].astype(np.float64)
        threshold = _best_threshold(scores, labels)
        return DecisionRule(flip, (threshold, 1 - threshold))
    floor = np.maximum(priors.astype(np.float64), 1.0 / (20 * n_classes))
    # A class the attacker has never seen is never predicted, however small its prior.
    rules = [DecisionRule(False, tuple(((priors > 0) * floor**-power).tolist())) for power in _POWERS]
    return max(rules, key=lambda rule: balanced_accuracy(rule.predict(probabilities), labels))


def _best_threshold(scores: npt.NDArray[np.float64], labels: IntArray) -> float:
    candidates = np.unique(np.quantile(scores, np.linspace(0.005, 0.995, 199)))
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    if len(positive) == 0 or len(negative) == 0 or len(candidates) < 2:
        return 0.5
    middles = (candidates[1:] + candidates[:-1]) / 2
    recall = 1 - np.searchsorted(positive, middles) / len(positive)
    rejection = np.searchsorted(negative, middles) / len(negative)
    width = max(1, len(middles) // 20)
    padded = np.pad(recall + rejection, (width, width), mode="edge")
    smooth = np.convolve(padded, np.full(2 * width + 1, 1 / (2 * width + 1)), mode="valid")
    return float(np.clip(middles[int(np.argmax(smooth))], 1e-6, 1 - 1e-6))


@dataclass(frozen=True)
class AttributeProblem:
    """One attribute of one view, with the attacker's own split."""

    target: str
    labels: IntArray
    n_classes: int
    split: OwnSplit
    groups: IntArray

    @property
    def top1(self) -> bool:
        """People are named, not classified: identity is selected and predicted by plain accuracy."""
        return self.target == "identity"

    @property
    def priors(self) -> FloatArray:
        """float32 ``(K,)`` class shares among the training records."""
        counts = np.bincount(self.labels[self.split.train], minlength=self.n_classes)
        return np.asarray(counts / counts.sum(), dtype=np.float32)

    def validation_labels(self, draws: int) -> IntArray:
        """Labels of the validation records, repeated once a draw."""
        return np.tile(self.labels[self.split.validation], draws)

    def validation_groups(self, draws: int) -> IntArray:
        """Groups of the validation records, repeated once a draw."""
        return np.tile(self.groups[self.split.validation], draws)

    def score(self, probabilities: FloatArray) -> float:
        """Selection score in [0, 1] of ``(draws * n_validation, K)``: AUC (of the sign taken) or top-1."""
        draws = len(probabilities) // len(self.split.validation)
        labels = self.validation_labels(draws)
        if self.top1:
            return float((probabilities.argmax(axis=1) == labels).mean())
        value = auc_score(probabilities, labels)
        if self.n_classes > 2 or value >= 0.5:
            return value
        return 1 - value if is_inverted(probabilities, labels, self.validation_groups(draws)) else value

    def result(
        self,
        *,
        validation: FloatArray,
        victims: FloatArray,
        selected: Mapping[str, Any],
        queries: int,
    ) -> AttackResult:
        """Choose sign and decision rule on ``validation`` and apply them to ``victims``."""
        draws = len(validation) // len(self.split.validation)
        labels, groups = self.validation_labels(draws), self.validation_groups(draws)
        rule = choose_rule(validation, labels, self.priors, top1=self.top1, groups=groups)
        oriented = rule.orient(normalized(victims))
        return AttackResult(
            probabilities=oriented,
            predictions=rule.predict(oriented),
            validation=self.score(validation),
            selected={**selected, "flipped": rule.flip, "selected_by": "top1" if self.top1 else "auc"},
            queries=queries,
        )


def pose_attribute(view: View, target: str, name: str) -> AttributeProblem:
    """Labels and own split of ``target``, drawn from the stream of the attack ``name``."""
    labels = view.aux.labels[target]
    rng = numpy_stream(view.seed, "attack", name, target, "split")
    return AttributeProblem(
        target=target,
        labels=labels,
        n_classes=view.aux.n_classes[target],
        split=own_split(labels, view.aux.groups, rng),
        groups=view.aux.groups,
    )


def normalized(probabilities: FloatArray) -> FloatArray:
    """float32 rows that sum to 1 exactly enough for the scorer, from any non-negative rows."""
    rows = np.clip(probabilities.astype(np.float64), 1e-12, None)
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), dtype=np.float32)
