"""Where the pixels lie changes nothing of a training: on the device, read ahead, or read as they come."""

from __future__ import annotations

import runpy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import ConfigError
from privhier.seeding import numpy_stream
from privhier.training.batches import TrainingData
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.resident import SHARE, Pixels, is_resident
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return small_config(epochs=(1, 1, 0), release={"mechanism": "gaussian", "sigma": 0.3})


@pytest.fixture(scope="module")
def data(config) -> TrainingData:
    return prepare(config, load_dataset(config.dataset, seed=0)).data


def batches(data: TrainingData) -> list[np.ndarray]:
    order = numpy_stream(0, "resident").permutation(data.splits.train)
    return np.array_split(order, 4)


def as_on_a_device(data: TrainingData, way: str) -> Pixels:
    """A CPU taken for a device of its own: the very code that CUDA runs, but for pinning."""
    pixels = Pixels(data, CPU, "auto")
    if way == "resident":
        pixels.hold()
    pixels.ahead = way == "ahead"
    return pixels


@pytest.mark.parametrize(
    ("asked", "size", "free", "wanted"),
    [
        ("auto", 50, 100, True),
        ("auto", 51, 100, False),
        (True, 100, 100, True),
        (False, 1, 100, False),
    ],
)
def test_what_fits_lies_on_the_device(asked, size, free, wanted):
    assert SHARE == 0.5
    assert is_resident(asked, size, free) is wanted


def test_what_was_asked_and_does_not_fit_is_refused_with_both_sizes():
    with pytest.raises(ConfigError, match=r"runtime\.resident: True - needs 101 bytes.*100 are free"):
        is_resident(True, 101, 100)


def test_a_cpu_holds_nothing_and_reads_nothing_ahead(data):
    for asked in ("auto", True, False):
        pixels = Pixels(data, CPU, asked)
        assert pixels.whole is None
        assert not pixels.ahead


@pytest.mark.parametrize("way", ["plain", "resident", "ahead"])
def test_every_way_gives_the_records_pixels(data, way):
    pixels = as_on_a_device(data, way)
    given = batches(data)
    seen = []
    for records in pixels.batches(given):
        found = pixels.of(data, records)
        assert found.dtype == torch.uint8
        assert np.array_equal(found.numpy(), data.images[records])
        seen.append(records)
    assert all(a is b for a, b in zip(seen, given, strict=True))
    others = given[0][:3].copy()  # records that nobody announced
    assert np.array_equal(pixels.of(data, others).numpy(), data.images[others])


def test_the_resident_copy_is_a_copy_and_is_what_is_read(data):
    pixels = as_on_a_device(data, "resident")
    pixels.whole.zero_()
    assert int(pixels.of(data, data.splits.train[:4]).max()) == 0
    assert int(np.asarray(data.images).max()) > 0


def test_one_batch_is_read_ahead_by_another_thread(data):
    pixels, read = as_on_a_device(data, "ahead"), []
    original = pixels._read

    def watched(records):
        read.append((records, threading.current_thread()))
        return original(records)

    pixels._read = watched
    given = batches(data)
    walk = pixels.batches(given)
    assert next(walk) is given[0]
    walk.close()  # waits for the thread
    assert len(read) == 2
    assert read[1][0] is given[1]
    assert all(thread is not threading.main_thread() for _, thread in read)
    assert list(pixels.batches([])) == []


def test_a_failing_read_is_raised_where_the_batch_is_wanted(data):
    pixels = as_on_a_device(data, "ahead")
    with pytest.raises(IndexError):
        list(pixels.batches([np.array([10**9])]))


def test_a_training_is_the_same_wherever_its_pixels_lie(config, data, tmp_path):
    found = []
    for way in ("plain", "resident", "ahead"):
        folder = RunFolder(tmp_path / way)
        occupy(folder, config, "0" * 64)
        mechanism = build_mechanism(config, len(data.splits.train))
        trainer = Trainer(config, data, mechanism, folder, device=CPU, keep=data.splits.train[:9])
        trainer.edge._pixels = as_on_a_device(data, way)
        trainer.run()
        found.append(folder.edge.read_bytes() + folder.tail.read_bytes())
    assert found[0] == found[1] == found[2]
