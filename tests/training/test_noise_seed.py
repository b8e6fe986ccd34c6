"""``privacy.noise_seed``: everything private is drawn from it, nothing public is."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.datasets.load import load_dataset
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.seeding import torch_stream
from privhier.training.clip import settle_clip
from privhier.training.folder import RunFolder
from privhier.training.labels import labels_to_send
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.release import Releaser
from privhier.training.trained import build_model
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
DP_SGD = {"noise_multiplier": 1.5, "physical_batch_size": 64}


def make_config(noise_seed: int | None = None, seed: int = 0, **changes: Any) -> RunConfig:
    chosen = {
        "release": {"mechanism": "gaussian", "sigma": 1.0},
        "privacy": {"noise_seed": noise_seed, "label_epsilon": 0.5},
        **changes,
    }
    return small_config(images=400, epochs=(1, 1, 0), batch=48, seed=seed, **chosen)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    config = make_config()
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def test_the_cloud_cannot_tell_noise_seeds_apart_by_its_own_configuration():
    parts = [shared_part(make_config(noise_seed)) for noise_seed in (None, 0, 1, 2)]
    assert len({part.hash() for part in parts}) == 1


def test_releases_have_other_noise(prepared: Prepared, tmp_path: Path):
    features = torch.zeros(5, 4)

    def released(config: RunConfig) -> torch.Tensor:
        mechanism = build_mechanism(config, len(prepared.data.splits.train))
        releaser = Releaser(config, mechanism, Ledger(tmp_path / "ledger.jsonl"), run_id="t")
        return mechanism.sanitize(features, releaser.noise("train", "joint", 0, 0)).values

    assert torch.equal(released(make_config()), released(make_config(noise_seed=0)))
    assert torch.equal(released(make_config(noise_seed=7)), released(make_config(noise_seed=7, seed=5)))
    assert not torch.equal(released(make_config()), released(make_config(noise_seed=7)))


def test_labels_are_randomized_otherwise(prepared: Prepared, tmp_path: Path):
    def sent(name: str, config: RunConfig) -> torch.Tensor:
        folder = RunFolder(tmp_path / name)
        folder.root.mkdir()
        return labels_to_send(config, prepared.data, folder, Ledger(folder.ledger))

    plain, own = sent("plain", make_config()), sent("own", make_config(noise_seed=7))
    assert torch.equal(own, sent("again", make_config(noise_seed=7)))
    assert not torch.equal(plain, own)


def test_a_clip_bound_is_drawn_otherwise(prepared: Prepared, tmp_path: Path):
    clip = {"quantile": 0.5, "epsilon": 0.5, "lowest": 0.01, "highest": 100.0}
    release = {"mechanism": "gaussian", "clip": clip, "target_epsilon": 8.0}

    def drawn(name: str, noise_seed: int | None) -> float:
        config, folder = make_config(noise_seed, release=release), RunFolder(tmp_path / name)
        folder.root.mkdir()
        edge, _ = build_model(config, prepared.data)
        mechanism = build_mechanism(config, len(prepared.data.splits.train))
        ledger = Ledger(folder.ledger)
        return settle_clip(config, prepared.data, edge, mechanism, folder, ledger, device=CPU).clip

    assert drawn("a", 7) == drawn("b", 7)
    assert drawn("c", None) != drawn("d", 7)


def test_dp_sgd_samples_and_noises_otherwise_and_shuffles_alike(prepared: Prepared, tmp_path: Path):
    train = prepared.data.splits.train

    def look(name: str, noise_seed: int | None, phase: str) -> tuple[list[int], int]:
        """The first batch, and the seed of its step's noise."""
        config, folder = make_config(noise_seed, edge={"dp_sgd": DP_SGD}), RunFolder(tmp_path / name)
        folder.root.mkdir()
        occupy(folder, config, "0" * 64)
        mechanism = build_mechanism(config, len(train))
        edge = Trainer(config, prepared.data, mechanism, folder, device=CPU, keep=train[:5]).edge
        assert isinstance(edge, PrivateEdgeTrainer)
        first = next(edge.batches(train, phase, 0))
        noise = SeededNoise(config.seed, "edge", phase, 0, 0)
        with patch.object(edge.dp, "descend", wraps=edge.dp.descend) as descend:
            edge.step(prepared.data, first, noise, augmentation=torch_stream(0, "augment"))
        return first.tolist(), descend.call_args.args[1].initial_seed()

    plain, own, again = (look(n, s, "pretrain") for n, s in (("a", None), ("b", 7), ("c", 7)))
    assert own == again
    assert plain[0] != own[0]
    assert plain[1] != own[1]
    plain, own = (look(n, s, "joint") for n, s in (("d", None), ("e", 7)))
    assert plain[0] == own[0]
    assert plain[1] != own[1]
