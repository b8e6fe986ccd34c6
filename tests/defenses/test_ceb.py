"""The bottlenecks that count nats: their formula, their bound, and where it is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from privhier import session as job
from privhier.config import Choice, load_config
from privhier.defenses.base import DefenseBatch, build_defense
from privhier.defenses.nats import SAID
from privhier.errors import ConfigError
from privhier.evaluation.result import Result
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.seeding import isolated_rng
from privhier.training.folder import RunFolder

CELLS = {(0, 0): 0.35, (0, 1): 0.15, (1, 0): 0.1, (1, 1): 0.4}
"""P(task, secret) of the toy."""
SHAPES = [(1.0, 0.3), (0.2, 1.0), (0.0, 0.2), (1.0, 0.0)]
"""How far task and secret move its feature."""


def toy_edge(tasks: tuple[int, ...] = (2,), width: int = 1) -> EdgeSegment:
    with isolated_rng(0, "toy edge"):
        return EdgeSegment(
            torch.nn.Identity(),
            torch.nn.Linear(width, width),
            task_exits={f"t{i}": Exit((width,), k, 0) for i, k in enumerate(tasks)},
            adversarial_exits={"s": Exit((width,), 2, 0)},
            feature_shape=(width,),
            description={},
        )


def attached(name: str, tasks: tuple[int, ...] = (2,), width: int = 1, **options: object) -> Any:
    defense = build_defense(Choice(name=name, options=options))
    defense.attach(toy_edge(tasks, width))
    return defense


def toy(a: float, b: float, n: int = 1000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, task and secret of records in exactly these shares."""
    rows = [(y, s) for (y, s), share in CELLS.items() for _ in range(round(share * n))]
    y, s = torch.tensor(rows).T
    return (a * y + b * s)[:, None].float(), y, s


def information(a: float, b: float, sigma: float) -> float:
    """I(Z; S) in nats by numerical integration over z."""

    def density(z: float, secret: int) -> float:
        """Joint with the secret."""
        return sum(p * norm.pdf(z, a * y + b * s, sigma) for (y, s), p in CELLS.items() if s == secret)

    shares = [sum(p for (_, s), p in CELLS.items() if s == k) for k in (0, 1)]

    def integrand(z: float) -> float:
        joint = [density(z, k) for k in (0, 1)]
        whole = sum(joint)
        return sum(p * math.log(p / (whole * share)) for p, share in zip(joint, shares, strict=True) if p)

    low, high = -8 * sigma, a + b + 8 * sigma
    return quad(integrand, low, high, points=[0, a, b, a + b], limit=200)[0]


def best_means(defense: Any, f: torch.Tensor, y: torch.Tensor) -> None:
    for k in (0, 1):
        defense.means[0].data[k] = f[y == k].mean(0)


@pytest.mark.parametrize("sigma", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_bound_is_above_what_the_release_says(a, b, sigma):
    f, y, s = toy(a, b)
    defense = attached("ceb", sigma=sigma)
    truth = information(a, b, sigma)
    (at_start,) = defense.bound(f, [y], [s], sigma)
    best_means(defense, f, y)
    (bound,) = defense.bound(f, [y], [s], sigma)
    assert truth <= bound + 1e-9 <= at_start + 2e-9
    plain = attached("vib", sigma=sigma).report(batch_of(f, y, s, sigma))
    (said,) = plain.values()
    assert truth <= said


def test_the_bound_is_tight_where_little_is_said_and_a_smaller_one_would_be_false():
    """A secret the task does not say, at little signal: half the nats, or no I(Y; S), are too few."""
    cells = {(y, s): 0.25 for y in (0, 1) for s in (0, 1)}
    f, y, s = toy(0.0, 0.2)
    even = torch.cat([torch.arange(len(s))[s == k][:400] for k in (0, 1)])
    f, y, s = f[even], torch.arange(800) % 2, s[even]
    defense = attached("ceb")
    best_means(defense, f, y)
    (bound,) = defense.bound(f, [y], [s], 1.0)
    before = dict(CELLS)
    CELLS.update(cells)
    try:
        truth = information(0.0, 0.2, 1.0)
    finally:
        CELLS.update(before)
    assert truth <= bound < 1.02 * truth
    assert bound / 2 < truth
    f, y, s = toy(1.0, 0.0)
    best_means(defense, f, y)
    (bound,) = defense.bound(f, [y], [s], 0.1)
    told = sum(
        p * math.log(p / (0.5 * share)) for (_, s_), p in CELLS.items() for share in [(0.45, 0.55)[s_]]
    )
    assert bound == pytest.approx(told, abs=1e-6)  # the release is the task, and says what the task says
    assert information(1.0, 0.0, 0.1) == pytest.approx(told, rel=1e-3)


def batch_of(f: torch.Tensor, y: torch.Tensor, s: torch.Tensor, sigma: float = 0.0, **more: Any) -> Any:
    edge = more.pop("edge", None) or toy_edge()
    return DefenseBatch(z=f, task_labels=[y], sensitive_labels=[s], edge=edge, clipped=f, sigma=sigma, **more)


@pytest.mark.parametrize("name", ["ceb", "vib"])
@pytest.mark.parametrize(("given", "used"), [(None, 0.5), (2.0, 2.0)])
def test_the_price_is_the_published_one(name, given, used):
    f, y, s = toy(1.0, 0.3, n=20)
    f = f.requires_grad_()
    defense = attached(name, weight=0.7, sigma=given)
    if name == "ceb":
        with torch.no_grad():
            defense.means[0].copy_(torch.tensor([[0.4], [-0.2]]))
    price = defense.loss(batch_of(f, y, s, 0.5)) - defense.loss(batch_of(f, y, s, 0.5, strength=0.0))
    centers = torch.tensor([0.4, -0.2])[y] if name == "ceb" else 0.0
    wanted = 0.7 * (f[:, 0] - centers) ** 2 / (2 * used**2)
    assert torch.allclose(price, wanted, atol=1e-5)
    (slope,) = torch.autograd.grad(price.sum(), f)
    assert torch.allclose(slope[:, 0], 0.7 * (f[:, 0] - centers) / used**2, atol=1e-5)


def test_the_mean_of_several_tasks_is_one_for_each_and_what_lacks_a_label_has_no_price():
    defense = attached("ceb", tasks=(2, 3), width=4, weight=1.0, sigma=1.0)
    generator = torch.Generator().manual_seed(0)
    for means in defense.means:
        means.data = torch.randn(means.shape, generator=generator)
    y, u, s = torch.tensor([0, 1, 1, -1]), torch.tensor([2, 0, -1, 1]), torch.tensor([0, 1, 0, 1])
    f = torch.zeros(4, 4)
    edge = toy_edge((2, 3), 4)

    def loss(strength: float) -> torch.Tensor:
        return defense.loss(
            DefenseBatch(
                z=f,
                task_labels=[y, u],
                sensitive_labels=[s],
                edge=edge,
                clipped=f,
                strength=strength,
            )
        )

    price = loss(1.0) - loss(0.0)
    first, second = (means.detach() for means in defense.means)
    wanted = [(first[0] + second[2]).square().sum() / 2, (first[1] + second[0]).square().sum() / 2, 0, 0]
    assert price.tolist() == pytest.approx([float(x) for x in wanted], abs=1e-4)
    assert defense.bound(f[2:], [y[2:], u[2:]], [s[2:]], 1.0) == [None]


def test_means_that_are_trained_go_to_the_classes():
    f, y, s = toy(1.0, 0.3)
    defense = attached("ceb", weight=1.0, sigma=1.0)
    edge = toy_edge()
    optimizer = torch.optim.Adam(defense.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        defense.loss(batch_of(f, y, s, edge=edge)).mean().backward()
        optimizer.step()
    wanted = torch.stack([f[y == k].mean(0) for k in (0, 1)])
    assert torch.allclose(defense.means[0], wanted, atol=0.02)


SMALL = [
    "schedule.cloud_epochs=1", "attacks.raw_image=false", "attacks.reconstruction=[]", "attacks.draws=1",
    "evaluation.bootstrap=100", "runtime.threads=1", "tracking.enabled=false", "defense.options={}",
]  # fmt: skip


@pytest.fixture
def configured(repository: Path) -> Any:
    def make(name: str, *more: str) -> Any:
        return load_config(repository / "configs" / "debug.yaml", [*SMALL, f"defense.name={name}", *more])

    return make


def test_a_run_tells_the_bound(configured: Any, tmp_path: Path) -> None:
    session = job.open_session(configured("ceb", "release.sigma=0.8"), tmp_path / "run")
    job.run(session, command="run")
    said = Result.read(tmp_path / "run" / "result.json").release["defense"]
    bound = said[SAID.format("")]["male"]
    assert 0 < bound < np.log(2) + 1 / (2 * 0.8**2)
    page = (tmp_path / "run" / "report.html").read_text()
    assert SAID.format("") in page
    assert f"male: {bound:.6g}" in page


QUIET = ["release.mechanism=none", "release.sigma=null"]


@pytest.mark.parametrize("name", ["ceb", "vib"])
def test_a_run_without_noise_has_nothing_to_count_by(configured: Any, tmp_path: Path, name: str) -> None:
    for more in (QUIET, ["release.sigma=0.0"], ["release.mechanism=laplace"]):
        with pytest.raises(
            ConfigError, match=r"release\.mechanism: .*must be gaussian.*defense\.options\.sigma"
        ):
            job.open_session(configured(name, *more), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_sigma_of_the_options_shapes_but_bounds_nothing(configured: Any, tmp_path: Path) -> None:
    session = job.open_session(configured("vib", *QUIET, "defense.options.sigma=1.0"), tmp_path / "run")
    job.train(session)
    folder = RunFolder(tmp_path / "run")
    assert "defense" not in folder.sealed.read_json(folder.training)
