"""Forecasts of schedules and alternatives: closed forms from made-up seconds, bytes from the real codec."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from privhier.config import ScheduleConfig
from privhier.planner.baselines import Images, all_on_edge, images_anew, images_once, split_learning
from privhier.planner.forecast import hierarchical
from privhier.planner.line import Link
from privhier.planner.stages import CloudTimes, EdgeTimes, Records, WholeTimes, scaled, sizes_of
from privhier.training.batches import ordered_batches
from privhier.uplink.codec import ReleaseMessage, encode
from privhier.uplink.sizes import ReleaseFormat

RECORDS = Records(train=1280, val=300, test=200, batch_size=64)
FORM = ReleaseFormat((16, 8, 8), "int8", tasks=2)
EDGE = EdgeTimes(step=0.1, pack=0.01, release=1e-3, metrics=5e-4, snapshot=0.05, close=0.2, split=0.08)
CLOUD = CloudTimes(step=0.05, receive=0.005, cached=0.04, take=1e-5, close=0.3, split=0.06)
WHOLE = WholeTimes(step=0.15, metrics=1e-3)
FAST, SLOW = Link(1e12, processor=False), Link(2e5, processor=False)
JOINT = ScheduleConfig(joint_epochs=10)


def forecast(schedule: ScheduleConfig, link: Link = FAST, edge=EDGE, cloud=CLOUD, **options):
    return hierarchical(edge, cloud, RECORDS, FORM, link, schedule, regime="x", **options)


def train_bytes(epoch: int = 0) -> int:
    return sum(FORM.bytes_of(64, phase="joint", epoch=epoch, batch=number) for number in range(20))


def val_bytes(phase: str = "joint") -> int:
    return sum(FORM.bytes_of(rows, split="val", phase=phase, batch=n) for n, rows in enumerate((256, 44)))


def test_an_edge_bound_epoch_is_the_edges_own_work():
    found = forecast(JOINT)
    assert found.bound == "edge"
    assert found.step_seconds == pytest.approx(0.11, rel=1e-4)
    assert found.edge_epoch_seconds == pytest.approx(20 * 0.11 + 0.05, rel=1e-4)
    whole = 20 * 0.11 + 0.05 + 300 * 1e-3 + 300 * 5e-4 + 0.2
    assert found.epoch_seconds == pytest.approx(whole, rel=1e-4)
    # The first epoch too; in the end the edge's evaluation and checkpoint outlast the cloud's.
    assert found.run_seconds == pytest.approx(10 * whole, rel=1e-3)


def test_a_link_bound_epoch_is_its_bytes_over_the_bit_rate():
    found = forecast(JOINT, SLOW)
    assert found.bound == "link"
    line = sum(SLOW.wire_bytes(FORM.bytes_of(64, phase="joint")) for _ in range(20))
    line += sum(SLOW.wire_bytes(FORM.bytes_of(rows, split="val", phase="joint")) for rows in (256, 44))
    assert found.epoch_seconds == pytest.approx(8 * line / 2e5, rel=1e-3)
    assert found.up_bytes_per_epoch == train_bytes() + val_bytes()


def test_a_cloud_bound_epoch_is_the_clouds_own_work():
    cloud = scaled(CLOUD, 10)
    found = forecast(JOINT, cloud=cloud)
    assert found.bound == "cloud"
    # Receiving costs the same processor; validation is journaled; the checkpoint comes once.
    own = 20 * (0.5 + 0.05) + 300 * 1e-4 + 3.0
    assert found.epoch_seconds == pytest.approx(own, rel=0.005)
    assert found.cloud_epoch_seconds == pytest.approx(own - 3.0, rel=0.005)


def test_bytes_of_a_schedule_are_those_of_its_messages():
    found = forecast(ScheduleConfig(pretrain_epochs=3, joint_epochs=11, cloud_epochs=5))
    once = sum(FORM.bytes_of(256, phase="cloud", batch=number) for number in range(5)) + val_bytes("cloud")
    joint = 0
    for epoch in range(11):
        joint += sum(len(_encoded("train", "joint", epoch, number, 64)) for number in range(20))
        joint += sum(len(_encoded("val", "joint", epoch, n, rows)) for n, rows in enumerate((256, 44)))
    assert found.up_bytes == once + joint
    assert found.down_bytes == 0


def _encoded(split: str, phase: str, epoch: int, batch: int, rows: int) -> bytes:
    payload = np.ones((rows, *FORM.shape), dtype=np.float32)
    labels = np.zeros((rows, 2), dtype=np.int64) if split == "train" else None
    numbers = np.arange(rows, dtype=np.int64)
    return encode(ReleaseMessage("0" * 16, split, phase, epoch, batch, numbers, payload, labels, wire="int8"))


def test_release_once_trains_on_what_arrives_and_then_alone():
    cached = 20 * 0.04 + 0.3
    found = forecast(ScheduleConfig(pretrain_epochs=2, cloud_epochs=4))
    pretraining = 2 * (20 * 0.1 + 300 * 5e-4 + 0.2)
    # The edge is the slower one: the cloud's first epoch ends with the last message.
    release = (1280 + 300) * 1e-3
    assert found.run_seconds == pytest.approx(pretraining + release + 0.3 + 3 * cached, rel=0.01)
    assert found.epoch_seconds == pytest.approx(cached)
    slow = forecast(ScheduleConfig(pretrain_epochs=2, cloud_epochs=4), SLOW)
    line = sum(SLOW.seconds(FORM.bytes_of(256, phase="cloud")) for _ in range(5))
    line += sum(SLOW.seconds(FORM.bytes_of(rows, split="val", phase="cloud")) for rows in (256, 44))
    assert slow.run_seconds - found.run_seconds == pytest.approx(line - release, rel=0.05)


def test_epochs_that_are_not_played_are_like_those_that_are():
    short, long = (
        forecast(ScheduleConfig(joint_epochs=30), SLOW),
        forecast(ScheduleConfig(joint_epochs=60), SLOW),
    )
    assert long.run_seconds - short.run_seconds == pytest.approx(30 * short.epoch_seconds, rel=1e-9)
    assert forecast(ScheduleConfig(joint_epochs=5), SLOW).run_seconds == pytest.approx(
        short.run_seconds - 25 * short.epoch_seconds, rel=1e-3
    )


def test_nothing_gets_slower_with_bits_or_queue():
    rates = (1e5, 1e6, 1e7, 1e8)
    for schedule in (JOINT, ScheduleConfig(pretrain_epochs=2, cloud_epochs=3)):
        runs = [forecast(schedule, Link(rate)).run_seconds for rate in rates]
        assert all(b <= a for a, b in itertools.pairwise(runs))
        waits = [forecast(schedule, Link(1e6, latency=0.05), queue=q).run_seconds for q in (1, 2, 4, 8)]
        assert all(b <= a + 1e-9 for a, b in itertools.pairwise(waits))


def test_without_validation_records_epochs_still_end():
    records = Records(train=640, val=0, test=0, batch_size=64)
    found = hierarchical(EDGE, CLOUD, records, FORM, FAST, JOINT, regime="x")
    assert found.epoch_seconds == pytest.approx(10 * 0.11 + 0.05 + 0.2, rel=0.01)


def test_one_epoch_of_one_batch_has_finite_times():
    records = Records(train=64, val=10, test=10, batch_size=64)
    found = hierarchical(EDGE, CLOUD, records, FORM, FAST, ScheduleConfig(joint_epochs=1), regime="x")
    assert all(math.isfinite(value) and value > 0 for value in (found.step_seconds, found.epoch_seconds))
    assert found.run_seconds >= 0.11 + 0.05


def test_split_learning_waits_for_every_part_in_turn():
    link = Link(1e6, latency=0.02, processor=False)
    size = ReleaseFormat(FORM.shape, "float32", 2).bytes_of(64, phase="joint")
    found = split_learning(EDGE, CLOUD, RECORDS, replace(FORM, wire="float32"), link, epochs=3)
    step = 0.08 + 0.06 + 2 * (link.seconds(size) + 0.02)
    assert found.step_seconds == pytest.approx(step)
    assert found.epoch_seconds > 20 * step
    assert found.down_bytes == 3 * 20 * size


def test_images_once_pay_for_the_line_once_and_anew_every_epoch():
    raw = Images("raw", 3 * 32 * 32)
    line = sum(SLOW.seconds(round(rows * (3072 + 4)) + 256) for rows in [64] * 20)
    once = images_once(WHOLE, RECORDS, SLOW, raw, epochs=10)
    anew = images_anew(WHOLE, RECORDS, SLOW, raw, epochs=10)
    local = 20 * 0.15 + 300 * 1e-3
    assert once.epoch_seconds == pytest.approx(local)
    val = sum(SLOW.seconds(round(rows * (3072 + 4)) + 256) for rows in (256, 44))
    # The first epoch's steps are hidden behind the line.
    assert once.run_seconds == pytest.approx(line + val + 0.3 + 9 * local, rel=0.01)
    assert anew.epoch_seconds == pytest.approx(line, rel=0.01)
    assert anew.run_seconds > 10 * line
    assert anew.up_bytes == 10 * anew.up_bytes_per_epoch + (once.up_bytes - anew.up_bytes_per_epoch)
    assert anew.bound == "link"
    fast = images_anew(WHOLE, RECORDS, FAST, raw, epochs=10)
    assert fast.epoch_seconds == pytest.approx(local, rel=0.01)
    assert fast.bound == "cloud"


def test_all_on_the_edge_sends_nothing():
    found = all_on_edge(WHOLE, RECORDS, epochs=10)
    assert found.run_seconds == pytest.approx(10 * (20 * 0.15 + 0.3))
    assert found.up_bytes == found.down_bytes == 0


@pytest.mark.parametrize("records", [1, 2, 63, 64, 65, 127, 128, 129, 1000])
def test_batches_are_cut_as_training_cuts_them(records):
    assert sizes_of(records, 64) == [len(b) for b in ordered_batches(np.arange(records), 64)]
    assert Records(records, 0, 0, 64).steps == pytest.approx(records / 64)
