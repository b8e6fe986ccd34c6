"""DP-SGD on the edge: what it executes is what was charged, and what would break it is caught."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from privhier.config import RunConfig, parse_config
from privhier.datasets.load import load_dataset
from privhier.defenses.base import Defense, DefenseBatch, task_loss_per_record
from privhier.defenses.gradient_reversal import GradientReversal
from privhier.errors import ConfigError, GuaranteeError
from privhier.models.network import build_network
from privhier.privacy.dpsgd import DpSgd, mend
from privhier.privacy.events import StepEvent
from privhier.privacy.guarantees import CURIOUS_CLOUD
from privhier.privacy.ledger import Ledger
from privhier.seeding import torch_stream
from privhier.training.draws import EdgeDraws
from privhier.training.folder import RunFolder
from privhier.training.labels import labels_to_send
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer, check_participation
from privhier.training.private_plan import check_private
from privhier.training.trainer import Trainer
from privhier.uplink.codec import decode
from privhier.uplink.local import LocalUplink

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
DP_SGD = {"noise_multiplier": 1.5, "physical_batch_size": 32}


def make_config(pretrain=1, joint=1, cloud=0, **changes) -> RunConfig:
    data = {
        "release": {"mechanism": "gaussian", "sigma": 1.0},
        "defense": {"name": "gradient_reversal"},
        "edge": {"dp_sgd": DP_SGD},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        data[section] = {**data.get(section, {}), name: value} if name else value
    return small_config(images=400, epochs=(pretrain, joint, cloud), batch=48, **data)


def prepared_for(config: RunConfig) -> Prepared:
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def make_trainer(config: RunConfig, folder: Path, prepared: Prepared | None = None) -> Trainer:
    prepared = prepared or prepared_for(config)
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    mechanism = build_mechanism(config, len(train))
    return Trainer(config, prepared.data, mechanism, run, device=CPU, keep=train[:20])


def private(trainer: Trainer) -> PrivateEdgeTrainer:
    assert isinstance(trainer.edge, PrivateEdgeTrainer)
    return trainer.edge


@pytest.mark.parametrize("defense", ["none", "gradient_reversal", "max_entropy", "vib"])
def test_what_was_executed_is_what_was_charged(tmp_path, defense):
    config = make_config(2, 2, defense={"name": defense})
    trainer = make_trainer(config, tmp_path)
    before = {name: value.clone() for name, value in trainer.edge.edge.state_dict().items()}
    trained = trainer.run()
    charged = [event for event in trainer.ledger.events if isinstance(event, StepEvent)]
    assert charged == private(trainer).executed
    assert [event.sampling for event in charged] == ["poisson"] * 2 + ["disjoint"] * 2
    assert [event.sample_rate for event in charged] == [48 / 200] * 2 + [1.0] * 2
    moved = trained.edge.state_dict()
    assert all(not torch.equal(value, moved[name]) for name, value in before.items())
    rows = {row.name: row for row in trainer.ledger.guarantees(delta=1e-5)}
    cloud = rows[CURIOUS_CLOUD]
    own, edge = rows["own releases of one record"], "training records through the edge's weights"
    assert cloud.epsilon > max(own.epsilon, rows[f"{edge}, replace-one"].epsilon)
    assert rows[f"{edge}, add-remove"].epsilon < rows[f"{edge}, replace-one"].epsilon
    assert "task labels stay and count as public" in cloud.adjacency


@pytest.mark.parametrize(("mode", "physical"), [("hooks", 20), ("ghost", 300), ("ghost", 20)])
def test_modes_and_physical_batches_change_nothing(tmp_path, mode, physical):
    """Without noise and augmentation, ghost clipping and split batches take the steps of whole hooks."""
    config = make_config(
        1, 0, 1, release={"mechanism": "none"}, training__edge={"name": "sgd", "lr": 0.5},
        training__augment={"flip": False, "shift": 0},
    )  # fmt: skip

    def trained(folder: str, **dp):
        dp = {"noise_multiplier": 1e-6, "max_grad_norm": 0.1, **dp}
        chosen = parse_config(config.model_dump() | {"edge": {"dp_sgd": dp}})
        return make_trainer(chosen, tmp_path / folder).run().edge.state_dict()

    whole = trained("a", mode="hooks", physical_batch_size=300)
    for name, value in trained("b", mode=mode, physical_batch_size=physical).items():
        assert torch.allclose(value, whole[name], atol=1e-5), name


def test_resume_goes_on_with_the_same_numbers_and_history(tmp_path):
    config = make_config(2, 1, privacy={"label_epsilon": 1.0})
    whole = make_trainer(config, tmp_path / "a").run()
    first = make_trainer(config, tmp_path / "b")

    class StopError(Exception):
        pass

    def stop(phase, epoch, metrics):
        if (phase, epoch) == ("joint", 0):
            raise StopError

    first.on_epoch = stop
    with pytest.raises(StopError):
        first.run()
    second = make_trainer(config, tmp_path / "b")
    again = second.run()
    assert len(private(second).executed) == 3
    for a, b in ((whole.edge, again.edge), (whole.tail, again.tail)):
        assert all(
            torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        )
    assert Ledger.load(tmp_path / "a/ledger.jsonl").events == Ledger.load(tmp_path / "b/ledger.jsonl").events


def test_an_empty_poisson_batch_is_a_step_of_noise(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    edge, data = private(trainer), trainer.data
    edge.edge.train()
    before = [parameter.detach().clone() for parameter in edge.edge.parameters()]
    augmentation = torch_stream(0, "x")
    edge.step(
        data, data.splits.train[:0], trainer.releaser.noise("train", "p", 0, 0), augmentation=augmentation
    )
    after = list(edge.edge.parameters())
    assert edge.dp.steps == 1
    assert all(bool(torch.isfinite(p).all()) for p in after)
    assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_batchnorm_is_mended_with_a_message(tmp_path):
    config = make_config(model__norm="batch")
    prepared = prepared_for(config)
    edge, _ = build_network(
        config.model,
        image_size=24,
        task_classes=prepared.data.task_classes,
        sensitive_classes=prepared.data.sensitive_classes,
        seed=0,
    )
    _, changes = mend(edge)
    assert changes
    assert all("BatchNorm2d became GroupNorm" in change for change in changes)
    trained = make_trainer(config, tmp_path, prepared).run()
    assert not [m for m in trained.edge.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert trained.edge.describe()["mended"] == changes


# Refusals


def test_extra_adversary_steps_are_refused(tmp_path):
    config = make_config(defense={"name": "gradient_reversal", "options": {"adversary_steps": 1}})
    with pytest.raises(ConfigError, match="outside the one loss"):
        make_trainer(config, tmp_path)


def test_bfloat16_stays_in_the_trunk_and_the_bound_holds_exactly(tmp_path, monkeypatch):
    """On a CPU the very code of CUDA: ``pick_device`` alone keeps bfloat16 off those that have none."""
    config = make_config(
        runtime={"precision": "bfloat16", "threads": 1}, edge={"dp_sgd": DP_SGD | {"max_grad_norm": 0.01}}
    )
    trainer = make_trainer(config, tmp_path)
    edge, seen, sums = private(trainer), [], []
    clip = DPOptimizer.clip_and_accumulate

    def watched(self: DPOptimizer) -> None:
        seen.extend(sample.dtype for sample in self.grad_samples)
        clip(self)
        sums.append(float(torch.cat([p.summed_grad.flatten() for p in self.params]).double().norm()))

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", watched)
    inside = []
    convolution = next(m for m in edge.edge.trunk.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda _, inputs, output: inside.append(output.dtype))
    draws, train = EdgeDraws(config), trainer.data.splits.train
    for turn in range(6):
        records = train[turn : turn + 1]
        noise, moved = (
            draws.noise("pretrain", 0, turn, records),
            draws.augmentation("pretrain", 0, turn, records),
        )
        release, loss = edge.step(trainer.data, records, noise, augmentation=moved)
        assert release.values.dtype == loss.dtype == torch.float32
    assert torch.bfloat16 in inside
    assert set(seen) == {torch.float32}
    assert len(sums) == 6
    assert 0.0099 < max(sums) <= 0.01 * (1 + 1e-6)
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in edge.edge.parameters())
    assert edge.executed == []


def test_a_batch_as_large_as_the_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        make_trainer(make_config(training__batch_size=500), tmp_path)


def test_identity_exits_bfloat16_and_state_of_a_defense_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="number of training people"):
        make_trainer(make_config(dataset__sensitive=["identity"]), tmp_path / "identity")
    with pytest.raises(ConfigError, match=r"float32 under edge\.dp_sgd\.mode=ghost"):
        make_config(
            runtime={"precision": "bfloat16", "threads": 1}, edge={"dp_sgd": DP_SGD | {"mode": "ghost"}}
        )
    trainer = make_trainer(make_config(), tmp_path)
    trainer.edge.defense.register_buffer("centers", torch.zeros(3))
    with pytest.raises(ConfigError, match="may hold private records"):
        check_private(trainer.config, 200, trainer.edge.defense)


def test_the_operating_systems_noise_trains_and_is_charged(tmp_path):
    config = make_config(1, 1, privacy={"noise_source": "system", "label_epsilon": 1.0})
    trainer = make_trainer(config, tmp_path)
    trainer.run()
    sums, dp = [], private(trainer).dp
    for _ in range(2):  # nothing in the batch: what is left is noise, fresh in every step
        dp.descend(trainer.edge.defense.loss(trainer.edge.look(
            trainer.data, trainer.data.splits.train[:0], trainer.releaser.noise("a", "b", 0, 0),
            augmentation=torch_stream(0, "x"))), torch_stream(0, "same"))  # fmt: skip
        total = torch.cat([p.detach().reshape(-1) for p in dp.parameters])
        sums.append(total)
    assert not torch.equal(sums[0], sums[1])
    assert len({event.noise_source for event in trainer.ledger.events}) == 1


def test_one_message_a_step_however_the_batch_is_split(tmp_path):
    split = make_trainer(make_config(0, 1), tmp_path / "a")  # 48 records, 32 at a time
    split.run()
    assert split.cloud.steps == len(list(range(0, 200, 48)))


def test_so_little_noise_that_no_number_is_printed(tmp_path):
    trainer = make_trainer(make_config(1, 0, 1, edge={"dp_sgd": {"noise_multiplier": 0.01}}), tmp_path)
    trainer.run()
    rows = trainer.ledger.guarantees(delta=1e-5)
    assert [row.epsilon for row in rows if "weights" in row.name or row.name == CURIOUS_CLOUD] == [None] * 3


# Sabotage: each breaks the mechanism and is caught


def sabotaged(trainer: Trainer, loss) -> None:
    defense = trainer.edge.defense
    defense.loss = loss.__get__(defense, type(defense))  # type: ignore[method-assign]


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_sabotage_two_backwards_after_one_forward(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)

    def loss(self: Defense, batch: DefenseBatch):
        losses = GradientReversal.loss(self, batch)
        losses.sum().backward(retain_graph=True)
        return losses

    private(trainer)._checked = True
    sabotaged(trainer, loss)
    with pytest.raises(GuaranteeError, match="one backward"):
        trainer.run()


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_sabotage_two_rounds_before_a_step(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)

    def loss(self: Defense, batch: DefenseBatch):
        edge, data = trainer.edge, trainer.data
        extra = edge.look(data, data.splits.train[:8], trainer.releaser.noise("a", "b", 0, 0),
                          augmentation=torch_stream(0, "x"))  # fmt: skip
        GradientReversal.loss(self, extra).sum().backward()
        return GradientReversal.loss(self, batch)

    private(trainer)._checked = True
    sabotaged(trainer, loss)
    with pytest.raises(GuaranteeError, match=r"one backward|one forward"):
        trainer.run()


def test_sabotage_an_exit_that_takes_no_part(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    private(trainer)._checked = True
    sabotaged(trainer, lambda self, batch: task_loss_per_record(batch))
    with pytest.raises(GuaranteeError, match="must take part in the one loss"):
        trainer.run()


def test_sabotage_adversarial_exit_outside_the_mechanism(tmp_path):
    """An optimizer of its own on private labels, between two steps of the mechanism."""
    trainer = make_trainer(make_config(), tmp_path)
    exits = trainer.edge.edge.adversarial_exits
    other = torch.optim.SGD(exits.parameters(), lr=0.1)
    private(trainer)._checked = True

    def loss(self: Defense, batch: DefenseBatch):
        for parameter in exits.parameters():
            parameter.grad = torch.ones_like(parameter)
        other.step()
        return GradientReversal.loss(self, batch)

    sabotaged(trainer, loss)
    with pytest.raises(GuaranteeError, match="only the DP-SGD mechanism may change"):
        trainer.run()


def test_sabotage_adversarial_exit_left_out_of_the_optimizer(tmp_path):
    edge = private(make_trainer(make_config(), tmp_path)).edge
    parts = [*edge.trunk.parameters(), *edge.bottleneck.parameters(), *edge.task_exits.parameters()]
    with pytest.raises(GuaranteeError, match="every parameter of the edge"):
        DpSgd(edge, torch.optim.SGD(parts, lr=0.1), noise_multiplier=1.0, max_grad_norm=1.0,
              expected_batch_size=8, mode="hooks")  # fmt: skip


def test_sabotage_batchnorm_left_in_the_edge(tmp_path, monkeypatch):
    monkeypatch.setattr("privhier.training.trained.mend", lambda edge: (edge, []))
    with pytest.raises(GuaranteeError, match="must not mix records"):
        make_trainer(make_config(model__norm="batch"), tmp_path)


def test_sabotage_a_loss_reduction_that_does_not_match(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    sabotaged(trainer, lambda self, batch: GradientReversal.loss(self, batch))
    dp = private(trainer).dp
    for hook in dp.module._module.autograd_grad_sample_hooks:
        hook.remove()
    dp.module.remove_hooks()
    dp.module.add_hooks(loss_reduction="mean")
    with pytest.raises(GuaranteeError, match="per-record gradients must be those"):
        trainer.run()


def test_sabotage_a_weighted_sampler(tmp_path, monkeypatch):
    def weighted(uniforms, rate, steps):
        for step in range(steps):
            drawn = uniforms(step)
            yield (drawn < torch.linspace(0, 2 * rate, len(drawn))).nonzero()[:, 0].tolist()

    monkeypatch.setattr("privhier.training.private_edge._keyed_batches", weighted)
    trainer = make_trainer(make_config(40, 0, 1, dataset__image_size=16), tmp_path)
    edge, train = private(trainer), trainer.data.splits.train

    def draw() -> None:
        for epoch in range(40):
            for _ in edge.batches(train, "pretrain", epoch):
                edge.dp.steps += 1

    with pytest.raises(GuaranteeError, match="one probability that was charged"):
        draw()


def test_a_uniform_sampler_passes_for_many_epochs_and_seeds():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        taken = generator.binomial(400, 0.05, size=2000)
        check_participation(taken, 0.05, 400)
    with pytest.raises(GuaranteeError):
        check_participation(np.full(2000, 20), 0.05, 400)  # too even: not Poisson sampling
    with pytest.raises(GuaranteeError):
        check_participation(np.random.default_rng(0).binomial(400, 0.06, size=2000), 0.05, 400)


def test_sabotage_joint_batches_that_overlap(tmp_path, monkeypatch):
    trainer = make_trainer(make_config(0, 1), tmp_path)

    def overlapping(records, size, *names):
        yield records[:size]
        yield records

    monkeypatch.setattr("privhier.training.private_edge.shuffled_batches", overlapping)
    with pytest.raises(GuaranteeError):
        trainer.run()


def test_sabotage_amplification_claimed_for_joint_epochs(tmp_path, monkeypatch):
    """Opacus' own habit, 1 / len(loader) as the rate, is refused by the event and by the comparison."""
    with pytest.raises(GuaranteeError, match="no amplification"):
        StepEvent(200, "joint", 0, 5, "disjoint", 0.2, 1.5, 1.0, "seeded")
    trainer = make_trainer(make_config(0, 1), tmp_path)
    cheap = StepEvent(200, "joint", 0, 1, "poisson", 0.2, 1.5, 1.0, "seeded")
    monkeypatch.setattr(trainer.edge, "event", lambda phase, epoch: cheap)
    with pytest.raises(GuaranteeError, match="was executed, but charged as"):
        trainer.run()


def test_sabotage_a_step_the_ledger_did_not_see(tmp_path, monkeypatch):
    trainer = make_trainer(make_config(1, 0, 1), tmp_path)
    monkeypatch.setattr(trainer.ledger, "charge_steps", lambda event: True)
    with pytest.raises(GuaranteeError, match="was executed, but charged as None"):
        trainer.run()


def test_sabotage_less_noise_than_charged(tmp_path):
    trainer = make_trainer(make_config(1, 0, 1), tmp_path)
    edge = private(trainer)
    charged = edge.event("pretrain", 0)
    edge.event = lambda phase, epoch: charged  # type: ignore[method-assign]
    edge.dp.optimizer.noise_multiplier = 0.75
    with pytest.raises(GuaranteeError, match="was executed, but charged as"):
        trainer.run()


def test_sabotage_a_loss_that_looks_at_the_whole_batch(tmp_path):
    trainer = make_trainer(make_config(), tmp_path)

    def loss(self: Defense, batch: DefenseBatch):
        losses = GradientReversal.loss(self, batch)
        return losses / losses.detach().mean()

    sabotaged(trainer, loss)
    with pytest.raises(GuaranteeError, match="must not depend on the other records"):
        trainer.run()


def test_sabotage_behind_autograds_back_and_between_epochs(tmp_path):
    trainer = make_trainer(make_config(2, 0, 1), tmp_path)
    bias = next(trainer.edge.edge.adversarial_exits.parameters())
    trainer.on_epoch = lambda *epoch: bias.data.add_(1.0)
    with pytest.raises(GuaranteeError, match="only the DP-SGD mechanism may change"):
        trainer.run()


# Labels on the wire


def messages(config: RunConfig, folder: Path, monkeypatch, prepared: Prepared) -> list[bytes]:
    sent: list[bytes] = []
    send = LocalUplink.send
    monkeypatch.setattr(LocalUplink, "send", lambda self, one: (sent.append(one.data), send(self, one))[1])
    make_trainer(config, folder, prepared).run()
    monkeypatch.undo()
    return sent


def test_sensitive_labels_never_leave_the_edge(tmp_path, monkeypatch):
    """With monitors that shape nothing, no byte on the wire depends on a sensitive label."""
    config = make_config(1, 1, 1, defense="none", edge={})
    prepared = prepared_for(config)
    first = messages(config, tmp_path / "a", monkeypatch, prepared)
    prepared.data.sensitive[:] = 1 - prepared.data.sensitive
    second = messages(config, tmp_path / "b", monkeypatch, prepared)
    assert first
    assert first == second
    fields = {
        "run_id",
        "split",
        "phase",
        "epoch",
        "batch",
        "records",
        "payload",
        "task_labels",
        "wire",
        "edge",
        "letters",
    }
    assert set(vars(decode(first[0]))) == fields


def test_randomized_labels_go_up_and_are_the_same_every_time(tmp_path, monkeypatch):
    config = make_config(0, 2, 0, privacy={"label_epsilon": 1.0}, edge={})
    prepared = prepared_for(config)
    seen: dict[int, set[int]] = {}
    for data in messages(config, tmp_path, monkeypatch, prepared):
        message = decode(data)
        if message.task_labels is not None:
            for record, label in zip(
                message.records.tolist(), message.task_labels[:, 0].tolist(), strict=True
            ):
                seen.setdefault(record, set()).add(label)
    train = prepared.data.splits.train
    assert sorted(seen) == sorted(train.tolist())
    assert all(len(labels) == 1 for labels in seen.values())
    kept = np.mean([int(prepared.data.task[record, 0]) in labels for record, labels in seen.items()])
    assert 0.6 < kept < 0.85  # e / (e + 1) = 0.731
    rows = {row.name: row for row in Ledger.load(tmp_path / "ledger.jsonl").guarantees(delta=1e-5)}
    assert rows["task labels of one training record"].epsilon == 1.0
    assert not any("sent in the clear" in line for row in rows.values() for line in row.does_not_cover)


def test_labels_answered_twice_differently_are_refused(tmp_path):
    config = make_config(0, 1, 0, privacy={"label_epsilon": 1.0})
    data = prepared_for(config).data
    ledger = Ledger(None)
    labels_to_send(config, data, RunFolder(tmp_path), ledger)
    other = make_config(0, 1, 0, privacy={"label_epsilon": 2.0})
    with pytest.raises(GuaranteeError, match="charged before with other parameters"):
        labels_to_send(other, data, RunFolder(tmp_path), ledger)
