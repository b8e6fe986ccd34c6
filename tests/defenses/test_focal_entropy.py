"""Focal entropy: its formula by hand, against the chain rule, and where it is maximum entropy itself."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch

from privhier.config import Choice
from privhier.defenses.base import build_defense
from privhier.defenses.focal_entropy import focal_divergence
from privhier.defenses.max_entropy import kl_from_uniform
from privhier.errors import ConfigError
from privhier.seeding import isolated_rng, torch_stream

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_by_hand():
    logits = torch.tensor([[0.6, 0.1, 0.2, 0.1], [0.6, 0.1, 0.2, 0.1]]).log()
    found = focal_divergence(logits, torch.tensor([0, 3]), 2)
    half = [0.5, 0.5]
    likely = kl(half, [0.8, 0.2]) + kl(half, [0.75, 0.25]) + kl(half, half)
    # Its true class is one of the likely ones, however unlikely the adversary holds it: {0, 3} and {1, 2}.
    unlikely = kl(half, [0.7, 0.3]) + kl(half, [6 / 7, 1 / 7]) + kl(half, [1 / 3, 2 / 3])
    assert found.tolist() == pytest.approx([likely, unlikely], abs=1e-5)


@pytest.mark.parametrize(("classes", "likely"), [(7, 1), (7, 3), (7, 6), (300, 10)])
def test_its_parts_are_those_of_the_divergence_from_uniform(classes, likely):
    """By the chain rule the parts, weighted by the groups' shares, are maximum entropy's penalty."""
    generator = torch_stream(0, "focal", classes)
    logits = 2 * torch.randn(20, classes, generator=generator).double()
    labels = torch.randint(0, classes, (20,), generator=generator)
    p = logits.softmax(1)
    plain, focal = [], []
    for row, label in zip(p, labels.tolist(), strict=True):
        order = [label, *(c for c in row.argsort(descending=True).tolist() if c != label)]
        groups = [row[order[:likely]], row[order[likely:]]]
        inside = [kl([1 / len(g)] * len(g), (g / g.sum()).tolist()) for g in groups]
        shares = [len(g) / classes for g in groups]
        between = kl(shares, [float(g.sum()) for g in groups])
        plain.append(between + sum(share * part for share, part in zip(shares, inside, strict=True)))
        focal.append(between + sum(inside))
    assert kl_from_uniform(logits).tolist() == pytest.approx(plain)
    assert focal_divergence(logits, labels, likely).tolist() == pytest.approx(focal)


def test_uniform_is_its_one_minimum():
    logits = torch.zeros(2, 50, requires_grad=True)
    value = focal_divergence(logits, torch.tensor([3, 40]), 10)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert gradient.abs().max() < 1e-6
    generator = torch_stream(0, "others")
    assert (focal_divergence(torch.randn(50, 50, generator=generator), torch.arange(50), 10) > 0.05).all()


def test_few_classes_are_maximum_entropy_bit_for_bit():
    logits = torch.randn(6, 5, generator=torch_stream(0, "few"))
    assert torch.equal(focal_divergence(logits, torch.zeros(6).long(), 5), kl_from_uniform(logits))
    losses = []
    for name, options in (("focal_entropy", {"likely": 5}), ("max_entropy", {})):
        with isolated_rng(0, "made"):
            defense = build_defense(Choice(name=name, options={"weight": 1.3, "adversaries": 2, **options}))
        edge = contract["make_edge"]("vector")
        defense.attach(edge)
        losses.append(defense.loss(contract["make_batch"](edge)))
    assert torch.equal(*losses)


def test_among_thousands_it_sees_who_is_told_from_ten():
    """An adversary that singles one out of ten it cannot tell from the others: plain entropy hardly minds."""
    logits = torch.zeros(1, 5000)
    logits[0, :10] = 2.0
    narrow = logits.clone()
    narrow[0, 0] = 5.0
    label = torch.tensor([0])
    minded = [
        float(penalty(narrow) - penalty(logits))
        for penalty in (kl_from_uniform, lambda z: focal_divergence(z, label, 10))
    ]
    assert minded[0] < 0.05
    assert minded[1] > 0.5


def test_bad_options_are_named():
    with pytest.raises(ConfigError, match=r"defense\.options\.likely: 0 - must be at least 1"):
        build_defense(Choice(name="focal_entropy", options={"likely": 0}))
