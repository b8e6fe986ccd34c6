"""The closed-form projection: the best direction by brute force, both ends of the trade, and a whole run."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression

from privhier.config import Choice
from privhier.datasets.load import load_dataset
from privhier.defenses.base import DefenseData, build_defense
from privhier.errors import ConfigError, TrainingError
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.features import edge_features
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.private_plan import check_private
from privhier.training.trainer import Trainer

N = 3000


def drawn(d: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that task and secret move along directions of their own, neither of which is an axis."""
    rng = numpy_stream(seed, "closed form")
    task = rng.integers(0, 2, N)
    secret = np.where(rng.random(N) < 0.7, task, 1 - task)
    directions = rng.normal(size=(2, d))
    z = (
        rng.normal(size=(N, d)) * 0.5
        + 2 * task[:, None] * directions[0]
        + 2 * secret[:, None] * directions[1]
    )
    return torch.from_numpy(z).float(), torch.from_numpy(task), torch.from_numpy(secret)


def toy_edge(defense: Any, d: int) -> EdgeSegment:
    with isolated_rng(0, "toy edge"):
        edge = EdgeSegment(
            torch.nn.Identity(),
            torch.nn.Identity(),
            task_exits={"t": Exit((d,), 2, 0)},
            adversarial_exits={"s": Exit((d,), 2, 0)},
            feature_shape=(d,),
            description={},
        )
        edge.outlet = defense.outlet((d,))
    return edge


def fitted(rows: Any, *, sign: int = 1, **options: object) -> EdgeSegment:
    """An edge whose outlet is fitted to these records; ``sign`` -1, sabotage, makes the cost a gain."""
    defense = build_defense(Choice(name="kernel_closed_form", options=options))
    defense.options = defense.options.model_copy(update={"weight": sign * defense.options.weight})
    z, task, secret = rows
    edge = toy_edge(defense, z.shape[1])
    assert torch.equal(edge.outlet(z), z)  # the identity until then
    with torch.no_grad():
        defense.finish(
            edge,
            DefenseData(
                task_labels=[task],
                sensitive_labels=[secret],
                task_classes=[2],
                sensitive_classes=[2],
                persons=torch.full((len(z),), -1),
                mean_image=lambda: torch.zeros(3, 2, 2),
                seed=0,
                features=lambda: z,
            ),
        )
    return edge


def accuracy(z: torch.Tensor, labels: torch.Tensor) -> float:
    model = LogisticRegression(max_iter=1000).fit(z[: N // 2], labels[: N // 2])
    return float(model.score(z[N // 2 :], labels[N // 2 :]))


def explained(z: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the labels' variance that is linear in the features."""
    return float(LinearRegression().fit(z.double(), labels).score(z.double(), labels))


@pytest.mark.parametrize("weight", [0.0, 0.5, 5.0])
def test_the_best_direction_is_what_brute_force_finds(weight):
    rows = drawn(d=2, seed=1)
    z, task, secret = rows
    ridge = 1e-3
    matrix = fitted(rows, weight=weight, rank=1, ridge=ridge).outlet.matrix
    found = torch.linalg.svd(matrix).U[:, 0].numpy()
    centered = (z - z.mean(0)).double().numpy()
    spread = np.cov(centered.T, bias=True)

    def dependence(values: np.ndarray, labels: torch.Tensor) -> float:
        """Sum over classes of squared covariance of values and the class's indicator."""
        return sum(np.cov(values, (labels == k).numpy(), bias=True)[0, 1] ** 2 for k in (0, 1))

    def worth(angle: float) -> float:
        v = np.array([np.cos(angle), np.sin(angle)])
        values = centered @ v
        size = v @ spread @ v + ridge * np.trace(spread) / 2
        return (dependence(values, task) - weight * dependence(values, secret)) / size

    angles = np.linspace(0, np.pi, 2001)
    best = max(angles, key=worth)
    assert abs(found @ [np.cos(best), np.sin(best)]) > 1 - 1e-5
    assert worth(best) > 0


def test_at_no_weight_it_keeps_the_task_and_at_a_large_one_nothing_linear_of_the_secret():
    z, task, secret = rows = drawn()
    with torch.no_grad():
        free, dear = fitted(rows, weight=0.0).outlet(z), fitted(rows, weight=1e4).outlet(z)
        wrong = fitted(rows, weight=1e4, sign=-1).outlet(z)
    assert accuracy(free, task) > accuracy(z, task) - 0.01
    assert explained(free, secret) > 0.1  # the secret that goes with the task
    assert explained(dear, secret) < 1e-4
    assert accuracy(dear, secret) < 0.55
    assert explained(dear, task) > 0.05
    for sabotaged in (z, wrong):
        assert explained(sabotaged, secret) > 0.5


def test_it_has_the_features_rank_and_size():
    z, _, _ = rows = drawn()
    edge = fitted(rows, weight=0.0)
    assert int(torch.linalg.matrix_rank(edge.outlet.matrix)) == 1  # two classes: one direction
    for rank in (None, 1, 9):
        mapped = fitted(rows, weight=0.3, rank=rank).outlet(z)
        assert float(mapped.square().sum(1).mean() / z.square().sum(1).mean()) == pytest.approx(1, abs=0.02)
    again = fitted(rows, weight=0.0).outlet
    other = toy_edge(build_defense(Choice(name="kernel_closed_form")), 5).outlet
    other.load_state_dict(again.state_dict())
    assert torch.equal(other(z), edge.outlet(z))


def test_random_fourier_features_see_what_is_not_linear():
    """The task is whether two features agree in sign: no line shows it, and one new direction does."""
    rng = numpy_stream(3, "xor")
    z = torch.from_numpy(rng.normal(size=(N, 2))).float()
    task = (z[:, 0] * z[:, 1] > 0).long()
    secret = torch.from_numpy(rng.integers(0, 2, N))
    linear = fitted((z, task, secret), weight=0.0).outlet(z)
    seen = fitted((z, task, secret), weight=0.0, features=200).outlet(z)
    assert accuracy(linear, task) < 0.6
    assert accuracy(seen, task) > 0.85


def test_records_without_a_label_are_left_out_of_its_covariances():
    z, task, secret = drawn()
    holes_task, holes_secret = task.clone(), secret.clone()
    holes_task[::3], holes_secret[1::3] = -1, -1
    whole, holed = (
        fitted((z, task, secret), rank=1).outlet,
        fitted((z, holes_task, holes_secret), rank=1).outlet,
    )
    directions = [torch.linalg.svd(outlet.matrix).U[:, 0] for outlet in (whole, holed)]
    assert abs(float(directions[0] @ directions[1])) > 0.99
    lost = task.clone()
    lost[task == 1] = -1  # a class that is never known: nothing to keep
    with pytest.raises(TrainingError, match="leaves no direction"):
        fitted((z, lost, secret))


def test_where_the_task_is_the_secret_nothing_is_worth_its_leak():
    z, task, _ = drawn()
    with pytest.raises(
        TrainingError, match=r"defense\.options\.weight: 2\.0 - leaves no direction.*Lower the weight"
    ):
        fitted((z, task, task), weight=2.0)
    fitted((z, task, task), weight=0.5)


SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))


def test_a_run_ends_with_the_fitted_map_at_the_edges_end(tmp_path):
    def configured(epochs: tuple[int, int, int]) -> Any:
        return SMALL["small_config"](
            epochs=epochs,
            images=160,
            size=16,
            defense={"name": "kernel_closed_form", "options": {"features": 40}},
        )

    config = configured((1, 0, 1))
    with pytest.raises(ConfigError, match=r"must be pre-training alone.*fitted in closed form"):
        check_private(configured((1, 1, 0)), 100, build_defense(config.defense))
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    folder = RunFolder(tmp_path / "run")
    occupy(folder, config, "0" * 64)
    mechanism = build_mechanism(config, len(data.splits.train))
    cpu = torch.device("cpu")
    trainer = Trainer(config, data, mechanism, folder, device=cpu, keep=data.splits.train[:20])
    trained = trainer.run()
    assert bool(trained.edge.outlet.fitted)
    inner, mapped = (
        edge_features(trained.edge, data.images, data.splits.train, device=cpu, outlet=outlet)
        for outlet in (False, True)
    )
    assert not torch.allclose(inner, mapped)
    assert int(torch.linalg.matrix_rank(mapped - mapped.mean(0), rtol=1e-4)) < inner.shape[1]
    assert torch.equal(mapped, edge_features(trainer.edge.edge, data.images, data.splits.train, device=cpu))


def test_what_would_not_fit_in_memory_is_refused():
    with pytest.raises(ConfigError, match=r"too wide for the defense 'kernel_closed_form'.*features"):
        build_defense(Choice(name="kernel_closed_form", options={"features": 0})).outlet((8, 32, 32))
    few = build_defense(Choice(name="kernel_closed_form", options={"features": 1000}))
    assert few.outlet((8, 32, 32)) is not None
