"""Verification: which pairs of victims are compared, and how well embeddings tell same from different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.evaluation.result import AttackScores, Score, WorstAttack
from privhier.evaluation.scores import Curve, Scored, as_score
from privhier.metrics.classification import verification_auc, verification_auc_resampled
from privhier.metrics.intervals import group_bootstrap_weights, max_interval, percentile_interval
from privhier.seeding import numpy_stream

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_TRAINING = "training/"
_TRIES = 64
"""Draws until somebody else is found whose labels match; nearly always one or two do."""


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

    def matched(self, cells: IntArray, seed: int, name: str) -> Pairs | None:
        """The same pairs of one person, beside impostors who agree in the task labels as these do.

        For each pair of one person, (a, b), somebody else whose labels are b's takes b's place. So both kinds
        of pairs have the same labels, and whoever knows nothing but labels cannot tell them apart: its
        AUC is one half. Pairs whose second photo nobody else matches are left out.

        Args:
            cells: ``(n,)`` the cell of task labels of every victim.
            seed: The run's.
            name: Of the stream, beside the pairs' own.

        Returns:
            None where nobody is matched.
        """
        rng = numpy_stream(seed, "pairs", name, "matched")
        a, b = self.first[self.same], self.second[self.same]
        turned = rng.random(len(a)) < 0.5  # rows lie in the order of files: neither end is to stand out
        a, b = np.where(turned, b, a), np.where(turned, a, b)
        order = rng.permutation(len(cells))
        order = order[np.argsort(cells[order], kind="stable")]
        starts = np.searchsorted(cells[order], cells[b], side="left")
        sizes = np.searchsorted(cells[order], cells[b], side="right") - starts
        other = np.full(len(a), -1, dtype=np.int64)
        for _ in range(_TRIES):
            open_ = np.flatnonzero(other < 0)
            drawn = order[starts[open_] + rng.integers(0, sizes[open_])]
            fits = self.people[drawn] != self.people[a[open_]]
            other[open_[fits]] = drawn[fits]
        found = other >= 0
        if not found.any():
            return None
        return replace(
            self,
            first=np.concatenate([a[found], a[found]]),
            second=np.concatenate([b[found], other[found]]),
            same=np.concatenate([np.ones(found.sum(), bool), np.zeros(found.sum(), bool)]),
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


def score_verification(
    pairs: Mapping[str, Pairs],
    embeddings: Mapping[str, FloatArray],
    n_test: int,
    rows: Mapping[str, AttackScores] | None = None,
) -> Scored:
    """Score all verification attackers, worst first.

    Args:
        pairs: Score to its pairs: ``verification_auc``, ``matched_verification_auc``, and those of training
            victims as ``training/SCORE``.
        embeddings: Attacker to ``(n, E)``, test victims first.
        n_test: How many of them are test victims.
        rows: The attackers as results hold them, without scores; by name alone if left out.
    """
    curves: dict[str, dict[str, Curve]] = {}
    attacks: list[AttackScores] = []
    for name, embedded in embeddings.items():
        curves[name] = {
            score: some.curve(embedded[n_test:] if score.startswith(_TRAINING) else embedded[:n_test])
            for score, some in pairs.items()
        }
        own = {score: pairs[score].score(curve) for score, curve in curves[name].items()}
        row = rows[name] if rows is not None else AttackScores(attack=name, repr=name)
        attacks.append(row.model_copy(update=_by_records(own)))
    lead = next(score for score in ("matched_verification_auc", "verification_auc") if score in pairs)
    attacks.sort(key=lambda attack: -curves[attack.attack][lead].value)
    worst = {score: some.worst([own[score] for own in curves.values()]) for score, some in pairs.items()}
    return Scored(
        worst=WorstAttack(attack=attacks[0].attack).model_copy(update=_by_records(worst)),
        attacks=attacks,
        curves=curves,
        n={score: len(some.same) for score, some in pairs.items()},
        confidence=next(iter(pairs.values())).confidence,
    )


def _by_records(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Scores by name as fields: those on training records together."""
    training = {name.removeprefix(_TRAINING): s for name, s in scores.items() if name.startswith(_TRAINING)}
    own = {name: score for name, score in scores.items() if not name.startswith(_TRAINING)}
    return {**own, "training_records": training}
