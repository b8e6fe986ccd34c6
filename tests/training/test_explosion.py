"""A training that leaves the finite numbers ends typed, with the key to lower, on both sides."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.attacks.parts.fitting import FitPlan, fit
from privhier.config import RunConfig
from privhier.errors import TrainingError
from privhier.training.checkpoint import load_checkpoint
from privhier.training.finite import logits_text, weights_text
from privhier.training.folder import RunFolder

EXPLODES = {"name": "sgd", "lr": 1e30, "momentum": 0.0}
DP_SGD = {"dp_sgd": {"noise_multiplier": 1.0}}
REVERSAL = {"name": "gradient_reversal", "options": {"adversary_steps": 1}}


def error_of(config: RunConfig, folder: Path, link) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        link.in_process(config, folder)
    assert caught.value.exit_code == 2
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "training.json").exists()
    return caught.value


@pytest.mark.parametrize(
    ("side", "schedule", "where", "more"),
    [
        ("cloud", (0, 1, 0), "joint epoch 1", {}),
        ("cloud", (0, 0, 1), "cloud epoch 1", {}),
        ("edge", (1, 1, 0), "pretrain epoch 1", {}),
        ("edge", (0, 1, 0), "joint epoch 1", {}),
        ("edge", (1, 0, 1), "pretrain epoch 1", {"edge": DP_SGD}),
        ("edge", (0, 1, 0), "joint epoch 1", {"edge": DP_SGD}),
        ("edge", (0, 1, 0), "joint epoch 1", {"defense": REVERSAL}),
        ("edge", (0, 1, 0), "joint epoch 1", {"release": {"mechanism": "none"}}),
        ("cloud", (0, 1, 0), "joint epoch 1", {"privacy": {"label_epsilon": 2.0}}),
    ],
)
def test_it_names_phase_epoch_value_and_key(tmp_path, link, side, schedule, where, more):
    training = {"batch_size": 24, side: EXPLODES}
    error = error_of(link.make_config(*schedule, training=training, **more), tmp_path, link)
    assert error.key == f"training.{side}.lr"
    assert error.value == 1e30
    assert f"in {where} of run link" in error.rule
    assert "nan" in error.rule or "inf" in error.rule or "not finite" in error.rule
    assert f"Lower training.{side}.lr" in error.remedy


def test_adam_at_a_hundred_million(tmp_path, link):
    for side in ("cloud", "edge"):
        config = link.make_config(1, 1, 1, training={"batch_size": 24, side: {"lr": 1e8}})
        assert error_of(config, tmp_path / side, link).key == f"training.{side}.lr"


def test_the_checkpoint_of_the_last_good_epoch_stays(tmp_path, link, monkeypatch):
    from privhier.training import cloud

    rate = cloud.learning_rate

    def rising(config, step: int, total: int) -> float:
        return rate(config, step, total) * (1e30 if step > 7 else 1)

    monkeypatch.setattr(cloud, "learning_rate", rising)
    config = link.make_config(1, 3, 0, training={"batch_size": 24, "cloud": {"name": "sgd", "lr": 0.01}})
    error = error_of(config, tmp_path, link)
    assert "in joint epoch 2 of run link" in error.rule
    state = load_checkpoint(RunFolder(tmp_path), config_hash=config.hash())
    assert state is not None
    assert state["done"] == 2  # the edge alone, and the first joint epoch
    assert weights_text([]) is None
    assert all(bool(value.isfinite().all()) for value in state["tail"].values())
    monkeypatch.undo()
    shutil.copytree(tmp_path, tmp_path.with_name("other"))
    assert link.in_process(config, tmp_path.with_name("other")).history[-1]["epoch"] == 2


def test_an_edge_of_its_own_ends_typed(tmp_path, link):
    config = link.make_config(0, 1, 0, training={"batch_size": 24, "edge": EXPLODES})
    job = link.edge_at(config, tmp_path)
    uplink = link.uplink_of(job, 9)  # whether a cloud is there makes no difference
    try:
        with pytest.raises(TrainingError, match=r"training\.edge\.lr: 1e\+30 .* joint epoch 1 of run link"):
            job.run(uplink)
    finally:
        uplink.abandon()
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("schedule", [(0, 1, 0), (0, 0, 2)])
def test_a_cloud_of_its_own_ends_typed(tmp_path, link, schedule):
    config = link.make_config(*schedule, training={"batch_size": 24, "cloud": EXPLODES})
    with ExitStack() as stack:
        own = [(link.shared_part(config), tmp_path / "cloud")]
        many = link.Capacity(queue=1000)
        settings = {"credentials": None, "device": link.CPU, "capacity": many, "stack": stack}
        cloud = link.open_cloud(own, "127.0.0.1:0", **settings)
        cloud.server.start()
        try:
            job = link.edge_at(config, tmp_path / "edge")
            job.run(link.uplink_of(job, cloud.server.port))  # the edge has nothing to do with it
            with pytest.raises(TrainingError, match=r"training\.cloud\.lr: 1e\+30 .* epoch 1 of run link"):
                cloud.jobs[0].run()
        finally:
            cloud.server.stop()
            cloud.jobs[0].close()
    assert not (tmp_path / "cloud" / "checkpoint.pt").exists()
    assert not (tmp_path / "cloud" / "tail.safetensors").exists()


def test_what_is_not_finite_is_found():
    module = torch.nn.BatchNorm1d(2)
    assert weights_text([module]) is None
    module.running_var[1] = torch.inf
    assert weights_text([module]) == "the weights running_var hold inf"
    assert logits_text([torch.zeros(2, 2)]) is None
    assert logits_text([torch.zeros(1), torch.tensor([1.0, -torch.inf])]) == "the logits are -inf"


def fitted(rate: float, epochs: int, after: int = 0) -> tuple[float, int]:
    """An attacker's training whose rate is harmless in the first ``after`` epochs."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Linear(3, 2)
    x, y = torch.randn(64, 3, generator=generator), torch.randint(2, (64,), generator=generator)

    def loss(epoch: int, positions: torch.Tensor) -> torch.Tensor:
        scale = rate if epoch >= after else 1.0
        return torch.nn.functional.cross_entropy(network(x[positions]) * scale, y[positions])

    def score() -> float:
        answer = network(x).detach().numpy()
        assert np.isfinite(answer).all()
        return float(-abs(answer).mean())

    plan = FitPlan(epochs, 16, 1e-3, 0.0, epochs)
    return fit(network, plan, records=64, loss=loss, score=score, generator=generator)


def test_an_attacker_that_never_trained_is_no_attacker():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.raises(TrainingError, match=r"learning_rate: 0\.001 .* exploded in its epoch 1"):
            fitted(1e39, 3)
        assert fitted(1e39, 5, after=2)[1] in (1, 2)  # what was learned before counts
        assert fitted(1.0, 2)[1] >= 1
