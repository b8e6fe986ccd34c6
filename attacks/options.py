"""Bounds of an attack's hyper-parameters, kept on the dataclass field and checked where configs come in."""

from __future__ import annotations

from dataclasses import field
from typing import TypeVar

V = TypeVar("V")


def option(default: V, *, low: float, high: float = float("inf")) -> V:
    """A dataclass field whose value (each value, for a tuple) must lie in ``[low, high]``.

    ``privhier.attacks.build.build_attack`` reads the bounds from the field's metadata.
    """
    made: V = field(default=default, metadata={"low": low, "high": high})
    return made
