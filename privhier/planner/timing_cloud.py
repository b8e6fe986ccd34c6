"""The cloud's stages on this machine: journal, codec and trainer as the cloud's process uses them."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.planner.stages import CloudTimes
from privhier.planner.timing import MOST_LAPS, Enough, TimingJob, seconds, typical
from privhier.seeding import numpy_stream
from privhier.training.checkpoint import save_state
from privhier.training.cloud import CloudTrainer
from privhier.training.labels import flips
from privhier.training.trained import network_of
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.journal import Journal
from privhier.uplink.sizes import ReleaseFormat

_JOURNAL_BYTES = 128 * 2**20
"""A scratch journal that is longer is begun anew."""
_ALL_STEPS = 10_000
_NONE = np.zeros(0, dtype=np.int64)


class CloudTimer:
    """The cloud with one cut, warmed up; see ``EdgeTimer``."""

    def __init__(self, job: TimingJob, folder: Path, device: torch.device) -> None:
        self._job, self._folder, self._device = job, folder, device
        config = job.for_timing
        self._trainer, shape = self._network(config)
        self._form = job.form(shape)
        self._size = config.training.batch_size
        self._seed, self._numbers = config.seed, count()
        self._journal, self._bytes = self._new_journal(), 0
        self._joint()

    def laps(self, enough: Enough = lambda: True) -> tuple[float, float]:
        """Median seconds of receiving a training message and of the step on it."""
        laps: list[tuple[float, float]] = []
        while True:
            laps.append(self._joint())
            long = sum(map(sum, laps)) > self._job.least_seconds or len(laps) > MOST_LAPS
            if long and len(laps) >= self._job.steps and enough():
                return median(lap[0] for lap in laps), median(lap[1] for lap in laps)

    def times(self, form: ReleaseFormat, *, split: bool = True) -> CloudTimes:
        """All stages; ``form`` is what the edge's messages look like, ``split`` as of ``EdgeTimer``."""
        receive, step = self.laps()
        payload, labels = self._payload(self._size, form), torch.from_numpy(self._labels(self._size))
        order = numpy_stream(self._seed, "timing", "order").permutation(self._size)
        cached = typical(
            lambda: self._trainer.train_step(torch.from_numpy(payload[order]), labels[order]),
            self._job,
            self._device,
        )
        take = [self._receive(self._encoded(form.rows, "val"))[0] for _ in range(3)]
        close = [
            seconds(lambda: save_state(self._folder / "checkpoint.pt", self._trainer.state(), key="timing"))
            for _ in range(3)
        ]
        return CloudTimes(
            step=step,
            receive=receive,
            cached=cached,
            take=median(take) / form.rows,
            close=median(close),
            split=self._split() if split else 0.0,
        )

    def _network(self, config: RunConfig) -> tuple[CloudTrainer, tuple[int, ...]]:
        """A trainer of the cloud's half, and the shape of what it takes."""
        job = self._job
        edge, tail = network_of(config, config.dataset.image_size, job.task_classes, job.sensitive_classes)
        trainer = CloudTrainer(
            shared_part(config),
            tail.to(self._device),
            total_steps=_ALL_STEPS,
            device=self._device,
            keep=_NONE,
            flips=flips(config.privacy.label_epsilon, job.task_classes),
            bfloat16=config.runtime.precision == "bfloat16",
        )
        return trainer, edge.release_shape

    def close(self) -> None:
        """Close its files."""
        self._journal.close()

    def _joint(self) -> tuple[float, float]:
        """Seconds of receiving one message and of training on it."""
        received, number = self._receive(self._encoded(self._size, "train"))
        trained = seconds(lambda: self._trainer.receive_and_train(self._journal.read(number)), self._device)
        return received, trained

    def _receive(self, data: bytes) -> tuple[float, int]:
        if self._bytes > _JOURNAL_BYTES:
            self._journal.close()
            shutil.rmtree(self._folder / "journal")
            self._journal, self._bytes = self._new_journal(), 0
        self._bytes += len(data)
        number = len(self._journal)
        return seconds(lambda: self._journal.append(0, number, data, decode(data))), number

    def _new_journal(self) -> Journal:
        return Journal(self._folder / "journal")

    def _encoded(self, rows: int, split: str, form: ReleaseFormat | None = None) -> bytes:
        form = form or self._form
        return encode(
            ReleaseMessage(
                run_id="timing",
                split=split,
                phase="joint",
                epoch=0,
                batch=next(self._numbers),
                records=np.arange(rows, dtype=np.int64),
                payload=self._payload(rows, form),
                task_labels=self._labels(rows) if split == "train" else None,
                wire=form.wire,  # type: ignore[arg-type]  # checked by encode
                letters=form.letters,
            )
        )

    def _payload(self, rows: int, form: ReleaseFormat) -> npt.NDArray[Any]:
        """Letters, or small integers over 16, which every wire type carries without loss."""
        stream, shape = numpy_stream(self._seed, "timing", "payload"), (rows, *form.shape)
        if form.letters is not None:
            return stream.integers(0, form.letters, shape, dtype=np.int64)
        return stream.integers(-7, 8, shape).astype(np.float32) / np.float32(16)

    def _labels(self, rows: int) -> npt.NDArray[np.int64]:
        numbers = np.arange(rows, dtype=np.int64)
        return np.stack([numbers % classes for classes in self._job.task_classes.values()], axis=1)

    def _split(self) -> float:
        """Split learning's cloud: a step that also makes the gradient of the features, and sends it."""
        trainer, shape = self._network(self._job.for_split)
        data = self._encoded(self._size, "train", ReleaseFormat(shape))

        def step() -> None:
            message = decode(data)
            assert message.task_labels is not None
            z = torch.from_numpy(message.payload).requires_grad_()
            trainer.train_step(z, torch.from_numpy(message.task_labels))
            assert z.grad is not None
            gradient = z.grad.cpu().numpy()
            encode(ReleaseMessage("timing", "train", "split", 0, 0, message.records, gradient))

        return typical(step, self._job, self._device)
