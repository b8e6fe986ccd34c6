"""What an epsilon allows: the best balanced accuracy at telling two chosen records apart.

Whoever must say which of two records, equally likely, a release is of is right with probability at most
(1 + TV) / 2, TV the total variation between the two releases' distributions; that is the balanced accuracy.
One number of epsilon stands for quite different promises: pure epsilon 8 allows 0.9997, a Gaussian of
(8, 1e-5) 0.798. Values are rounded up, never above 1.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from dp_accounting.pld import privacy_loss_distribution
from scipy.special import ndtr

from privhier.errors import ConfigError
from privhier.privacy.accounting import gaussian_mu, laplace_epsilon, largest_mu
from privhier.privacy.channel_bounds import channel_contraction, checked_channel

Array = npt.NDArray[Any]

_GRID = 1e-3
"""Width of the privacy loss's grid for Laplace releases, in units of one release's epsilon."""


def pure_accuracy(epsilon: float) -> float:
    """``e^eps / (1 + e^eps)``: what pure epsilon-DP allows; randomized response on two letters reaches it.

    Args:
        epsilon: Replace-one, at least 0; ``inf`` gives 1.

    Raises:
        ConfigError: It is negative or nan.
    """
    return approximate_accuracy(epsilon, 0.0)


def approximate_accuracy(epsilon: float, delta: float) -> float:
    """``(e^eps + delta) / (1 + e^eps)``: what (epsilon, delta)-DP allows, whatever the mechanism.

    From ``P(A) <= e^eps Q(A) + delta`` and the same for the complement and exchanged: TV is at most
    ``(e^eps - 1 + 2 delta) / (e^eps + 1)``. Some mechanism reaches it (Kairouz, Oh and Viswanath, 2015).

    Args:
        epsilon: At least 0.
        delta: In [0, 1].

    Raises:
        ConfigError: An argument is out of its range.
    """
    if not epsilon >= 0:
        raise _error("epsilon", epsilon, "must be at least 0")
    if not 0 <= delta <= 1:
        raise _error("delta", delta, "must lie in [0, 1]")
    odds = math.exp(-epsilon)
    return _up((1 + delta * odds) / (1 + odds))


def gaussian_accuracy(epsilon: float, delta: float) -> float:
    r"""What a Gaussian mechanism that is just (epsilon, delta)-DP allows: :math:`\Phi(\mu/2)`.

    mu is the one whose exact account gives this epsilon at this delta, all releases together; for releases of
    a known noise ``release_accuracy`` says the same without the way round.

    Args:
        epsilon: Replace-one, at least 0; ``inf`` gives 1.
        delta: In (0, 1).

    Raises:
        ConfigError: An argument is out of its range.
    """
    if not epsilon >= 0:
        raise _error("epsilon", epsilon, "must be at least 0")
    if not 0 < delta < 1:
        raise _error("delta", delta, "must lie strictly between 0 and 1")
    if math.isinf(epsilon):
        return 1.0
    return _up(float(ndtr(largest_mu(epsilon, delta) * (1 + 1e-9) / 2)))


def release_accuracy(
    mechanism: Literal["none", "gaussian", "laplace"], sigma: float, clip: float, releases: int
) -> float:
    r"""What all ``releases`` of a record together allow, exactly; arguments as for ``ceilings.ceiling``.

    Gaussian: :math:`\Phi(\sqrt T\,C / \sigma)`. Laplace, one release: :math:`1 - \frac12 e^{-C/b}`. The worst
    two records differ in one value: from one record's features to another's leads a path along the axes of L1
    length at most 2C; the trade-off curves of its pieces bound that of the whole (Dong, Roth and Su, 2022,
    group privacy), and on one axis the pieces compose to exactly one step of that length, the density being
    log-concave. T releases: the T-fold composition of that curve, by dp-accounting's privacy loss
    distribution at epsilon 0, rounded up. Both are far below what their epsilon alone would allow.

    Returns:
        0.5 without releases; 1 for ``none`` or sigma 0.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if mechanism == "gaussian":
        return _up(float(ndtr(gaussian_mu(sigma, clip, releases) / 2)))
    if mechanism == "laplace":
        epsilon = laplace_epsilon(sigma, clip, releases)
        return min(_laplace(epsilon, releases), pure_accuracy(epsilon))
    if mechanism == "none":
        return 1.0 if releases else 0.5
    raise ConfigError(
        key="release.mechanism",
        value=mechanism,
        rule="must be none, gaussian or laplace",
        remedy="Mend release.mechanism",
    )


def letters_accuracy(channel: Array | None, letters_per_record: int = 1, releases: int = 1) -> float:
    """What letters behind a public channel allow; exact for one letter, an upper bound for several.

    Args:
        channel: ``(K, Y)`` probabilities; None: letters leave as they are, which allows 1.
        letters_per_record: M.
        releases: T; 0 gives 0.5.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if letters_per_record < 1 or releases < 0:
        given = (letters_per_record, releases)
        raise _error("letters_per_record, releases", given, "must be at least 1 and 0")
    matrix = None if channel is None else checked_channel(channel)
    if not releases:
        return 0.5
    return _up((1 + channel_contraction(matrix, letters_per_record * releases)) / 2)


def _laplace(epsilon: float, releases: int) -> float:
    """T Laplace releases of ``epsilon`` in all."""
    if releases == 0 or math.isinf(epsilon):
        return 0.5 if releases == 0 else 1.0
    each = epsilon / releases
    if releases == 1:
        return _up(1 - math.exp(-each / 2) / 2)
    if each > 100:  # one release alone leaves 1e-22 of doubt
        return 1.0
    loss = privacy_loss_distribution.from_laplace_mechanism(
        1 / each, sensitivity=1, pessimistic_estimate=True, value_discretization_interval=_GRID * each
    )
    return _up((1 + float(loss.self_compose(releases).get_delta_for_epsilon(0.0))) / 2)


def _up(value: float) -> float:
    return min(1.0, value + 4 * float(np.finfo(np.float64).eps))


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"privacy.{field}", value=value, rule=rule, remedy="Mend the arguments")
