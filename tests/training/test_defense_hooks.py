"""What a defense may do beside its loss, and when: outlet, averages, closed forms; and where it may not."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.defenses.base import Defense, defenses, task_loss_per_record
from privhier.defenses.batch import DefenseBatch, DefenseData
from privhier.errors import ConfigError, ContractError
from privhier.models.edge import EdgeSegment
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.private_plan import check_defense
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
PRIVATE: dict[str, Any] = {"edge": {"dp_sgd": {"noise_multiplier": 1.0}}}
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))


class Shift(nn.Module):
    """Identity until it is fitted."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("by", torch.zeros(shape))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.scale * z + self.by


class Witness(Defense):
    """Writes down who was called with what; its numbers are no defense at all."""

    needs = frozenset({"clipped", "images", "persons"})
    finishes = True
    calls: list[str]

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.calls = []
        self.register_buffer("mean", torch.zeros(4))
        self.seen: list[DefenseBatch] = []

    @property
    def has_parameters(self) -> bool:
        return True

    def outlet(self, feature_shape: Any) -> nn.Module:
        return Shift(tuple(feature_shape))

    def attach(self, edge: EdgeSegment) -> None:
        self.calls.append("attach")
        self.head = nn.Linear(4, 1)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        self.calls.append("begin")
        self.data = data

    def loss(self, batch: DefenseBatch) -> torch.Tensor:
        self.calls.append("loss")
        self.seen.append(batch)
        own = self.head(batch.z.detach()).square().mean(1)
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch) + own

    def after_step(self, batch: DefenseBatch) -> None:
        self.calls.append("after_step")
        assert not torch.is_grad_enabled()
        self.mean.lerp_(batch.z.mean(0) + 0.01 * torch.randn(4), 0.1)

    def finish(self, edge: EdgeSegment, data: DefenseData) -> None:
        self.calls.append("finish")
        self.before = data.features()
        edge.outlet.by.copy_(-self.before.mean(0))


@pytest.fixture(autouse=True)
def registered(own_defenses: Any) -> None:
    own_defenses.register("witness")(Witness)


def config_of(epochs: tuple[int, int, int] = (2, 0, 1), **changes: Any) -> RunConfig:
    made: RunConfig = SMALL["small_config"](
        images=160, size=16, epochs=epochs, defense={"name": "witness"}, **changes
    )
    return made


def trainer(config: RunConfig, folder: Path) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    return Trainer(
        config, prepared.data, build_mechanism(config, len(train)), run, device=CPU, keep=train[:20]
    )


def test_hooks_come_in_order_and_see_what_they_asked_for(tmp_path: Path) -> None:
    job = trainer(config_of(), tmp_path)
    witness = job.edge.defense
    assert witness.calls == ["attach", "begin"]
    job.run()
    train = job.data.splits.train
    steps = len(witness.calls[2:-1])
    assert witness.calls == ["attach", "begin", *["loss", "after_step"] * (steps // 2), "finish"]
    given = witness.data
    assert [len(labels) for labels in (*given.task_labels, *given.sensitive_labels)] == [len(train)] * 2
    assert torch.equal(given.persons, job.data.persons[train])
    wanted = job.data.images[train].mean(0, dtype=np.float64) / 127.5 - 1
    assert np.allclose(given.mean_image().numpy(), wanted, atol=1e-5)
    batch = witness.seen[0]
    assert batch.images.shape == (len(batch.z), 3, 16, 16)
    assert -1 <= float(batch.images.min()) < float(batch.images.max()) <= 1
    assert set(batch.persons.tolist()) <= set(given.persons.tolist())
    assert batch.clipped.shape == batch.z.shape
    assert batch.clipped.requires_grad


def test_what_nobody_asked_for_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Witness, "needs", frozenset())
    job = trainer(config_of(), tmp_path)
    job.run()
    batch = job.edge.defense.seen[0]
    assert (batch.clipped, batch.images, batch.persons) == (None, None, None)


def test_a_closed_form_is_fitted_before_anything_is_released_and_goes_along(tmp_path: Path) -> None:
    job = trainer(config_of(), tmp_path)
    job.run()
    witness, edge = job.edge.defense, job.edge.edge
    assert float(edge.outlet.by.abs().max()) > 0.01
    assert edge.outlet.scale.item() != 1  # its parameters were trained with the edge's
    released = load_edge(tmp_path).edge
    assert torch.equal(released.outlet.by, edge.outlet.by)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    x = images.float() / 127.5 - 1
    edge.eval()
    assert torch.allclose(edge.features(x), edge.outlet(edge.inner_features(x)))
    assert torch.allclose(released.features(x), edge.features(x))
    assert not torch.allclose(edge.features(x), edge.inner_features(x))
    assert witness.before.shape == (len(job.data.splits.train), 4)
    assert edge.describe()["parameters"]["outlet"] == 1


def test_a_resumed_run_ends_as_one_that_ran_through(tmp_path: Path) -> None:
    whole = trainer(config_of(), tmp_path / "a")
    whole.run()
    broken = trainer(config_of(), tmp_path / "b")
    save = broken._save

    def stop(done: int) -> None:
        save(done)
        if done == 1:
            raise KeyboardInterrupt

    broken._save = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = trainer(config_of(), tmp_path / "b")
    resumed.run()
    for one, other in ((whole.edge.edge, resumed.edge.edge), (whole.edge.defense, resumed.edge.defense)):
        state = other.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("kind", ["letters", "dimension"])
def test_letters_and_exits_are_found_after_the_closed_form(tmp_path: Path, kind: str) -> None:
    letters, bottleneck = kind == "letters", {"kind": kind, "size": 4}
    bottleneck |= {"letters": 6} if letters else {}
    release = {"mechanism": "randomized_response", "target_epsilon": 6.0} if letters else {}
    config = config_of(model={"bottleneck": bottleneck}, **({"release": release} if letters else {}))
    job = trainer(config, tmp_path)
    exits: list[torch.Tensor] = []
    finish = Witness.finish

    def watched(self: Witness, edge: EdgeSegment, data: DefenseData) -> None:
        assert edge.codebook is None
        finish(self, edge, data)
        exits.append(next(edge.task_exits[0].parameters()).detach().clone())

    job.edge.defense.finish = watched.__get__(job.edge.defense)  # type: ignore[method-assign]
    job.run()
    assert (job.edge.edge.codebook is not None) is letters
    assert not torch.equal(exits[0], next(job.edge.edge.task_exits[0].parameters()))


@pytest.mark.parametrize(
    ("changes", "needs", "match"),
    [
        ({"epochs": (1, 1, 1)}, (), r"schedule: .1 \+ 1 epochs of the edge. - must be pre-training alone"),
        ({}, ("letters",), r"bottleneck.kind: 'dimension' - must be letters with the defense 'witness'"),
        ({}, ("map",), "must keep the map"),
        (
            {"edge": {"dp_sgd": {"noise_multiplier": 1.0}}},
            (),
            "learns from private records outside the one loss",
        ),
    ],
)
def test_a_run_that_cannot_give_it_is_refused(
    changes: dict[str, Any], needs: tuple[str, ...], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Witness, "needs", frozenset(needs))
    with pytest.raises(ConfigError, match=match):
        check_defense(config_of(**changes), Witness())


def test_parameters_made_late_are_refused_under_dp_sgd_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Witness, "finishes", False)
    with pytest.raises(ConfigError, match="trains parameters of its own"):
        check_defense(config_of(**PRIVATE), Witness())


def test_sabotage_parameters_that_nobody_was_told_of_are_found_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Witness, "finishes", False)
    monkeypatch.setattr(Witness, "has_parameters", Defense.has_parameters)
    monkeypatch.setattr(Witness, "outlet", Defense.outlet)
    monkeypatch.setattr(Witness, "register_buffer", lambda self, name, value: setattr(self, name, value))
    config = config_of(**PRIVATE)
    check_defense(config, Witness())  # it looks as if it owned nothing
    with pytest.raises(ConfigError, match="trains parameters of its own"):
        trainer(config, tmp_path)


def test_a_need_that_nobody_knows_is_refused_at_registration() -> None:
    with pytest.raises(ContractError, match="needs must be a frozenset of clipped, images"):
        defenses.register("greedy")(
            type("Greedy", (Witness,), {"needs": frozenset({"truth"}), "__doc__": "x"})
        )
