"""Leakage budgets: the multipliers by hand, the averages, and budgets that no release can keep."""

from __future__ import annotations

import math
import runpy
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from privhier import session
from privhier.config import Choice
from privhier.defenses import leak_budget
from privhier.defenses.base import build_defense
from privhier.defenses.leak_budget import LeakBudget, label_floors
from privhier.distributed.remote import open_edge
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.seeding import isolated_rng
from privhier.training.private_plan import check_defense

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))
make_edge, make_batch, make_data = (contract[name] for name in ("make_edge", "make_batch", "make_data"))
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


LABELS = ("task_labels", "sensitive_labels")


def prepared(data=None, **options) -> tuple[LeakBudget, EdgeSegment]:
    with isolated_rng(0, "made"):
        defense = build_defense(Choice(name="leak_budget", options=options))
    edge = make_edge("vector")
    defense.attach(edge)
    defense.begin(edge, data or make_data(edge))
    return defense, edge


def set_losses(defense: LeakBudget, losses: list[list[float]]) -> None:
    defense.averages.copy_(torch.tensor(losses))
    defense.measured.fill_(1)


def test_the_multipliers_by_hand():
    defense, _ = prepared(budgets=[0.1, 0.2], l1=0.5, l2=3.0)
    defense.entropies.copy_(torch.tensor([0.69, 1.6]))
    set_losses(defense, [[0.3], [1.41]])
    assert defense.excess.flatten().tolist() == pytest.approx([0.29, 0])
    assert defense.multipliers.flatten().tolist() == pytest.approx([2 * 3.0 * 0.29 + 0.5, 0])


def test_the_penalty_has_the_gradient_of_the_squared_hinge():
    """MaSS's own penalty, l2 v^2 + l1 v of the batch's mean, where the average is the batch's."""
    defense, edge = prepared(budgets=[0.05], l1=0.5, l2=3.0)
    defense.entropies.copy_(torch.tensor([2.0, 2.5]))
    batch = make_batch(edge)
    z = batch.z.detach().requires_grad_()
    batch = replace(batch, z=z)
    losses = [
        F.cross_entropy(logits, labels)
        for logits, labels in zip(edge.adversary_logits(z), batch.sensitive_labels, strict=True)
    ]
    excess = [2.0 - losses[0] - 0.05, 2.5 - losses[1] - 0.05]
    assert min(excess) > 0
    wanted = torch.autograd.grad(sum(3.0 * v**2 + 0.5 * v for v in excess), z)[0]
    set_losses(defense, [[loss.item()] for loss in losses])
    got = torch.autograd.grad(defense.penalty(batch).mean(), z)[0]
    assert torch.allclose(got, wanted, atol=1e-6)


def test_within_its_budget_a_secret_is_left_alone():
    defense, edge = prepared(budgets=[0.1])
    set_losses(defense, [[0.0], [1.6]])
    batch = make_batch(edge)
    both = defense.penalty(batch)
    first = defense.penalty(
        replace(batch, sensitive_labels=[batch.sensitive_labels[0], torch.full((64,), -1)])
    )
    assert torch.equal(both, first)
    assert both.abs().min() > 0
    set_losses(defense, [[0.65], [1.6]])
    assert not defense.penalty(batch).any()


def test_every_adversary_has_its_own_excess():
    defense, edge = prepared(budgets=[0.1], adversaries=2, l1=1.0, l2=0.0)
    set_losses(defense, [[0.65, 0.2, 0.65], [1.6, 1.6, 1.6]])
    batch = make_batch(edge)
    linear = defense.panel.members[0][0]
    wanted = -F.cross_entropy(linear(batch.z), batch.sensitive_labels[0], reduction="none") / 3
    assert torch.allclose(defense.penalty(batch), wanted, atol=1e-6)


def test_the_averages_move_after_the_step_alone_and_without_bias():
    defense, edge = prepared(decay=0.9, budgets=[5.0])
    batch = make_batch(edge, unknown=slice(0, 7))
    assert (defense.multipliers == 0).all()
    fresh = prepared()[0]  # nothing measured: the adversary may know everything
    assert torch.allclose(fresh.excess[:, 0], fresh.entropies - fresh.budgets)
    before = {name: value.clone() for name, value in defense.state_dict().items()}
    defense.loss(batch).mean().backward()
    assert all(torch.equal(value, before[name]) for name, value in defense.state_dict().items())
    losses = []
    for scale in (1.0, 2.0, 0.5):
        step = replace(batch, z=scale * batch.z.detach())
        losses.append(
            [
                F.cross_entropy(logits, labels, ignore_index=-1).item()
                for logits, labels in zip(edge.adversary_logits(step.z), batch.sensitive_labels, strict=True)
            ]
        )
        with torch.no_grad():
            defense.after_step(step)
    weights = [0.81, 0.9, 1.0]
    for secret in range(2):
        mean = sum(w * loss[secret] for w, loss in zip(weights, losses, strict=True)) / sum(weights)
        seen = defense.averages / defense.measured
        assert seen[secret, 0].item() == pytest.approx(mean, rel=1e-5)
    unknown = replace(batch, sensitive_labels=[torch.full((64,), -1)] * 2)
    before = defense.averages.clone()
    with torch.no_grad():
        defense.after_step(unknown)
    assert torch.equal(defense.averages, before)


def test_who_starts_anew_is_over_no_budget():
    defense, edge = prepared(adversaries=1, restart_every=1)
    with torch.no_grad(), isolated_rng(0, "step"):
        defense.after_step(make_batch(edge))
    assert defense.excess[:, 1].tolist() == [0, 0]
    assert torch.equal(defense.averages[:, 1], defense.entropies)


def tied(share: float):
    """The first secret follows the first task label in this share of the records."""
    data = make_data(make_edge("vector"))
    task = data.task_labels[0]
    follow = torch.arange(1600) % 100 < 100 * share
    secret = torch.where(follow, task, (torch.arange(1600) // 100) % 2)
    return replace(data, sensitive_labels=[secret, data.sensitive_labels[1]])


def test_the_floor_is_what_the_task_labels_say():
    data = tied(1.0)
    assert label_floors(data)[0] == pytest.approx(math.log(2), abs=0.01)
    assert label_floors(data)[1] == 0  # independent: what chance gives is not counted
    assert label_floors(make_data(make_edge("vector"))) == [0, 0]
    gone = [torch.where(torch.arange(1600) < 1000, -1, labels) for labels in data.task_labels]
    assert label_floors(replace(data, task_labels=gone))[0] == pytest.approx(math.log(2), abs=0.01)
    assert label_floors(replace(data, task_labels=[torch.full((1600,), -1)] * 2)) == [0, 0]


def test_a_budget_below_the_floor_is_refused_and_what_the_remedy_says_is_taken():
    data = tied(0.6)
    floor = label_floors(data)[0]
    assert 0.1 < floor < 0.3
    for budgets in ([0.05, 0.5], [0.05]):
        defense, edge = prepared(data, budgets=budgets)
        with pytest.raises(
            ConfigError,
            match=r"defense\.options\.budgets: \[0\.05.* allows 0\.05 nats of race==0, and the true task la",
        ) as caught:
            defense.check(edge, data)
    enough = float(caught.value.remedy.split("least ")[1].split(",")[0])
    assert floor <= enough < floor + 0.001
    defense, edge = prepared(data, budgets=[enough, 0.0])
    defense.check(edge, data)
    half = replace(data, **{name: [one[::2] for one in getattr(data, name)] for name in LABELS})
    defense.begin(edge, half)  # a shadow model's records: what the run's allow is not asked again
    defense, _ = prepared(data)
    assert defense.budgets.tolist() == pytest.approx(label_floors(data))


def by_itself(budgets: list[float]) -> dict:
    return {"name": "leak_budget", "options": {"budgets": budgets}}


def in_a_sum(budgets: list[float]) -> dict:
    return {"name": "sum", "options": {"parts": ["none", by_itself(budgets)]}}


@pytest.mark.parametrize("defense", [by_itself, in_a_sum])
@pytest.mark.parametrize("both_halves", [True, False])
def test_a_run_that_cannot_keep_its_budget_writes_nothing(tmp_path, monkeypatch, defense, both_halves):
    def opened(budgets: list[float], name: str, **changes):
        config = small_config(epochs=(1, 0, 1), defense=defense(budgets), **changes)
        if both_halves:
            return session.open_session(config, tmp_path / name)
        with ExitStack() as stack:
            return open_edge(config, tmp_path / name, stack=stack)

    opened([0.1], "within")
    with pytest.raises(ConfigError, match="must hold one budget for each of the 1 sensitive"):
        opened([0.1, 0.2], "two")
    monkeypatch.setattr(leak_budget, "label_floors", lambda labels: [0.3])
    with pytest.raises(ConfigError, match=r"allows 0\.1 nats of male.*no release that does the task keeps"):
        opened([0.1], "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["within"]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([-0.1], r"defense\.options\.budgets: .*at least 0"),
        ([float("nan")], r"defense\.options\.budgets: "),
        (0.1, r"defense\.options\.budgets: 0\.1 - must be a list of numbers"),
        ([0.1, 0.2, 0.3], r"must hold one budget for each of the 2 sensitive attributes"),
    ],
)
def test_bad_budgets_are_named(budgets, message):
    with pytest.raises(ConfigError, match=message):
        prepared(budgets=budgets)


def test_dp_sgd_refuses_it():
    config = small_config(
        edge={"dp_sgd": {"noise_multiplier": 1.0}}, defense={"name": "leak_budget", "options": {}}
    )
    with pytest.raises(ConfigError, match="learns from private records outside the one loss"):
        check_defense(config, build_defense(config.defense))
