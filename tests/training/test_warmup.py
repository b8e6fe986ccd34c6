"""Warm-up: noise and penalty rise in pre-training, and nothing that leaves the edge knows of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from yaml import safe_dump, safe_load

from privhier.config import load_config, parse_config
from privhier.config.shared import shared_part
from privhier.datasets.load import load_dataset
from privhier.errors import CheckpointError, ConfigError
from privhier.privacy.ledger import Ledger
from privhier.storage.sealed import Sealed
from privhier.training.commons import training_key
from privhier.training.edge import EdgeTrainer
from privhier.training.folder import RunFolder
from privhier.training.occupancy import saved_config
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trainer import Trainer
from privhier.training.warmup import warmup

NOISY = {"mechanism": "gaussian", "sigma": 0.5}
REVERSAL = {"name": "gradient_reversal"}


def seen(config, folder, monkeypatch, kind=EdgeTrainer):
    """Sigma of what every training batch was made with, and the share its defense was told, by epoch."""
    now, found = [], []
    warm, make, step = EdgeTrainer.warm_up, EdgeTrainer.sanitized, EdgeTrainer.batch

    def warm_up(self, phase, epoch):
        now[:] = [phase, epoch]
        warm(self, phase, epoch)

    def sanitized(self, *given, **named):
        release = make(self, *given, **named)
        found.append([*now, release.mechanism.sigma])
        return release

    def batch(self, *given, **named):
        made = step(self, *given, **named)
        found[-1].append(made.strength)
        return made

    for name, spy in (("warm_up", warm_up), ("sanitized", sanitized), ("batch", batch)):
        monkeypatch.setattr(EdgeTrainer, name, spy)
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    folder = RunFolder(folder)
    folder.sealed.bind(config=config.hash(), data="made up")
    mechanism = build_mechanism(config, len(data.splits.train))
    device = torch.device("cpu")
    trainer = Trainer(config, data, mechanism, folder, device=device, keep=data.splits.train[:4])
    assert type(trainer.edge) is kind
    trainer.run()
    return found, folder


def test_noise_and_penalty_rise_in_pretraining_and_releases_have_all_of_it(
    small_config, tmp_path, monkeypatch
):
    config = small_config(images=120, epochs=(5, 1, 1), release=NOISY, defense=REVERSAL)
    assert config.warmup_epochs == 2
    found, folder = seen(config, tmp_path, monkeypatch)
    by_epoch = {(phase, epoch): (sigma, share) for phase, epoch, sigma, share in found}
    pretraining = [by_epoch["pretrain", epoch] for epoch in range(5)]
    assert pretraining == [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert by_epoch["joint", 0] == (0.5, 1.0)
    charged = {event.sigma for event in Ledger(folder.ledger).events if event.kind == "release"}
    assert charged == {0.5}
    # What the cloud holds is noise of this size at least, whatever the edge does.
    test = np.load(folder.releases("test"))
    assert test[:, 0].std(axis=0).min() > 0.3


def test_under_dp_sgd_it_is_warmed_up_too_but_checked_at_full_weight(small_config, tmp_path, monkeypatch):
    dp_sgd = {"dp_sgd": {"noise_multiplier": 1.0}, "warmup_epochs": 1}
    config = small_config(
        images=160, epochs=(2, 1, 0), release=NOISY, defense=REVERSAL, edge=dp_sgd, model={"norm": "group"}
    )
    checked = []
    check = PrivateEdgeTrainer._check_alone
    monkeypatch.setattr(
        PrivateEdgeTrainer,
        "_check_alone",
        lambda self, batch, losses: checked.append(batch.strength) or check(self, batch, losses),
    )
    found, _ = seen(config, tmp_path, monkeypatch, PrivateEdgeTrainer)
    assert checked == [1.0]
    assert {tuple(row) for row in found if row[0] == "joint"} == {("joint", 0, 0.5, 1.0)}
    # The check itself looks at made-up batches of the first epoch, at full weight.
    first = [tuple(row[2:]) for row in found if row[:2] == ["pretrain", 0]]
    assert first.count((0.5, 1.0)) <= 3
    assert first.count((0.0, 0.0)) >= 1


@pytest.mark.parametrize(
    ("epochs", "changes", "resolved"),
    [
        ((9, 0, 1), {"release": NOISY}, 4),
        ((9, 0, 1), {"release": {"mechanism": "laplace", "target_epsilon": 8.0}}, 4),
        ((9, 0, 1), {"defense": REVERSAL}, 4),
        ((9, 0, 1), {"release": {"mechanism": "gaussian", "sigma": 0.0}}, 0),
        ((9, 0, 1), {}, 0),
        ((1, 0, 1), {"release": NOISY, "defense": REVERSAL}, 0),
        ((0, 5, 0), {"release": NOISY, "defense": REVERSAL}, 0),
        ((9, 0, 1), {"release": NOISY, "edge": {"warmup_epochs": 9}}, 9),
        ((9, 0, 1), {"release": NOISY, "edge": {"warmup_epochs": 0}}, 0),
    ],
)
def test_auto_is_half_of_pretraining_where_there_is_something_to_warm_up(
    small_config, epochs, changes, resolved
):
    assert small_config(epochs=epochs, **changes).warmup_epochs == resolved


@pytest.mark.parametrize("wrong", [-1, 3, 1.5, "half", True])
def test_a_warmup_that_cannot_be_is_refused(small_config, wrong):
    with pytest.raises(ConfigError, match="warmup_epochs"):
        small_config(epochs=(2, 1, 1), release=NOISY, edge={"warmup_epochs": wrong})


def test_only_the_edge_knows_of_it_and_what_is_not_warmed_up_keeps_its_hash(small_config):
    several = [
        small_config(epochs=(4, 1, 1), release=NOISY, edge=edge) for edge in ({}, {"warmup_epochs": 1})
    ]
    assert len({config.hash() for config in several}) == 2
    assert len({training_key(config) for config in several}) == 2
    assert len({shared_part(config).hash() for config in several}) == 1
    idle = [small_config(epochs=(4, 1, 1), edge=edge) for edge in ({}, {"warmup_epochs": 0})]
    assert len({config.hash() for config in idle}) == 1
    assert len({training_key(config) for config in idle}) == 1


def test_a_folder_from_before_the_key_goes_on_as_it_began(small_config, tmp_path):
    now = small_config(epochs=(4, 1, 1), release=NOISY, edge={"warmup_epochs": 0})
    text = safe_load(now.to_yaml())
    del text["edge"]["warmup_epochs"]
    folder = RunFolder(tmp_path)
    Sealed(tmp_path).bind(config=now.hash(), data="made up")
    folder.sealed.write(folder.config, safe_dump(text))
    assert saved_config(folder) == now
    assert parse_config(text).warmup_epochs == 2
    assert load_config(folder.config).warmup_epochs == 2
    folder.config.write_text(safe_dump(text | {"seed": 5}))
    with pytest.raises(CheckpointError):
        saved_config(folder)


def test_shares():
    assert [warmup("pretrain", epoch, 0) for epoch in range(2)] == [1.0, 1.0]
    assert [warmup("pretrain", epoch, 2) for epoch in range(3)] == [0.0, 0.5, 1.0]
    assert {warmup(phase, 0, 9) for phase in ("joint", "release", "cloud", "test")} == {1.0}
