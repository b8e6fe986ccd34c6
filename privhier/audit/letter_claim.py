"""What a run claims of its letters, in numbers that draws can be held against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from privhier.audit.bounds import FloatArray
from privhier.privacy.channels import build_channel

IntArray = npt.NDArray[np.int64]
_TIE = 1e-9
"""Relative difference below which two probabilities of a channel count as equal."""


@dataclass(frozen=True)
class ClaimedLetters:
    """How every letter of a record is said to be answered.

    Attributes:
        mechanism: The channel's name.
        letters: K.
        groups: M, letters of a record in one release.
        epsilon: Pure, replace-one, of one answer.
        releases: T, the releases of a record that the claim covers, at least 1.
    """

    mechanism: str
    letters: int
    groups: int
    epsilon: float
    releases: int

    @property
    def whole(self) -> float:
        """Epsilon of all ``T * M`` answers of a record."""
        return self.releases * self.groups * self.epsilon

    @cached_property
    def matrix(self) -> FloatArray:
        """Rows are letters, columns answers; the last column is for what is no letter: ``(K, K + 1)``."""
        own = build_channel(self.mechanism, self.letters, self.epsilon).matrix.numpy()
        return np.pad(own, ((0, 0), (0, 1)))

    @cached_property
    def worth(self) -> float:
        """Epsilon of the matrix, from its ratios; ``inf`` where an answer has no chance."""
        own = self.matrix[:, :-1]
        with np.errstate(divide="ignore"):
            return float(np.log(own.max(axis=0) / own.min(axis=0)).max())

    @property
    def rounding(self) -> float:
        """What rounding to 53 bits can add to ``worth`` where an answer is as rare as that."""
        return float(2.0**-51 / max(float(self.matrix[:, :-1].min()), 2.0**-1000))

    @cached_property
    def favored(self) -> npt.NDArray[np.bool_]:
        """Whether an answer is one of the likeliest to a letter, ``(K, K + 1)``."""
        return np.asarray(self.matrix >= self.matrix.max(axis=1, keepdims=True) * (1 - _TIE))

    def worst_pair(self, among: IntArray, rng: np.random.Generator) -> tuple[int, int]:
        """Two letters ``among`` these that one answer tells apart best; of equally good ones any."""
        rows = self.matrix[among, :-1]
        ratio = rows.max(axis=0) / np.maximum(rows.min(axis=0), np.finfo(np.float64).tiny)
        answer = rng.choice(np.flatnonzero(ratio >= ratio.max() * (1 - _TIE)))
        column = rows[:, answer]
        high = among[rng.choice(np.flatnonzero(column >= column.max() * (1 - _TIE)))]
        low = among[rng.choice(np.flatnonzero(column <= column.min() * (1 + _TIE)))]
        return int(low), int(high)

    def log_ratio(self, low: int, high: int) -> FloatArray:
        """What an answer says for letter ``high`` against ``low``, ``(K + 1,)``; no letter: nothing."""
        own = np.maximum(self.matrix[:, :-1], np.finfo(np.float64).tiny)
        return np.append(np.log(own[high] / own[low]), 0.0)

    def turns(self, among: IntArray) -> FloatArray:
        """Shares of ``(answer - letter) mod K`` where the letter is any of these; no letter comes last."""
        places = (among[:, None] + np.arange(self.letters)) % self.letters
        return np.append(np.take_along_axis(self.matrix[among], places, axis=1).mean(axis=0), 0.0)

    def pairs(self, among: IntArray) -> FloatArray:
        """Shares of what two independent answers to one letter of these are to each other, ``(5,)``.

        Both favored and equal, both favored and not equal, one of them favored, none favored and equal,
        none favored and not equal. The first and the fourth together are the rate of agreement, the sum of
        a row's squares.
        """
        rows, favored = self.matrix[among], self.favored[among]
        high = np.where(favored, rows, 0.0)
        one, equal, other = high.sum(axis=1), np.square(high).sum(axis=1), np.square(rows - high).sum(axis=1)
        cells = [equal, one**2 - equal, 2 * one * (1 - one), other, (1 - one) ** 2 - other]
        return _distribution(np.array([max(0.0, float(cell.mean())) for cell in cells]))

    def changed(self, among: IntArray) -> float:
        """Share of the answers that are not favored, where the letter is any of these."""
        return float(np.where(self.favored[among], 0.0, self.matrix[among]).sum(axis=1).mean())


def _distribution(shares: FloatArray) -> FloatArray:
    """Shares without what rounding left where nothing can be."""
    shares = np.where(shares < 1e-14, 0.0, shares)
    return np.asarray(shares / shares.sum(), dtype=np.float64)
