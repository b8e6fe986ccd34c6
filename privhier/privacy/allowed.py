"""What the rows of the guarantee table allow: the best balanced accuracy at telling two inputs apart.

An epsilon is a number about the worst case; the same number stands for quite different promises. Each value
is computed from the mechanism that was charged, all of a row's parts together: an upper bound, exact for
Gaussian releases and for equal Laplace releases. Accuracies of parts compose by coupling: given what was seen
before, a part is drawn alike for both inputs with probability 1 - TV at least, so together
``TV <= 1 - (1 - TV_1)(1 - TV_2)...``, adaptively as well.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from privhier.privacy.channels import CHANNELS, build_channel
from privhier.privacy.composition import (
    Adjacency,
    ReleaseAccount,
    Responses,
    StepAccount,
    composed,
)
from privhier.privacy.distinguishing import letters_accuracy, pure_accuracy, release_accuracy

_ROUNDING = 8 * float(np.finfo(np.float64).eps)


def together(*accuracies: float) -> float:
    """Of several parts that are seen together, each at least 0.5, at most 1; without any: 0.5.

    Example:
        >>> together(0.75), round(together(0.75, 0.75), 12)
        (0.75, 0.875)
    """
    if len(accuracies) == 1:
        return accuracies[0]
    return min(1.0, 1 - math.prod(2 - 2 * accuracy for accuracy in accuracies) / 2 + _ROUNDING)


def releases_allow(account: ReleaseAccount, mechanism: str, records: int = 1) -> float:
    """All releases of ``records`` records of one person, and the choice of the clip bound.

    Args:
        account: One record's own releases.
        mechanism: Of the releases.
        records: All replaced together.
    """
    count, clip = records * account.releases, 0.5
    if account.clip_epsilon:
        clip = pure_accuracy(records * account.clip_epsilon)
    if count == 0:
        return clip
    if mechanism == "none":
        return 1.0
    if mechanism == "gaussian":
        own = min(1.0, float(ndtr(math.sqrt(records * account.mu_squared) / 2)) + _ROUNDING)
    elif mechanism in CHANNELS:
        own = _answers_allow(account, mechanism, records)
    elif mechanism == "laplace" and _equal(account):
        own = release_accuracy("laplace", 1.0, account.epsilon / account.releases / 2, count)
    else:
        own = pure_accuracy(records * account.epsilon)
    return own if not account.clip_epsilon else together(own, clip)


def _answers_allow(account: ReleaseAccount, mechanism: str, records: int) -> float:
    """Answers on letters, by the channel itself: exact for one, by coupling for several."""
    each = [
        letters_accuracy(build_channel(mechanism, letters, epsilon).matrix.numpy(), records * count)
        for epsilon, letters, count in account.answers
    ]
    return min(pure_accuracy(records * account.epsilon), together(*each))


def responses_allow(responses: Responses, records: int = 1) -> float:
    """Randomized responses on the task labels of ``records`` records; each has the TV of its two answers."""
    each = [
        (1 + math.expm1(epsilon) / (math.exp(epsilon) + classes - 1)) / 2 + _ROUNDING
        for epsilon, classes in responses.answers
    ]
    return min(pure_accuracy(records * responses.epsilon), together(*(each * records)))


def steps_allow(steps: StepAccount, adjacency: Adjacency, chosen: float) -> float:
    """The edge's weights, and the clip bound that was drawn with a pure epsilon of ``chosen``."""
    weights = steps.accuracy(adjacency)
    return together(weights, pure_accuracy(chosen)) if chosen else weights


def everything_allows(
    steps: StepAccount, releases: ReleaseAccount, mechanism: str, responses: Responses
) -> float:
    """One training record's part in weights, own releases and labels, as ``compose`` composes them."""
    found = composed(steps, releases, mechanism, responses)
    if found is None:
        return 1.0
    accountant, pure = found
    rest = half_plus(accountant.get_delta(0.0))
    return together(rest, pure_accuracy(pure)) if pure else rest


def half_plus(total_variation: float) -> float:
    """Balanced accuracy of a total variation: ``(1 + TV) / 2``, at most 1; 1 for what is no number."""
    return 1.0 if math.isnan(total_variation) else min(1.0, (1 + max(0.0, total_variation)) / 2 + _ROUNDING)


def _equal(account: ReleaseAccount) -> bool:
    """Whether all its Laplace releases are of one epsilon: only then do sum and sum of squares agree."""
    if not 0 < account.epsilon < math.inf:
        return False
    return math.isclose(account.releases * account.mu_squared, account.epsilon**2, rel_tol=1e-9)
