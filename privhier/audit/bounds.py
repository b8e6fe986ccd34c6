"""Lower bounds on epsilon from counted guesses: what an audit may say at a given confidence.

Every bound takes counts of a test that was fixed **before** the counted draws were made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, ndtri
from scipy.stats import binom

from privhier.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
Counts = npt.ArrayLike
_MOST_EPSILON = 1e4


def rate_lower(hits: Counts, trials: Counts, error: float) -> FloatArray:
    """One-sided Clopper and Pearson (1934) lower bound of a rate; wrong with probability at most ``error``.

    Args:
        hits: How often it happened; any shape.
        trials: Out of how many, at least 1; broadcasts with ``hits``.
        error: In (0, 1).

    Returns:
        float64 in [0, 1); exact, no normal approximation.

    Raises:
        ConfigError: Counts or error out of range.
    """
    k, n = _counts(hits, trials, error)
    low = betaincinv(np.maximum(k, 1), n - np.maximum(k, 1) + 1, error)
    return np.asarray(np.where(k == 0, 0.0, low), dtype=np.float64)


def rate_upper(hits: Counts, trials: Counts, error: float) -> FloatArray:
    """One-sided Clopper-Pearson upper bound; see ``rate_lower``."""
    k, n = _counts(hits, trials, error)
    return np.asarray(1 - rate_lower(n - k, n, error), dtype=np.float64)


def mu_lower_bound(
    true_positives: Counts, positives: Counts, false_positives: Counts, negatives: Counts, confidence: float
) -> FloatArray:
    r"""Lower bound on the mu of a mu-GDP mechanism from one test's error counts.

    mu-GDP says :math:`TPR \le \Phi(\Phi^{-1}(FPR) + \mu)` for every test (Dong, Roth and Su, 2022,
    definition 4), hence :math:`\mu \ge \Phi^{-1}(TPR) - \Phi^{-1}(FPR)`. Each rate is bounded at half
    the error. ``gaussian_epsilon(mu, delta)`` turns the bound into epsilon exactly.

    Args:
        true_positives: Positives the test called positive; any shape, all four broadcast.
        positives: Draws under one input.
        false_positives: Negatives it called positive.
        negatives: Draws under the other input.
        confidence: In (0, 1), e.g. 0.95.

    Returns:
        float64, may be negative (nothing shown) or ``-inf``; finite from above for finite counts.

    Raises:
        ConfigError: Counts or confidence out of range.
    """
    error = (1 - confidence) / 2
    high = rate_lower(true_positives, positives, error)
    low = rate_lower(np.asarray(negatives) - np.asarray(false_positives), negatives, error)
    # Phi^-1(FPR_high) = -Phi^-1((1 - FPR)_low): no digits are lost near 1.
    return np.asarray(ndtri(high) + ndtri(low), dtype=np.float64)


def pure_lower_bound(
    true_positives: Counts, positives: Counts, false_positives: Counts, negatives: Counts, confidence: float
) -> FloatArray:
    r"""Lower bound on pure epsilon from one test's error counts.

    The better of :math:`\log(TPR / FPR)` and :math:`\log((1 - FPR) / (1 - TPR))`; both rest on the same
    two bounds on the rates, each at half the error, so taking the better one costs nothing.

    Args:
        true_positives: As for ``mu_lower_bound``, like the others.
        positives: Draws under one input.
        false_positives: Negatives called positive.
        negatives: Draws under the other input.
        confidence: In (0, 1).

    Returns:
        float64, negative or ``-inf`` where nothing is shown.

    Raises:
        ConfigError: Counts or confidence out of range.
    """
    error = (1 - confidence) / 2
    true_low = rate_lower(true_positives, positives, error)
    false_high = rate_upper(false_positives, negatives, error)
    with np.errstate(divide="ignore"):
        first = np.log(true_low) - np.log(false_high)
        second = np.log1p(-false_high) - np.log1p(-true_low)
    return np.asarray(np.maximum(first, second), dtype=np.float64)


def multinomial_p_value(counts: Counts, shares: Counts) -> float:
    r"""How likely counts at least as far from their shares are, bounded from above at every sample size.

    The G-test's statistic is twice :math:`x = \sum_i c_i \log(c_i / (n p_i))`. Agrawal (2020, theorem 1.2):
    :math:`P[x \ge t] \le e^{-t} (e t / (k - 1))^{k - 1}` for t > k - 1, no approximation for few counts.

    Args:
        counts: How often each of k outcomes came, ``(k,)``.
        shares: Their probabilities, which sum to 1, fixed before the draws; ``(k,)``.

    Returns:
        In [0, 1]; 0 where an outcome of probability 0 came.

    Raises:
        ConfigError: Counts below 0, or no distribution of the same length.

    Example:
        >>> multinomial_p_value([50, 50], [0.5, 0.5]), multinomial_p_value([1, 99], [0.5, 0.5]) < 1e-20
        (1.0, True)
    """
    c, p = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if c.shape != p.shape or c.ndim != 1 or np.any(c < 0) or np.any(p < 0) or not math.isclose(p.sum(), 1):
        raise _error("counts", "out of range", "must be at least 0, one for each of the shares that sum to 1")
    if np.any(c[p == 0] > 0):
        return 0.0
    seen = c > 0
    x = float((c[seen] * np.log(c[seen] / (c.sum() * p[seen]))).sum()) if seen.any() else 0.0
    free = int((p > 0).sum()) - 1
    if free == 0 or x <= free:
        return 1.0
    return math.exp(free * (1 + math.log(x / free)) - x)


def one_run_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    r"""How likely v or more of r guesses are right if the algorithm is (epsilon, delta)-DP.

    Steinke, Nasr and Jagielski (2023), theorem 5.2: at most
    :math:`P[B \ge v] + 2 m \delta \max_{1 \le i \le v} P[v > B \ge v - i] / i` with
    :math:`B \sim Binomial(r, e^\epsilon / (1 + e^\epsilon))`.

    Args:
        m: Canaries whose side was drawn by a fair coin each.
        r: Guesses made (the others abstained), at most m.
        v: Right guesses, at most r.
        epsilon: Of the claim that is tested, at least 0.
        delta: Of the claim, in [0, 1).

    Returns:
        In [0, 1].

    Raises:
        ConfigError: An argument is out of its range.
    """
    _check_guesses(m, r, v, delta)
    rate = float(expit(epsilon))
    tail = float(binom.sf(v - 1, r, rate))
    if delta > 0 and v > 0:
        below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, rate))
        tail += 2 * m * delta * float(np.max(below / np.arange(1, v + 1)))
    return min(1.0, tail)


def one_run_lower_bound(m: int, r: int, v: int, delta: float, confidence: float) -> float:
    """Lower bound on epsilon from the guesses of a single run (Steinke, Nasr and Jagielski, 2023).

    Args:
        m: Canaries, up to 1e5 in about a second.
        r: Guesses made.
        v: Right guesses.
        delta: Of the claim.
        confidence: In (0, 1).

    Returns:
        The largest epsilon, to 1e-6 below, that the guesses refute at this confidence; 0 if they refute
        none. The unit is that of the coin: in against out bounds add/remove, plus against minus
        bounds replace-one.

    Raises:
        ConfigError: An argument is out of its range.
    """
    _check_guesses(m, r, v, delta)
    if not 0 < confidence < 1:
        raise _error("confidence", confidence, "must lie in (0, 1)")
    if one_run_p_value(m, r, v, 0.0, delta) > 1 - confidence:
        return 0.0
    low, high = 0.0, 1.0
    while one_run_p_value(m, r, v, high, delta) <= 1 - confidence:
        low, high = high, 2 * high
        if high > _MOST_EPSILON:
            return low
    while high - low > 1e-6:
        middle = (low + high) / 2
        if one_run_p_value(m, r, v, middle, delta) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def _counts(hits: Any, trials: Any, error: float) -> tuple[FloatArray, FloatArray]:
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    if not 0 < error < 1:
        raise _error("confidence", error, "must leave an error strictly between 0 and 1")
    if not (np.all(n >= 1) and np.all(k >= 0) and np.all(k <= n)):
        raise _error("counts", "out of range", "must satisfy 0 <= hits <= trials and trials >= 1")
    return k, n


def _check_guesses(m: int, r: int, v: int, delta: float) -> None:
    if not (0 <= v <= r <= m and m >= 1):
        raise _error("guesses", (m, r, v), "must satisfy 0 <= v <= r <= m and m >= 1")
    if not 0 <= delta < 1 or math.isnan(delta):
        raise _error("delta", delta, "must lie in [0, 1)")


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"audit.{field}", value=value, rule=rule, remedy=f"Mend {field}")
