"""The release audit of sound mechanisms: tight, never above the claim beyond chance, reproducible."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from privhier.audit.release import Claimed, audit_release, strength_of
from privhier.errors import ConfigError
from privhier.privacy.accounting import gaussian_mu, solve_sigma
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism

DELTA = 1e-5
SCRIPT = Path(__file__).parents[2] / "experiments" / "guarantees" / "release_audit.py"
CELLS = [(kind, t) for kind, t in (("gaussian", 1), ("gaussian", 10), ("laplace", 1))]


def audit(kind, epsilon, *, releases=1, draws=20_000, shape=(8,), clip=1.0, seed=0, quantize="float32"):
    sigma = solve_sigma(kind, epsilon, DELTA, clip, releases)
    mechanism = ReleaseMechanism(kind, clip, sigma, quantize)
    return audit_release(
        lambda features, *, epoch, batch: (
            mechanism.sanitize(features, SeededNoise(0, "t", epoch, batch)).values
        ),
        Claimed(kind, clip, epsilon, DELTA, releases),
        shape=shape,
        draws=draws,
        seed=seed,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "releases"), CELLS)
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_a_million_draws_prove_nine_tenths_of_the_claim(kind, releases, epsilon):
    rows = runpy.run_path(str(SCRIPT))["cell"](kind, releases, epsilon, 1_000_000)
    assert not any(row.refuted for row in rows)
    assert 0.9 <= rows[0].lower_95 / epsilon <= 1.02


@pytest.mark.parametrize(("kind", "releases"), CELLS)
@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_fewer_draws_come_close(kind, releases, epsilon):
    rows = audit(kind, epsilon, releases=releases, draws=100_000)
    assert not any(row.refuted for row in rows)
    assert 0.78 <= rows[0].lower_95 / epsilon <= 1.05
    assert rows[0].lower_alarm < rows[0].lower_95
    assert rows[0].claimed_epsilon == pytest.approx(epsilon, rel=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_vacuous_claim_is_still_held_tight(kind):
    row = audit(kind, 200.0)[0]
    assert not row.refuted
    assert 0.85 <= row.lower_95 / 200 <= 1.05
    assert "inside the ball" in row.view


@pytest.mark.parametrize("shape", [(1,), (4, 6, 6)])
@pytest.mark.parametrize("clip", [1e-6, 1e6])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_shapes_and_scales(shape, clip, kind):
    assert not any(row.refuted for row in audit(kind, 4.0, shape=shape, clip=clip, draws=8000))


@pytest.mark.parametrize("quantize", ["float16", "int8", "int4"])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_rounding_is_no_leak(kind, quantize):
    """Noise far wider than a step, about a step, far narrower: what is released is made of it alone."""
    for epsilon in (1.0, 50.0, 1000.0):
        rows = audit(kind, epsilon, releases=2, draws=8000, quantize=quantize)
        assert not any(row.refuted for row in rows)


@pytest.fixture(scope="module")
def exact():
    return audit("gaussian", 4.0, draws=50_000)[0]


@pytest.mark.parametrize("quantize", ["float16", "int8", "int4"])
def test_rounding_hides_little_of_it_from_the_audit(quantize, exact):
    narrow = audit("gaussian", 4.0, draws=50_000, quantize=quantize)[0]
    assert 0.85 * exact.lower_95 <= narrow.lower_95 <= 4.0 * 1.05


def test_wide_features_get_fewer_draws():
    rows = audit("gaussian", 4.0, shape=(64, 16, 16), draws=1500)
    assert rows[0].draws <= 1500
    assert not any(row.refuted for row in rows)


def test_the_same_seed_gives_the_same_rows_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    first, again, other = (audit("gaussian", 4.0, seed=seed, draws=4000) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_false_alarms_do_not_happen_in_many_audits():
    over = 0
    for seed in range(30):
        rows = audit("gaussian", 2.0, seed=seed, draws=4000)
        assert not any(row.refuted for row in rows)
        over += rows[0].lower_95 > 2.0
    assert over <= 6  # 30 chances of at most 5 %; the draws are fixed by their seeds


def test_strength_inverts_the_accountant():
    assert strength_of("laplace", 3.0, 0.0) == 3.0
    mu = strength_of("gaussian", 4.0, DELTA)
    assert mu == pytest.approx(gaussian_mu(solve_sigma("gaussian", 4.0, DELTA, 1.0, 1), 1.0, 1))
    assert strength_of("gaussian", 0.0, DELTA) == pytest.approx(2.5e-5, rel=0.01)


@pytest.mark.parametrize("wrong", [{"draws": 10}, {"releases": 0}, {"epsilon": float("inf")}])
def test_nonsense_is_refused(wrong):
    good = {"kind": "gaussian", "clip": 1.0, "epsilon": 1.0, "delta": DELTA, "releases": 1}
    draws = wrong.get("draws", 2000)
    claimed = Claimed(**{**good, **{key: value for key, value in wrong.items() if key != "draws"}})
    with pytest.raises(ConfigError):
        audit_release(lambda z, *, epoch, batch: z, claimed, shape=(2,), draws=draws)
