"""The stages of training and what is predicted of them, as plain numbers.

``profile.py`` measures the seconds; ``forecast.py`` and ``baselines.py`` make epochs and bytes of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np

from privhier.planner.line import Timeline
from privhier.training.batches import ordered_batches

Bound = Literal["edge", "link", "cloud"]
T = TypeVar("T", bound="EdgeTimes | CloudTimes | WholeTimes")


@dataclass(frozen=True)
class EdgeTimes:
    """Seconds of the edge's work, at full speed, for one cut.

    Attributes:
        step: One batch: forward, clip and noise, exits, loss, backward, optimizer.
        pack: Its message: encode, enter in the ledger, check, spool, read for the line.
        release: One record of a split that is released whole: forward, sanitize, encode, spool.
        metrics: One validation record through the task exit.
        snapshot: The edge's weights at the end of a joint epoch.
        close: Checkpoint and weights at the end of any epoch.
        split: One batch of split learning: forward, backward from the cloud's gradient, optimizer.
    """

    step: float
    pack: float = 0.0
    release: float = 0.0
    metrics: float = 0.0
    snapshot: float = 0.0
    close: float = 0.0
    split: float = 0.0


@dataclass(frozen=True)
class CloudTimes:
    """Seconds of the cloud's work, at full speed, for one cut.

    Attributes:
        receive: One training message: decode, check, journal.
        step: One training message: read, decode, one optimizer step.
        cached: One optimizer step on releases in the cache.
        take: One record of a split that is released whole: decode, check, journal.
        close: Checkpoint at the end of an epoch.
        split: One batch of split learning: decode, step with the gradient of the release, encode that.
    """

    step: float
    receive: float = 0.0
    cached: float = 0.0
    take: float = 0.0
    close: float = 0.0
    split: float = 0.0


@dataclass(frozen=True)
class WholeTimes:
    """Seconds of the undivided network on one machine.

    Attributes:
        step: One batch: forward, loss, backward, optimizer.
        metrics: One validation record.
    """

    step: float
    metrics: float = 0.0


def scaled(times: T, factor: float) -> T:
    """Every stage ``factor`` times as long."""
    changes: Any = {field.name: factor * getattr(times, field.name) for field in fields(times)}
    return replace(times, **changes)


@dataclass(frozen=True)
class Records:
    """How many records each split has, and how many make a batch."""

    train: int
    val: int
    test: int
    batch_size: int

    @property
    def batches(self) -> list[int]:
        """Records of every batch of one epoch."""
        return sizes_of(self.train, self.batch_size)

    @property
    def steps(self) -> float:
        """Full batches in one epoch; a smaller last one counts by its share."""
        return sum(self.batches) / self.batch_size


@dataclass(frozen=True)
class Forecast:
    """What one way of training is predicted to take. Times in seconds, bytes as messages (no framing).

    Attributes:
        regime: Its name.
        step_seconds: From one batch to the next in the middle of an epoch.
        epoch_seconds: From one epoch to the next, validation and checkpoints included.
        run_seconds: The whole training; releases of test records are left out.
        up_bytes_per_epoch: From edge to cloud in such an epoch.
        up_bytes: From edge to cloud in the whole training, validation included.
        down_bytes: From cloud to edge: gradients (acknowledgements are not counted).
        bound: Who is busiest.
        edge_epoch_seconds: As the edge's ``link.json`` counts a joint epoch: its training alone.
        cloud_epoch_seconds: As the cloud's ``link.json`` counts it: without its checkpoint.
    """

    regime: str
    step_seconds: float
    epoch_seconds: float
    run_seconds: float
    up_bytes_per_epoch: int
    up_bytes: int
    down_bytes: int
    bound: Bound
    edge_epoch_seconds: float = math.nan
    cloud_epoch_seconds: float = math.nan


def sizes_of(records: int, size: int) -> list[int]:
    """Records of every batch, as ``ordered_batches`` cuts them."""
    return [len(batch) for batch in ordered_batches(np.arange(records), size)]


class Busy:
    """Adds up who works how long."""

    def __init__(self) -> None:
        self._seconds: dict[Bound, float] = {"edge": 0.0, "link": 0.0, "cloud": 0.0}

    def add(self, place: Bound, seconds: float) -> None:
        """So long, there."""
        self._seconds[place] += seconds

    def add_all(self, timeline: Timeline, *, times: float = 1.0) -> None:
        """What was played, so often."""
        places: Sequence[tuple[Bound, float]] = (
            ("edge", timeline.edge_busy), ("link", timeline.line_busy), ("cloud", timeline.cloud_busy),
        )  # fmt: skip
        for place, seconds in places:
            self.add(place, times * seconds)

    @property
    def seconds(self) -> float:
        """All together."""
        return sum(self._seconds.values())

    @property
    def most(self) -> Bound:
        """Who works longest."""
        return max(self._seconds, key=lambda place: self._seconds[place])
