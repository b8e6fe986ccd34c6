"""Distance correlation as a defense: the published number, and that the edge is really trained against it."""

from __future__ import annotations

import dcor
import numpy as np
import pytest
import torch

from privhier.config import Choice
from privhier.defenses import distance_correlation
from privhier.defenses.base import DefenseBatch, build_defense
from privhier.defenses.pairwise import alignment_shares, classes_alike, distances
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.seeding import isolated_rng, torch_stream

N = 48
PUBLISHED = {False: dcor.distance_correlation_sqr, True: dcor.u_distance_correlation_sqr}


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of which a pixel follows the secret and another the task; secret; task."""
    stream = torch_stream(seed, "distance correlation")
    secret, task = torch.randint(0, 3, (N,), generator=stream), torch.randint(0, 2, (N,), generator=stream)
    images = torch.randn(N, 3, 2, 2, generator=stream)
    images[:, 0, 0, 0] += 2 * secret
    images[:, 1, 0, 0] += 2 * task
    return images, secret, task


def toy_edge() -> EdgeSegment:
    with isolated_rng(0, "toy edge"):
        return EdgeSegment(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 6)),
            torch.nn.Identity(),
            task_exits={"t": Exit((6,), 2, 0)},
            adversarial_exits={"s": Exit((6,), 3, 0)},
            feature_shape=(6,),
            description={},
        )


def batch_of(edge: EdgeSegment) -> DefenseBatch:
    images, secret, task = drawn()
    return DefenseBatch(
        z=edge.features(images), task_labels=[task], sensitive_labels=[secret], edge=edge, images=images
    )


@pytest.mark.parametrize("unbiased", [False, True])
def test_it_is_the_published_number_of_values_and_of_classes(unbiased):
    images, secret, _ = drawn()
    z = images[:, 0].flatten(1).double()
    found = alignment_shares(distances(z), distances(images), unbiased=unbiased).mean()
    wanted = PUBLISHED[unbiased](z.numpy(), images.flatten(1).double().numpy())
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    # Corners of a simplex are 1 apart: the discrete metric.
    corners = torch.nn.functional.one_hot(secret).double().numpy() / np.sqrt(2)
    found = alignment_shares(distances(z), 1 - classes_alike(secret), unbiased=unbiased).mean()
    assert float(found) == pytest.approx(PUBLISHED[unbiased](z.numpy(), corners), rel=1e-9)


def test_it_is_the_definition():
    images, secret, _ = drawn(1)
    x, y = images.flatten(1).double().numpy(), secret.numpy()
    a = np.array([[np.sqrt(((u - v) ** 2).sum()) for v in x] for u in x])
    b = np.array([[float(u != v) for v in y] for u in y])

    def covariance(p: np.ndarray, q: np.ndarray) -> float:
        """Remark 3 of the paper: three sums over pairs, no centering."""
        return (p * q).mean() + p.mean() * q.mean() - 2 * (p.mean(1) * q.mean(1)).mean()

    wanted = covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b))
    shares = alignment_shares(distances(images), 1 - classes_alike(secret))
    assert float(shares.mean()) == pytest.approx(wanted, rel=1e-9)


def test_its_two_ends_and_its_scale():
    _, secret, _ = drawn()
    apart = 1 - classes_alike(secret)
    corners = torch.nn.functional.one_hot(secret).float()
    for scale in (1e-3, 1.0, 1e3):
        assert float(alignment_shares(distances(scale * corners), apart).mean()) == pytest.approx(1)
    assert not alignment_shares(distances(torch.ones(N, 4)), apart).any()
    assert not alignment_shares(distances(corners), torch.zeros(N, N).double()).any()
    assert alignment_shares(distances(corners[:1]), apart[:1, :1]).tolist() == [0.0]
    assert alignment_shares(distances(corners[:3]), apart[:3, :3], unbiased=True).tolist() == [0.0] * 3


def test_unbiased_is_zero_in_the_mean_where_nothing_is_shared_and_plain_is_not():
    found = {False: [], True: []}
    for seed in range(200):
        stream = torch_stream(seed, "independent")
        z = torch.randn(16, 8, generator=stream)
        apart = 1 - classes_alike(torch.randint(0, 2, (16,), generator=stream))
        for unbiased, values in found.items():
            values.append(float(alignment_shares(distances(z), apart, unbiased=unbiased).mean()))
    error = np.std(found[True]) / np.sqrt(200)
    assert abs(np.mean(found[True])) < 4 * error
    assert np.mean(found[False]) > 0.1


@pytest.mark.parametrize("options", [{}, {"unbiased": True}, {"against": "image"}])
def test_its_gradient_is_finite_where_records_are_equal(options):
    edge = toy_edge()
    defense = build_defense(Choice(name="distance_correlation", options=options))
    for z in (torch.zeros(N, 6), torch.ones(N, 6).cumsum(0) // 2):
        z.requires_grad_()
        _, secret, task = drawn()
        secret[3] = task[3] = -1
        defense.loss(
            DefenseBatch(
                z=z, task_labels=[task], sensitive_labels=[secret], edge=edge, images=torch.zeros(N, 3, 2, 2)
            )
        ).mean().backward()
        assert z.grad.isfinite().all()
        assert not z.grad[3].any()


def correlation_after_training(against: str, **options: object) -> float:
    """``dcor``'s own number between features and what they are trained against."""
    edge = toy_edge()
    defense = build_defense(Choice(name="distance_correlation", options={"against": against, **options}))
    optimizer = torch.optim.Adam(edge.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        defense.loss(batch_of(edge)).mean().backward()
        optimizer.step()
    batch = batch_of(edge)
    other = batch.images if against == "image" else torch.nn.functional.one_hot(batch.sensitive_labels[0])
    columns = (values.detach().flatten(1).double().numpy() for values in (batch.z, other))
    return float(dcor.distance_correlation_sqr(*columns))


@pytest.mark.parametrize("against", ["secret", "image"])
def test_the_edge_unlearns_what_it_must_not_follow(against):
    without = correlation_after_training(against, weight=0.0)
    assert correlation_after_training(against, weight=20.0) < 0.6 * without
    if against == "secret":
        assert correlation_after_training(against, weight=20.0, unbiased=True) < 0.6 * without


@pytest.mark.parametrize("broken", ["commented out", "constant"])
def test_sabotage_a_correlation_that_is_no_part_of_the_loss(monkeypatch, broken):
    """As published code has it: the number is computed and shown, and nothing is trained by it."""

    def shares(a: torch.Tensor, b: torch.Tensor, *, unbiased: bool = False) -> torch.Tensor:
        real = alignment_shares(a, b, unbiased=unbiased)
        return real.detach() if broken == "constant" else torch.zeros_like(real)

    without = correlation_after_training("secret", weight=0.0)
    monkeypatch.setattr(distance_correlation, "alignment_shares", shares)
    assert correlation_after_training("secret", weight=20.0) == pytest.approx(without)
