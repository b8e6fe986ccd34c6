"""A defense's own adversaries: of unlike kinds, honest, held constant in the penalty, really started anew."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privhier.defenses.adversaries import KINDS, Panel, RandomFourier, build_adversary
from privhier.seeding import isolated_rng, torch_stream

MAP = (6, 20, 20)


def make_panel(count: int, shape: tuple[int, ...] = (5,), classes: tuple[int, ...] = (2, 3)) -> Panel:
    with isolated_rng(0, "panel"):
        return Panel(count, shape, classes)


def kinds_of(adversary: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in adversary.children()]


@pytest.mark.parametrize("shape", [(5,), (3, 4, 4), MAP, (2, 9, 7)])
def test_each_kind_answers_for_every_shape(shape):
    z = torch.randn(4, *shape, generator=torch_stream(0, "z"))
    answers = make_panel(4, shape)(z)
    assert [[tuple(logits.shape) for logits in own] for own in answers] == [[(4, 2)] * 4, [(4, 3)] * 4]


def test_the_kinds_are_unlike():
    vectors = {kind: kinds_of(build_adversary(kind, (5,), 2)) for kind in KINDS}
    assert vectors["linear"] == ["Linear"]
    assert vectors["mlp"] == ["Linear", "ReLU", "Linear"]
    assert vectors["cnn"] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert vectors["fourier"] == ["RandomFourier", "Linear"]
    assert kinds_of(build_adversary("cnn", MAP, 2)).count("Conv2d") == 2
    assert all("Conv2d" not in kinds_of(build_adversary(kind, MAP, 2)) for kind in KINDS if kind != "cnn")
    assert (
        len({str(sorted(name for name, _ in member.named_parameters())) for member in make_panel(4).members})
        == 4
    )


def test_random_features_read_what_no_line_does():
    """A ring around a disk; and their kernel is a positive one, at most 1 far away and 1 at home."""
    generator = torch_stream(0, "ring")
    angle, secret = torch.rand(400, generator=generator) * 6.3, torch.arange(400) % 2
    z = torch.stack([angle.cos(), angle.sin()], 1) * (0.3 + 0.6 * secret[:, None])
    accuracy = {}
    for kind in ("linear", "fourier"):
        with isolated_rng(0, "ring"):
            adversary = build_adversary(kind, (2,), 2)
        optimizer = torch.optim.Adam(adversary.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(adversary(z), secret).backward()
            optimizer.step()
        accuracy[kind] = float((adversary(z).argmax(1) == secret).float().mean())
    assert accuracy["linear"] < 0.65
    assert accuracy["fourier"] > 0.95
    with isolated_rng(0, "kernel"):
        features = RandomFourier(2)(torch.tensor([[0.0, 0.0], [0.01, 0.0], [30.0, 40.0]]))
    near, far = (float(features[0] @ features[k]) / features.shape[1] for k in (1, 2))
    assert near == pytest.approx(1, abs=0.2)
    assert abs(far) < 0.2


def test_held_constant_they_say_the_same_and_pass_the_gradient_to_z_alone():
    panel = make_panel(4)
    z = torch.randn(6, 5, generator=torch_stream(0, "z"), requires_grad=True)
    held = panel.held(z)
    for own, same in zip(panel(z), held, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, same, strict=True))
    sum(logits.square().sum() for own in held for logits in own).backward()
    assert all(parameter.grad is None for parameter in panel.parameters())
    assert z.grad is not None
    assert z.grad.any()


def test_a_restart_draws_one_member_anew_and_leaves_the_others():
    panel = make_panel(4)
    for parameter in panel.parameters():
        nn.init.constant_(parameter, 7.0)
    before = {name: value.clone() for name, value in panel.state_dict().items()}
    with isolated_rng(3, "restart"):
        panel.restart(3)
    after = panel.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("members.3.")}
    with isolated_rng(3, "restart"):
        fresh = build_adversary("fourier", (5,), 2)
    drawn = {f"members.3.0.{name}": value for name, value in fresh.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in drawn.items())


@pytest.mark.parametrize(("count", "every"), [(1, 3), (2, 4), (3, 7), (4, 3), (2, 1)])
def test_each_starts_anew_once_in_a_while_and_not_all_at_once(count, every):
    panel = make_panel(count)
    due = [panel.due(step, every) for step in range(1, 4 * every + 1)]
    for number in range(count):
        times = [step for step, numbers in enumerate(due, 1) if number in numbers]
        assert len(times) == 4
        assert {later - sooner for sooner, later in pairwise(times)} <= {every}
    if every >= count:
        assert max(map(len, due)) == 1
