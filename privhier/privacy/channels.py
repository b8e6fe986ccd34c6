"""Channels on K letters: a letter in, a letter out at random, with an exact pure epsilon.

All are staircases: of the mechanisms of an epsilon the extremal ones use two probabilities whose ratio is
``e^epsilon`` (Kairouz, Oh and Viswanath, 2016). Which of them serves best depends on K, on epsilon and on
whether letters have an order; ``mutual_information`` and ``expected_distance`` compare them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from privhier.config.privacy import ORDERED_MOST
from privhier.errors import ConfigError
from privhier.privacy.noise import NoiseSource

_STEPS = 60
"""Halvings of the search for a decay: more than float64 tells apart."""


@dataclass(frozen=True)
class Channel(ABC):
    """A row-stochastic matrix, and draws from it.

    Args:
        letters: K, at least 2.
        target: Pure, replace-one epsilon of one answer that is not exceeded, above 0 and finite.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> from privhier.privacy.noise import SeededNoise
        >>> channel = RandomizedResponse(letters=4, target=2.0)
        >>> channel.sample(torch.tensor([0, 3, 3]), SeededNoise(0, "letters")).shape
        torch.Size([3])
        >>> round(channel.epsilon, 6)
        2.0
    """

    letters: int
    target: float

    name: ClassVar[str]
    """As the configuration names it."""

    def __post_init__(self) -> None:
        if type(self.letters) is not int or self.letters < 2:
            raise _error("model.bottleneck.letters", self.letters, "must be an integer, at least 2")
        if not 0 < self.target < math.inf:
            raise _error("release.target_epsilon", self.target, "must be above 0 and finite")

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """``(K, K)`` float64: row is the true letter, column the answer; rows sum to 1."""

    @property
    def epsilon(self) -> float:
        """Pure, replace-one epsilon of one answer, exact for the matrix: the largest log ratio in a column.

        ``inf`` where float64 makes an answer impossible (randomized response above about 37).
        """
        return _exact_epsilon(self.matrix)

    def sample(self, letters: Tensor, noise: NoiseSource) -> Tensor:
        """One fresh answer for each letter; every draw costs ``epsilon``.

        Args:
            letters: int64 ``(B, ...)`` in [0, K).
            noise: Where the draws come from: 53 bits of a uniform value for each draw.

        Returns:
            int64 of the same shape, on the device of ``letters``. An answer has the probability the matrix
            says, to 2**-53.

        Raises:
            ConfigError: A letter lies outside [0, K), or is no integer.
        """
        self._check(letters)
        uniform = noise.uniform(tuple(letters.shape)).to(letters.device)
        return self._answered(letters, uniform)

    def mutual_information(self, weights: Tensor | None = None) -> float:
        """Bits that an answer tells of a letter.

        Args:
            weights: ``(K,)`` probabilities of the letters; None: all alike.
        """
        matrix, prior = self.matrix, self._weights(weights)
        joint = prior[:, None] * matrix
        ratio = torch.where(joint > 0, matrix / (prior @ matrix), 1.0)
        return max(0.0, float((joint * ratio.log2()).sum()))

    def expected_distance(self, weights: Tensor | None = None) -> float:
        """Mean of ``|letter - answer|``, for letters that have an order; ``weights`` as above."""
        numbers = torch.arange(self.letters, dtype=torch.float64)
        distance = (numbers[:, None] - numbers).abs()
        return float((self._weights(weights)[:, None] * self.matrix * distance).sum())

    def _answered(self, letters: Tensor, uniform: Tensor) -> Tensor:
        """The answers that belong to uniform values in [0, 1)."""
        heights = self._heights.to(letters.device)[letters.reshape(-1)]
        answers = torch.searchsorted(heights, uniform.reshape(-1, 1), right=True)
        # Rounding may leave the last sum a little below 1.
        return answers.clamp_(max=self.letters - 1).reshape(letters.shape)

    @cached_property
    def _heights(self) -> Tensor:
        return self.matrix.cumsum(dim=1)

    def _weights(self, weights: Tensor | None) -> Tensor:
        if weights is None:
            return torch.full((self.letters,), 1 / self.letters, dtype=torch.float64)
        return weights.double() / weights.double().sum()

    def _check(self, letters: Tensor) -> None:
        if letters.dtype != torch.int64:
            raise _error("release.letters", str(letters.dtype), "must be int64")
        if letters.numel() and not 0 <= int(letters.min()) <= int(letters.max()) < self.letters:
            value = f"{int(letters.min())} to {int(letters.max())}"
            raise _error("release.letters", value, f"must lie in [0, {self.letters})")


@dataclass(frozen=True)
class RandomizedResponse(Channel):
    """The true letter with probability ``e^eps / (e^eps + K - 1)``; every other one is equally likely.

    Warner (1965); best at high epsilon, whatever is to be learned (Kairouz and others, 2016, theorem 14).
    """

    name: ClassVar[str] = "randomized_response"

    @property
    def keep(self) -> float:
        """Probability of a true answer."""
        return 1 / (1 + (self.letters - 1) * _odds(self.target))

    @property
    def matrix(self) -> Tensor:
        """See ``Channel``."""
        other = (1 - self.keep) / (self.letters - 1)
        matrix = torch.full((self.letters, self.letters), other, dtype=torch.float64)
        return matrix.fill_diagonal_(self.keep)

    def sample(self, letters: Tensor, noise: NoiseSource) -> Tensor:
        """See ``Channel``; two uniform values an answer: whether it is true, and if not, which."""
        self._check(letters)
        shape = tuple(letters.shape)
        true = (noise.uniform(shape) < self.keep).to(letters.device)
        other = (1 + (noise.uniform(shape) * (self.letters - 1)).long()).to(letters.device)
        return torch.where(true, letters, (letters + other) % self.letters)


@dataclass(frozen=True)
class SubsetSelection(Channel):
    """Each letter favors ``width`` answers, all alike; an answer so names the set of letters that favor it.

    Ye and Barg (2018), with K of all subsets: the cyclic windows. Under letters that are all alike the
    information of an answer depends on ``width`` alone, so nothing is lost against all subsets. At small
    epsilon and many letters better than randomized response, which it is for ``width`` 1.

    Args:
        width: Answers that a letter favors, 1 to K - 1; None: of these the one whose answers tell most of
            letters that are all alike.
    """

    name: ClassVar[str] = "subset_selection"
    width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and not 1 <= self.width < self.letters:
            raise _error("release.width", self.width, f"must lie in [1, {self.letters - 1}]")

    @cached_property
    def favored(self) -> int:
        """Answers that a letter favors."""
        if self.width is not None:
            return self.width
        width = torch.arange(1, self.letters, dtype=torch.float64)
        odds = _odds(self.target)
        high = self.letters / (width + (self.letters - width) * odds)  # over the mean answer, 1 / K
        low = high * odds
        told = width * torch.xlogy(high, high) + (self.letters - width) * torch.xlogy(low, low)
        return 1 + int(told.argmax())

    @property
    def matrix(self) -> Tensor:
        """See ``Channel``: circulant, the window of letter x begins at ``x - (width - 1) // 2``."""
        row, count = self._row, self.letters
        places = (torch.arange(count)[None, :] - torch.arange(count)[:, None]) % count
        return row[places]

    def _answered(self, letters: Tensor, uniform: Tensor) -> Tensor:
        """Every row is the first one, turned: no matrix is needed."""
        heights = self._row.cumsum(dim=0).to(letters.device)
        turn = torch.searchsorted(heights, uniform, right=True).clamp_(max=self.letters - 1)
        return (letters + turn) % self.letters

    @property
    def _row(self) -> Tensor:
        """Answers to letter 0, float64 ``(K,)``."""
        return _staircase(self.letters, self.favored, self.target).roll(-((self.favored - 1) // 2))


@dataclass(frozen=True)
class TruncatedGeometric(Channel):
    """For letters with an order: chances fall geometrically with the distance, up to ``reach`` steps.

    ``P(j | i)`` is proportional to ``exp(-decay * min(|i - j|, reach))``, flat beyond: a staircase with
    ``reach`` steps. The decay is the largest with which the matrix stays within the target. ``reach`` 1 is
    randomized response.

    Args:
        reach: 1 to K - 1; None: of the powers of two and K - 1 the one with the smallest expected distance
            for letters that are all alike.
    """

    name: ClassVar[str] = "truncated_geometric"
    reach: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.letters > ORDERED_MOST:
            rule = f"must be at most {ORDERED_MOST} for truncated_geometric"
            raise _error("model.bottleneck.letters", self.letters, rule)
        if self.reach is not None and not 1 <= self.reach < self.letters:
            raise _error("release.reach", self.reach, f"must lie in [1, {self.letters - 1}]")

    @property
    def matrix(self) -> Tensor:
        """See ``Channel``."""
        return self._matrix.clone()

    @cached_property
    def _matrix(self) -> Tensor:
        if self.reach is not None:
            return self._calibrated(self.reach)
        reaches = [2**power for power in range(8) if 2**power < self.letters - 1] + [self.letters - 1]
        found = [self._calibrated(reach) for reach in reaches]
        return min(found, key=self._error_of)

    def _calibrated(self, reach: int) -> Tensor:
        """The matrix of the largest decay that keeps to the target."""
        numbers = torch.arange(self.letters)
        steps = (numbers[:, None] - numbers).abs().clamp(max=reach)
        heights = torch.arange(reach + 1, dtype=torch.float64)

        def made(decay: float) -> Tensor:
            weights = torch.exp(-decay * heights)[steps]
            return weights / weights.sum(dim=1, keepdim=True)

        low, high = 0.0, self.target  # one step alone is worth e^decay
        for _ in range(_STEPS):
            middle = (low + high) / 2
            # Sums and quotients in float64 err by a few units of its last place.
            within = _exact_epsilon(made(middle)) <= self.target * (1 - 1e-14)
            low, high = (middle, high) if within else (low, middle)
        return made(low)

    def _error_of(self, matrix: Tensor) -> float:
        numbers = torch.arange(self.letters, dtype=torch.float64)
        return float((matrix * (numbers[:, None] - numbers).abs()).sum())


CHANNELS: dict[str, type[Channel]] = {
    kind.name: kind for kind in (RandomizedResponse, SubsetSelection, TruncatedGeometric)
}
"""By the names that ``release.mechanism`` knows."""


def build_channel(name: str, letters: int, target: float) -> Channel:
    """The channel ``name`` on ``letters`` letters, calibrated to the epsilon ``target`` of one answer.

    Raises:
        ConfigError: No such channel, or an argument out of its range.
    """
    if name not in CHANNELS:
        raise _error("release.mechanism", name, f"must be one of {', '.join(CHANNELS)}")
    return CHANNELS[name](letters, target)


def _exact_epsilon(matrix: Tensor) -> float:
    least, most = matrix.aminmax(dim=0)
    return float((most / least).max().log()) if bool((least > 0).all()) else math.inf


def _odds(target: float) -> float:
    """``e^-epsilon``: the lower step of a staircase over the upper one."""
    return math.exp(-target)


def _staircase(count: int, width: int, target: float) -> Tensor:
    """Two steps that sum to 1: ``width`` high ones, then low ones, float64 ``(count,)``."""
    odds = _odds(target)
    row = torch.full((count,), odds, dtype=torch.float64)
    row[:width] = 1
    return row / (width + (count - width) * odds)


def _error(key: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=key, value=value, rule=rule, remedy=f"Mend {key}")
