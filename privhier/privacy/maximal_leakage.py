r"""Maximal leakage: how much a release multiplies the chance to guess, whatever is guessed.

Issa, Wagner and Kamath (2020): of *any* secret that is a (randomized) function of the record, known or not
when the system was built, :math:`P(\text{guess} | Y) \le e^L \max P(\text{blind guess})` with

.. math:: L = \log \int \sup_x p(y | x)\,dy

in nats. The supremum is over everything that can be fed: the norm ball the features are clipped to, or the
letters. No prior, no data and no confidence enter. It binds whoever uses a record's releases and nothing
else that depends on it, and it bounds the mean over records; a single one may be worse off, which is what
epsilon is for. T releases add up, whatever edges made them: the supremum of a product is at most the product
of the suprema, and the last release's integral is at most its own :math:`e^L`, given any earlier ones.
Values are rounded up.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

from privhier.errors import ConfigError
from privhier.privacy.channel_bounds import checked_channel

Array = npt.NDArray[Any]


def gaussian_leakage(sigma: float, clip: float, dimension: int, releases: int = 1) -> float:
    r"""L of ``releases`` Gaussian releases of features clipped to an L2 norm of C, in nats.

    The supremum of the density is that at y's distance from the ball, so the integral is
    :math:`(2 \pi \sigma^2)^{-d/2} \int e^{-\mathrm{dist}(y, B)^2 / 2 \sigma^2} dy`. By layers (the points
    within t of the ball are a ball of radius C + t) and with r = C / sigma

    .. math:: e^L = \sum_{k=0}^d \binom dk r^{d-k}\,
        \frac{2^{k/2}\,\Gamma(k/2 + 1)}{2^{d/2}\,\Gamma(d/2 + 1)},

    summed in log space: all terms are positive, nothing cancels. In one dimension it is
    :math:`1 + 2C / \sqrt{2 \pi \sigma^2}`.

    Args:
        sigma: Standard deviation of the noise in feature units; 0 gives ``inf``.
        clip: C.
        dimension: d, values of one release.
        releases: T.

    Returns:
        At least 0.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if _nothing(sigma, clip, dimension, releases):
        return 0.0
    if sigma == 0:
        return math.inf
    d, k = float(dimension), np.arange(dimension, dtype=np.float64)
    log_r = math.log(clip) - math.log(sigma)
    binomial = gammaln(d + 1) - gammaln(k + 1) - gammaln(d - k + 1)
    layers = (k - d) / 2 * math.log(2) + gammaln(k / 2 + 1) - gammaln(d / 2 + 1)
    rest = float(logsumexp(binomial + (d - k) * log_r + layers))
    # The term of k = d is 1; the sum of the others may be tiny beside it, or huge.
    return _up(releases * float(np.logaddexp(0.0, rest)), releases * (4 * gammaln(d + 1) + d * abs(log_r)))


def laplace_leakage(scale: float, clip: float, dimension: int, releases: int = 1) -> float:
    r"""L of ``releases`` Laplace releases of features clipped to an L1 norm of C, in nats.

    As for the Gaussian, with the L1 ball, whose volume is :math:`(2s)^d / d!` for radius s: :math:`e^L =
    \sum_{j=0}^d r^j / j!` with r = C / b. So L is below C / b, half the epsilon, in any dimension.

    Args:
        scale: b in feature units; 0 gives ``inf``.
        clip: C.
        dimension: d.
        releases: T.

    Returns:
        At least 0.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if _nothing(scale, clip, dimension, releases):
        return 0.0
    if scale == 0:
        return math.inf
    log_r, j = math.log(clip) - math.log(scale), np.arange(1, dimension + 1, dtype=np.float64)
    value = float(np.logaddexp(0.0, logsumexp(j * log_r - gammaln(j + 1))))
    exact = _up(releases * value, releases * float(gammaln(dimension + 1) + dimension * abs(log_r)))
    return min(exact, _up(releases * clip / scale, 0.0))


def letters_leakage(letters: int, letters_per_record: int = 1, releases: int = 1) -> float:
    """L of T releases of M letters out of K: ``T * M * log K``, in nats; whatever the code.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if letters < 1 or letters_per_record < 1 or releases < 0:
        given = (letters, letters_per_record, releases)
        raise _error("letters, letters_per_record, releases", given, "must be at least 1, 1 and 0")
    if letters == 1:
        return 0.0
    return _up(releases * letters_per_record * math.log(letters), 0.0)


def channel_leakage(channel: Array, letters_per_record: int = 1, releases: int = 1) -> float:
    r"""L of letters behind a public channel: :math:`T M \log \sum_y \max_x W(y | x)`, in nats.

    Exact if the code uses every letter. For randomized response it is
    :math:`\log(K e^\epsilon / (e^\epsilon + K - 1))`, below both epsilon and log K.

    Args:
        channel: ``(K, Y)`` probabilities; the noise of every letter and release is drawn anew.
        letters_per_record: M.
        releases: T.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if letters_per_record < 1 or releases < 0:
        given = (letters_per_record, releases)
        raise _error("letters_per_record, releases", given, "must be at least 1 and 0")
    total = float(checked_channel(channel).max(axis=0).sum())
    times = releases * letters_per_record
    return _up(times * math.log(max(total, 1.0)), float(times)) if times else 0.0


def release_leakage(
    mechanism: Literal["none", "gaussian", "laplace"],
    sigma: float,
    clip: float,
    dimension: int,
    releases: int,
) -> float:
    """L of all ``releases`` of a record; arguments as for ``ceilings.ceiling``.

    Returns:
        ``inf`` for ``none`` or sigma 0: values without noise bound nobody.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if mechanism == "gaussian":
        return gaussian_leakage(sigma, clip, dimension, releases)
    if mechanism == "laplace":
        return laplace_leakage(sigma, clip, dimension, releases)
    if mechanism == "none":
        return math.inf if releases else 0.0
    raise ConfigError(
        key="release.mechanism",
        value=mechanism,
        rule="must be none, gaussian or laplace",
        remedy="Mend release.mechanism",
    )


def guess_bound(leakage: float, blind: float) -> float:
    """The most that anyone guesses right from releases: ``e^L`` times the best blind guess, at most 1.

    Args:
        leakage: L in nats, at least 0.
        blind: Chance of the best guess without releases (the share of the most frequent value), in (0, 1].

    Raises:
        ConfigError: An argument is out of its range.
    """
    if not leakage >= 0 or not 0 < blind <= 1:
        raise _error("leakage, blind", (leakage, blind), "must be at least 0, and lie in (0, 1]")
    exponent = leakage + math.log(blind)
    return 1.0 if exponent >= 0 else min(1.0, _up(math.exp(exponent), 1.0))


def _up(value: float, magnitude: float) -> float:
    """``value`` above what the rounding of numbers as large as ``magnitude`` can have taken from it."""
    return value + 16 * float(np.finfo(np.float64).eps) * (abs(value) + float(magnitude))


def _nothing(sigma: float, clip: float, dimension: int, releases: int) -> bool:
    """Whether nothing is released; the arguments are checked."""
    if not 0 <= sigma < math.inf or not 0 < clip < math.inf:
        raise _error("sigma, clip", (sigma, clip), "must be finite, sigma at least 0 and clip above 0")
    if dimension < 1 or releases < 0:
        raise _error("dimension, releases", (dimension, releases), "must be at least 1 and 0")
    return releases == 0


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"leakage.{field}", value=value, rule=rule, remedy="Mend the arguments")
