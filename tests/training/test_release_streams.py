"""Seeded releases: no two of a run share their noise, and a shared seed is no shared stream."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.privacy.ledger import Ledger
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.release import Releaser
from privhier.training.trainer import Trainer
from privhier.uplink.codec import decode
from privhier.uplink.local import LocalUplink

WIDTH = 4
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def make_config(source: str = "seeded") -> RunConfig:
    return small_config(
        size=16,
        epochs=(0, 2, 1),
        model={"bottleneck": {"size": WIDTH}},
        release={"mechanism": "gaussian", "clip": 1e-6, "sigma": 1.0},
        privacy={"noise_source": source},
    )


def test_every_split_phase_epoch_and_batch_has_a_stream_of_its_own():
    config = make_config()
    releaser = Releaser(config, build_mechanism(config, 100), Ledger(None), run_id="t")
    names = [
        (split, phase, epoch, batch)
        for split in ("train", "val", "test")
        for phase in ("joint", "cloud")
        for epoch in (0, 1)
        for batch in (0, 1)
    ]
    draws = {name: releaser.noise(*name).gaussian((3, WIDTH)) for name in names}
    for number, one in enumerate(names):
        assert torch.equal(draws[one], releaser.noise(*one).gaussian((3, WIDTH)))
        for other in names[:number]:
            assert not torch.equal(draws[one], draws[other]), (one, other)


@pytest.mark.parametrize("source", ["seeded", "system"])
def test_no_two_releases_of_a_whole_run_share_a_value(tmp_path: Path, monkeypatch, source):
    """The clip is a millionth of the noise: what goes up is noise, and any two rows of it are unrelated."""
    sent: list[bytes] = []
    send = LocalUplink.send
    monkeypatch.setattr(LocalUplink, "send", lambda self, one: (sent.append(one.data), send(self, one))[1])
    config, folder = make_config(source), RunFolder(tmp_path)
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    occupy(folder, config, "0" * 64)
    train = prepared.data.splits.train
    mechanism = build_mechanism(config, len(train))
    Trainer(config, prepared.data, mechanism, folder, device=torch.device("cpu"), keep=train[:5]).run()
    rows = np.concatenate([np.asarray(decode(data).payload) for data in sent])
    splits = prepared.data.splits
    assert len(rows) == 3 * (len(train) + len(splits.val) + len(splits.test))
    assert len(np.unique(np.round(rows[:, 0], 4))) > 0.98 * len(rows)
    # Nor is a row another's mirror image, or the same values in another order.
    assert len(np.unique(np.round(np.sort(np.abs(rows), axis=1), 4), axis=0)) > 0.98 * len(rows)
    assert float(rows.std()) == pytest.approx(1, abs=0.1)
