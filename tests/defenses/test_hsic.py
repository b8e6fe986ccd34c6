"""HSIC as a defense: near the exact Gaussian kernel's, and that the edge is really trained against it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from privhier.config import Choice
from privhier.defenses import hsic
from privhier.defenses.base import DefenseBatch, build_defense
from privhier.defenses.fourier import fourier_features, median_distance
from privhier.defenses.pairwise import alignment_shares, classes_alike, distances
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.seeding import isolated_rng, torch_stream

N = 48


def drawn(d: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values whose spread, and not their mean, follows the secret; secret; task, which moves one of them."""
    stream = torch_stream(0, "hsic test")
    secret, task = torch.randint(0, 2, (N,), generator=stream), torch.randint(0, 2, (N,), generator=stream)
    values = torch.randn(N, d, generator=stream) * (0.3 + 2 * secret[:, None])
    values[:, 0] = torch.randn(N, generator=stream) + 3.0 * task
    return values, secret, task


def exact(z: np.ndarray, y: np.ndarray) -> float:
    """The normalized criterion by its definition, tr(K H L H), of the exact kernel."""
    d = np.sqrt(((z[:, None] - z[None]) ** 2).sum(-1))
    k = np.exp(-(d**2) / (2 * np.median(d[np.triu_indices(len(z), 1)]) ** 2))
    centering = np.eye(len(z)) - 1 / len(z)
    alike = (y[:, None] == y[None]).astype(float)

    def criterion(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.trace(p @ centering @ q @ centering)) / len(z) ** 2

    return criterion(k, alike) / math.sqrt(criterion(k, k) * criterion(alike, alike))


def toy_edge() -> EdgeSegment:
    with isolated_rng(0, "toy edge"):
        return EdgeSegment(
            torch.nn.Linear(5, 5),
            torch.nn.Identity(),
            task_exits={"t": Exit((5,), 2, 0)},
            adversarial_exits={"s": Exit((5,), 2, 0)},
            feature_shape=(5,),
            description={},
        )


def made(**options: object):
    defense = build_defense(Choice(name="hsic", options=options))
    edge = toy_edge()
    defense.attach(edge)
    return defense, edge


def test_it_is_the_exact_kernels_within_the_error_of_its_draw():
    values, secret, _ = drawn()
    wanted = exact(values.double().numpy(), secret.numpy())
    defense, _ = made()
    found = []
    for draw in range(40):
        defense.frequencies.copy_(torch.randn(5, 500, generator=torch_stream(draw, "frequencies")))
        found.append(float(alignment_shares(defense.kernel(values), classes_alike(secret)).mean()))
    assert np.std(found) < 0.03
    assert abs(np.mean(found) - wanted) < 4 * np.std(found) / math.sqrt(40)
    own, _ = made()
    number = float(alignment_shares(own.kernel(values), classes_alike(secret)).mean())
    assert abs(number - wanted) < 4 * np.std(found)
    few, _ = made(features=20)
    assert few.frequencies.shape == (5, 10)


def test_features_are_the_kernel():
    values, _, _ = drawn()
    frequencies = torch.randn(5, 20_000, generator=torch_stream(1, "many")).double()
    seen = fourier_features(values.double(), frequencies)
    kernel = torch.exp(-distances(values).square() / 2)
    assert (seen @ seen.T - kernel).abs().max() < 5 / math.sqrt(20_000)
    assert torch.allclose(seen.square().sum(1), torch.ones(N).double())


def test_the_bandwidth_is_the_median_and_never_nothing():
    line = torch.tensor([[0.0], [1.0], [3.0]])
    assert float(median_distance(distances(line))) == 2
    letters = torch.tensor([[0.0]] * 5 + [[6.0]])
    assert float(median_distance(distances(letters))) == pytest.approx(5 * 6 / 15)
    assert float(median_distance(distances(torch.ones(4, 2)))) == 1
    assert float(median_distance(distances(torch.ones(1, 2)))) == 1


def test_the_scale_of_releases_does_not_matter_but_their_dependence_does():
    values, secret, _ = drawn()
    defense, _ = made()
    numbers = [
        float(alignment_shares(defense.kernel(scale * values), classes_alike(secret)).mean())
        for scale in (1e-2, 1.0, 1e2)
    ]
    assert numbers == pytest.approx([numbers[1]] * 3, rel=1e-3)
    corners = torch.nn.functional.one_hot(secret, 5).float()
    assert float(alignment_shares(defense.kernel(corners), classes_alike(secret)).mean()) > 0.999
    assert not alignment_shares(defense.kernel(torch.ones(N, 5)), classes_alike(secret)).any()


def criterion_after_training(**options: object) -> float:
    """The exact criterion between features and secret."""
    defense, edge = made(**options)
    values, secret, task = drawn()
    optimizer = torch.optim.Adam(edge.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        batch = DefenseBatch(
            z=edge.features(values), task_labels=[task], sensitive_labels=[secret], edge=edge
        )
        defense.loss(batch).mean().backward()
        optimizer.step()
    return exact(edge.features(values).detach().double().numpy(), secret.numpy())


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_edge_unlearns_a_secret_that_no_mean_shows(unbiased):
    without = criterion_after_training(weight=0.0)
    assert without > 0.05
    assert criterion_after_training(weight=20.0, unbiased=unbiased) < 0.5 * without


def test_sabotage_a_criterion_that_trains_nothing(monkeypatch):
    without = criterion_after_training(weight=0.0)
    monkeypatch.setattr(hsic, "alignment_shares", lambda *a, **k: alignment_shares(*a, **k).detach())
    assert criterion_after_training(weight=20.0) == pytest.approx(without)


def test_an_odd_number_of_features_is_refused():
    with pytest.raises(ConfigError, match=r"defense\.options\.features: 7 - .*multiple of 2"):
        build_defense(Choice(name="hsic", options={"features": 7}))
