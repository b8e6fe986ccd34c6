import itertools

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln

from privhier.errors import ConfigError
from privhier.privacy.labels import flip_matrix
from privhier.privacy.maximal_leakage import (
    channel_leakage,
    gaussian_leakage,
    guess_bound,
    laplace_leakage,
    letters_leakage,
    release_leakage,
)

NORM = {"gaussian": 2, "laplace": 1}
LEAKAGE = {"gaussian": gaussian_leakage, "laplace": laplace_leakage}


def highest_density(points, mechanism, scale, clip):
    """The supremum over the ball of the density at ``points (n, d)``, from the distance to the ball."""
    distance = np.maximum(np.linalg.norm(points, NORM[mechanism], axis=1) - clip, 0)
    d = points.shape[1]
    if mechanism == "gaussian":
        return np.exp(-((distance / scale) ** 2) / 2) / (2 * np.pi * scale**2) ** (d / 2)
    return np.exp(-distance / scale) / (2 * scale) ** d


@pytest.mark.parametrize("mechanism", NORM)
def test_the_distance_gives_the_supremum_over_the_ball(mechanism):
    side = np.linspace(-1, 1, 201)
    fed = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    fed = fed[np.linalg.norm(fed, NORM[mechanism], axis=1) <= 1 + 1e-12]
    points = np.random.default_rng(0).normal(size=(50, 2)) * 2
    offsets = points[:, None] - fed
    if mechanism == "gaussian":
        density = np.exp(-(offsets**2).sum(-1) / 2 / 0.49) / (2 * np.pi * 0.49)
    else:
        density = np.exp(-np.abs(offsets).sum(-1) / 0.7) / 1.4**2
    highest = highest_density(points, mechanism, 0.7, 1.0)
    np.testing.assert_allclose(density.max(axis=1), highest, rtol=0.03)  # as fine as what was fed


@pytest.mark.parametrize(("scale", "clip"), [(1.0, 1.0), (0.3, 1.0), (2.5, 0.7)])
@pytest.mark.parametrize("mechanism", NORM)
def test_one_dimension_by_quadrature(mechanism, scale, clip):
    def density(y):
        return highest_density(np.array([[y]]), mechanism, scale, clip)[0]

    integral = quad(density, 0, clip)[0] + quad(density, clip, np.inf)[0]
    assert LEAKAGE[mechanism](scale, clip, 1) == pytest.approx(np.log(2 * integral), abs=1e-8)


@pytest.mark.parametrize("mechanism", NORM)
@pytest.mark.parametrize(("dimension", "points"), [(2, 1200), (3, 160)])
def test_two_and_three_dimensions_on_a_grid(mechanism, dimension, points):
    scale, clip = 0.5, 1.0
    reach = clip + (6 if mechanism == "gaussian" else 16) * scale
    # One octant is enough; the middle of every cell.
    side = (np.arange(points) + 0.5) * reach / points
    total = 0.0
    for first in side:  # in slices, not to hold the cube
        rest = np.stack(np.meshgrid(*[side] * (dimension - 1), indexing="ij"), -1).reshape(-1, dimension - 1)
        slice_ = np.column_stack([np.full(len(rest), first), rest]) if dimension == 3 else None
        if slice_ is None:
            slice_ = np.column_stack([np.full(points, first), side])
        total += highest_density(slice_, mechanism, scale, clip).sum()
    integral = 2**dimension * total * (reach / points) ** dimension
    assert LEAKAGE[mechanism](scale, clip, dimension) == pytest.approx(np.log(integral), abs=0.003)


@pytest.mark.parametrize("dimension", [5, 12])
@pytest.mark.parametrize("mechanism", NORM)
def test_more_dimensions_by_monte_carlo(mechanism, dimension):
    scale, clip, n = 0.5, 1.0, 200_000
    rng = np.random.default_rng(0)
    wide = scale * (1.2 if mechanism == "gaussian" else 1.0) + clip / dimension ** (1 / NORM[mechanism])
    if mechanism == "gaussian":
        points = rng.normal(size=(n, dimension)) * wide
        log_q = -((points / wide) ** 2).sum(1) / 2 - dimension * np.log(wide * np.sqrt(2 * np.pi))
    else:
        points = rng.laplace(size=(n, dimension)) * wide
        log_q = -np.abs(points / wide).sum(1) - dimension * np.log(2 * wide)
    weights = highest_density(points, mechanism, scale, clip) / np.exp(log_q)
    error = weights.std() / weights.mean() / np.sqrt(n)
    assert error < 0.02
    assert LEAKAGE[mechanism](scale, clip, dimension) == pytest.approx(np.log(weights.mean()), abs=5 * error)


def exact(mechanism, scale, clip, d):
    """With 80 digits."""
    with mpmath.workdps(80):
        r = mpmath.mpf(clip) / mpmath.mpf(scale)
        if mechanism == "laplace":
            return mpmath.log(mpmath.fsum(r**j / mpmath.factorial(j) for j in range(d + 1)))
        gamma, two = mpmath.gamma, mpmath.mpf(2)
        terms = (
            mpmath.binomial(d, k)
            * r ** (d - k)
            * two ** (mpmath.mpf(k - d) / 2)
            * gamma(mpmath.mpf(k) / 2 + 1)
            for k in range(d + 1)
        )
        return mpmath.log(mpmath.fsum(terms) / gamma(mpmath.mpf(d) / 2 + 1))


@pytest.mark.parametrize("scale", [1e-6, 0.05, 1.0, 30.0, 1e9])
@pytest.mark.parametrize("dimension", [1, 2, 17, 300])
@pytest.mark.parametrize("mechanism", NORM)
def test_never_below_eighty_digits_and_hardly_above(mechanism, dimension, scale):
    value, truth = LEAKAGE[mechanism](scale, 1.3, dimension), exact(mechanism, scale, 1.3, dimension)
    assert mpmath.mpf(value) >= truth
    assert float(mpmath.mpf(value) - truth) <= 1e-9 + 1e-12 * float(truth)


@pytest.mark.parametrize("mechanism", NORM)
def test_a_wide_release_gives_a_finite_number_that_grows_with_dimension_and_shrinks_with_noise(mechanism):
    leakage = LEAKAGE[mechanism]
    values = [leakage(1.0, 1.0, d) for d in (1, 16, 2304, 65_536)]
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all() or mechanism == "laplace"
    assert leakage(2.0, 1.0, 2304) < leakage(1.0, 1.0, 2304) < leakage(1.0, 2.0, 2304)
    assert leakage(1e-300, 1e300, 3) < np.inf  # C / sigma itself is beyond float64
    assert leakage(0.0, 1.0, 3) == np.inf


def test_the_gaussian_volume_is_that_of_the_ball_where_noise_is_little():
    d, r = 8, 1e4
    ball = d * np.log(r) - d / 2 * np.log(2) - gammaln(d / 2 + 1)
    assert gaussian_leakage(1 / r, 1.0, d) == pytest.approx(ball, abs=0.01)


def test_releases_add_and_none_is_nothing():
    assert gaussian_leakage(0.5, 1.0, 4, 6) == pytest.approx(6 * gaussian_leakage(0.5, 1.0, 4))
    assert laplace_leakage(0.5, 1.0, 4, 6) == pytest.approx(6 * laplace_leakage(0.5, 1.0, 4))
    assert letters_leakage(16, 2, 3) == pytest.approx(6 * np.log(16))
    channel = flip_matrix(2.0, 4).numpy()
    assert channel_leakage(channel, 2, 3) == pytest.approx(6 * channel_leakage(channel))
    for nothing in (
        gaussian_leakage(0.0, 1.0, 4, 0),
        laplace_leakage(0.0, 1.0, 4, 0),
        letters_leakage(16, 1, 0),
        channel_leakage(channel, 1, 0),
        release_leakage("none", 0.0, 1.0, 4, 0),
        letters_leakage(1, 5, 5),
    ):
        assert nothing == 0.0


def test_laplace_is_at_most_half_its_epsilon():
    for d, b in itertools.product((1, 10, 10_000), (0.01, 1.0, 100.0)):
        assert laplace_leakage(b, 1.0, d) <= 1 / b * (1 + 1e-14)
    assert laplace_leakage(1.0, 1.0, 10_000) == pytest.approx(1.0)


@pytest.mark.parametrize("letters", [2, 16, 300])
@pytest.mark.parametrize("epsilon", [0.1, 2.0, 8.0])
def test_randomized_response(letters, epsilon):
    value = channel_leakage(flip_matrix(epsilon, letters).numpy())
    e = np.exp(epsilon)
    assert value == pytest.approx(np.log(letters * e / (e + letters - 1)), abs=1e-12)
    assert value < min(epsilon, letters_leakage(letters))
    assert channel_leakage(np.eye(letters)) >= np.log(letters)
    assert channel_leakage(np.full((letters, 3), 1 / 3)) == pytest.approx(0.0, abs=1e-12)


def test_nobody_guesses_more_than_e_to_the_l_times_the_blind_guess():
    rng = np.random.default_rng(0)
    for _ in range(50):
        channel = rng.dirichlet(np.full(5, 0.4), 3)
        secret = rng.dirichlet(np.full(4, 0.5))  # any secret, and how it goes with the letter
        given = rng.dirichlet(np.full(3, 0.4), 4) @ channel
        right = (secret[:, None] * given).max(axis=0).sum()
        assert right <= guess_bound(channel_leakage(channel), secret.max()) + 1e-12
    # Reached by a secret that is the letter itself, all equally likely.
    assert guess_bound(channel_leakage(channel), 1 / 3) == pytest.approx((channel / 3).max(axis=0).sum())
    assert guess_bound(0.0, 0.3) == pytest.approx(0.3)
    assert guess_bound(0.0, 0.3) >= 0.3
    assert guess_bound(np.inf, 0.3) == 1.0


def test_the_mechanism_is_chosen_by_name():
    assert release_leakage("gaussian", 0.5, 1.0, 4, 2) == gaussian_leakage(0.5, 1.0, 4, 2)
    assert release_leakage("laplace", 0.5, 1.0, 4, 2) == laplace_leakage(0.5, 1.0, 4, 2)
    assert release_leakage("none", 0.0, 1.0, 4, 1) == np.inf
    with pytest.raises(ConfigError, match=r"release\.mechanism"):
        release_leakage("cauchy", 0.5, 1.0, 4, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gaussian_leakage(-1.0, 1.0, 1),
        lambda: gaussian_leakage(float("nan"), 1.0, 1),
        lambda: gaussian_leakage(1.0, 0.0, 1),
        lambda: laplace_leakage(1.0, float("inf"), 1),
        lambda: laplace_leakage(1.0, 1.0, 0),
        lambda: laplace_leakage(1.0, 1.0, 1, -1),
        lambda: letters_leakage(0),
        lambda: letters_leakage(4, 0),
        lambda: channel_leakage(np.eye(3), 0),
        lambda: channel_leakage(np.full((2, 2), 0.4)),
        lambda: guess_bound(-0.1, 0.5),
        lambda: guess_bound(float("nan"), 0.5),
        lambda: guess_bound(0.1, 0.0),
    ],
)
def test_what_is_out_of_range_is_refused(call):
    with pytest.raises(ConfigError):
        call()
