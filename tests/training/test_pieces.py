"""Batches, learning rate and the data the edge trains on."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import OptimizerConfig
from privhier.datasets.load import load_dataset
from privhier.errors import OutputError
from privhier.storage.sealed import Sealed
from privhier.training import edge_side, release
from privhier.training.batches import batch_count, ordered_batches, shuffled_batches
from privhier.training.folder import RunFolder
from privhier.training.optimize import learning_rate
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.release import Collector, write_side_by_side
from privhier.training.trainer import Trainer
from privhier.uplink.codec import ReleaseMessage, encode

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 100])
def test_batches_hold_every_record_exactly_once(n):
    records = np.arange(100, 100 + n)
    batches = list(shuffled_batches(records, 8, 0, "joint", 3))
    assert len(batches) == batch_count(n, 8)
    assert sorted(np.concatenate(batches)) == records.tolist()
    assert n == 1 or min(map(len, batches)) > 1


def test_order_depends_on_seed_phase_and_epoch():
    records = np.arange(64)

    def order(*key):
        return np.concatenate(list(shuffled_batches(records, 8, *key))).tolist()

    assert order(0, "joint", 0) == order(0, "joint", 0)
    assert (
        len({tuple(order(*key)) for key in [(0, "joint", 0), (1, "joint", 0), (0, "joint", 1), (0, "x", 0)]})
        == 4
    )


def test_ordered_batches_keep_the_order():
    assert np.concatenate(list(ordered_batches(np.arange(17), 4))).tolist() == list(range(17))


def test_cosine_falls_from_lr_to_zero_and_constant_stays():
    cosine = OptimizerConfig(lr=0.1)
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.1)
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.05)
    assert learning_rate(cosine, 100, 100) == pytest.approx(0.0)
    assert learning_rate(OptimizerConfig(lr=0.1, schedule="constant"), 70, 100) == 0.1


def messages(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [
        encode(
            ReleaseMessage(
                run_id="run",
                split="val",
                phase="joint",
                epoch=0,
                batch=number,
                records=np.arange(3) + 3 * number,
                payload=rng.normal(size=(3, 2, 4)).astype(np.float32),
            )
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("held", [0, 100, 200])
def test_what_is_too_much_for_memory_lies_in_a_file_and_is_the_same(tmp_path, monkeypatch, held):
    whole, few = Collector(), Collector(tmp_path / "releases")
    monkeypatch.setattr(release, "HELD_BYTES", held)
    for message in messages(4):
        whole.receive(message)
        few.receive(message)
        assert sum(part.nbytes for part in few.payloads) <= held
    assert isinstance(few.payload(), np.memmap)
    assert np.array_equal(few.payload(), whole.payload())
    assert whole.payload().shape == (12, 2, 4)
    assert list((tmp_path / "releases").iterdir()) == [], "the file has no name"


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "HELD_BYTES", 0)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release.tempfile, "mkstemp", full)
    with pytest.raises(OutputError, match="No space left"):
        Collector(tmp_path).receive(messages(1)[0])


def test_arrays_side_by_side_are_the_file_that_stacking_gives(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(11, 2, 3)).astype(np.float32) for _ in range(3)]
    expected = io.BytesIO()
    np.save(expected, np.stack(parts, axis=1))
    for held in (release.HELD_BYTES, 200):
        monkeypatch.setattr(release, "HELD_BYTES", held)
        write_side_by_side(Sealed(tmp_path), tmp_path / "test.npy", parts)
        assert (tmp_path / "test.npy").read_bytes() == expected.getvalue()


def test_a_run_that_holds_nothing_in_memory_is_the_same_run(tmp_path, monkeypatch):
    config = small_config(images=160, size=16)
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    keep = prepared.data.splits.train[:5]
    mechanism = build_mechanism(config, len(prepared.data.splits.train))

    def run(name: str) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        Trainer(config, prepared.data, mechanism, folder, device=torch.device("cpu"), keep=keep).run()
        return folder

    plain = run("plain")
    monkeypatch.setattr(release, "HELD_BYTES", 0)
    monkeypatch.setattr(edge_side, "_BLOCK", 5)
    bound = run("bound")
    for path in sorted(plain.root.rglob("*.npy")):
        assert (bound.root / path.relative_to(plain.root)).read_bytes() == path.read_bytes(), path
    first, second = (json.loads(folder.history.read_text()) for folder in (plain, bound))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-3)), key
