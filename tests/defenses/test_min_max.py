"""Alternating min-max: its bounded gain, who takes the steps, and what happens without the bound."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privhier.config import Choice
from privhier.defenses.base import DefenseBatch, build_defense
from privhier.defenses.min_max import MinMax
from privhier.defenses.nats import beyond_guessing
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.seeding import isolated_rng
from privhier.training.private_plan import check_defense

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))
helpers = runpy.run_path(str(Path(__file__).parents[1] / "training" / "test_trainer.py"))
make_edge, make_batch, make_data = (contract[name] for name in ("make_edge", "make_batch", "make_data"))
small_config = helpers["small_config"]


def prepared(edge: EdgeSegment | None = None, **options) -> tuple[MinMax, EdgeSegment]:
    with isolated_rng(0, "made"):
        defense = build_defense(Choice(name="min_max", options=options))
    edge = edge or make_edge("vector")
    defense.attach(edge)
    return defense, edge


def test_what_is_beyond_guessing_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5], [0.9, 0.1]]).log()
    labels = torch.tensor([0, 1, 0, 1, -1])
    uniform = beyond_guessing(logits, labels, torch.tensor([0.5, 0.5]))
    assert uniform.tolist() == pytest.approx([math.log(1.6), 0, 0, 0, 0], abs=1e-6)
    unbalanced = beyond_guessing(logits, labels, torch.tensor([0.8, 0.2]))
    assert unbalanced.tolist() == pytest.approx([0, 0, 0, math.log(2.5), 0], abs=1e-6)
    assert beyond_guessing(logits, labels, torch.tensor([1.0, 0.0])).isfinite().all()


@pytest.mark.parametrize("target", ["uniform", "prior"])
def test_with_a_panel_it_is_the_formula(target):
    defense, edge = prepared(weight=0.7, adversaries=2, target=target)
    data = replace(
        make_data(edge), sensitive_labels=[(torch.arange(1600) % 10 == 0).long(), torch.arange(1600) % 5]
    )
    defense.begin(edge, data)
    batch = make_batch(edge, unknown=slice(0, 3))
    wanted = torch.zeros(len(batch.z))
    for k, labels in enumerate(batch.sensitive_labels):
        shares = [[0.9, 0.1], [0.2] * 5][k] if target == "prior" else [[0.5, 0.5], [0.2] * 5][k]
        for head in [edge.adversarial_exits[k], *(member[k] for member in defense.panel.members)]:
            p = head(batch.z).softmax(1)
            for record, label in enumerate(labels.tolist()):
                if label >= 0:
                    wanted[record] += max(0.0, math.log(p[record, label].item() / shares[label])) / 3
    assert torch.allclose(defense.penalty(batch), wanted, atol=1e-5)
    idle = defense.loss(replace(batch, strength=0.0))
    assert torch.allclose(defense.loss(batch), idle + 0.7 * wanted, atol=1e-5)


class Unbounded(MinMax):
    """Others' mistake: the adversary's loss is raised without end."""

    def penalty(self, batch: DefenseBatch) -> Tensor:
        terms = [
            -F.cross_entropy(answers[0], labels, reduction="none", ignore_index=-1)
            for answers, labels in zip(self.held(batch), batch.sensitive_labels, strict=True)
        ]
        return torch.stack(terms).sum(0)


@pytest.mark.parametrize("kind", [MinMax, Unbounded])
def test_only_without_the_bound_the_adversary_is_made_wrong_for_a_fresh_one_to_invert(kind):
    """An edge that may give every record any release, against an adversary that has learned."""
    edge = make_edge("vector")
    generator = torch.Generator().manual_seed(0)
    secret = torch.randint(0, 2, (200,), generator=generator)
    releases = torch.randn(200, 6, generator=generator)
    releases[:, 0] += 3 * secret
    z = nn.Parameter(releases)
    nothing = torch.full((200,), -1)
    defense = kind(MinMax.Options(weight=1.0, target="uniform"))
    defense.attach(edge)

    def train(optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            batch = DefenseBatch(z, [nothing] * 2, [secret, nothing], edge)
            defense.loss(batch).mean().backward()
            optimizer.step()

    def says_the_truth() -> Tensor:
        with torch.no_grad():
            return edge.adversary_logits(z)[0].softmax(1)[torch.arange(200), secret]

    train(torch.optim.Adam(edge.adversarial_exits.parameters(), lr=2e-2), 50)
    assert says_the_truth().mean() > 0.8
    train(torch.optim.SGD([z], lr=20.0), 200)
    turned = float((says_the_truth() < 0.1).float().mean())  # swap what the adversary says of these
    assert turned > 0.4 if kind is Unbounded else turned < 0.05
    assert says_the_truth().median() < 0.55


def test_the_extra_steps_are_of_its_own_adversaries_too(tmp_path):
    options = {"adversary_steps": 3, "adversaries": 2}
    config = small_config(epochs=(1, 0, 1), defense={"name": "min_max", "options": options})
    trainer = helpers["trainer"](config, tmp_path).edge
    stepped = {id(p) for group in trainer.adversary_optimizer.param_groups for p in group["params"]}
    exits, panel = list(trainer.edge.adversarial_exits.parameters()), list(trainer.defense.panel.parameters())
    assert stepped == {id(p) for p in [*exits, *panel]}
    assert trainer.defense.adversary_steps == 3


def test_dp_sgd_refuses_it_whatever_its_options():
    for options in ({}, {"adversary_steps": 4, "target": "uniform"}):
        config = small_config(
            edge={"dp_sgd": {"noise_multiplier": 1.0}}, defense={"name": "min_max", "options": options}
        )
        with pytest.raises(ConfigError, match="takes extra adversary steps"):
            check_defense(config, build_defense(config.defense))


def test_it_always_alternates():
    with pytest.raises(ConfigError, match=r"defense\.options\.adversary_steps: 0 - must be at least 1"):
        build_defense(Choice(name="min_max", options={"adversary_steps": 0}))
