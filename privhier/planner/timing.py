"""What is measured on a machine, and how: made-up pixels, a warm-up, the median of several laps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from privhier.config import BottleneckConfig, ReleaseConfig, RunConfig
from privhier.datasets.base import Splits
from privhier.seeding import numpy_stream
from privhier.training.batches import TrainingData
from privhier.uplink.sizes import ReleaseFormat

MOST_LAPS = 60

Classes = Mapping[str, int]
Enough = Callable[[], bool]
"""Asked after every lap: whether nobody else needs this side to go on."""


@dataclass(frozen=True)
class TimingJob:
    """What to measure.

    Attributes:
        config: The run, with the cut in question.
        task_classes: Task attribute to its number of classes.
        sensitive_classes: Sensitive attribute to its number of classes.
        steps: Least number of laps whose median counts.
    """

    config: RunConfig
    task_classes: Classes
    sensitive_classes: Classes
    steps: int = 5

    @property
    def least_seconds(self) -> float:
        """Laps go on until they add up to this, so that short ones are many."""
        return 0.08 * self.steps

    @property
    def for_timing(self) -> RunConfig:
        """The run as one joint epoch with nothing to be solved for: a noise scale changes no time."""
        config = self.config
        update: dict[str, object] = {"pretrain_epochs": 0, "joint_epochs": 1, "cloud_epochs": 0}
        changes: dict[str, object] = {"schedule": config.schedule.model_copy(update=update)}
        release, bottleneck = config.release, config.model.bottleneck
        if bottleneck.kind == "letters":  # learned ones are there from the start
            bottleneck = bottleneck.model_copy(update={"fit": "learned"})
            changes["model"] = config.model.model_copy(update={"bottleneck": bottleneck})
        elif release.mechanism != "none":
            update = {"sigma": release.sigma or 0.1, "target_epsilon": None}
            update["clip"] = release.clip if release.quantile is None else 1.0
            changes["release"] = release.model_copy(update=update)
        if (private := config.edge.dp_sgd) is not None:
            update = {"target_epsilon": None, "noise_multiplier": 1.0}
            private = private.model_copy(update=update)
            changes["edge"] = config.edge.model_copy(update={"dp_sgd": private})
        return config.model_copy(update=changes)

    @property
    def for_split(self) -> RunConfig:
        """``for_timing`` for split learning: a letter has no gradient, so its values are what goes up."""
        config = self.for_timing
        bottleneck = config.model.bottleneck
        if bottleneck.kind != "letters" or bottleneck.size is None:
            return config
        values = BottleneckConfig(kind="dimension", size=bottleneck.groups * bottleneck.size)
        model = config.model.model_copy(update={"bottleneck": values})
        return config.model_copy(update={"model": model, "release": ReleaseConfig()})

    def form(self, shape: tuple[int, ...], rows: int = 256) -> ReleaseFormat:
        """What messages with releases of ``shape`` look like, ``rows`` at most in one."""
        return ReleaseFormat.of(self.config.model, self.config.release, shape, len(self.task_classes), rows)


def split_form(config: RunConfig, form: ReleaseFormat) -> ReleaseFormat:
    """What split learning sends where releases look like ``form``: the features as float32."""
    bottleneck = config.model.bottleneck
    if form.letters is None or bottleneck.size is None:
        return replace(form, wire="float32")
    return form.of_values(bottleneck.groups * bottleneck.size)


def made_up_data(job: TimingJob, train: int, val: int) -> TrainingData:
    """Uniform pixels of the configured size; labels that go round all classes."""
    size, total = job.config.dataset.image_size, train + val
    images = numpy_stream(job.config.seed, "timing").integers(0, 256, (total, 3, size, size), dtype=np.uint8)
    numbers, none = np.arange(total, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def labels(classes: Classes) -> torch.Tensor:
        return torch.from_numpy(np.stack([numbers % count for count in classes.values()], axis=1))

    return TrainingData(
        images=images,
        task=labels(job.task_classes),
        sensitive=labels(job.sensitive_classes),
        task_classes=job.task_classes,
        sensitive_classes=job.sensitive_classes,
        splits=Splits(train=numbers[:train], val=numbers[train:], aux=none, test=none),
    )


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """How long ``work()`` takes, what it left running on a CUDA device included."""
    started = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def typical(work: Callable[[], object], job: TimingJob, device: torch.device) -> float:
    """Median seconds of as many calls as ``job`` wants, after one that does not count."""
    work()
    laps: list[float] = []
    while len(laps) < job.steps or (sum(laps) < job.least_seconds and len(laps) < MOST_LAPS):
        laps.append(seconds(work, device))
    return median(laps)
