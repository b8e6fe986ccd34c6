"""Verification: which pairs of victims are compared, and how well embeddings tell same from different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privhier.evaluation.result import Score
from privhier.evaluation.scores import Curve, as_score
from privhier.metrics.classification import verification_auc, verification_auc_resampled
from privhier.metrics.intervals import group_bootstrap_weights, max_interval, percentile_interval
from privhier.seeding import numpy_stream

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of records, half of them of the same person, and the bootstrap over people.

    Attributes:
        first, second: int64 ``(m,)`` rows into the victims.
        same: bool ``(m,)``.
        people: int64 ``(n,)``, 0..P-1 for every victim.
        weights: int16 ``(R, P)``, how often each person is in each resample.
        confidence: Of the intervals.
    """

    first: IntArray
    second: IntArray
    same: npt.NDArray[np.bool_]
    people: IntArray
    weights: npt.NDArray[np.int16]
    confidence: float

    @classmethod
    def draw(
        cls, identity: IntArray, *, limit: int, resamples: int, confidence: float, seed: int, name: str
    ) -> Pairs | None:
        """At most ``limit`` same-person pairs and as many different-person pairs; None without any."""
        rng = numpy_stream(seed, "pairs", name)
        _, people = np.unique(identity, return_inverse=True)
        order = np.argsort(people, kind="stable")
        first, second = [], []
        for rows in np.split(order, np.flatnonzero(np.diff(people[order])) + 1):
            left, right = np.triu_indices(len(rows), k=1)
            # One person with hundreds of images would otherwise be all there is to see.
            keep = rng.permutation(len(left))[:45]
            first.append(rows[left[keep]])
            second.append(rows[right[keep]])
        a, b = np.concatenate(first), np.concatenate(second)
        if len(a) == 0 or people.max() == 0:
            return None
        keep = np.sort(rng.permutation(len(a))[:limit])
        a, b = a[keep], b[keep]
        c = rng.integers(len(people), size=4 * len(a) + 64)
        d = rng.integers(len(people), size=4 * len(a) + 64)
        apart = np.flatnonzero(people[c] != people[d])[: len(a)]
        rng = numpy_stream(seed, "bootstrap", "pairs", name)
        weights = group_bootstrap_weights(np.arange(people.max() + 1), resamples, rng)
        return cls(
            first=np.concatenate([a, c[apart]]),
            second=np.concatenate([b, d[apart]]),
            same=np.concatenate([np.ones(len(a), bool), np.zeros(len(apart), bool)]),
            people=people.astype(np.int64),
            weights=weights,
            confidence=confidence,
        )

    def curve(self, embeddings: FloatArray) -> Curve:
        """Verification AUC of cosine similarity, on the pairs and on every resample of the people."""
        scale = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit = embeddings / np.maximum(scale, np.finfo(np.float32).tiny)
        scores = np.einsum("ij,ij->i", unit[self.first], unit[self.second]).astype(np.float64)
        people = self.people[self.first], self.people[self.second]
        resampled = verification_auc_resampled(scores, *people, self.weights)
        return Curve(verification_auc(scores, self.same), resampled)

    def score(self, curve: Curve) -> Score:
        """The curve's value with its interval; n counts pairs."""
        return as_score(percentile_interval(curve.value, curve.resampled, self.confidence), len(self.same))

    def worst(self, curves: Sequence[Curve]) -> Score:
        """The largest value, its interval that of the maximum over the attackers."""
        values = np.array([curve.value for curve in curves])
        resampled = np.stack([curve.resampled for curve in curves])
        return as_score(max_interval(values, resampled, self.confidence)[1], len(self.same))
