"""How an epoch is cut into batches: one rule, whatever counts them, down to batches of one record."""

from __future__ import annotations

import runpy
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import ConfigError
from privhier.planner.stages import Records
from privhier.storage.files import write_atomic
from privhier.training import release as release_room
from privhier.training.batches import batch_count, ordered_batches, shuffled_batches
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trainer import Trainer
from privhier.uplink.codec import decode
from privhier.uplink.local import LocalUplink

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 49, 50, 51, 64, 65, 127, 129]


@pytest.mark.parametrize("records", COUNTS)
def test_as_many_batches_are_cut_as_are_counted(records):
    for size in {1, 2, 3, 7, 8, 48, max(1, records - 1), max(1, records), records + 1, 2 * records + 1}:
        cut = [batch.tolist() for batch in ordered_batches(np.arange(records), size)]
        assert len(cut) == batch_count(records, size), size
        assert list(chain.from_iterable(cut)) == list(range(records)), size
        assert all(len(batch) == size for batch in cut[:-1]), size
        lone = [batch for batch in cut if len(batch) == 1]
        assert size == 1 or records == 1 or not lone, size  # BatchNorm cannot take one record
        shuffled = list(shuffled_batches(np.arange(records), size, 0, "joint", 0))
        assert [len(batch) for batch in shuffled] == [len(batch) for batch in cut], size
        assert len(Records(records, 0, 0, size).batches) == len(cut), size


def make_config(batch_size: int, *, private: bool, **more: object) -> RunConfig:
    chosen = {
        "dataset": {"options": {"identities": 30}},
        "release": {"mechanism": "gaussian", "sigma": 1.0},
        "edge": {"dp_sgd": {"noise_multiplier": 1.0}} if private else {},
        **more,
    }
    return small_config(images=60, size=16, batch=batch_size, **chosen)


def make_trainer(config: RunConfig, folder: Path) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    train = prepared.data.splits.train
    write_atomic(RunFolder(folder).config, config.to_yaml())
    mechanism = build_mechanism(config, len(train))
    return Trainer(
        config, prepared.data, mechanism, RunFolder(folder), device=torch.device("cpu"), keep=train[:5]
    )


@pytest.mark.parametrize("private", [False, True], ids=["plain", "dp_sgd"])
@pytest.mark.parametrize("left_out", [None, 1, 0, -1], ids=["1", "n-1", "n", "n+1"])
def test_every_batch_size_trains_as_many_steps_as_it_plans(tmp_path, private, left_out):
    if private and left_out in (0, -1):
        pytest.skip("under DP-SGD a batch is smaller than the split, see test_private_edge.py")
    n = len(prepare(c := make_config(2, private=False), load_dataset(c.dataset, seed=0)).data.splits.train)
    size = 1 if left_out is None else n - left_out
    trainer = make_trainer(make_config(size, private=private), tmp_path)
    trainer.run()
    assert trainer.cloud.steps == trainer.cloud.total_steps == 2 * batch_count(n, size)
    assert trainer.edge.steps == trainer.edge.total_steps
    if isinstance(trainer.edge, PrivateEdgeTrainer):
        steps = {event.phase: event.steps for event in trainer.edge.executed}
        assert steps == {"pretrain": round(n / size), "joint": batch_count(n, size)}
        assert trainer.ledger.releases_per_record("train") == 2


def test_batches_of_one_train_the_same_in_two_processes(tmp_path, link):
    config = make_config(1, private=True)
    alone = link.in_process(config, tmp_path / "alone")
    job = link.run_both(config, tmp_path)
    assert link.equal(alone.edge, job.side.edge)
    tail = (tmp_path / "cloud" / "tail.safetensors").read_bytes()
    assert tail == (tmp_path / "alone" / "tail.safetensors").read_bytes()


def test_batch_norm_refuses_batches_of_one():
    model = {"bottleneck": {"kind": "dimension", "size": 4}, "norm": "batch"}
    assert make_config(2, private=False, model=model).training.batch_size == 2
    with pytest.raises(ConfigError, match=r"training\.batch_size must be at least 2 .* BatchNorm"):
        make_config(1, private=False, model=model)


@pytest.mark.parametrize("most", [1, 2, 10, 29])
def test_a_lone_last_record_does_not_swell_a_message_that_is_full(tmp_path, monkeypatch, most):
    """The records of the last message and one more would be more bytes than a message may have."""
    monkeypatch.setattr(release_room, "MAX_BYTES", release_room._HEADER + 4 * 4 * most)
    trainer = make_trainer(make_config(8, private=False), tmp_path)
    seen: list[list[int]] = []
    uplink = LocalUplink(lambda data: seen.append(decode(data).records.tolist()))
    trainer.side.release(uplink, "train", "cloud", 0)
    assert sorted(chain.from_iterable(seen)) == trainer.data.splits.train.tolist()
    assert max(map(len, seen)) == most
