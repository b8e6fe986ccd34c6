"""What every defense must do. A new defense is one row: options under which it acts on the trunk."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from privhier.config import Choice, ModelConfig
from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    DefenseOptions,
    build_defense,
    defenses,
    task_loss_per_record,
)
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism

ROWS = {
    "none": {},
    "cell_means": {"weight": 0.1, "begins": 0.0},
    "gradient_reversal": {"weight": 1.5},
    "max_entropy": {"weight": 1.5},
}
UNREGISTERED = {"comparing": {"weight": 0.5}}
"""Of tests only: a defense whose losses compare records (``tests/made_up``)."""
BOTTLENECKS = {
    "vector": {"kind": "dimension", "size": 6},
    "map": {"kind": "channels", "size": 3},
    "letters": {"kind": "letters", "size": 2, "letters": 5, "groups": 3, "fit": "learned"},
}
ANSWERS = ReleaseMechanism("randomized_response", letters=5, groups=3, epsilon=6.0)
BATCH = 64


def make_edge(release: str) -> EdgeSegment:
    config = ModelConfig(bottleneck=BOTTLENECKS[release], exit_hidden=8)
    edge, _ = build_network(
        config,
        image_size=32,
        task_classes={"a": 2, "bin(age, 20, 40)": 3},
        sensitive_classes={"race==0": 2, "race": 5},
        seed=0,
    )
    return edge


def make_batch(edge: EdgeSegment, *, unknown: slice | None = None) -> DefenseBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = [torch.randint(0, k, (BATCH,), generator=generator) for k in (2, 3, 2, 5)]
    if unknown is not None:
        for column in labels:
            column[unknown] = -1
    z = edge.features(images)
    if edge.codebook is not None:
        z = ANSWERS.sanitize(z, SeededNoise(0, "answers"), edge.codebook).values
    return DefenseBatch(z=z, task_labels=labels[:2], sensitive_labels=labels[2:], edge=edge)


def trunk_gradient(edge: EdgeSegment, loss: Callable[[DefenseBatch], torch.Tensor]) -> torch.Tensor:
    edge.zero_grad(set_to_none=True)
    loss(make_batch(edge)).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in edge.trunk.parameters()])


@pytest.fixture(params=BOTTLENECKS)
def edge(request: pytest.FixtureRequest) -> Iterator[EdgeSegment]:
    return make_edge(request.param)


@pytest.fixture(params=[*ROWS, *UNREGISTERED])
def defense(request: pytest.FixtureRequest) -> Defense:
    if request.param in UNREGISTERED:
        request.getfixturevalue(request.param)
    return build_defense(Choice(name=request.param, options={**ROWS, **UNREGISTERED}[request.param]))


def own_parameters_move(defense: Defense, edge: EdgeSegment) -> bool:
    parameters = list(defense.parameters())
    if not parameters:
        return True
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD([*edge.parameters(), *parameters], lr=0.1)
    defense.loss(make_batch(edge)).mean().backward()
    optimizer.step()
    return all(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def test_every_registered_defense_has_a_row() -> None:
    assert defenses.names() == sorted(ROWS)


def test_one_finite_loss_per_record(defense: Defense, edge: EdgeSegment) -> None:
    loss = defense.loss(make_batch(edge))
    assert loss.shape == (BATCH,)
    assert loss.isfinite().all()
    assert torch.equal(loss, defense.loss(make_batch(edge)))


def test_one_backward_reaches_every_parameter_of_the_edge(defense: Defense, edge: EdgeSegment) -> None:
    defense.loss(make_batch(edge)).mean().backward()
    without = [name for name, p in edge.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def records_mix(defense: Defense, edge: EdgeSegment) -> bool:
    batch = make_batch(edge)
    part = DefenseBatch(
        z=batch.z[:4],
        task_labels=[labels[:4] for labels in batch.task_labels],
        sensitive_labels=[labels[:4] for labels in batch.sensitive_labels],
        edge=edge,
    )
    return not torch.allclose(defense.loss(part), defense.loss(batch)[:4], atol=1e-5)


def test_records_mix_where_the_defense_says_so_and_nowhere_else(defense: Defense, edge: EdgeSegment) -> None:
    assert records_mix(defense, edge) is defense.mixes_records


@pytest.mark.usefixtures("comparing")
def test_a_defense_that_hides_that_it_mixes_is_seen() -> None:
    mixing = defenses.get("comparing")
    assert records_mix(type("Hidden", (mixing,), {"mixes_records": False})(), make_edge("vector"))


def test_unknown_labels_contribute_nothing(defense: Defense, edge: EdgeSegment) -> None:
    loss = defense.loss(make_batch(edge, unknown=slice(0, 5)))
    assert torch.equal(loss[:5], torch.zeros(5))
    if defense.mixes_records:  # the others are then compared among themselves
        whole, known = make_batch(edge), slice(5, None)
        whole = DefenseBatch(
            z=whole.z[known],
            task_labels=[labels[known] for labels in whole.task_labels],
            sensitive_labels=[labels[known] for labels in whole.sensitive_labels],
            edge=edge,
        )
        assert torch.allclose(loss[known], defense.loss(whole), atol=1e-6)
    else:
        assert torch.allclose(loss[5:], defense.loss(make_batch(edge))[5:])
    defense.loss(make_batch(edge, unknown=slice(None))).mean().backward()
    assert all(not parameter.grad.any() for parameter in edge.parameters() if parameter.grad is not None)


def test_adversarial_exits_descend_their_own_cross_entropy(defense: Defense, edge: EdgeSegment) -> None:
    """Whatever the defense does to the trunk, its adversary must be trained as an honest one."""
    defense.loss(make_batch(edge)).mean().backward()
    got = [parameter.grad.clone() for parameter in edge.adversarial_exits.parameters()]
    edge.zero_grad()
    batch = make_batch(edge)
    honest = sum(
        nn.functional.cross_entropy(logits, labels)
        for logits, labels in zip(
            edge.adversary_logits(batch.z.detach()), batch.sensitive_labels, strict=True
        )
    )
    honest.backward()
    for gradient, parameter in zip(got, edge.adversarial_exits.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6)


def test_adversary_steps_train_the_adversarial_exits_only(defense: Defense, edge: EdgeSegment) -> None:
    batch = make_batch(edge)
    loss = defense.adversary_loss(batch.z, batch)
    assert loss.shape == (BATCH,)
    loss.mean().backward()
    reached = {name.split(".")[0] for name, p in edge.named_parameters() if p.grad is not None}
    assert reached == {"adversarial_exits"}


def test_acts_on_the_trunk_unless_it_is_none(defense: Defense, edge: EdgeSegment) -> None:
    plain = trunk_gradient(edge, task_loss_per_record)
    shaped = trunk_gradient(edge, defense.loss)
    if type(defense) is defenses.get("none"):
        assert torch.allclose(shaped, plain, atol=1e-7)
    else:
        assert (shaped - plain).norm() > 0.01 * plain.norm()


def test_at_no_strength_the_trunk_learns_its_task_alone_and_the_exits_learn_on(
    defense: Defense, edge: EdgeSegment
) -> None:
    plain = trunk_gradient(edge, task_loss_per_record)
    weak = trunk_gradient(edge, lambda batch: defense.loss(replace(batch, strength=0.0)))
    exits = torch.cat([p.grad.flatten() for p in edge.adversarial_exits.parameters()])
    assert torch.allclose(weak, plain, atol=1e-6)
    assert exits.norm() > 0
    if type(defense) is not defenses.get("none"):
        half, whole = (
            trunk_gradient(edge, lambda batch, share=share: defense.loss(replace(batch, strength=share)))
            for share in (0.5, 1.0)
        )
        assert torch.allclose(half - plain, (whole - plain) / 2, atol=1e-5)


def test_own_parameters_move(defense: Defense, edge: EdgeSegment) -> None:
    assert own_parameters_move(defense, edge)


def test_a_defense_needs_no_options_to_be_made() -> None:
    class Plain(Defense):
        def loss(self, batch: DefenseBatch) -> torch.Tensor:
            return task_loss_per_record(batch)

    assert repr(Plain()) == "Plain()"
    assert (Plain().adversary_steps, Plain.mixes_records) == (0, False)
    assert Plain().loss(make_batch(make_edge("vector"))).shape == (BATCH,)
    for name in ROWS:
        assert defenses.get(name)().options == defenses.get(name).Options()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_defense_whose_parameter_never_moves_is_caught(forgotten: bool) -> None:
    class Scaled(Defense):
        Options = DefenseOptions

        def __init__(self) -> None:
            super().__init__(DefenseOptions())
            self.scale = nn.Parameter(torch.ones(()))

        def loss(self, batch: DefenseBatch) -> torch.Tensor:
            scale = self.scale.detach() if forgotten else self.scale
            return task_loss_per_record(batch) + self.scale * 0 + scale * batch.z.flatten(1).square().mean(1)

    assert own_parameters_move(Scaled(), make_edge("vector")) is not forgotten


def test_training_lowers_the_task_loss(defense: Defense, edge: EdgeSegment) -> None:
    optimizer = torch.optim.Adam([*edge.parameters(), *defense.parameters()], lr=3e-3)
    with torch.no_grad():
        before = task_loss_per_record(make_batch(edge)).mean()
    for _ in range(40):
        optimizer.zero_grad()
        defense.loss(make_batch(edge)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = task_loss_per_record(make_batch(edge)).mean()
    assert after < 0.85 * before
