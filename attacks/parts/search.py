"""Random search over hyper-parameters (Bergstra and Bengio, 2012), beside an attacker's own grid.

A handful of random settings finds what a grid steps over; all are judged like the grid's, on the
attacker's own validation split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from privhier.attacks.view import View
from privhier.seeding import numpy_stream

V = TypeVar("V")


class Range(Protocol):
    """Something one value of a hyper-parameter can be drawn from."""

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        ...


@dataclass(frozen=True)
class LogUniform:
    """Floats in ``[low, high]``, every decade as likely; rounded to three digits, so that reports read."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"a logarithmic range needs 0 < low <= high, got [{self.low}, {self.high}]")

    def draw(self, rng: np.random.Generator) -> float:
        """One float."""
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(float(f"{value:.3g}"), self.low), self.high)


@dataclass(frozen=True)
class OneOf(Generic[V]):
    """One of several values, all as likely."""

    values: tuple[V, ...]

    def draw(self, rng: np.random.Generator) -> V:
        """One of the values."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Integers:
    """Whole numbers in ``[low, high]``, every doubling as likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"a range of integers needs 0 < low <= high, got [{self.low}, {self.high}]")

    def draw(self, rng: np.random.Generator) -> int:
        """One integer."""
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(int(value), self.high)


def random_settings(
    view: View, name: str, target: str, space: Mapping[str, Range], trials: int
) -> list[dict[str, Any]]:
    """``trials`` settings, one value of every range each, from the attack's own search stream.

    Fewer trials give the first of more.

    Args:
        view: Gives the attacker's seed.
        name: Name of the attack.
        target: Attribute under attack.
        space: Hyper-parameter to its range.
        trials: How many, 0 or more.
    """
    rng = numpy_stream(view.seed, "attack", name, target, "search")
    return [{key: values.draw(rng) for key, values in space.items()} for _ in range(trials)]
