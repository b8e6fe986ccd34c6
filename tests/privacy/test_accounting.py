import math
import warnings

import numpy as np
import pytest
from opacus.accountants.analysis import gdp
from scipy import integrate, stats

from privhier.errors import ConfigError
from privhier.privacy.accounting import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    laplace_epsilon,
    release_epsilon,
    solve_sigma,
)
from privhier.privacy.ceilings import gaussian_ceiling

DELTA = 1e-5

# epsilon: mu, sigma / 2C for T = 1, 10, 30, 100, ceiling on balanced accuracy (two classes)
TABLE = {
    1: (0.268, (3.73, 11.8, 20.4, 37.3), 0.553),
    2: (0.502, (1.99, 6.30, 10.9, 19.9), 0.599),
    4: (0.925, (1.08, 3.42, 5.92, 10.8), 0.678),
    8: (1.666, (0.60, 1.90, 3.29, 6.00), 0.798),
    16: (2.906, (0.34, 1.09, 1.89, 3.44), 0.927),
}


@pytest.mark.parametrize("epsilon", TABLE)
@pytest.mark.parametrize("clip", [0.5, 3.0])
def test_the_published_table(epsilon, clip):
    mu, sigmas, recall = TABLE[epsilon]
    for releases, expected in zip((1, 10, 30, 100), sigmas, strict=True):
        sigma = solve_sigma("gaussian", epsilon, DELTA, clip, releases)
        digits = 5 * 10 ** (math.floor(math.log10(expected)) - 3)
        assert sigma / (2 * clip) == pytest.approx(expected, abs=max(digits, 0.005))
        assert gaussian_mu(sigma, clip, releases) == pytest.approx(mu, abs=6e-4)
    assert gaussian_ceiling(mu, 2).balanced_accuracy == pytest.approx(recall, abs=5e-4)


def test_sigma_equal_to_the_sensitivity():
    for releases, expected in ((1, 4.38), (30, 37.6), (100, 91.8)):
        epsilon = gaussian_epsilon(gaussian_mu(2.0, 1.0, releases), DELTA)
        assert epsilon == pytest.approx(expected, abs=0.05 if releases > 1 else 0.005)
    once = solve_sigma("gaussian", 8.0, DELTA, 1.0, 1)
    assert solve_sigma("gaussian", 8.0, DELTA, 1.0, 30) / once == pytest.approx(math.sqrt(30), rel=1e-6)
    assert [once * math.sqrt(d) for d in (128, 2048, 16384)] == pytest.approx([13.6, 54, 154], rel=0.01)


@pytest.mark.parametrize("mu", [0.05, 0.268, 1.0, 1.666, 5.0, 12.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_epsilon_agrees_with_opacus_and_is_not_below_it(mu, delta):
    assert gaussian_epsilon(mu, delta) == pytest.approx(gdp.eps_from_mu(mu=mu, delta=delta), abs=1e-6)


@pytest.mark.parametrize(("sigma", "releases"), [(2.0, 1), (6.58, 30), (1.0, 3)])
def test_epsilon_agrees_with_dp_accounting_s_distributions(sigma, releases):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dp_accounting.pld import privacy_loss_distribution as pld
    loss = pld.from_gaussian_mechanism(sigma, sensitivity=2.0, value_discretization_interval=1e-3)
    composed = loss.self_compose(releases)
    exact = gaussian_epsilon(gaussian_mu(sigma, 1.0, releases), DELTA)
    assert exact == pytest.approx(composed.get_epsilon_for_delta(DELTA), rel=2e-3)
    laplace = pld.from_laplace_mechanism(3.0, sensitivity=2.0).self_compose(2)
    assert laplace_epsilon(3.0, 1.0, 2) == pytest.approx(laplace.get_epsilon_for_delta(1e-6), rel=1e-3)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 0.3), (1.666, 4.0), (3.0, 1.0)])
def test_delta_is_the_hockey_stick_divergence(mu, epsilon):
    def excess(x):
        return max(0.0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))

    edge = epsilon / mu + mu / 2
    expected = integrate.quad(excess, edge, edge + 20)[0]
    assert gaussian_delta(mu, epsilon) == pytest.approx(expected, rel=1e-6)


def test_epsilon_grows_with_mu_and_never_overflows():
    mus = np.logspace(-8, 150, 400)
    epsilons = [gaussian_epsilon(mu, DELTA) for mu in mus]
    assert all(math.isfinite(value) for value in epsilons)
    assert (np.diff(epsilons) >= 0).all()
    assert gaussian_epsilon(1e3, DELTA) == pytest.approx(1e6 / 2 + 1e3 * stats.norm.isf(DELTA), rel=1e-4)
    assert gaussian_epsilon(1e200, DELTA) == math.inf
    assert gaussian_epsilon(math.inf, DELTA) == math.inf
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    assert gaussian_epsilon(1e-6, DELTA) == 0.0
    assert gaussian_epsilon(1.0, 1e-300) > gaussian_epsilon(1.0, 1e-30) > gaussian_epsilon(1.0, 1e-9)
    for mu in (0.3, 3.0, 300.0):
        assert gaussian_delta(mu, gaussian_epsilon(mu, DELTA)) <= DELTA


def test_no_noise_has_no_epsilon_and_no_release_costs_none():
    assert gaussian_mu(0.0, 1.0, 1) == math.inf
    assert laplace_epsilon(0.0, 1.0, 1) == math.inf
    assert release_epsilon("gaussian", 0.0, DELTA, 1.0, 1) == math.inf
    assert release_epsilon("none", 0.0, DELTA, 1.0, 1) == math.inf
    assert gaussian_mu(0.0, 1.0, 0) == laplace_epsilon(0.0, 1.0, 0) == 0.0
    assert release_epsilon("none", 0.0, DELTA, 1.0, 0) == 0.0


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_solved_noise_never_exceeds_its_target_and_is_tight(mechanism):
    rng = np.random.default_rng(0)
    for _ in range(60):
        target, clip = float(10 ** rng.uniform(-2, 2)), float(10 ** rng.uniform(-3, 3))
        releases, delta = int(rng.integers(1, 200)), float(10 ** rng.uniform(-9, -2))
        sigma = solve_sigma(mechanism, target, delta, clip, releases)
        assert float(np.float32(sigma)) == sigma
        assert release_epsilon(mechanism, sigma, delta, clip, releases) <= target
        assert release_epsilon(mechanism, sigma * (1 - 1e-6), delta, clip, releases) > target


def test_laplace_is_pure_and_adds_up():
    assert laplace_epsilon(0.5, 1.0, 1) == 4.0
    assert laplace_epsilon(0.5, 1.0, 3) == 12.0
    # The ratio of densities at L1 distance 2C reaches exactly exp(epsilon).
    ratio = stats.laplace.logpdf(5.0, 1.0, 0.5) - stats.laplace.logpdf(5.0, -1.0, 0.5)
    assert ratio == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: gaussian_mu(-1.0, 1.0, 1), "release.sigma"),
        (lambda: gaussian_mu(math.nan, 1.0, 1), "release.sigma"),
        (lambda: gaussian_mu(1.0, 0.0, 1), "release.clip"),
        (lambda: gaussian_mu(1.0, 1.0, -1), "release.releases"),
        (lambda: gaussian_mu(1.0, 1.0, 1.5), "release.releases"),
        (lambda: gaussian_epsilon(-1.0, DELTA), "release.mu"),
        (lambda: gaussian_epsilon(math.nan, DELTA), "release.mu"),
        (lambda: gaussian_epsilon(1.0, 0.0), "privacy.delta"),
        (lambda: gaussian_epsilon(1.0, 1.0), "privacy.delta"),
        (lambda: laplace_epsilon(1.0, math.inf, 1), "release.clip"),
        (lambda: solve_sigma("none", 1.0, DELTA, 1.0, 1), "release.mechanism"),
        (lambda: solve_sigma("gaussian", 0.0, DELTA, 1.0, 1), "release.target_epsilon"),
        (lambda: solve_sigma("gaussian", math.inf, DELTA, 1.0, 1), "release.target_epsilon"),
        (lambda: solve_sigma("gaussian", 1.0, DELTA, 1.0, 0), "release.releases"),
        (lambda: release_epsilon("cauchy", 1.0, DELTA, 1.0, 1), "release.mechanism"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, key):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.key == key
