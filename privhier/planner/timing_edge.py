"""The edge's stages on this machine: the edge's own code, and an outbox that looks at the clock."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from statistics import median

import torch

from privhier.models.inputs import augment, normalize
from privhier.models.weights import save_weights
from privhier.planner.stages import EdgeTimes
from privhier.planner.timing import MOST_LAPS, Enough, TimingJob, made_up_data, seconds, typical
from privhier.seeding import torch_stream
from privhier.training.checkpoint import save_checkpoint
from privhier.training.edge_side import EdgeSide
from privhier.training.folder import RunFolder
from privhier.training.optimize import build_optimizer
from privhier.training.prepare import build_mechanism
from privhier.training.trained import network_of
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.outgoing import OutgoingMessage, bytes_of
from privhier.uplink.sizes import ReleaseFormat
from privhier.uplink.spool import Spool

VALIDATION = 300
"""Made-up validation records: more than one message holds."""


class EdgeTimer:
    """The edge with one cut, warmed up.

    Args:
        job: What to measure.
        folder: Scratch, on the disk that a run would use.
        device: Where to compute.
    """

    def __init__(self, job: TimingJob, folder: Path, device: torch.device) -> None:
        self._job, self._device = job, device
        self.config = config = job.for_timing
        folder.mkdir(parents=True, exist_ok=True)
        self._data = made_up_data(job, (job.steps + 1) * config.training.batch_size, VALIDATION)
        edge, _ = network_of(config, config.dataset.image_size, job.task_classes, job.sensitive_classes)
        mechanism = build_mechanism(config, len(self._data.splits.train))
        self._side = EdgeSide(config, self._data, mechanism, RunFolder(folder), edge, device=device)
        self._outbox = _Outbox(folder / "spool", self._side)
        self._epochs = count()
        self._snapshot = 0.0
        self._joint()

    def laps(self, enough: Enough = lambda: True) -> tuple[float, float]:
        """Median seconds of a step and of packing its message, over whole joint epochs."""
        steps: list[float] = []
        packs: list[float] = []
        while True:
            for step, pack in self._joint():
                steps.append(step)
                packs.append(pack)
            long = sum(steps) + sum(packs) > self._job.least_seconds or len(steps) > MOST_LAPS
            if long and len(steps) >= self._job.steps and enough():
                return median(steps), median(packs)

    def times(self, *, split: bool = True) -> tuple[EdgeTimes, ReleaseFormat]:
        """All stages, and what the messages look like; ``split``: split learning's stage as well."""
        step, pack = self.laps()
        side, outbox, rounds = self._side, self._outbox, range(3)
        self._outbox.clear()
        release = [seconds(lambda n=n: side.release(outbox, "val", "joint", n)) for n in rounds]  # type: ignore[misc]
        form = self._job.form(side.edge.release_shape, max(outbox.rows))
        times = EdgeTimes(
            step=step,
            pack=pack,
            release=median(release) / VALIDATION,
            metrics=median(seconds(lambda: side.metrics("joint", 0)) for _ in rounds) / VALIDATION,
            snapshot=self._snapshot,
            close=median(seconds(self._close) for _ in rounds),
            split=self._split() if split else 0.0,
        )
        return times, form

    def _joint(self) -> list[tuple[float, float]]:
        """Seconds of ``(step, pack)`` of one joint epoch; its first batch does not count."""
        outbox = self._outbox
        outbox.clear()
        self._side.joint(next(self._epochs), outbox)
        self._snapshot = time.perf_counter() - outbox.left[-1]
        laps = []
        for number in range(1, len(outbox.left)):
            whole = outbox.left[number] - outbox.left[number - 1]
            step = outbox.computed[number] - outbox.computed[number - 1]
            if self._device.type == "cuda":  # kernels run on until the release is fetched
                step = whole
            laps.append((step, whole - step))
        return laps

    def _close(self) -> None:
        folder = self._side.folder
        save_weights(self._side.edge, folder.edge)
        save_checkpoint(folder, self._side.state(), config_hash="timing")

    def _split(self) -> float:
        """Split learning's edge: features up, and back through a gradient that came down."""
        config, job, size = self._job.for_split, self._job, self.config.training.batch_size
        edge, _ = network_of(config, config.dataset.image_size, job.task_classes, job.sensitive_classes)
        edge.to(self._device).train()
        optimizer = build_optimizer(
            [*edge.trunk.parameters(), *edge.bottleneck.parameters()], config.training.edge
        )
        records, options = self._data.splits.train[:size], config.training.augment
        generator = torch_stream(config.seed, "timing", "split")
        labels = self._data.task[records].numpy()

        def step() -> None:
            pixels = augment(self._data.pixels(records), options.flip, options.shift, generator)
            z = edge.features(normalize(pixels.to(self._device)))
            sent = encode(
                ReleaseMessage("timing", "train", "split", 0, 0, records, z.detach().cpu().numpy(), labels)
            )
            gradient = torch.from_numpy(decode(sent).payload)  # a gradient has the same shape
            optimizer.zero_grad(set_to_none=True)
            z.backward(gradient.to(self._device))  # type: ignore[no-untyped-call]
            optimizer.step()

        return typical(step, job, self._device)


class _Outbox:
    """An uplink that does with a message what ``GrpcUplink`` does, but for the line."""

    def __init__(self, folder: Path, side: EdgeSide) -> None:
        self._spool, self._side = Spool(folder), side
        self.clear()

    def clear(self) -> None:
        """Forget what was noted."""
        self.rows: list[int] = []
        self.left: list[float] = []
        self.computed: list[float] = []

    def send(self, message: OutgoingMessage) -> None:
        """Check, spool, read for the line; then it counts as acknowledged."""
        self.computed.append(self._side.compute_seconds)
        self.rows.append(len(decode(bytes_of(message)).records))
        sequence = self._spool.append(message).sequence
        self._spool.read(sequence)
        self._spool.acknowledge(sequence + 1)
        self.left.append(time.perf_counter())
