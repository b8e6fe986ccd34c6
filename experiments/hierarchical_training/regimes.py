"""How long each regime takes: a model of what overlaps with what. Pure functions, no clock, no network.

Times are milliseconds per image, sizes bytes per image on the wire, rates Mbit/s. ``cloud_speed`` says how
many times faster than the measured core the cloud computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CODECS = ("raw", "jpeg", "jpeg50", "webp50")
"""How an image goes up: as bytes, JPEG at quality 90 and 50, WebP at 50 (``pictures.FORMATS``)."""
IMAGES = tuple(f"images_{codec}_{how}" for how in ("anew", "once") for codec in CODECS)
SPLIT = ("split", "split_wide")
OURS = ("joint", "joint_wide", "release_once", "release_once_wide")
REGIMES = (*IMAGES, *SPLIT, "edge_only", *OURS)
"""``_wide``: without the bottleneck. All others have it."""


@dataclass(frozen=True)
class Stages:
    """Milliseconds per image of the parts of one network on one core (see ``stages.py``)."""

    full: float
    """One training step of the whole network."""
    edge: float
    """One training step of the edge with its exits."""
    cloud: float
    """One training step of the tail."""
    release: float
    """The frozen edge, forward only."""
    split_edge: float
    """One training step of the edge without exits, gradients given."""
    split_cloud: float
    """One training step of the tail that also gives the gradient of its input."""
    encode: Mapping[str, float]
    """To each of ``CODECS`` but raw."""
    decode: Mapping[str, float]
    """From each."""


@dataclass(frozen=True)
class Plan:
    """How much is trained: release-once spends ``pretrain`` epochs on the edge and ``cloud`` in the cloud."""

    images: int
    epochs: int
    pretrain: int
    cloud: int


def codec_of(regime: str) -> str:
    """How the images of a regime that sends images are written."""
    return regime.split("_")[1]


def base_regime(regime: str) -> str:
    """The regime without its width."""
    return regime.removesuffix("_wide")


def phase_epochs(regime: str, plan: Plan) -> dict[str, int]:
    """How many epochs of each phase a whole training has."""
    if regime.startswith("images") and regime.endswith("once"):
        return {"first": 1, "cached": plan.epochs - 1}
    if base_regime(regime) == "release_once":
        return {"pretrain": plan.pretrain, "release": 1, "cloud": plan.cloud - 1}
    return {"epoch": plan.epochs}


def link_ms(size: float, rate_mbit: float) -> float:
    """Milliseconds that ``size`` bytes take at ``rate_mbit``."""
    return size * 8 / 1000 / rate_mbit


def phase_ms(
    regime: str, stages: Stages, up: float, down: float, rate_mbit: float, cloud_speed: float = 1.0
) -> dict[str, float]:
    """Milliseconds per image of each phase.

    What is pipelined (images up, joint training, the release) takes as long as its slowest part; what
    waits for an answer (split learning) takes the sum of its parts.

    Args:
        regime: One of ``REGIMES``.
        stages: Of the network at the regime's width.
        up: Bytes per image that go up in an epoch that sends.
        down: Bytes per image that come down; only split learning waits for them.
        rate_mbit: Each way.
        cloud_speed: Of the cloud over the measured core.
    """
    line, kind = link_ms(up, rate_mbit), base_regime(regime)
    cloud, full = stages.cloud / cloud_speed, stages.full / cloud_speed
    if kind.startswith("images"):
        codec = codec_of(kind)
        coded = codec != "raw"
        trained = full + (stages.decode[codec] / cloud_speed if coded else 0.0)
        sent = max(stages.encode[codec] if coded else 0.0, line, trained)
        return {"epoch": sent} if kind.endswith("anew") else {"first": sent, "cached": full}
    if kind == "split":
        parts = (stages.split_edge, line, stages.split_cloud / cloud_speed, link_ms(down, rate_mbit))
        return {"epoch": sum(parts)}
    if kind == "edge_only":
        return {"epoch": stages.full}
    if kind == "joint":
        return {"epoch": max(stages.edge, line, cloud)}
    if kind == "release_once":
        return {"pretrain": stages.edge, "release": max(stages.release, line, cloud), "cloud": cloud}
    raise ValueError(f"unknown regime {regime!r}")


def run_seconds(regime: str, phases: Mapping[str, float], plan: Plan) -> float:
    """Seconds of a whole training from its phases' milliseconds per image, modeled or measured."""
    counts = phase_epochs(regime, plan)
    return plan.images * sum(counts[name] * phases[name] for name in counts) / 1000


def reduction(new: float, old: float) -> float:
    """Share of the old run time that is saved; negative if the new one takes longer."""
    return 1 - new / old


Curve = Callable[[float], float]
"""Bit rate in Mbit/s to run time."""


def crossings(first: Curve, second: Curve, low: float, high: float, points: int = 400) -> list[float]:
    """Bit rates in [low, high] at which one curve takes over from the other, ascending."""
    grid = [low * (high / low) ** (number / points) for number in range(points + 1)]
    signs = [_sign(first(rate), second(rate)) for rate in grid]
    found = []
    left, sign = grid[0], signs[0]
    for rate, now in zip(grid[1:], signs[1:], strict=True):
        if now and sign and now != sign:
            found.append(_bisect(lambda x: first(x) - second(x), left, rate))
        if now:
            left, sign = rate, now
    return found


def rate_for_reduction(new: Curve, old: Curve, wanted: float, low: float, high: float) -> float | None:
    """The highest bit rate in [low, high] at which ``new`` saves at least ``wanted`` of ``old``; or None."""

    def short(rate: float) -> float:
        return reduction(new(rate), old(rate)) - wanted

    grid = [high * (low / high) ** (number / 400) for number in range(401)]
    for number, rate in enumerate(grid):
        if short(rate) >= 0:
            return rate if number == 0 else _bisect(short, rate, grid[number - 1])
    return None


def _sign(first: float, second: float) -> int:
    """-1, 0 or 1; curves within a millionth of each other are equal."""
    return 0 if math.isclose(first, second, rel_tol=1e-6) else (1 if first > second else -1)


def _bisect(function: Curve, low: float, high: float) -> float:
    """A sign change of ``function`` between ``low`` and ``high``, on a logarithmic scale."""
    start = function(low) >= 0
    for _ in range(60):
        middle = math.sqrt(low * high)
        if (function(middle) >= 0) == start:
            low = middle
        else:
            high = middle
    return low
