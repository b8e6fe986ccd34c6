"""What the single defenses promise beyond the contract."""

import math

import pytest
import torch
import torch.nn.functional as F

from privhier.config import Choice, ModelConfig
from privhier.defenses.base import DefenseBatch, build_defense, classification_loss, task_loss_per_record
from privhier.defenses.gradient_reversal import reverse_gradient
from privhier.defenses.max_entropy import kl_from_uniform
from privhier.errors import ConfigError, UnknownNameError
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network


@pytest.fixture
def edge() -> EdgeSegment:
    config = ModelConfig(bottleneck={"kind": "dimension", "size": 4}, exit_hidden=8)
    return build_network(
        config, image_size=32, task_classes={"t": 2}, sensitive_classes={"s": 3, "u": 2}, seed=3
    )[0]


def batch_of(edge: EdgeSegment, n: int = 32) -> DefenseBatch:
    """The sensitive attribute s is the brightness of the image; the task is unrelated."""
    generator = torch.Generator().manual_seed(0)
    task, s, u = (torch.randint(0, k, (n,), generator=generator) for k in (2, 3, 2))
    images = torch.randn(n, 3, 32, 32, generator=generator) * 0.3
    images += (s - 1.0)[:, None, None, None]
    images[:, :, :16] += (task - 0.5)[:, None, None, None]
    return DefenseBatch(z=edge.features(images), task_labels=[task], sensitive_labels=[s, u], edge=edge)


def trunk_gradient(edge: EdgeSegment, loss: torch.Tensor) -> torch.Tensor:
    parameters = [*edge.trunk.parameters(), *edge.bottleneck.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), parameters)])


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_reversal_is_the_task_gradient_minus_weighted_adversary_gradient(
    edge: EdgeSegment, weight: float
) -> None:
    defense = build_defense(Choice(name="gradient_reversal", options={"weight": weight}))
    task = trunk_gradient(edge, task_loss_per_record(batch_of(edge)))
    batch = batch_of(edge)
    adversary = trunk_gradient(
        edge, classification_loss(edge.adversary_logits(batch.z), batch.sensitive_labels)
    )
    got = trunk_gradient(edge, defense.loss(batch_of(edge)))
    assert adversary.norm() > 0
    assert torch.allclose(got, task - weight * adversary, atol=1e-6)


def test_reversal_leaves_the_value_alone() -> None:
    z = torch.tensor([1.0, -2.0], requires_grad=True)
    out = reverse_gradient(z, 3.0)
    assert torch.equal(out, z)
    (out * torch.tensor([1.0, 10.0])).sum().backward()
    assert z.grad.tolist() == [-3.0, -30.0]


def test_kl_from_uniform_against_its_definition() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [2.0, -1.0, 0.5], [30.0, 0.0, 0.0]], dtype=torch.float64)
    p = logits.softmax(1).tolist()
    expected = [sum(math.log((1 / 3) / value) / 3 for value in row) for row in p]
    assert kl_from_uniform(logits).tolist() == pytest.approx(expected)
    assert kl_from_uniform(logits)[0].item() == pytest.approx(0, abs=1e-12)


def adversary_kl(edge: EdgeSegment) -> float:
    batch = batch_of(edge)
    with torch.no_grad():
        return float(sum(kl_from_uniform(logits).mean() for logits in edge.adversary_logits(batch.z)))


def adversary_cross_entropy(edge: EdgeSegment) -> float:
    batch = batch_of(edge)
    with torch.no_grad():
        loss = sum(
            F.cross_entropy(logits, labels)
            for logits, labels in zip(edge.adversary_logits(batch.z), batch.sensitive_labels, strict=True)
        )
    return float(loss)


def train(
    edge: EdgeSegment, parameters: list[torch.nn.Parameter], name: str, steps: int = 25, lr: float = 1e-2
) -> None:
    defense = build_defense(Choice(name=name))
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        defense.loss(batch_of(edge)).mean().backward()
        optimizer.step()


def test_max_entropy_moves_the_trunk_toward_a_uniform_adversary(edge: EdgeSegment) -> None:
    train(edge, list(edge.adversarial_exits.parameters()), "none", steps=60)
    certain = adversary_kl(edge)
    assert certain > 0.05
    train(edge, [*edge.trunk.parameters(), *edge.bottleneck.parameters()], "max_entropy", lr=1e-3)
    assert adversary_kl(edge) < 0.5 * certain


def test_max_entropy_does_not_teach_the_adversary_to_be_uniform(edge: EdgeSegment) -> None:
    before = adversary_cross_entropy(edge), adversary_kl(edge)
    train(edge, list(edge.adversarial_exits.parameters()), "max_entropy")
    assert adversary_cross_entropy(edge) < before[0] - 0.1
    assert adversary_kl(edge) > before[1]


def test_adversary_steps_come_from_the_options() -> None:
    assert build_defense(Choice(name="none")).adversary_steps == 0
    defense = build_defense(Choice(name="gradient_reversal", options={"weight": 3, "adversary_steps": 2}))
    assert defense.adversary_steps == 2
    assert repr(defense) == "GradientReversal(weight=3.0, adversary_steps=2)"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "max_entropy",
            {"wieght": 1.0},
            r"defense\.options\.wieght: 1\.0 - is not an option.*Did you mean weight",
        ),
        ("none", {"weight": 1.0}, r"defense\.options\.weight: 1\.0 - .*It takes no options"),
        ("max_entropy", {"weight": -1.0}, r"defense\.options\.weight: -1\.0 - must be at least 0"),
        ("gradient_reversal", {"weight": "much"}, r"defense\.options\.weight: 'much' - .*valid number"),
        ("gradient_reversal", {"weight": True}, r"defense\.options\.weight: True - "),
        ("gradient_reversal", {"weight": float("inf")}, r"defense\.options\.weight: inf - .*finite"),
        ("gradient_reversal", {"adversary_steps": 1.5}, r"defense\.options\.adversary_steps: 1\.5 - "),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_defense(Choice(name=name, options=options))


def test_unknown_defense_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"defense\.name: 'max_entrpy'.*Did you mean max_entropy"):
        build_defense(Choice(name="max_entrpy"))
