"""What defenses put between bottleneck and clip: trained by the real trainer, saved, resumed, deployed."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.defenses.base import build_defense, defenses
from privhier.models.inputs import normalize
from privhier.models.matched_filter import MatchedFilter
from privhier.privacy.noise import SeededNoise
from privhier.seeding import torch_stream
from privhier.training import trainer as room
from privhier.training.deploy import load_edge
from privhier.training.edge import EdgeTrainer
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import build_model

second = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["second"]
CPU = torch.device("cpu")
CHANNELS = "model.bottleneck={kind: channels, size: 4}"
ALONE = "schedule.joint_epochs=0"
RUNS: dict[str, tuple[str, ...]] = {
    "disco": (CHANNELS, "defense.options={weight: 1.0, keep: 0.5}"),
    "erase": (ALONE,),
    "gain": (CHANNELS, "defense.options={weight: 0.3}"),
    "reconstruction": ("defense.options={weight: 1.0, adversary_steps: 1}",),
}
"""What a run of each needs beside its name."""
TRAINED = ["disco", "gain"]
"""Those whose outlet has parameters."""


@pytest.fixture
def configured(repository: Path) -> Callable[..., RunConfig]:
    def make(name: str, *more: str) -> RunConfig:
        # Without noise, so that a release can be told from what the clip was given.
        plain = ("defense.options={}", f"defense.name={name}", "release.mechanism=none", "release.sigma=null")
        return second(repository, *plain, *RUNS[name], *more)

    return make


def session_of(config: RunConfig, out: Path) -> job.Session:
    """A session on that folder, new or resumed."""
    return job.open_session(config, out, resume=out.exists())


def has_trained_outlet(name: str) -> bool:
    shape = (4, 6, 6) if "map" in defenses.get(name).needs else (4,)
    outlet = defenses.get(name)().outlet(shape)
    return outlet is not None and any(True for _ in outlet.parameters())


def outlet_moves(config: RunConfig, *, sabotage: bool = False) -> bool:
    """Whether one step of the real trainer moves every parameter of the outlet by its gradient."""
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    edge, _ = build_model(config, data)
    records = data.splits.train[:32]
    own = (config, edge, build_defense(config.defense), build_mechanism(config, len(data.splits.train)))
    trainer = EdgeTrainer(*own, total_steps=1, device=CPU)
    parameters = list(edge.outlet.parameters())
    if sabotage:  # as published: the noise's loss is there, and its gradient is zeroed before the step
        for parameter in parameters:
            parameter.register_hook(torch.zeros_like)
    before = [parameter.detach().clone() for parameter in parameters]
    trainer.step(data, records, SeededNoise(0, "moves"), augmentation=torch_stream(0, "moves"))
    return all(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def test_every_defense_with_a_trained_outlet_is_looked_at() -> None:
    assert [name for name in defenses.names() if has_trained_outlet(name)] == TRAINED


@pytest.mark.parametrize("name", TRAINED)
def test_an_outlet_moves_in_a_step_of_the_real_trainer(configured: Any, name: str) -> None:
    config = configured(name, "training.edge.weight_decay=0")
    assert outlet_moves(config)
    assert not outlet_moves(config, sabotage=True)
    assert build_defense(config.defense).has_parameters


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_resumes_and_deploys_with_its_outlet(
    configured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = configured(name)
    whole = job.train(session_of(config, tmp_path / "whole"))
    for phase in ("joint", "release") if config.schedule.joint_epochs else ("release",):
        with monkeypatch.context() as patch:
            stop_before(patch, phase)
            with pytest.raises(KeyboardInterrupt):
                job.train(session_of(config, tmp_path / "resumed"))
    resumed = job.train(session_of(config, tmp_path / "resumed"))
    state = whole.edge.state_dict()
    there = build_defense(config.defense).outlet(whole.edge.feature_shape) is not None
    assert any(key.startswith("outlet.") for key in state) is there
    for key, value in resumed.edge.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert np.array_equal(whole.test_releases, resumed.test_releases)
    tail = whole.tail.state_dict()
    assert any(isinstance(module, MatchedFilter) for module in whole.tail.modules()) is (name == "gain")
    for key, value in resumed.tail.state_dict().items():
        assert torch.equal(value, tail[key]), key

    session = session_of(config, tmp_path / "whole")
    data, deployed = session.prepared.data, load_edge(tmp_path / "whole")
    test = data.splits.test
    inner = deployed.edge.inner_features(normalize(data.pixels(test)))
    mapped = deployed.edge.outlet(inner)
    assert torch.allclose(
        deployed(data.pixels(test)).values, deployed.mechanism.clip_features(mapped), atol=1e-6
    )
    assert np.allclose(deployed(data.pixels(test)).values.numpy(), whole.test_releases[:, -1], atol=1e-5)
    assert torch.allclose(mapped, inner, atol=1e-4) is not there


def stop_before(patch: pytest.MonkeyPatch, phase: str) -> None:
    """Let the next training be ended on its way into a phase, after the checkpoint before it."""
    original = room.Trainer._save

    def save(trainer: room.Trainer, done: int) -> None:
        original(trainer, done)
        phases = room.phases_of(trainer.config.schedule)
        if phases[done : done + 1] and phases[done][0] == phase:
            raise KeyboardInterrupt

    patch.setattr(room.Trainer, "_save", save)
