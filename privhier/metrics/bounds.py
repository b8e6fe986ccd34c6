"""One-sided lower bounds that are valid at any sample size, for checks that a score breaks its ceiling.

The victims are fixed; what is random is the noise of their releases, which is independent between
records, and an attacker that was fitted on other data. Hoeffding's inequalities need no more: not
normality, not identically distributed records, and no independence between people. An alarm
therefore is false with probability at most ``error`` over all ``n_checks`` checks of a run together
(union bound); in exchange small violations need many records to be seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.metrics.classification import auc, balanced_accuracy, macro_auc

Array = npt.NDArray[Any]


def recall_lower_bound(
    predictions: Array, labels: Array, n_classes: int, *, error: float = 1e-4, n_checks: int = 1
) -> float:
    r"""Lower bound on the expected balanced accuracy (mean recall over all ``n_classes``).

    The mean recall is a sum of independent terms in :math:`[0, 1/(K n_k)]`; Hoeffding (1963,
    theorem 2) gives :math:`\hat r - \sqrt{\ln(1/\alpha)/2 \cdot \sum_k 1/(K^2 n_k)}`.

    Args:
        predictions: ``(n,)`` class numbers.
        labels: ``(n,)`` class numbers in ``0..n_classes-1``.
        n_classes: K, the same K the ceiling was computed with.
        error: One-sided error level of all checks together; 1e-4 is a 99.99 % bound.
        n_checks: How many such checks the run makes.

    Returns:
        A value in [0, 1]; 0 (the trivial bound) if a class has no record.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels.astype(np.int64), minlength=n_classes)
    if (counts == 0).any():
        return 0.0
    spread = float((1.0 / (n_classes**2 * counts)).sum())
    slack = math.sqrt(math.log(1 / _level(error, n_checks)) / 2 * spread)
    return max(0.0, balanced_accuracy(predictions, labels, n_classes) - slack)


def auc_lower_bound(scores: Array, labels: Array, *, error: float = 1e-4, n_checks: int = 1) -> float:
    r"""Lower bound c such that an AUC ceiling below c is refuted.

    If :math:`P(s_i > s_j) + \tfrac12 P(s_i = s_j) \le c` for every pair of a positive and a negative
    record (which is what a ceiling claims), the sample AUC reaches u with probability at most
    :math:`\exp(-m\,\mathrm{kl}(u \| c))`, m the size of the smaller class: Hoeffding (1963), section
    5b (a two-sample U statistic is an average of means of m independent terms) with his theorem 1.
    The bound is the c at which this equals the error level.

    Args:
        scores: ``(n,)`` finite.
        labels: ``(n,)`` of 0/1.
        error: One-sided error level of all checks together.
        n_checks: How many such checks the run makes.

    Returns:
        A value in [0, 1]; 0 (the trivial bound) if a class has no record.
    """
    labels = np.asarray(labels).astype(np.int64)
    smaller = int(min((labels == 1).sum(), (labels == 0).sum()))
    if smaller == 0:
        return 0.0
    return _kl_lower(auc(scores, labels), math.log(1 / _level(error, n_checks)) / smaller)


def macro_auc_lower_bound(
    probabilities: Array, labels: Array, *, error: float = 1e-4, n_checks: int = 1
) -> float:
    """``auc_lower_bound`` of the macro one-vs-rest AUC: the mean of K bounds at ``error / K`` each.

    With K = 2 it is the bound of column 1; 0 if a class has no record.
    """
    probabilities = np.asarray(probabilities)
    labels = np.asarray(labels)
    classes = probabilities.shape[1]
    columns = [1] if classes == 2 else list(range(classes))
    if any((labels == k).sum() == 0 for k in range(classes)):
        return 0.0
    bounds = [
        auc_lower_bound(probabilities[:, k], labels == k, error=error, n_checks=n_checks * len(columns))
        for k in columns
    ]
    return float(np.mean(bounds))


def mean_auc_lower_bound(
    probabilities: Array, labels: Array, *, error: float = 1e-4, n_checks: int = 1
) -> float:
    r"""Lower bound on the expected (macro one-vs-rest) AUC of these very records.

    Where ``macro_auc_lower_bound`` refutes a claim about *every* pair of records (a ceiling), this one
    refutes a claim about their mean (a certificate), whatever single pairs may reach. One record's noise
    changes the AUC of class k against the rest by at most :math:`1/n_k` or :math:`1/(n - n_k)`; McDiarmid
    (1989) gives the slack :math:`\sqrt{\ln(1/\alpha)/2 \cdot \sum_i d_i^2}`, :math:`d_i` the mean of these
    over the classes.

    Args:
        probabilities: ``(n, K)`` finite scores of the classes.
        labels: ``(n,)`` class numbers.
        error: One-sided error level of all checks together.
        n_checks: How many such checks the run makes.

    Returns:
        A value in [0, 1]; 0 (the trivial bound) if a class has no record.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels).astype(np.int64)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    if (counts == 0).any():
        return 0.0
    rest = 1 / (counts.sum() - counts)
    moves = (1 / counts + rest.sum() - rest) / len(counts)  # of a record of each class
    slack = math.sqrt(math.log(1 / _level(error, n_checks)) / 2 * float((counts * moves**2).sum()))
    return max(0.0, macro_auc(probabilities, labels) - slack)


def _level(error: float, n_checks: int) -> float:
    if not 0 < error < 1 or n_checks < 1:
        raise ValueError(f"error must lie in (0, 1) and n_checks be at least 1, got {error}, {n_checks}")
    return error / n_checks


def _kl_lower(value: float, budget: float) -> float:
    """Smallest c <= value with kl(value || c) <= budget, from below (bisection keeps the safe side)."""
    low, high = 0.0, value
    for _ in range(100):
        middle = (low + high) / 2
        if _bernoulli_kl(value, middle) > budget:
            low = middle
        else:
            high = middle
    return low


def _bernoulli_kl(p: float, q: float) -> float:
    if q <= 0.0:
        return 0.0 if p == 0.0 else math.inf
    if q >= 1.0:
        return 0.0 if p == 1.0 else math.inf
    first = p * math.log(p / q) if p > 0 else 0.0
    second = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return first + second
