"""One record less moves a DP-SGD step by that record's clipped gradient, and by nothing else."""

from __future__ import annotations

import os
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import GuaranteeError
from privhier.models.network import build_network
from privhier.privacy.dpsgd import mend
from privhier.privacy.noise import RecordNoise
from privhier.training.draws import EdgeDraws
from privhier.training.edge_side import EdgeSide
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
N, BATCH, CLIP = 20, 19, 0.05
GONE = 3
"""Which of the records in the step is taken out: many come after it."""


def make_config(pretrain: int = 1, joint: int = 0, **changes) -> RunConfig:
    chosen = {
        "release": {"mechanism": "gaussian", "sigma": 1.0},
        "defense": {"name": "gradient_reversal"},
        "edge": {"dp_sgd": {"noise_multiplier": 1.5, "physical_batch_size": 32}},
        **changes,
    }
    return small_config(images=400, epochs=(pretrain, joint, 1 - joint), batch=48, **chosen)


def demonstration(**changes) -> RunConfig:
    """Twenty records, rate 19/20, multiplier 1, one step; a clip that every gradient reaches."""
    chosen = {"noise_multiplier": 1.0, "max_grad_norm": CLIP, "physical_batch_size": 7}
    training = {"batch_size": BATCH, "augment": {"flip": True, "shift": 3}}
    return make_config(edge={"dp_sgd": chosen}, training=training, **changes)


def prepared_for(config: RunConfig) -> Prepared:
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def make_trainer(config: RunConfig, folder: Path) -> Trainer:
    data, run = prepared_for(config).data, RunFolder(folder)
    run.root.mkdir(exist_ok=True)
    occupy(run, config, "0" * 64)
    mechanism = build_mechanism(config, len(data.splits.train))
    return Trainer(config, data, mechanism, run, device=CPU, keep=data.splits.train[:20])


def private(trainer: Trainer) -> PrivateEdgeTrainer:
    assert isinstance(trainer.edge, PrivateEdgeTrainer)
    return trainer.edge


@pytest.fixture(scope="module")
def prepared():
    return prepared_for(demonstration())


def step_sum(config: RunConfig, prepared, folder, without: int | None) -> torch.Tensor:
    """Sum of the clipped gradients of the run's first step, by the run's own loop.

    Everything of the run is that of all ``N`` records (rate, steps and the learning rate are public);
    record number ``without`` is then not there.
    """
    train = prepared.data.splits.train[:N]
    present = train if without is None else train[train != train[without]]
    data = replace(prepared.data, splits=replace(prepared.data.splits, train=train))
    run = RunFolder(folder)
    run.root.mkdir(parents=True)
    occupy(run, config, "0" * 64)
    edge, _ = build_network(
        config.model, image_size=24, task_classes=data.task_classes,
        sensitive_classes=data.sensitive_classes, seed=config.seed,
    )  # fmt: skip
    side = EdgeSide(config, data, build_mechanism(config, N), run, edge, device=CPU)
    side.data = replace(data, splits=replace(data.splits, train=present))
    sums: list[torch.Tensor] = []
    dp = side.trainer.dp
    dp.optimizer.add_noise = lambda: (
        sums.append(torch.cat([p.summed_grad.reshape(-1).clone() for p in dp.optimizer.params]))
        or [setattr(p, "grad", p.summed_grad.view_as(p)) for p in dp.optimizer.params]
    )
    side._epoch("pretrain", 0, uplink=None)
    assert len(sums) == 1
    return sums[0]


def moved(config: RunConfig, prepared, folder) -> float:
    """How far one record less moves the step, in clip norms: the worst of three records."""
    whole = step_sum(config, prepared, folder / "whole", None)
    return max(
        float((whole - step_sum(config, prepared, folder / str(gone), gone)).norm()) / CLIP
        for gone in (0, GONE, 8)
    )


@pytest.fixture
def entropy_by_record(monkeypatch):
    """The operating system's entropy held equal for the other records, whoever is there."""
    monkeypatch.setattr(
        EdgeDraws,
        "_source",
        lambda self, seed, *stream, records: (
            RecordNoise(99, *stream, records=records)
            if self._secret
            else pytest.fail("a public stream under system noise")
        ),
    )
    monkeypatch.setattr(
        "privhier.training.private_edge._secret_batches",
        lambda n, rate, steps: iter([list(range(n))] * steps),
    )


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.usefixtures("entropy_by_record")
def test_under_system_one_record_less_moves_the_step_by_at_most_the_norm_bound(tmp_path, prepared, mode):
    config = demonstration(privacy={"noise_source": "system"})
    chosen = config.edge.dp_sgd.model_copy(update={"mode": mode})
    config = config.model_copy(update={"edge": config.edge.model_copy(update={"dp_sgd": chosen})})
    assert 0.5 < moved(config, prepared, tmp_path) <= 1 + 1e-4


def test_under_seeded_one_record_less_moves_the_step_by_at_most_the_norm_bound(tmp_path, prepared):
    assert 0.5 < moved(demonstration(), prepared, tmp_path) <= 1 + 1e-4


class ByPosition(RecordNoise):
    """What was there before: a public stream, drawn by position in the batch."""

    def __init__(self, seed, *stream, records) -> None:
        super().__init__(seed, *stream, records=np.arange(len(records)))


@pytest.mark.parametrize("purpose", ["augment", "edge", "poisson"])
def test_sabotage_draws_by_position_are_caught(tmp_path, prepared, monkeypatch, purpose):
    """Each of the three alone moves the step by more than the norm bound."""
    whole = EdgeDraws._source

    def source(self, seed, *stream, records):
        if stream[0] == purpose:
            return ByPosition(seed, *stream, records=records)
        return whole(self, seed, *stream, records=records)

    monkeypatch.setattr(EdgeDraws, "_source", source)
    assert moved(demonstration(), prepared, tmp_path) > 1.1


def test_under_system_every_draw_of_training_is_the_operating_systems(tmp_path, monkeypatch):
    """No public stream is opened, and every row is paid for in entropy."""
    used = {"bytes": 0}
    read = os.urandom

    def counted(count: int) -> bytes:
        used["bytes"] += count
        return read(count)

    monkeypatch.setattr("privhier.privacy.noise.os.urandom", counted)
    monkeypatch.setattr(
        RecordNoise, "__init__", lambda *args, **kwargs: pytest.fail("a public stream under system noise")
    )
    trainer = make_trainer(make_config(privacy={"noise_source": "system"}), tmp_path)
    side, n = trainer.side, len(trainer.data.splits.train)
    before = used["bytes"]
    side.pretrain(0)
    parameters = sum(p.numel() for p in side.edge.parameters())
    rows, steps = int(private(trainer).taken.sum()), private(trainer)._poisson_steps
    # Sampling; augmentation and the exits' noise, 3 + 4 values a record; the steps' own noise; validation.
    val = 4 * len(trainer.data.splits.val)
    assert used["bytes"] - before >= 8 * (n * steps + 7 * rows + parameters * steps + val)
    make_trainer(make_config(0, 1, privacy={"noise_source": "system"}), tmp_path / "joint").run()


def test_the_edge_draws_alike_again_under_seeded_and_never_under_system():
    records = np.arange(6)
    for source, alike in (("seeded", True), ("system", False)):
        config = make_config(privacy={"noise_source": source})
        for kind in ("augmentation", "noise", "sampling"):
            a, b = (getattr(EdgeDraws(config), kind)("pretrain", 0, 1, records) for _ in range(2))
            assert torch.equal(a.uniform((6, 3)), b.uniform((6, 3))) is alike
        assert (EdgeDraws(config).layers_seed() == EdgeDraws(config).layers_seed()) is alike


def test_a_record_draws_anew_in_every_step_epoch_and_phase():
    draws, records = EdgeDraws(make_config()), np.arange(3)
    seen = [
        draws.noise(phase, epoch, turn, records).uniform((3, 2))
        for phase in ("pretrain", "joint")
        for epoch in (0, 1)
        for turn in (0, 1)
    ]
    assert len(torch.unique(torch.stack(seen))) == 8 * 6


def test_the_step_a_record_is_met_in_counts_logical_steps(tmp_path):
    """Physical batches are a matter of who else is there."""
    trainer = private(make_trainer(make_config(), tmp_path))
    data = prepared_for(make_config()).data
    turns = []
    for records in trainer.batches(data.splits.train, "pretrain", 0):
        turns.append(trainer.turn("pretrain"))
        noise = trainer._draws.noise("pretrain", 0, turns[-1], records)
        trainer.step(data, records, noise, augmentation=noise)
    assert max(turns) == trainer._poisson_steps - 1
    assert len(turns) > len(set(turns))
    assert trainer.turn("joint") == 0


def test_dropout_on_a_private_edge_is_switched_off_with_a_message():
    class Edge(nn.Sequential):
        pass

    edge = Edge(nn.Linear(4, 4), nn.Dropout(0.3), nn.Dropout2d(0.2), nn.Dropout(0.0))
    mended, changes = mend(edge)
    assert changes == ["1: Dropout of 0.3 switched off", "2: Dropout2d of 0.2 switched off"]
    x = torch.randn(5, 4)
    assert torch.equal(mended.train()[1](x), x)


def test_sabotage_a_layer_that_draws_by_itself_is_caught(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    loss = trainer.edge.defense.loss

    def drawing(batch):
        return loss(batch) * (1 + 0 * torch.rand(()))

    trainer.edge.defense.loss = drawing
    with pytest.raises(GuaranteeError, match="draws random numbers of its own"):
        trainer.run()
