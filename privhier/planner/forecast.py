"""How long a schedule takes when edge and cloud are two processes: from stages to epochs and bytes.

The stages follow the code of the two processes, ``edge_job.py`` and ``cloud_job.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from privhier.config import ScheduleConfig
from privhier.planner.line import FULL_SPEED, Link, Message, Slowdown, Timeline, simulate
from privhier.planner.stages import Busy, CloudTimes, EdgeTimes, Forecast, Records, sizes_of
from privhier.uplink.sizes import ReleaseFormat

_LEAST = 3
"""Epochs that are played before the rest are taken to be like the last."""


def hierarchical(
    edge: EdgeTimes,
    cloud: CloudTimes,
    records: Records,
    form: ReleaseFormat,
    link: Link,
    schedule: ScheduleConfig,
    *,
    regime: str,
    queue: int = 4,
    slowdown: Slowdown = FULL_SPEED,
) -> Forecast:
    """The schedule's three numbers, edge and cloud at work at the same time as far as it lets them."""
    joint = _Joint(edge, cloud, records, form, link, queue, slowdown)
    busy = Busy()
    alone = records.steps * edge.step + records.val * edge.metrics + edge.close
    run = schedule.pretrain_epochs * alone
    busy.add("edge", run)
    step, epoch, per_epoch, total = edge.step, alone, 0, 0
    if schedule.joint_epochs:
        joint.play(schedule.joint_epochs)
        run += joint.run_seconds
        step, epoch = joint.step_seconds, joint.epoch_seconds
        total += sum(joint.bytes_of(number) for number in range(schedule.joint_epochs))
        per_epoch = joint.bytes_of(schedule.joint_epochs - 1)
        busy.add_all(joint.timeline, times=schedule.joint_epochs / joint.played)
    if schedule.cloud_epochs:
        messages = list(_release_once(edge, cloud, records, form, link))
        timeline = simulate(messages, link, queue=queue, slowdown=slowdown)
        cached = records.steps * cloud.cached + cloud.close
        run += timeline.seconds + cloud.close + (schedule.cloud_epochs - 1) * cached
        total += sum(message.size for message in messages)
        busy.add_all(timeline)
        busy.add("cloud", (schedule.cloud_epochs - 1) * cached)
        if not schedule.joint_epochs:
            step, epoch = cloud.cached, cached
    return Forecast(
        regime=regime,
        step_seconds=step,
        epoch_seconds=epoch,
        run_seconds=run,
        up_bytes_per_epoch=per_epoch,
        up_bytes=total,
        down_bytes=0,
        bound=busy.most,
        edge_epoch_seconds=joint.edge_epoch_seconds,
        cloud_epoch_seconds=joint.cloud_epoch_seconds,
    )


class _Joint:
    """Joint epochs as messages, played until every further epoch is like the last."""

    def __init__(
        self,
        edge: EdgeTimes,
        cloud: CloudTimes,
        records: Records,
        form: ReleaseFormat,
        link: Link,
        queue: int,
        slowdown: Slowdown,
    ) -> None:
        self.edge, self.cloud, self.records, self.form = edge, cloud, records, form
        self.link, self.queue, self.slowdown = link, queue, slowdown
        self.train, self.val = records.batches, sizes_of(records.val, form.rows) if records.val else []
        self.timeline = Timeline([], [], [], 0.0, 0.0, 0.0)
        self.played = 0
        self.run_seconds = self.epoch_seconds = self.step_seconds = math.nan
        self.edge_epoch_seconds = self.cloud_epoch_seconds = math.nan

    @property
    def after(self) -> float:
        """The edge's work between the last message of one epoch and the next epoch."""
        snapshot = 0.0 if self.val else self.edge.snapshot  # else it comes before the validation messages
        return snapshot + self.records.val * self.edge.metrics + self.edge.close

    def bytes_of(self, epoch: int) -> int:
        """Of the messages of one epoch."""
        train = sum(
            self.form.bytes_of(rows, phase="joint", epoch=epoch, batch=number)
            for number, rows in enumerate(self.train)
        )
        return train + sum(
            self.form.bytes_of(rows, split="val", phase="joint", epoch=epoch, batch=number)
            for number, rows in enumerate(self.val)
        )

    def messages(self, epoch: int) -> Iterator[Message]:
        """One epoch: training, then validation."""
        edge, cloud, link = self.edge, self.cloud, self.link
        before = self.after if epoch else 0.0
        # Without validation messages the checkpoint falls before the next epoch's first batch.
        closing = cloud.close if epoch and not self.val else 0.0
        for number, rows in enumerate(self.train):
            size = self.form.bytes_of(rows, phase="joint", epoch=epoch, batch=number)
            share, send = rows / self.records.batch_size, link.processor_seconds(size)
            receive = share * cloud.receive + send
            yield Message(
                edge=before + share * (edge.step + edge.pack) + send,
                size=size,
                receive=receive,
                # Receiving is another thread's work, but on the same processor.
                cloud=share * cloud.step + receive + closing,
            )
            before = closing = 0.0
        before, closing = edge.snapshot, cloud.close
        for number, rows in enumerate(self.val):
            size = self.form.bytes_of(rows, split="val", phase="joint", epoch=epoch, batch=number)
            receive = rows * cloud.take + link.processor_seconds(size)
            work = rows * edge.release + link.processor_seconds(size)
            yield Message(before + work, size, receive, receive + closing, queued=False)
            before = closing = 0.0

    def play(self, epochs: int) -> None:
        """Play, and read off the times."""
        length = len(self.train) + len(self.val)
        self.played = played = min(epochs, max(_LEAST, math.ceil(4 * self.queue / length) + 2))
        messages = [message for epoch in range(played) for message in self.messages(epoch)]
        self.timeline = timeline = simulate(messages, self.link, queue=self.queue, slowdown=self.slowdown)
        last = [epoch * length + len(self.train) - 1 for epoch in range(played)]
        trained = [timeline.trained[index] for index in last]
        end = max(timeline.seconds, timeline.sent[-1] + self.after) + (0.0 if self.val else self.cloud.close)
        self.epoch_seconds = (trained[-1] - trained[0]) / (played - 1) if played > 1 else end
        self.run_seconds = end + (epochs - played) * self.epoch_seconds
        first = last[-1] - len(self.train) + 1
        steps = len(self.train) - 1
        self.step_seconds = (trained[-1] - timeline.trained[first]) / steps if steps else self.epoch_seconds
        began = timeline.sent[first - 1] + self.after if first else 0.0
        self.edge_epoch_seconds = timeline.sent[last[-1]] - began + self.edge.snapshot
        left = trained[-2] + self.cloud.close if played > 1 else 0.0
        self.cloud_epoch_seconds = trained[-1] - left


def _release_once(
    edge: EdgeTimes, cloud: CloudTimes, records: Records, form: ReleaseFormat, link: Link
) -> Iterator[Message]:
    """Training records, on which the cloud takes its first epoch's steps as they come, then validation."""
    for split, count in (("train", records.train), ("val", records.val)):
        for number, rows in enumerate(sizes_of(count, form.rows) if count else []):
            size = form.bytes_of(rows, split=split, phase="cloud", batch=number)
            receive = rows * cloud.take + link.processor_seconds(size)
            steps = rows / records.batch_size * cloud.cached if split == "train" else 0.0
            # Once to check and journal, once to read from the journal.
            work = (2 if split == "train" else 1) * rows * cloud.take + link.processor_seconds(size) + steps
            yield Message(
                rows * edge.release + link.processor_seconds(size), size, receive, work, queued=False
            )
