"""Bounds of an audit: against references, against simulated mechanisms, at the edges."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from privhier.audit.bounds import (
    mu_lower_bound,
    multinomial_p_value,
    one_run_lower_bound,
    one_run_p_value,
    pure_lower_bound,
    rate_lower,
    rate_upper,
)
from privhier.errors import ConfigError


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (250, 100_000)])
@pytest.mark.parametrize("error", [0.025, 1e-8])
def test_rates_match_the_definition_of_clopper_and_pearson(hits, trials, error):
    low, high = float(rate_lower(hits, trials, error)), float(rate_upper(hits, trials, error))
    assert 0 <= low <= hits / trials <= high <= 1
    if hits:
        assert stats.binom.sf(hits - 1, trials, low) == pytest.approx(error, rel=1e-6)
    if hits < trials:
        assert stats.binom.cdf(hits, trials, high) == pytest.approx(error, rel=1e-6)


def test_bounds_take_arrays():
    bounds = mu_lower_bound([50, 90], 100, [50, 10], 100, 0.95)
    assert bounds.shape == (2,)
    assert bounds[0] < 0 < bounds[1]


@pytest.mark.parametrize("confidence", [0.95, 1 - 1e-6])
def test_a_mu_bound_is_wrong_as_rarely_as_it_says(confidence):
    mu, n, repeats = 1.3, 400, 20_000
    rng = np.random.default_rng(0)
    true = rng.binomial(n, stats.norm.sf(0.4 - mu), repeats)
    false = rng.binomial(n, stats.norm.sf(0.4), repeats)
    wrong = (mu_lower_bound(true, n, false, n, confidence) > mu).mean()
    assert wrong <= (1 - confidence) + 4 * math.sqrt((1 - confidence) / repeats)


def test_a_pure_bound_is_wrong_as_rarely_as_it_says_and_takes_the_better_side():
    epsilon, n, repeats = 1.0, 400, 20_000
    rate = 1 / (1 + math.exp(-epsilon))
    rng = np.random.default_rng(0)
    true, false = rng.binomial(n, rate, repeats), rng.binomial(n, 1 - rate, repeats)
    bounds = pure_lower_bound(true, n, false, n, 0.95)
    assert (bounds > epsilon).mean() <= 0.05
    mirrored = pure_lower_bound(n - false, n, n - true, n, 0.95)
    assert np.allclose(bounds, mirrored)


def test_perfect_separation_is_a_large_finite_bound():
    for bound in (mu_lower_bound, pure_lower_bound):
        value = float(bound(10_000, 10_000, 0, 10_000, 0.95))
        assert math.isfinite(value)
        assert value > 6
        assert float(bound(0, 100, 100, 100, 0.95)) < 0


def reference_p_value(m, r, v, epsilon, delta):
    """Appendix D of Steinke, Nasr and Jagielski (2023), line by line."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = stats.binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return min(1.0, beta + alpha * delta * 2 * m)


@pytest.mark.parametrize(("m", "r", "v"), [(100, 100, 70), (1000, 100, 95), (50, 10, 0), (500, 200, 200)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_one_run_matches_the_reference(m, r, v, delta):
    for epsilon in (0.0, 0.7, 3.0, 12.0):
        expected = reference_p_value(m, r, v, epsilon, delta)
        assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    bound = one_run_lower_bound(m, r, v, delta, 0.95)
    if bound:
        assert reference_p_value(m, r, v, bound, delta) <= 0.05
    assert reference_p_value(m, r, v, bound + 1e-5, delta) > 0.05


def test_one_run_at_delta_0_is_the_binomial_s_own_bound():
    bound = one_run_lower_bound(1000, 1000, 900, 0.0, 0.95)
    low = float(rate_lower(900, 1000, 0.05))
    assert bound == pytest.approx(math.log(low / (1 - low)), abs=1e-5)


def test_one_run_is_monotone_and_quick():
    bounds = [one_run_lower_bound(5000, 500, v, 1e-5, 0.95) for v in (250, 350, 450, 500)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0
    assert bounds[-1] < one_run_lower_bound(5000, 500, 500, 0.0, 0.95)
    start = time.perf_counter()
    assert one_run_lower_bound(100_000, 100_000, 90_000, 1e-6, 0.95) > 1
    assert time.perf_counter() - start < 20


def test_randomized_response_is_bounded_near_its_epsilon():
    epsilon, r = 2.0, 20_000
    v = np.random.default_rng(0).binomial(r, 1 / (1 + math.exp(-epsilon)))
    assert 0.95 * epsilon < one_run_lower_bound(r, r, int(v), 0.0, 0.95) < epsilon


@pytest.mark.parametrize("n", [5, 60, 3_000])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.05, 0.03, 0.02], [0.995] + [0.005 / 15] * 15])
def test_counts_of_a_multinomial_are_called_unlikely_as_rarely_as_it_says(shares, n):
    counts = np.random.default_rng(0).multinomial(n, shares, 4_000)
    chances = np.array([multinomial_p_value(row, shares) for row in counts])
    for level in (0.3, 0.05, 0.005):
        assert (chances < level).mean() <= level


def test_a_multinomial_s_bound_is_above_the_exact_chance_and_not_far_above():
    """Of two outcomes every count can be added up: those at least as far out as this one."""
    n, share = 40, 0.2
    far = np.array([stats.entropy([k / n, 1 - k / n], [share, 1 - share]) for k in range(n + 1)])
    for k in (0, 16, 25, 39):
        exact = stats.binom.pmf(np.flatnonzero(far >= far[k] - 1e-12), n, share).sum()
        bound = multinomial_p_value([k, n - k], [share, 1 - share])
        assert exact <= bound <= 1000 * exact


def test_what_cannot_come_has_chance_0_and_what_had_to_come_1():
    assert multinomial_p_value([5, 0], [1.0, 0.0]) == 1.0
    assert multinomial_p_value([4, 1], [1.0, 0.0]) == 0.0
    assert multinomial_p_value([0, 0], [0.5, 0.5]) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: multinomial_p_value([1, 2], [0.5, 0.6]),
        lambda: multinomial_p_value([1, 2, 3], [0.5, 0.5]),
        lambda: multinomial_p_value([-1, 2], [0.5, 0.5]),
        lambda: rate_lower(3, 2, 0.05),
        lambda: rate_lower(0, 0, 0.05),
        lambda: mu_lower_bound(1, 2, 1, 2, 1.0),
        lambda: one_run_lower_bound(10, 11, 5, 0.0, 0.95),
        lambda: one_run_lower_bound(10, 5, 5, 1.0, 0.95),
        lambda: one_run_lower_bound(10, 5, 5, 0.0, 1.0),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ConfigError):
        call()
