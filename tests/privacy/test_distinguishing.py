import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy.stats import laplace, norm

from privhier.errors import ConfigError
from privhier.privacy.accounting import gaussian_epsilon, gaussian_mu, laplace_epsilon, solve_sigma
from privhier.privacy.ceilings import ceiling, pure_ceiling
from privhier.privacy.distinguishing import (
    approximate_accuracy,
    gaussian_accuracy,
    letters_accuracy,
    pure_accuracy,
    release_accuracy,
)
from privhier.privacy.labels import flip_matrix
from privhier.privacy.mechanism import Mechanism


@pytest.mark.parametrize(("epsilon", "accuracy"), [(8, 0.9997), (4, 0.982), (2, 0.881), (0, 0.5)])
def test_pure(epsilon, accuracy):
    assert pure_accuracy(epsilon) == pytest.approx(accuracy, abs=5e-4)
    assert pure_accuracy(epsilon) == pytest.approx(pure_ceiling(epsilon, 2).balanced_accuracy)
    assert pure_accuracy(np.inf) == pure_accuracy(1e6) == 1.0


@pytest.mark.parametrize(
    ("epsilon", "accuracy"), [(1, 0.553), (2, 0.599), (4, 0.678), (8, 0.798), (16, 0.927), (0, 0.50001)]
)
def test_gaussian(epsilon, accuracy):
    assert gaussian_accuracy(epsilon, 1e-5) == pytest.approx(accuracy, abs=1e-3)
    assert gaussian_accuracy(epsilon, 1e-5) < approximate_accuracy(epsilon, 1e-5) or epsilon == 0
    assert gaussian_accuracy(np.inf, 1e-5) == 1.0


def test_gaussian_says_the_same_by_its_epsilon_and_by_its_noise():
    for epsilon, releases in ((2.0, 1), (8.0, 7), (20.0, 3)):
        sigma = solve_sigma("gaussian", epsilon, 1e-5, 1.5, releases)
        by_noise = release_accuracy("gaussian", sigma, 1.5, releases)
        assert by_noise == pytest.approx(gaussian_accuracy(epsilon, 1e-5), abs=1e-6)
        assert by_noise == pytest.approx(
            ceiling(Mechanism("gaussian", 1.5, sigma), releases, 2).balanced_accuracy
        )
        reached = gaussian_epsilon(gaussian_mu(sigma, 1.5, releases), 1e-5)
        assert gaussian_accuracy(reached, 1e-5) >= norm.cdf(gaussian_mu(sigma, 1.5, releases) / 2)


def test_any_mechanism_of_epsilon_and_delta_is_bounded_and_one_reaches_it():
    epsilon, delta = 1.3, 0.02
    e, keep = np.exp(1.3), 1 - 0.02
    # Four answers: with delta the truth outright, otherwise randomized response (Kairouz and others).
    one = np.array([delta, keep * e / (1 + e), keep / (1 + e), 0])
    two = one[::-1]
    assert (np.maximum(one - e * two, 0)).sum() == pytest.approx(delta)
    assert approximate_accuracy(epsilon, delta) == pytest.approx((1 + np.abs(one - two).sum() / 2) / 2)
    loss = privacy_loss_distribution.from_privacy_parameters(
        privacy_loss_distribution.common.DifferentialPrivacyParameters(epsilon, delta)
    )
    assert approximate_accuracy(epsilon, delta) == pytest.approx(
        (1 + loss.get_delta_for_epsilon(0.0)) / 2, abs=1e-4
    )
    assert approximate_accuracy(0.0, 1.0) == 1.0


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_one_laplace_release(epsilon):
    scale = 2 / epsilon
    value = release_accuracy("laplace", scale, 1.0, 1)
    assert value == pytest.approx(laplace.cdf(1 / scale))  # decide at the middle
    assert value < pure_accuracy(epsilon)
    loss = privacy_loss_distribution.from_laplace_mechanism(scale, sensitivity=2)
    assert value == pytest.approx((1 + loss.get_delta_for_epsilon(0.0)) / 2, abs=1e-4)


def test_laplace_records_that_differ_along_several_axes_are_harder_to_tell():
    rng = np.random.default_rng(0)
    noise = rng.laplace(size=(400_000, 3))
    worst = release_accuracy("laplace", 1.0, 2.0, 1)  # 2C = 4
    for shift in ([4, 0, 0], [2, 2, 0], [3, 0.5, 0.5], [4 / 3] * 3):
        loss = (np.abs(noise - shift) - np.abs(noise)).sum(axis=1)
        right = (loss > 0).mean() + (loss == 0).mean() / 2
        assert right == pytest.approx(worst, abs=0.002) if shift[1] == 0 else right < worst - 0.003


@pytest.mark.parametrize(("epsilon", "releases"), [(2.0, 2), (8.0, 10), (6.0, 100)])
def test_several_laplace_releases_by_simulation(epsilon, releases):
    scale = 2.0 * releases / epsilon
    assert laplace_epsilon(scale, 1.0, releases) == pytest.approx(epsilon)
    value = release_accuracy("laplace", scale, 1.0, releases)
    draws = 40_000
    noise = np.random.default_rng(0).laplace(size=(draws, releases), scale=scale)
    loss = (np.abs(noise - 2) - np.abs(noise)).sum(axis=1)
    right = (loss > 1e-9).mean() + (np.abs(loss) <= 1e-9).mean() / 2
    assert value == pytest.approx(right, abs=4 * 0.5 / np.sqrt(draws))
    assert release_accuracy("laplace", scale, 1.0, 1) < value < pure_accuracy(epsilon)


def test_ends():
    for mechanism in ("gaussian", "laplace"):
        assert release_accuracy(mechanism, 1.0, 1.0, 0) == pytest.approx(0.5)
        assert release_accuracy(mechanism, 0.0, 1.0, 3) == 1.0
        assert release_accuracy(mechanism, 1e-6, 1.0, 3) == 1.0
    assert release_accuracy("none", 0.0, 1.0, 1) == 1.0
    assert release_accuracy("none", 0.0, 1.0, 0) == 0.5


@pytest.mark.parametrize("letters", [2, 16])
def test_letters(letters):
    channel = flip_matrix(3.0, letters).numpy()
    keep, other = channel[0, 0], channel[0, 1]
    best = (np.maximum(channel[0], channel[1]).sum()) / 2
    assert letters_accuracy(channel) == pytest.approx(best)
    assert letters_accuracy(channel) == pytest.approx((1 + keep - other) / 2)
    assert letters_accuracy(channel) <= pure_accuracy(3.0) + 1e-12
    if letters == 2:
        assert letters_accuracy(channel) == pytest.approx(pure_accuracy(3.0))
    two = np.kron(channel, channel)
    most = max(np.maximum(two[0], row).sum() / 2 for row in two)
    assert most <= letters_accuracy(channel, 2)
    assert letters_accuracy(channel, 2) == letters_accuracy(channel, 1, 2)
    assert letters_accuracy(channel, 1, 0) == 0.5
    assert letters_accuracy(None) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: pure_accuracy(-1.0),
        lambda: pure_accuracy(float("nan")),
        lambda: approximate_accuracy(1.0, 1.5),
        lambda: approximate_accuracy(1.0, float("nan")),
        lambda: gaussian_accuracy(1.0, 0.0),
        lambda: gaussian_accuracy(-1.0, 1e-5),
        lambda: release_accuracy("cauchy", 1.0, 1.0, 1),
        lambda: release_accuracy("laplace", 1.0, 1.0, -1),
        lambda: letters_accuracy(np.eye(3), 0),
        lambda: letters_accuracy(np.full((2, 2), 0.4)),
    ],
)
def test_what_is_out_of_range_is_refused(call):
    with pytest.raises(ConfigError):
        call()
