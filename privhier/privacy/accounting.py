"""What T releases of one record cost, exactly; and how much noise a target needs.

Replace-one throughout: under a clip C two records' features differ by at most 2C, so a Gaussian
release with standard deviation sigma is mu-GDP with mu = 2C / sigma, and T of them, each of the same
record, are sqrt(T) mu-GDP (Dong, Roth and Su, 2022, corollary 3.3; adaptive choice included).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy.special import erfcx, ndtr, ndtri

from privhier.errors import ConfigError


def gaussian_mu(sigma: float, clip: float, releases: int) -> float:
    """The mu of ``releases`` Gaussian releases of one record: ``sqrt(T) * 2C / sigma``.

    Args:
        sigma: Standard deviation of the noise, in feature units; 0 gives ``inf``.
        clip: C, the L2 norm bound.
        releases: T, at least 0; 0 gives 0.

    Raises:
        ConfigError: An argument is out of its range.
    """
    _check_release(sigma, clip, releases)
    if releases == 0:
        return 0.0
    return math.inf if sigma == 0 else math.sqrt(releases) * 2 * clip / sigma


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Smallest delta at which a mu-GDP mechanism is (epsilon, delta)-DP.

    ``Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)`` (Balle and Wang, 2018, theorem 8), evaluated
    through the scaled complementary error function so that nothing overflows or cancels.
    """
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    a, b = mu / 2 - epsilon / mu, mu / 2 + epsilon / mu
    # e^eps Phi(-b) = erfcx(b / sqrt 2) exp(-a^2 / 2) / 2, since b^2 - a^2 = 2 eps.
    weight = math.exp(-min(a * a / 2, 1e4)) / 2
    second = float(erfcx(b / math.sqrt(2)))
    if a < 0:
        return max(0.0, weight * (float(erfcx(-a / math.sqrt(2))) - second))
    return max(0.0, float(ndtr(a)) - weight * second)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon at which a mu-GDP mechanism is (epsilon, delta)-DP, rounded up.

    Args:
        mu: At least 0; ``inf`` gives ``inf``.
        delta: In (0, 1).

    Returns:
        At least 0; never below the exact value by more than the precision of float64.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if not mu >= 0:
        raise _error("mu", mu, "must be at least 0")
    _check_delta(delta)
    if math.isinf(mu):
        return math.inf
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    # Dropping the subtracted term bounds epsilon from above.
    high = mu * (mu / 2 - float(ndtri(delta)))
    if math.isinf(high):
        return math.inf
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        if gaussian_delta(mu, middle) <= delta:
            high = middle
        else:
            low = middle
    return high


def laplace_epsilon(scale: float, clip: float, releases: int) -> float:
    """Pure epsilon of ``releases`` Laplace releases of one record: ``T * 2C / b``.

    Args:
        scale: b, in feature units; 0 gives ``inf``.
        clip: C, the L1 norm bound.
        releases: T, at least 0; 0 gives 0.

    Raises:
        ConfigError: An argument is out of its range.
    """
    _check_release(scale, clip, releases)
    if releases == 0:
        return 0.0
    return math.inf if scale == 0 else releases * 2 * clip / scale


def letters_epsilon(epsilon: float, groups: int, releases: int) -> float:
    """Pure epsilon of ``releases`` releases of M letters each: ``T * M`` times that of one answer.

    Args:
        epsilon: Of one answer, at least 0; 0: true letters, ``inf``.
        groups: M.
        releases: T, at least 0; 0 gives 0.
    """
    if releases == 0:
        return 0.0
    return math.inf if epsilon == 0 else releases * groups * epsilon


def solve_answer(target_epsilon: float, groups: int, releases: int) -> float:
    """The largest epsilon of one answer with which all ``M * T`` of a record stay within the target.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if not 0 < target_epsilon < math.inf:
        raise _error("target_epsilon", target_epsilon, "must be above 0 and finite")
    if groups < 1 or releases < 1:
        raise _error("releases", releases, "must be at least 1, of at least 1 letter, to share the target")
    share = target_epsilon / (groups * releases)
    while letters_epsilon(share, groups, releases) > target_epsilon:
        share = math.nextafter(share, 0)
    return share


def release_epsilon(
    mechanism: Literal["none", "gaussian", "laplace"],
    sigma: float,
    delta: float,
    clip: float,
    releases: int,
) -> float:
    """Replace-one epsilon of all ``releases`` of one record; ``inf`` for ``none`` or sigma 0."""
    if mechanism == "gaussian":
        return gaussian_epsilon(gaussian_mu(sigma, clip, releases), delta)
    if mechanism == "laplace":
        return laplace_epsilon(sigma, clip, releases)
    if mechanism == "none":
        return math.inf if releases else 0.0
    raise _error("mechanism", mechanism, "must be none, gaussian or laplace")


def solve_sigma(
    mechanism: Literal["gaussian", "laplace"],
    target_epsilon: float,
    delta: float,
    clip: float,
    releases: int,
) -> float:
    """Smallest noise scale, up to float32, whose releases stay within ``target_epsilon``.

    Args:
        mechanism: ``"gaussian"`` (solved exactly) or ``"laplace"``.
        target_epsilon: Replace-one epsilon of all releases together, above 0.
        delta: In (0, 1); not used by ``laplace``.
        clip: C, the norm bound.
        releases: T, at least 1.

    Returns:
        sigma in feature units, rounded **up** to a float32 (the noise is scaled in float32), so the
        epsilon computed back from it never exceeds the target.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if mechanism not in ("gaussian", "laplace"):
        raise _error("mechanism", mechanism, "takes a target_epsilon only if it is gaussian or laplace")
    if not 0 < target_epsilon < math.inf:
        raise _error("target_epsilon", target_epsilon, "must be above 0 and finite")
    _check_delta(delta)
    _check_release(1.0, clip, releases)
    if releases < 1:
        raise _error("releases", releases, "must be at least 1 to solve for the noise")
    if mechanism == "laplace":
        sigma = releases * 2 * clip / target_epsilon
    else:
        sigma = math.sqrt(releases) * 2 * clip / largest_mu(target_epsilon, delta)
    rounded = np.float32(sigma)
    while float(rounded) < sigma or release_epsilon(mechanism, float(rounded), delta, clip, releases) > (
        target_epsilon
    ):
        rounded = np.nextafter(rounded, np.float32(np.inf))
    if not math.isfinite(float(rounded)):
        raise _error("target_epsilon", target_epsilon, "needs noise beyond the range of float32")
    return float(rounded)


def largest_mu(epsilon: float, delta: float) -> float:
    """The largest mu, rounded down, with ``gaussian_delta(mu, epsilon) <= delta``.

    Args:
        epsilon: At least 0 and finite.
        delta: In (0, 1).
    """
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) <= delta:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if gaussian_delta(middle, epsilon) <= delta:
            low = middle
        else:
            high = middle
    return low


def _check_release(sigma: float, clip: float, releases: int) -> None:
    if not 0 <= sigma < math.inf:
        raise _error("sigma", sigma, "must be at least 0 and finite")
    if not 0 < clip < math.inf:
        raise _error("clip", clip, "must be above 0 and finite")
    if isinstance(releases, bool) or not isinstance(releases, int | np.integer) or releases < 0:
        raise _error("releases", releases, "must be an integer, at least 0")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(
            key="privacy.delta",
            value=delta,
            rule="must lie strictly between 0 and 1",
            remedy="Choose well below one over the number of records, e.g. 1e-5",
        )


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"release.{field}", value=value, rule=rule, remedy=f"Mend release.{field}")
