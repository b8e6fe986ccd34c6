"""The most anyone can reach from one record's releases, and the alarm when someone reaches more.

A ceiling binds a predictor that was fitted without the scored records' noise, and that uses one
record's T releases and nothing else that depends on the record or its person. It bounds expectations;
a sample may lie above it by chance, so what is checked is a one-sided lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri

from privhier.errors import ConfigError, GuaranteeError
from privhier.privacy.accounting import gaussian_mu, laplace_epsilon, letters_epsilon
from privhier.privacy.mechanism import Mechanism
from privhier.privacy.shown import claim


@dataclass(frozen=True)
class Ceiling:
    """Upper bounds on expected scores.

    Attributes:
        balanced_accuracy: Of the mean recall over all K classes.
        auc: Of the AUC of one group of records against another; it bounds every one-vs-rest AUC,
            hence their macro mean too.
    """

    balanced_accuracy: float
    auc: float


def gaussian_ceiling(mu: float, n_classes: int) -> Ceiling:
    r"""Ceilings of mu-GDP releases (mu from ``gaussian_mu``, all T releases together).

    Mean recall: a record's clipped features lie within C of the zero vector, hence its releases are
    mu/2-GDP against those of zero, and :math:`P_k(A_k) \le \Phi(\Phi^{-1}(Q(A_k)) + \mu/2)` for the
    region :math:`A_k` answered with k. The right side is concave in :math:`Q(A_k)` and these sum to
    1, so the mean over k is at most :math:`\Phi(\Phi^{-1}(1/K) + \mu/2)`; reached for K = 2.
    AUC: the area under the mu-GDP trade-off curve is :math:`\Phi(\mu/\sqrt2)`; it bounds every pair of
    records and so every average over pairs.
    """
    _check_classes(n_classes)
    return Ceiling(
        balanced_accuracy=float(ndtr(ndtri(1 / n_classes) + mu / 2)), auc=float(ndtr(mu / math.sqrt(2)))
    )


def pure_ceiling(epsilon: float, n_classes: int) -> Ceiling:
    r"""Ceilings of epsilon-DP releases (all T together).

    Mean recall :math:`e^\epsilon / (e^\epsilon + K - 1)` (sum :math:`P_j(A_j) + e^{-\epsilon} \sum_{k
    \ne j} P_k(A_k) \le 1` over j); AUC :math:`e^\epsilon / (1 + e^\epsilon)`, the area under the
    epsilon-DP trade-off curve. Randomized response reaches both.
    """
    _check_classes(n_classes)
    odds = math.exp(-epsilon)
    return Ceiling(balanced_accuracy=1 / (1 + (n_classes - 1) * odds), auc=1 / (1 + odds))


def ceiling(mechanism: Mechanism, releases: int, n_classes: int) -> Ceiling | None:
    """Ceilings for whoever holds ``releases`` releases of a record.

    Args:
        mechanism: What made them.
        releases: T, at least 0.
        n_classes: K, the classes **present** among the scored records (fewer classes, higher ceiling).

    Returns:
        None where there is no guarantee: no noise.

    Raises:
        ConfigError: An argument is out of its range.
    """
    if mechanism.deterministic:
        return None
    if mechanism.mechanism == "gaussian":
        return gaussian_ceiling(gaussian_mu(mechanism.sigma, mechanism.clip, releases), n_classes)
    if mechanism.mechanism == "laplace":
        return pure_ceiling(laplace_epsilon(mechanism.sigma, mechanism.clip, releases), n_classes)
    return pure_ceiling(letters_epsilon(mechanism.epsilon, mechanism.groups, releases), n_classes)


def contraction(mu: float) -> float:
    """``2 Phi(mu/2) - 1``: how much of a noiseless network's advantage can survive mu-GDP noise.

    The advantage is 2 * balanced accuracy - 1 of the best decision on noiseless features, two classes
    (Dobrushin's coefficient: the total variation between releases of any two records).
    """
    return 2 * float(ndtr(mu / 2)) - 1


def check_ceiling(name: str, lower_bound_9999: float, ceiling_value: float) -> None:
    """Raise if a score's one-sided 99.99 % lower bound lies above its ceiling.

    Args:
        name: What was scored, for the message.
        lower_bound_9999: From ``metrics.bounds``; count the run's checks in ``n_checks`` there.
        ceiling_value: The ceiling.

    Raises:
        GuaranteeError: The guarantee is wrong: noise, clipping, accounting or the view is broken.
    """
    # A sliver for rounding; nan on either side is an alarm, not a pass.
    if not lower_bound_9999 <= ceiling_value + 1e-12:
        raise GuaranteeError(
            key=name,
            value=lower_bound_9999,
            rule=f"the 99.99 % lower bound must not lie above the ceiling {claim(ceiling_value, 6)}",
            remedy="The guarantee is wrong: check the noise, the clipping, the number of releases "
            "charged, and that the attacker saw nothing else of these records",
        )


def _check_classes(n_classes: int) -> None:
    if n_classes < 2:
        raise ConfigError(
            key="n_classes", value=n_classes, rule="must be at least 2", remedy="Score at least two classes"
        )
