"""What every defense must do. A new defense is one row: options under which it acts on the trunk."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from privhier.config import Choice, ModelConfig
from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    build_defense,
    defenses,
    task_loss_per_record,
)
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng

ROWS = {
    "none": {},
    "ceb": {"weight": 0.05, "sigma": 0.5},
    "cell_means": {"weight": 0.1, "begins": 0.0},
    "disco": {"weight": 1.5},
    "distance_correlation": {"weight": 0.5},
    "erase": {},
    "focal_entropy": {"weight": 1.0, "likely": 2, "adversaries": 1},
    "gain": {"weight": 0.3},
    "gradient_reversal": {"weight": 1.5},
    "hsic": {"weight": 1.5, "features": 100},
    "kernel_closed_form": {"weight": 0.5},
    "leak_budget": {"weight": 0.1, "budgets": [0.1, 0.2], "adversaries": 1, "restart_every": 3},
    "letters_balance": {"weight": 0.2},
    "max_entropy": {"weight": 1.5},
    "min_max": {"weight": 1.0, "adversary_steps": 2, "adversaries": 2, "restart_every": 2},
    "reconstruction": {"weight": 30.0},
    "sum": {"parts": [{"name": "max_entropy", "weight": 0.5}, {"name": "gradient_reversal", "weight": 0.5}]},
    "vib": {"weight": 0.02, "sigma": 0.5},
}
UNREGISTERED = {"comparing": {"weight": 0.5}}
"""Of tests only: a defense whose losses compare records (``tests/made_up``)."""
VARIANTS = {
    "max_entropy, a panel": (
        "max_entropy",
        {"weight": 0.5, "target": "prior", "adversaries": 4, "restart_every": 2},
    ),
    "sum, one that mixes": (
        "sum",
        {
            "parts": [
                {"name": "cell_means", "options": {"weight": 0.1, "begins": 0.0}},
                {"name": "min_max", "options": {"adversaries": 2, "restart_every": 2}},
            ]
        },
    ),
}
"""Further options of registered defenses that change what they are made of."""
BOTTLENECKS = {
    "vector": {"kind": "dimension", "size": 6},
    "map": {"kind": "channels", "size": 3},
    "letters": {"kind": "letters", "size": 2, "letters": 5, "groups": 3, "fit": "learned"},
}
SILENT = frozenset({"disco", "erase", "kernel_closed_form", "none"})
"""Those whose loss shapes no trunk: ``none``, closed forms, which do all they do in ``finish``, and those
that train their outlet alone against the secret."""
LABEL_FREE = frozenset({"gain", "reconstruction", "vib"})
"""Those whose term is about images or features, not about labels: it applies to records without any."""
ANSWERS = ReleaseMechanism("randomized_response", letters=5, groups=3, epsilon=6.0)
BATCH, SIZE = 64, 16
ENOUGH = 0.85
"""Of the task loss, that training must go below."""


def make_edge(release: str) -> EdgeSegment:
    config = ModelConfig(bottleneck=BOTTLENECKS[release], exit_hidden=8)
    edge, _ = build_network(
        config,
        image_size=SIZE,
        task_classes={"a": 2, "bin(age, 20, 40)": 3},
        sensitive_classes={"race==0": 2, "race": 5},
        seed=0,
    )
    return edge


def make_batch(edge: EdgeSegment, *, unknown: slice | None = None) -> DefenseBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
    labels = [torch.randint(0, k, (BATCH,), generator=generator) for k in (2, 3, 2, 5)]
    if unknown is not None:
        for column in labels:
            column[unknown] = -1
    z = clipped = edge.features(images)
    if edge.codebook is not None:
        z = ANSWERS.sanitize(z, SeededNoise(0, "answers"), edge.codebook).values
    return DefenseBatch(
        z=z,
        task_labels=labels[:2],
        sensitive_labels=labels[2:],
        edge=edge,
        clipped=clipped,
        images=images,
        persons=torch.arange(BATCH) // 4,
    )


def make_data(edge: EdgeSegment) -> DefenseData:
    """Sixteen hundred records whose features follow their labels a little, four of a person."""
    generator = torch.Generator().manual_seed(2)
    n = 1600
    labels = [torch.randint(0, k, (n,), generator=generator) for k in (2, 3, 2, 5)]
    z = torch.randn(n, math.prod(edge.feature_shape), generator=generator)
    for column, known in enumerate(labels):
        z[:, column] += known
    return DefenseData(
        task_labels=labels[:2],
        sensitive_labels=labels[2:],
        task_classes=[2, 3],
        sensitive_classes=[2, 5],
        persons=torch.arange(n) // 4,
        mean_image=lambda: torch.zeros(3, SIZE, SIZE),
        seed=0,
        features=lambda: z.view(n, *edge.feature_shape),
    )


def fits(defense: type[Defense], release: str) -> bool:
    """Whether the defense is made for such releases."""
    kinds = {"letters"} if release == "letters" else {"values"}
    kinds |= {"map"} if release == "map" else set()
    return defense.needs & {"letters", "values", "map"} <= kinds


def prepared(name: str, release: str) -> tuple[Defense, EdgeSegment]:
    """The defense and an edge, in the order in which a training prepares them."""
    registered, options = VARIANTS[name] if name in VARIANTS else (name, {**ROWS, **UNREGISTERED}[name])
    with isolated_rng(0, "made", name):
        defense = build_defense(Choice(name=registered, options=options))
        edge = make_edge(release)
        outlet = defense.outlet(edge.feature_shape)
    if outlet is not None:
        edge.outlet = outlet
    with isolated_rng(0, "attach", name):
        defense.attach(edge)
    if defense.reads_data:
        defense.begin(edge, make_data(edge))
    return defense, edge


def trunk_gradient(edge: EdgeSegment, loss: Callable[[DefenseBatch], torch.Tensor]) -> torch.Tensor:
    edge.zero_grad(set_to_none=True)
    loss(make_batch(edge)).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in edge.trunk.parameters()])


PAIRS = [
    pytest.param((name, release), id=f"{name}-{release}")
    for name in [*ROWS, *UNREGISTERED, *VARIANTS]
    for release in BOTTLENECKS
    if name in UNREGISTERED or name not in defenses.names() or fits(defenses.get(name), release)
]
FIRST = list({pair.values[0][0]: pair for pair in reversed(PAIRS)}.values())
"""Of each defense the first release it is made for; of what takes seconds the others are slow tests."""
REST = [pair for pair in PAIRS if pair not in FIRST]


@pytest.fixture(params=PAIRS)
def made(request: pytest.FixtureRequest) -> tuple[str, Defense, EdgeSegment]:
    name, release = request.param
    if name in UNREGISTERED:
        request.getfixturevalue(name)
    return (name, *prepared(name, release))


@pytest.fixture
def defense(made: tuple[str, Defense, EdgeSegment]) -> Defense:
    return made[1]


@pytest.fixture
def edge(made: tuple[str, Defense, EdgeSegment]) -> EdgeSegment:
    return made[2]


def name_of(defense: Defense) -> str:
    found = [name for name in defenses.names() if type(defense) is defenses.get(name)]
    return found[0] if found else ""


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
    part = batch.part(slice(4))
    return not torch.allclose(defense.loss(part), defense.loss(batch)[:4], atol=1e-5)


def test_records_mix_where_the_defense_says_so_and_nowhere_else(defense: Defense, edge: EdgeSegment) -> None:
    assert records_mix(defense, edge) is defense.mixes_records


@pytest.mark.usefixtures("comparing")
def test_a_defense_that_hides_that_it_mixes_is_seen() -> None:
    mixing = defenses.get("comparing")
    assert records_mix(type("Hidden", (mixing,), {"mixes_records": False})(), make_edge("vector"))


def test_unknown_labels_contribute_nothing(defense: Defense, edge: EdgeSegment) -> None:
    if name_of(defense) in LABEL_FREE:
        return
    loss = defense.loss(make_batch(edge, unknown=slice(0, 5)))
    assert torch.equal(loss[:5], torch.zeros(5))
    if defense.mixes_records:  # the others are then compared among themselves
        known = slice(5, None)
        whole = make_batch(edge).part(known)
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
    own = {id(p) for p in defense.adversaries()}
    assert all((p.grad is not None) is (id(p) in own) for p in defense.parameters())


def test_acts_on_the_trunk_unless_it_is_none(defense: Defense, edge: EdgeSegment) -> None:
    plain = trunk_gradient(edge, task_loss_per_record)
    shaped = trunk_gradient(edge, defense.loss)
    if name_of(defense) in SILENT:
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
    if name_of(defense) not in SILENT:
        half, whole = (
            trunk_gradient(edge, lambda batch, share=share: defense.loss(replace(batch, strength=share)))
            for share in (0.5, 1.0)
        )
        assert torch.allclose(half - plain, (whole - plain) / 2, atol=1e-5)


def test_at_no_strength_its_loss_is_the_tasks_and_the_adversaries(
    defense: Defense, edge: EdgeSegment
) -> None:
    batch = replace(make_batch(edge), strength=0.0)
    learning = task_loss_per_record(batch) + defense.adversary_loss(batch.z, batch)
    assert torch.allclose(defense.loss(batch), learning, atol=1e-5)


def test_own_parameters_move(defense: Defense, edge: EdgeSegment) -> None:
    assert own_parameters_move(defense, edge)
    assert defense.has_parameters or not list(defense.parameters())


def after_steps(defense: Defense, edge: EdgeSegment) -> dict[str, torch.Tensor]:
    """What three steps leave in the defense, and a finish in the outlet where it has one."""
    if defense.reads_data:
        for step in range(3):
            with torch.no_grad(), isolated_rng(0, "after", step):
                defense.after_step(make_batch(edge))
    if defense.finishes:
        with torch.no_grad(), isolated_rng(0, "finish"):
            defense.finish(edge, make_data(edge))
    return {**defense.state_dict(), **edge.state_dict(prefix="edge.")}


def test_its_state_is_the_same_from_the_same_seed_and_survives_a_checkpoint(
    made: tuple[str, Defense, EdgeSegment], request: pytest.FixtureRequest
) -> None:
    name, defense, edge = made
    release = request.node.callspec.params["made"][1]
    first = {key: value.clone() for key, value in after_steps(defense, edge).items()}
    again, other = prepared(name, release)
    second = after_steps(again, other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    resumed, loaded = prepared(name, release)
    loaded.load_state_dict(edge.state_dict())
    resumed.load_state_dict(defense.state_dict())
    assert torch.equal(resumed.loss(make_batch(loaded)), defense.loss(make_batch(edge)))


def test_nothing_is_drawn_from_the_global_generator(
    made: tuple[str, Defense, EdgeSegment], request: pytest.FixtureRequest
) -> None:
    before = torch.random.get_rng_state()
    defense, edge = prepared(made[0], request.node.callspec.params["made"][1])
    defense.loss(make_batch(edge)).mean().backward()
    after_steps(defense, edge)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_records_are_enough(defense: Defense, edge: EdgeSegment) -> None:
    loss = defense.loss(make_batch(edge).part(slice(2)))
    assert loss.shape == (2,)
    loss.mean().backward()
    gradients = [p.grad for p in [*edge.parameters(), *defense.parameters()] if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_a_finished_outlet_takes_every_record_by_itself(defense: Defense, edge: EdgeSegment) -> None:
    after_steps(defense, edge)
    edge.eval()
    with torch.no_grad():
        z = torch.randn(6, *edge.feature_shape, generator=torch.Generator().manual_seed(3))
        together, alone = edge.outlet(z), torch.cat([edge.outlet(row) for row in z.split(1)])
    assert together.shape == z.shape
    assert together.isfinite().all()
    assert torch.allclose(together, alone, atol=1e-5)
    if defense.finishes:
        assert not torch.allclose(together, z, atol=1e-4)


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


@pytest.mark.parametrize("made", FIRST, indirect=True)
def test_training_lowers_the_task_loss(defense: Defense, edge: EdgeSegment) -> None:
    assert lowered(defense, edge) < ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("made", REST, indirect=True)
def test_training_lowers_the_task_loss_through_other_releases(defense: Defense, edge: EdgeSegment) -> None:
    assert lowered(defense, edge) < ENOUGH


def lowered(defense: Defense, edge: EdgeSegment) -> float:
    """What forty steps leave of the task loss, as a share of it; or fewer that leave less than ``ENOUGH``."""
    optimizer = torch.optim.Adam([*edge.parameters(), *defense.parameters()], lr=3e-3)
    before = after = task_loss_of(edge)
    for step in range(40):
        optimizer.zero_grad()
        defense.loss(make_batch(edge)).mean().backward()
        optimizer.step()
        if step % 8 == 7 and (after := task_loss_of(edge)) < ENOUGH * before:
            break
    return after / before


@torch.no_grad()
def task_loss_of(edge: EdgeSegment) -> float:
    return task_loss_per_record(make_batch(edge)).mean().item()
