"""What DP-SGD draws: noise fresh for every parameter, step and epoch; records at the rate that is charged."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.defenses.gradient_reversal import GradientReversal
from privhier.errors import CheckpointError, GuaranteeError
from privhier.privacy.agreement import check_begun
from privhier.privacy.events import StepEvent
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.seeding import torch_stream
from privhier.storage.sealed import Sealed
from privhier.training.begun import Begun
from privhier.training.edge_side import EdgeSide
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
SOURCES = ["seeded", "system"]
MULTIPLIER, NORM, BATCH = 1.5, 1.0, 24


def make_config(
    source: str = "seeded", pretrain: int = 2, joint: int = 1, task: str = "smiling"
) -> RunConfig:
    return small_config(
        images=200,
        size=16,
        epochs=(pretrain, joint, 0),
        batch=BATCH,
        dataset={"task": [task]},
        release={"mechanism": "gaussian", "sigma": 1.0},
        defense={"name": "gradient_reversal"},
        edge={"dp_sgd": {"noise_multiplier": MULTIPLIER, "max_grad_norm": NORM}},
        privacy={"noise_source": source},
    )


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    config = make_config()
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def make_trainer(prepared: Prepared, folder: Path, config: RunConfig | None = None) -> Trainer:
    config, run = config or make_config(), RunFolder(folder)
    folder.mkdir(exist_ok=True)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    return Trainer(
        config, prepared.data, build_mechanism(config, len(train)), run, device=CPU, keep=train[:5]
    )


def private(trainer: Trainer) -> PrivateEdgeTrainer:
    assert isinstance(trainer.edge, PrivateEdgeTrainer)
    return trainer.edge


class Noise:
    """The noise of every step, a tensor for each parameter, in units of its claimed standard deviation."""

    def __init__(self, edge: PrivateEdgeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[list[Tensor]] = []
        add = edge.dp.optimizer.add_noise

        def seen() -> None:
            add()
            self.steps.append(
                [
                    (p.grad - p.summed_grad.view_as(p)).detach().clone() / (MULTIPLIER * NORM)
                    for p in edge.dp.optimizer.params
                ]
            )

        monkeypatch.setattr(edge.dp.optimizer, "add_noise", seen)

    def flat(self) -> list[Tensor]:
        return [torch.cat([part.reshape(-1) for part in step]) for step in self.steps]


@pytest.fixture(params=SOURCES)
def noise(request, prepared, tmp_path, monkeypatch) -> tuple[Noise, Trainer]:
    """The noise of a whole run: two epochs of pre-training, a joint one that ends in a small batch."""
    trainer = make_trainer(prepared, tmp_path, make_config(request.param))
    found = Noise(private(trainer), monkeypatch)
    trainer.run()
    return found, trainer


def correlation(a: Tensor, b: Tensor) -> float:
    """In standard errors of that of independent noise."""
    a, b = a.double(), b.double()
    return float((a * b).sum() / (a.norm() * b.norm()) * len(a) ** 0.5)


def test_every_step_of_every_epoch_has_noise_of_its_own_at_full_scale(noise, prepared):
    found, trainer = noise
    steps = found.flat()
    executed = [event.steps for event in private(trainer).executed]
    assert len(steps) == sum(executed)
    assert len(executed) == 3
    last = len(prepared.data.splits.train) % BATCH
    assert 1 < last < BATCH / 2  # the last step of the joint epoch is a small one
    for step in steps:
        assert float(step.square().mean()) == pytest.approx(1, abs=6 * (2 / len(step)) ** 0.5)
    for number, one in enumerate(steps):
        for other in steps[:number]:
            assert not torch.equal(one, other)
            assert abs(correlation(one, other)) < 6


def test_parameters_of_equal_shape_have_noise_of_their_own(noise):
    found, _ = noise
    step = found.steps[0]
    pairs = [
        (a, b)
        for n, a in enumerate(step)
        for b in step[:n]
        if a.shape == b.shape and not torch.equal(a, a * 0)
    ]
    assert len(pairs) > 3
    assert all(not torch.equal(a, b) for a, b in pairs)
    # Parameters of any shapes: none is the beginning of another, and together they are uncorrelated.
    starts = [part.reshape(-1)[:8] for part in step if part.numel() >= 8]
    assert all(not torch.equal(a, b) for n, a in enumerate(starts) for b in starts[:n])


@pytest.mark.parametrize("source", SOURCES)
def test_an_empty_batch_gets_the_whole_noise_as_well(prepared, tmp_path, monkeypatch, source):
    trainer = make_trainer(prepared, tmp_path, make_config(source))
    edge, nobody = private(trainer), prepared.data.splits.train[:0]
    found = Noise(edge, monkeypatch)
    edge.edge.train()
    edge.step(prepared.data, nobody, SeededNoise(0, "x"), augmentation=torch_stream(0, "x"))
    (step,) = found.flat()
    assert float(step.square().mean()) == pytest.approx(1, abs=6 * (2 / len(step)) ** 0.5)


@pytest.mark.parametrize("source", SOURCES)
def test_records_are_drawn_at_the_rate_that_is_charged(prepared, tmp_path, source):
    trainer = make_trainer(prepared, tmp_path, make_config(source, pretrain=12))
    edge, train = private(trainer), prepared.data.splits.train
    drawn, mean = 0, 0.0
    for epoch in range(12):
        event = edge.event("pretrain", epoch)
        mean += event.steps * event.sample_rate * len(train)
        for batch in edge.batches(train, "pretrain", epoch):
            drawn += len(batch)
            edge.dp.steps += 1
    variance = mean * (1 - BATCH / len(train))
    assert abs(drawn - mean) < 6 * variance**0.5


def test_sabotage_half_the_executed_rate_charged(prepared, tmp_path, monkeypatch):
    trainer = make_trainer(prepared, tmp_path)
    edge = private(trainer)
    whole = edge._event

    def cheap(phase: str, epoch: int, records: int, steps: int) -> StepEvent:
        event = whole(phase, epoch, records, steps)
        return event if phase == "joint" else replace(event, sample_rate=event.sample_rate / 2)

    monkeypatch.setattr(edge, "_event", cheap)
    with pytest.raises(GuaranteeError, match="one probability that was charged"):
        trainer.run()


# Killed and repeated


class StopError(Exception):
    """A kill."""


def killed(prepared: Prepared, folder: Path, source: str, phase: str, epoch: int, after: int = 3) -> None:
    """Train until ``after`` batches of an epoch were given out."""
    trainer = make_trainer(prepared, folder, make_config(source))
    edge = private(trainer)
    whole = edge.batches

    def batches(records: Any, now: str, number: int) -> Iterator[Any]:
        for count, batch in enumerate(whole(records, now, number)):
            if (now, number, count) == (phase, epoch, after):
                raise StopError
            yield batch

    edge.batches = batches  # type: ignore[method-assign]
    with pytest.raises(StopError):
        trainer.run()


def charges(folder: Path) -> list[tuple[str, int]]:
    events = Ledger.load(RunFolder(folder).ledger).events
    return [(event.phase, event.epoch) for event in events if isinstance(event, StepEvent)]


@pytest.mark.parametrize("where", [("pretrain", 1), ("joint", 0)])
def test_a_repeated_epoch_of_system_noise_is_charged_again(prepared, tmp_path, where):
    for _ in range(2):
        killed(prepared, tmp_path, "system", *where)
    trainer = make_trainer(prepared, tmp_path, make_config("system"))
    trainer.run()
    assert charges(tmp_path).count(where) == 3
    assert private(trainer).begun.counts[where] == 3
    once = [key for key in (("pretrain", 0), ("pretrain", 1), ("joint", 0)) if key != where]
    assert [charges(tmp_path).count(key) for key in once] == [1, 1]
    account = trainer.ledger.steps()
    undisturbed = 2 * 4 if where[0] == "joint" else None
    assert sum(s.count for s in account.steps if s.sample_rate == 1) == (3 if undisturbed else 1)


def test_a_repeated_seeded_epoch_is_the_same_and_free(prepared, tmp_path):
    killed(prepared, tmp_path, "seeded", "pretrain", 1)
    trainer = make_trainer(prepared, tmp_path)
    trainer.run()
    assert charges(tmp_path) == [("pretrain", 0), ("pretrain", 1), ("joint", 0)]
    assert private(trainer).begun.counts[("pretrain", 1)] == 2


def test_sabotage_a_repeated_epoch_that_is_not_charged_again(prepared, tmp_path, monkeypatch):
    """As if whoever charges looked up the key, and found it paid."""
    killed(prepared, tmp_path, "system", "pretrain", 1)
    charge = Ledger.charge_steps

    def once(self: Ledger, event: StepEvent) -> bool:
        return event.key not in [e.key for e in self.events if isinstance(e, StepEvent)] and charge(
            self, event
        )

    monkeypatch.setattr(Ledger, "charge_steps", once)
    with pytest.raises(GuaranteeError, match=r"dp_sgd pretrain/1: 2 - times begun, but charged 1"):
        make_trainer(prepared, tmp_path, make_config("system")).run()


def test_a_kill_between_charge_and_first_step_is_one_charge_too_many(prepared, tmp_path, monkeypatch):
    trainer = make_trainer(prepared, tmp_path, make_config("system"))
    monkeypatch.setattr(Begun, "enter", lambda *_: (_ for _ in ()).throw(StopError))
    with pytest.raises(StopError):
        trainer.run()
    monkeypatch.undo()
    assert charges(tmp_path) == [("pretrain", 0)]
    make_trainer(prepared, tmp_path, make_config("system")).run()
    assert charges(tmp_path).count(("pretrain", 0)) == 2


def test_the_diary_survives_and_an_altered_one_is_refused(tmp_path):
    path = tmp_path / "begun.json"
    for _ in range(2):
        Begun(path).enter("joint", 1)
    assert dict(Begun(path).counts) == {("joint", 1): 2}
    whole = path.read_bytes()
    for data in (whole[:-3], whole.replace(b"1", b"2"), b"[]", b""):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="edited or damaged"):
            Begun(path)
    for entry in ([1, 2], {}, None, ["joint", True], "joint"):
        Sealed(tmp_path).write_json(path, [entry])
        with pytest.raises(CheckpointError, match=r"begun\.json.*no epochs that were begun"):
            Begun(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        Begun(path)


def test_more_begun_than_charged_is_refused_and_fewer_is_not():
    ledger = Ledger(None)
    for _ in range(2):
        ledger.charge_steps(StepEvent(10, "joint", 0, 2, "disjoint", 1.0, 1.0, 1.0, "system"))
    check_begun(ledger, {("joint", 0): 1})
    check_begun(ledger, {("joint", 0): 2})
    with pytest.raises(GuaranteeError, match="3 - times begun, but charged 2"):
        check_begun(ledger, {("joint", 0): 3})
    with pytest.raises(GuaranteeError, match="1 - times begun, but charged 0"):
        check_begun(ledger, {("joint", 1): 1})


def test_an_epoch_executed_twice_must_be_charged_twice_unless_its_noise_is_the_same():
    for source in SOURCES:
        event = StepEvent(10, "joint", 0, 2, "disjoint", 1.0, 1.0, 1.0, source)
        ledger = Ledger(None)
        ledger.charge_steps(event)
        ledger.verify_steps([event])
        if source == "seeded":
            ledger.verify_steps([event, event])
            continue
        with pytest.raises(GuaranteeError, match="2 - times executed with fresh noise, but charged 1"):
            ledger.verify_steps([event, event])
        ledger.charge_steps(event)
        ledger.verify_steps([event, event])


def test_charges_of_one_epoch_that_differ_are_refused():
    ledger = Ledger(None)
    cheap = StepEvent(10, "joint", 0, 2, "disjoint", 1.0, 9.0, 1.0, "system")
    event = replace(cheap, noise_multiplier=1.0)
    for charge in (cheap, event):
        ledger.charge_steps(charge)
    with pytest.raises(GuaranteeError, match="was executed, but charged as"):
        ledger.verify_steps([event])


# Losses


@pytest.fixture(scope="module")
def classes() -> Prepared:
    """A task of several classes, so that the three records of the check may all be of their own."""
    config = make_config(task="bin(age,20,40,60)")
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def losses_of(edge: PrivateEdgeTrainer, data: Any, records: Any) -> Tensor:
    with torch.no_grad():
        return edge.losses(data, records, SeededNoise(0, "x"), augmentation=torch_stream(0, "x"))[1]


def test_a_records_loss_is_its_own_whatever_others_are_labeled(prepared, tmp_path):
    data = prepared.data
    records, others = data.splits.train[:12], data.splits.train[12:]
    before = losses_of(private(make_trainer(prepared, tmp_path / "a")), data, records)
    task, sensitive = data.task.clone(), data.sensitive.clone()
    task[others], sensitive[others] = 0, 1
    changed = replace(prepared, data=replace(data, task=task, sensitive=sensitive))
    edge = private(make_trainer(changed, tmp_path / "b"))  # which never met the other labels
    assert torch.equal(before, losses_of(edge, changed.data, records))
    task[records[1:]], sensitive[records[1:]] = 1, 0  # and those of its own batch
    after = losses_of(edge, changed.data, records)
    assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-5)


@pytest.mark.parametrize("column", ["task", "sensitive"])
def test_sabotage_losses_weighted_by_private_class_counts(prepared, tmp_path, monkeypatch, column):
    """Counts of the whole split: a record alone has the loss that it has among others."""
    trainer = make_trainer(prepared, tmp_path)
    look, whole = PrivateEdgeTrainer.batch, GradientReversal.loss

    def looked(self: Any, data: Any, records: Any, *args: Any, **kwargs: Any) -> Any:
        labels = getattr(data, column)[data.splits.train, 0]
        self.defense.counts = torch.bincount(labels, minlength=2).float()
        return look(self, data, records, *args, **kwargs)

    def weighted(self: Any, batch: Any) -> Tensor:
        weights = self.counts.sum() / self.counts
        return whole(self, batch) * weights[getattr(batch, f"{column}_labels")[0]]

    monkeypatch.setattr(PrivateEdgeTrainer, "batch", looked)
    monkeypatch.setattr(GradientReversal, "loss", weighted)
    with pytest.raises(GuaranteeError, match="must not depend on the labels of other records"):
        trainer.run()


def test_sabotage_losses_weighted_by_the_class_counts_of_the_batch(classes, tmp_path, monkeypatch):
    trainer = make_trainer(classes, tmp_path, make_config(task="bin(age,20,40,60)"))
    whole = GradientReversal.loss

    def weighted(self: Any, batch: Any) -> Tensor:
        labels = batch.task_labels[0]
        counts = torch.bincount(labels, minlength=4).clamp_min(1)
        return whole(self, batch) * (len(labels) / counts)[labels]

    monkeypatch.setattr(GradientReversal, "loss", weighted)
    with pytest.raises(GuaranteeError, match="must not depend on the other records"):
        trainer.run()


def test_the_diary_of_a_run_lies_beside_its_ledger(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, make_config(pretrain=1))
    trainer.run()
    assert json.loads(RunFolder(tmp_path).begun.read_text()) == [["pretrain", 0], ["joint", 0]]
    assert isinstance(trainer.side, EdgeSide)
    assert np.sum(list(private(trainer).begun.counts.values())) == 2
