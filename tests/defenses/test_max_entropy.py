"""Maximum entropy against several adversaries: its formula, its target, and what others get wrong in it."""

from __future__ import annotations

import copy
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.func import functional_call

from privhier.config import Choice
from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    build_defense,
    classification_loss,
    task_loss_per_record,
)
from privhier.defenses.max_entropy import MaxEntropy, kl_from, kl_from_uniform
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.seeding import isolated_rng
from privhier.training.private_plan import check_defense

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
make_edge, make_batch, make_data = (contract[name] for name in ("make_edge", "make_batch", "make_data"))


def prepared(**options) -> tuple[MaxEntropy, EdgeSegment]:
    with isolated_rng(0, "made"):
        defense = build_defense(Choice(name="max_entropy", options=options))
    edge = make_edge("vector")
    defense.attach(edge)
    if defense.reads_data:
        defense.begin(edge, make_data(edge))
    return defense, edge


def trunk_gradient(edge: EdgeSegment, losses: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), list(edge.trunk.parameters()))])


def as_it_was(batch: DefenseBatch, twins: list, weight: float) -> Tensor:
    """The loss before there were targets and further adversaries, line by line."""
    divergences = []
    for head, twin, labels in zip(batch.edge.adversarial_exits, twins, batch.sensitive_labels, strict=True):
        frozen = {name: parameter.detach() for name, parameter in head.named_parameters()}
        divergences.append(kl_from_uniform(functional_call(twin, frozen, (batch.z,))) * (labels != -1))
    confusion = torch.stack(divergences).sum(0)
    learning = classification_loss(batch.edge.adversary_logits(batch.z.detach()), batch.sensitive_labels)
    return task_loss_per_record(batch) + learning + weight * confusion


def test_its_defaults_give_the_numbers_of_before_bit_for_bit():
    found = []
    for plain in (True, False):
        defense, edge = prepared(weight=1.5)
        twins = [copy.deepcopy(head).requires_grad_(False) for head in edge.adversarial_exits]
        batch = make_batch(edge, unknown=slice(0, 3))
        losses = as_it_was(batch, twins, 1.5) if plain else defense.loss(batch)
        losses.mean().backward()
        found.append([losses.detach(), *(parameter.grad for parameter in edge.parameters())])
    assert all(torch.equal(old, new) for old, new in zip(*found, strict=True))
    assert defense.state_dict() == {}
    assert not defense.reads_data
    assert not defense.has_parameters


@pytest.mark.parametrize("target", ["uniform", "prior"])
def test_with_a_panel_it_is_the_formula(target):
    defense, edge = prepared(weight=0.7, adversaries=3, target=target)
    batch = make_batch(edge, unknown=slice(0, 3))
    wanted = task_loss_per_record(batch)
    for k, labels in enumerate(batch.sensitive_labels):
        heads = [edge.adversarial_exits[k], *(member[k] for member in defense.panel.members)]
        classes = heads[0].n_classes
        counts = torch.bincount(make_data(edge).sensitive_labels[k], minlength=classes)
        pi = counts / counts.sum() if target == "prior" else torch.full((classes,), 1 / classes)
        for head in heads:
            learning = F.cross_entropy(head(batch.z), labels, ignore_index=-1, reduction="none")
            divergence = (pi * (pi / head(batch.z).softmax(1)).log()).sum(1) * (labels != -1)
            wanted = wanted + learning + 0.7 / 4 * divergence
    assert torch.allclose(defense.loss(batch), wanted, atol=1e-5)


def test_its_own_adversaries_descend_their_own_cross_entropy_and_nothing_else():
    defense, edge = prepared(weight=5.0, adversaries=4)
    batch = make_batch(edge)
    defense.loss(batch).mean().backward()
    got = [parameter.grad.clone() for parameter in defense.parameters()]
    defense.zero_grad()
    honest = sum(
        F.cross_entropy(member[k](batch.z.detach()), labels)
        for member in defense.panel.members
        for k, labels in enumerate(batch.sensitive_labels)
    )
    honest.backward()
    wanted = [parameter.grad for parameter in defense.parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, wanted, strict=True))


def says_any_class_alike(divergence) -> bool:
    """0 where every class is as likely, with no gradient there, and blind to how classes are numbered."""
    uniform = torch.zeros(1, 4, requires_grad=True)
    value = divergence(uniform)
    (gradient,) = torch.autograd.grad(value.sum(), uniform)
    skewed = torch.tensor([[2.0, -1.0, 0.5, 0.0]])
    same = torch.allclose(divergence(skewed), divergence(skewed.flip(1)))
    return bool(value.abs().max() < 1e-6) and bool(gradient.abs().max() < 1e-6) and same


def test_a_uniform_target_that_is_class_one_is_seen():
    assert says_any_class_alike(kl_from_uniform)
    assert says_any_class_alike(lambda logits: kl_from(torch.full((4,), 0.25), logits))
    ones = torch.ones(1, dtype=torch.int64)
    assert not says_any_class_alike(lambda logits: F.cross_entropy(logits, ones, reduction="none"))
    one_hot = F.one_hot(ones[0], 4).float()
    assert not says_any_class_alike(lambda logits: kl_from(one_hot, logits))


def test_divergence_from_shares_by_hand():
    shares, logits = torch.tensor([0.9, 0.1, 0.0]), torch.tensor([[0.9, 0.1, 1e-9], [0.5, 0.25, 0.25]]).log()
    assert kl_from(shares, logits).tolist() == pytest.approx([0, 0.9 * 0.5878 - 0.1 * 0.9163], abs=1e-4)


def test_an_unbalanced_secret_is_left_where_it_is_by_the_prior_and_pushed_on_by_uniform():
    """Who says what the shares are knows nothing; only ``uniform`` wants that adversary to say otherwise."""
    pushed = {}
    for target in ("uniform", "prior"):
        defense, edge = prepared(target=target)
        if target == "prior":
            data = make_data(edge)
            labels = [(torch.arange(1600) % 10 == 0).long(), torch.arange(1600).clamp(max=4)]
            defense.begin(edge, replace(data, sensitive_labels=labels))
            assert defense.priors(0).tolist() == pytest.approx([0.9, 0.1])
        z = torch.zeros(1, 6, requires_grad=True)
        layers = edge.adversarial_exits[0].layers
        with torch.no_grad():  # it says 0.9 to 0.1 on z = 0, and follows z elsewhere
            layers[-1].bias += torch.tensor([0.9, 0.1]).log() - layers(z)[0]
        batch = replace(
            make_batch(edge).part(slice(1)), z=z, sensitive_labels=[torch.zeros(1).long(), torch.tensor([-1])]
        )
        value = defense.penalty(batch)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        pushed[target] = value.item(), gradient.norm().item()
    assert pushed["prior"] == pytest.approx((0, 0), abs=1e-5)
    assert min(pushed["uniform"]) > 0.01


class Helping(MaxEntropy):
    """Others' mistake: the adversary's own loss goes through a feature that is not detached."""

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        losses = classification_loss(batch.edge.adversary_logits(batch.z), batch.sensitive_labels)
        if self.panel is not None:
            for answers, labels in zip(self.panel(batch.z), batch.sensitive_labels, strict=True):
                losses = losses + classification_loss(answers, [labels] * len(answers))
        return losses


def helps_the_adversary(defense: Defense, edge: EdgeSegment) -> bool:
    """Without a penalty only the task may move the trunk."""
    idle = trunk_gradient(edge, defense.loss(replace(make_batch(edge), strength=0.0)))
    task = trunk_gradient(edge, task_loss_per_record(make_batch(edge)))
    return not torch.allclose(idle, task, atol=1e-6)


@pytest.mark.parametrize("adversaries", [0, 2])
def test_a_client_that_helps_the_adversary_is_caught(adversaries):
    defense, edge = prepared(adversaries=adversaries)
    assert not helps_the_adversary(defense, edge)
    wrong = Helping(defense.options)
    wrong.attach(edge)
    assert helps_the_adversary(wrong, edge)
    with pytest.raises(AssertionError):  # and the contract's own test sees it
        contract["test_at_no_strength_the_trunk_learns_its_task_alone_and_the_exits_learn_on"](wrong, edge)
    batch = make_batch(edge)
    z = batch.z.detach().requires_grad_()
    losses = Helping(defense.options).adversary_loss(z, replace(batch, z=z))
    (toward,) = torch.autograd.grad(losses.sum(), z)
    with torch.no_grad():  # a step down that gradient, and the adversary reads more
        lower = classification_loss(edge.adversary_logits(z - 0.5 * toward), batch.sensitive_labels)
        assert lower.mean() < classification_loss(edge.adversary_logits(z), batch.sensitive_labels).mean()


def test_the_training_time_adversary_is_no_privacy_number():
    """It is brought to chance while a fresh logistic regression reads nearly all there is."""
    edge = make_edge("vector")
    with isolated_rng(0, "toy"):
        edge.trunk, edge.bottleneck = nn.Identity(), nn.Linear(8, 6)
    generator = torch.Generator().manual_seed(0)
    secret = torch.randint(0, 2, (400,), generator=generator)
    x = torch.randn(400, 8, generator=generator)
    x[:, :2] += 4 * secret[:, None]
    nothing = torch.full((400,), -1)

    def batch() -> DefenseBatch:
        labels = [secret, nothing]
        return DefenseBatch(z=edge.features(x), task_labels=[nothing] * 2, sensitive_labels=labels, edge=edge)

    def train(name: str, part: nn.Module) -> None:
        defense = build_defense(Choice(name=name))
        optimizer = torch.optim.Adam(part.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            defense.loss(batch()).mean().backward()
            optimizer.step()

    def adversary_reads() -> float:
        with torch.no_grad():
            return float((edge.adversary_logits(batch().z)[0].softmax(1) - 0.5).abs().mean())

    train("none", edge.adversarial_exits)
    before = adversary_reads()
    train("max_entropy", edge.bottleneck)
    assert before > 0.45
    assert adversary_reads() < 0.05  # by its own adversary, nothing is left
    z = batch().z.detach().numpy()
    z = (z - z.mean(0)) / z.std(0)
    fresh = LogisticRegression(C=100, max_iter=1000).fit(z[:200], secret[:200])
    assert fresh.score(z[200:], secret[200:]) > 0.9


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"adversaries": 1}, "trains parameters of its own"),
        ({"target": "prior"}, "learns from private records"),
        ({"adversaries": 2, "restart_every": 5}, "learns from private records"),
        ({"adversary_steps": 1}, "takes extra adversary steps"),
        ({"target": "uniform"}, None),
    ],
)
def test_dp_sgd_takes_it_without_parameters_and_looks_at_data_only(options, reason):
    config = small_config(
        edge={"dp_sgd": {"noise_multiplier": 1.0}}, defense={"name": "max_entropy", "options": options}
    )
    if reason is None:
        check_defense(config, build_defense(config.defense))
        return
    with pytest.raises(ConfigError, match=reason):
        check_defense(config, build_defense(config.defense))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restart_every": 3}, r"defense\.options: .*restart_every draws adversaries of its own anew"),
        ({"target": "majority"}, r"defense\.options\.target: 'majority' - .*'uniform' or 'prior'"),
        ({"adversaries": -1}, r"defense\.options\.adversaries: -1 - must be at least 0"),
        ({"adversaries": 17}, r"defense\.options\.adversaries: 17 - must be at most 16"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build_defense(Choice(name="max_entropy", options=options))
