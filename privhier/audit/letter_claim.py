"""What a run claims of its letters, in numbers that draws can be held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from privhier.audit.bounds import FloatArray
from privhier.privacy.channels import build_channel

IntArray = npt.NDArray[np.int64]
_BLOCK = 256
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

    def told(self, low: int, high: int) -> tuple[float, float]:
        """Chances of the answer that speaks most for letter ``high``: under it, and under ``low``."""
        answer = int(self.log_ratio(low, high).argmax())
        return float(self.matrix[high, answer]), float(self.matrix[low, answer])

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
        found = np.zeros(self.letters)
        for start in range(0, len(among), _BLOCK):
            part = among[start : start + _BLOCK]
            places = (part[:, None] + np.arange(self.letters)) % self.letters
            found += self.matrix[part[:, None], places].sum(axis=0)
        return np.append(found / len(among), 0.0)

    def pairs(self, among: IntArray) -> FloatArray:
        """Shares of what two independent answers to one letter of these are to each other, ``(5,)``.

        Both favored and equal, both favored and not equal, one of them favored, none favored and equal,
        none favored and not equal. The first and the fourth together are the rate of agreement, the sum of
        a row's squares.
        """
        found = np.zeros(5)
        for rows, favored in self._blocks(among):
            high = np.where(favored, rows, 0.0)
            one, equal, other = high.sum(1), np.square(high).sum(1), np.square(rows - high).sum(1)
            cells = [equal, one**2 - equal, 2 * one * (1 - one), other, (1 - one) ** 2 - other]
            found += [max(0.0, float(cell.sum())) for cell in cells]
        return _distribution(found / len(among))

    def changed(self, among: IntArray) -> float:
        """Share of the answers that are not favored, where the letter is any of these."""
        lost = [float(np.where(favored, 0.0, rows).sum()) for rows, favored in self._blocks(among)]
        return sum(lost) / len(among)

    def _blocks(self, among: IntArray) -> Iterator[tuple[FloatArray, npt.NDArray[np.bool_]]]:
        """Rows of these letters and what they favor, a few at a time: thousands make large tables."""
        for start in range(0, len(among), _BLOCK):
            part = among[start : start + _BLOCK]
            yield self.matrix[part], self.favored[part]


def _distribution(shares: FloatArray) -> FloatArray:
    """Shares without what rounding left where nothing can be."""
    shares = np.where(shares < 1e-14, 0.0, shares)
    return np.asarray(shares / shares.sum(), dtype=np.float64)
