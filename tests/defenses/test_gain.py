"""Learned gains: what the penalty is, and that the norm goes where the task looks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from privhier.config import Choice
from privhier.defenses.base import DefenseBatch, build_defense
from privhier.defenses.gain import Gain, share_of_norm
from privhier.errors import ConfigError
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.private_plan import check_defense

D = 8


def learned(weight: float, *, steps: int = 120) -> tuple[Gain, float]:
    """Gains learned where value 0 alone says anything of the task, and its share of the energy at the end."""
    defense = build_defense(Choice(name="gain", options={"weight": weight}))
    mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=0.3)
    gain = defense.outlet((D,))
    with isolated_rng(0, "gain"):
        task, secret = nn.Linear(D, 2), nn.Linear(D, 2)
    edge = SimpleNamespace(
        task_logits=lambda z: [task(z)], adversary_logits=lambda z: [secret(z)], outlet=gain
    )
    optimizer = torch.optim.Adam([*gain.parameters(), *task.parameters()], lr=0.03)
    draw, noise = torch_stream(0, "gain"), SeededNoise(0, "gain")
    for _ in range(steps):
        labels = torch.randint(0, 2, (128,), generator=draw)
        f = torch.randn(128, D, generator=draw)
        f[:, 0] = 2 * labels - 1 + 0.3 * f[:, 0]
        z = gain(f)
        batch = DefenseBatch(
            z=mechanism.sanitize(z, noise).values,
            task_labels=[labels],
            sensitive_labels=[labels],
            edge=edge,
            clipped=mechanism.clip_features(z),
        )
        optimizer.zero_grad()
        defense.loss(batch).mean().backward()
        optimizer.step()
    share = mechanism.clip_features(gain(f)).detach()
    return gain, float(share[:, 0].square().sum() / share.square().sum())


def test_the_share_of_the_norm_is_the_formula():
    values = torch.randn(5, 2, 3, 4, generator=torch_stream(0, "share"))
    for record, share in zip(values, share_of_norm(values), strict=True):
        flat = record.flatten().double()
        assert float(share) == pytest.approx(float(flat.abs().sum() / (24**0.5 * flat.norm())), rel=1e-5)
    assert torch.allclose(share_of_norm(7 * values), share_of_norm(values))
    assert share_of_norm(torch.zeros(2, 3)).tolist() == [0.0, 0.0]


def test_its_gradient_is_finite_where_a_record_is_zero():
    values = torch.zeros(2, 3, requires_grad=True)
    share_of_norm(values).sum().backward()
    assert values.grad.isfinite().all()


def test_gains_start_as_the_identity_one_for_every_value():
    x = torch.randn(2, 3, 4, 4, generator=torch_stream(0, "x"))
    gain = Gain((3, 4, 4))
    assert torch.equal(gain(x), x)
    with torch.no_grad():
        gain.log_gain[1, 2, 3] = 2.0
    assert torch.allclose(gain(x)[:, 1, 2, 3], torch.tensor(2.0).exp() * x[:, 1, 2, 3])
    assert int((gain(x) != x).sum()) == 2


def test_the_norm_goes_where_the_task_looks_and_more_of_it_under_the_penalty():
    gain, share = learned(0.3)
    _, without = learned(0.0)
    g = gain.log_gain.detach()
    assert float(g[0] - g[1:].max()) > 1
    assert 1 - share < (1 - without) / 2
    assert share > 0.9


def test_a_channel_of_larger_gain_arrives_with_more_signal_to_the_same_noise():
    """Shaped by the clip alone: the noise, and the norm it hides, are those of a release without gains."""
    mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=0.05)
    x = torch.randn(400, 3, 4, 4, generator=torch_stream(0, "map"))
    ratios = {}
    for name, gains in (("plain", (0.0, 0.0, 0.0)), ("shaped", (0.0, 1.5, 0.0))):
        outlet = Gain((3, 4, 4))
        with torch.no_grad():
            outlet.log_gain += torch.tensor(gains)[:, None, None]
            clipped = mechanism.clip_features(outlet(x))
            noise = mechanism.sanitize(outlet(x), SeededNoise(0, name)).values - clipped
        assert float(clipped.flatten(1).norm(dim=1).max()) <= 1 + 1e-6
        assert torch.allclose(noise.std(dim=(0, 2, 3)), torch.tensor(0.05), rtol=0.05)
        ratios[name] = clipped.square().mean(dim=(0, 2, 3)) / noise.square().mean(dim=(0, 2, 3))
    plain, shaped = ratios["plain"], ratios["shaped"]
    assert torch.allclose(plain, plain.mean().expand(3), rtol=0.1)
    assert float(shaped[1] / shaped[0]) == pytest.approx(math.exp(3), rel=0.1)
    assert float(shaped[1]) > 2 * float(plain[1])
    assert float(shaped[0]) < float(plain[0]) / 2


def test_it_is_refused_under_dp_sgd_and_for_letters(small_config):
    def check(**more) -> None:
        config = small_config(epochs=(1, 0, 1), defense={"name": "gain"}, **more)
        check_defense(config, build_defense(config.defense))

    check()
    with pytest.raises(ConfigError, match="trains parameters of its own"):
        check(edge={"dp_sgd": {"noise_multiplier": 1.0}})
    with pytest.raises(ConfigError, match=r"model\.bottleneck\.kind: 'letters' - must not be letters"):
        check(
            model={"bottleneck": {"kind": "letters", "size": 2, "letters": 4}},
            release={"mechanism": "randomized_response", "target_epsilon": 4.0},
        )
