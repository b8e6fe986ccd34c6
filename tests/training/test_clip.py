"""A drawn clip bound in a run: charged before it is drawn, kept, read back."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import CheckpointError, ConfigError, GuaranteeError
from privhier.privacy.ledger import Ledger
from privhier.training import clip as room
from privhier.training.commons import Commons
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
small_config, QUANTILE = SMALL["small_config"], SMALL["QUANTILE"]


def make_config(**release) -> RunConfig:
    chosen = {"mechanism": "gaussian", "clip": QUANTILE, "target_epsilon": 8.0, **release}
    return small_config("clip", epochs=(0, 1, 0), batch=48, release=chosen)


def trainer(config: RunConfig, folder: RunFolder) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    occupy(folder, config, "0" * 64)
    train = prepared.data.splits.train
    mechanism = build_mechanism(config, len(train))
    return Trainer(config, prepared.data, mechanism, folder, device=torch.device("cpu"), keep=train[:10])


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_a_run_draws_charges_and_keeps_its_bound(tmp_path, mechanism):
    folder = RunFolder(tmp_path)
    config = make_config(mechanism=mechanism)
    job = trainer(config, folder)
    drawn = json.loads(folder.clip.read_text())["clip"]
    assert 0.01 < drawn < 100
    assert Ledger.load(folder.ledger).events[0].kind == "clip_quantile"  # before anything was released
    trained = job.run()
    assert trained.mechanism.clip == job.mechanism.clip == load_edge(tmp_path).mechanism.clip == drawn
    accounts = Ledger.load(folder.ledger).accounts()
    delta = config.privacy.delta_for(len(job.data.splits.train))
    assert accounts["train"].spent(mechanism, delta) == pytest.approx(8.0, abs=1e-6)
    assert accounts["test"].spent(mechanism, delta) == pytest.approx(7.5, abs=1e-6)


def test_resumed_it_is_read_back_and_not_drawn_again(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    first = trainer(make_config(), folder).mechanism
    monkeypatch.setattr(room, "draw_quantile", lambda *_: pytest.fail("drawn twice"))
    assert trainer(make_config(), folder).mechanism == first
    assert len(Ledger.load(folder.ledger).events) == 1


def test_a_network_shared_in_a_sweep_brings_its_bound_along(tmp_path):
    config, commons = make_config(), Commons(tmp_path / "shared", "data")
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    with commons.training(first, config):
        trained = trainer(config, first).run()
    with commons.training(second, config):
        assert second.training.exists()
    occupy(second, config, "0" * 64)  # as a run does
    assert load_edge(second.root).mechanism == trained.mechanism


def test_a_lost_bound_is_not_drawn_anew_in_silence(tmp_path):
    folder = RunFolder(tmp_path)
    trainer(make_config(), folder).run()
    folder.clip.unlink()
    with pytest.raises(CheckpointError, match=r"clip\.json.*is missing"):
        load_edge(tmp_path)


def test_sabotage_a_bound_drawn_without_a_charge_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Ledger, "charge_clip", lambda self, event: True)
    with pytest.raises(GuaranteeError, match=r"clip_quantile.*was drawn, but charged as None"):
        trainer(make_config(), RunFolder(tmp_path)).run()


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ({"sigma": 1.0, "target_epsilon": None}, "needs target_epsilon above the quantile's epsilon"),
        ({"target_epsilon": 0.4}, "needs target_epsilon above the quantile's epsilon"),
        ({"clip": QUANTILE | {"lowest": 100.0}}, "release.clip: .*lowest must be below highest"),
        ({"clip": {"quantile": 0.5}}, "release.clip.epsilon: None - is required"),
        ({"clip": QUANTILE | {"quantile": 1.0}}, "release.clip.quantile: 1.0 - .*less than 1"),
        (
            {"clip": QUANTILE | {"quantil": 0.5}},
            "release.clip.quantil: 0.5 - is not a known key.*Did you mean quantile",
        ),
        ({"clip": -1.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused(release, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**release)
