"""Composition: one record's releases, DP-SGD on the edge and randomized responses, apart and together.

Who accounts what: Gaussian releases exactly (``accounting``); DP-SGD under add/remove by Opacus' PRV
accountant (Gopi, Lee and Wutschitz, 2021); everything under replace-one by dp-accounting's privacy loss
distributions with its REPLACE_ONE relation, which holds the factor 2 of the sensitivity itself. All
three return upper bounds (under Poisson sampling and replace-one: for the pair of opposite gradients,
which dp-accounting takes as the worst).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation
from opacus.accountants import PRVAccountant
from scipy.stats import binom

from privhier.errors import ConfigError
from privhier.privacy.accounting import gaussian_epsilon
from privhier.privacy.channels import CHANNELS, RandomizedResponse

Adjacency = Literal["replace_one", "add_remove"]

_LARGEST_MULTIPLIER = 1e4
_MULTIPLIER_STEP = 1e-4
_COARSE, _FINE = 1e-3, 1e-4
"""Discretization of privacy losses; both are rounded up, so both bound epsilon from above."""
_LEAST_NOISE, _STRONGEST = 0.2, 20.0
"""A noise multiplier, and a mu, beyond which epsilon is in the hundreds: no number is given."""
_MOST_RECORDS = 16
"""Records of one person per unit of noise multiplier, above which no person's epsilon is computed."""
_MOST_ANSWERS = 64
"""Answers on letters of one record up to which their losses are composed; of more the epsilons are added."""
_SMALLEST_DELTA = 1e-13
"""Below this the numerical tails of a discretized distribution are no longer small against delta."""


@dataclass(frozen=True)
class ReleaseAccount:
    """The releases that any one record of a split has had, composed.

    Attributes:
        releases: T.
        mu_squared: Sum of ``(2C / sigma)**2`` over them (gaussian); ``inf`` if one had no noise.
        epsilon: Sum of ``2C / b`` over them (laplace), or of every answer's epsilon (letters); ``inf`` if
            one had no noise.
        clip_epsilon: Pure epsilon of drawing C from the split's records; 0 where C is a constant.
        answers: ``(epsilon, K, how many)`` answers on letters.
    """

    releases: int = 0
    mu_squared: float = 0.0
    epsilon: float = 0.0
    clip_epsilon: float = 0.0
    answers: tuple[tuple[float, int, int], ...] = ()

    def spent(self, mechanism: str, delta: float, records: int = 1) -> float:
        """Replace-one epsilon of all releases of ``records`` records of one person together.

        Gaussian: k records of T releases each are sqrt(k T) (2C / sigma)-GDP. Laplace and letters: k times.
        The choice of C is pure and added.
        """
        clip = records * self.clip_epsilon
        if self.releases == 0:
            return clip
        if mechanism == "gaussian":
            return gaussian_epsilon(math.sqrt(records * self.mu_squared), delta) + clip
        pure = mechanism == "laplace" or mechanism in CHANNELS
        return records * self.epsilon + clip if pure else math.inf


@dataclass(frozen=True)
class Steps:
    """Equal DP-SGD steps.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the norm bound of a record's gradient.
        sample_rate: Probability with which a record enters a step, unseen; 1: it is in every one.
        count: How many.
    """

    noise_multiplier: float
    sample_rate: float
    count: int

    @property
    def event(self) -> dp_event.DpEvent:
        """One of them, in dp-accounting's words."""
        step = dp_event.GaussianDpEvent(self.noise_multiplier)
        return step if self.sample_rate == 1 else dp_event.PoissonSampledDpEvent(self.sample_rate, step)


@dataclass(frozen=True)
class StepAccount:
    """DP-SGD on the edge: everything that went into its weights.

    Attributes:
        steps: Groups of equal steps; empty: the edge was not trained under DP-SGD.
    """

    steps: tuple[Steps, ...] = ()

    def epsilon(
        self, delta: float, adjacency: Adjacency = "replace_one", *, interval: float = _FINE
    ) -> float:
        """Epsilon at ``delta``: ``add_remove`` by Opacus (PRV), ``replace_one`` by dp-accounting (PLD)."""
        if not self.steps or self.vacuous:
            return math.inf
        if adjacency == "add_remove":
            with np.errstate(divide="ignore"), warnings.catch_warnings():
                # Opacus takes log(0) where it then discards it, and bounds its grid by RDP, loosely or not.
                warnings.filterwarnings("ignore", message="Optimal order is the largest alpha")
                accountant = PRVAccountant()
                accountant.history = [(s.noise_multiplier, s.sample_rate, s.count) for s in self.steps]
                return at_least_0(accountant.get_epsilon(delta))
        return compose(self, ReleaseAccount(), "none", Responses(), delta, interval=interval)

    @property
    def vacuous(self) -> bool:
        """Whether so little noise was added that an accountant would only fill the memory with it."""
        strength = sum(s.count * (2 * s.sample_rate / s.noise_multiplier) ** 2 for s in self.steps)
        return strength > _STRONGEST**2 or any(s.noise_multiplier < _LEAST_NOISE for s in self.steps)

    def pld_epsilon(self, delta: float) -> float:
        """Add/remove epsilon by dp-accounting (PLD): good for deltas too small for the PRV accountant."""
        return at_least_0(self._add_remove().get_epsilon(delta))

    def accuracy(self, adjacency: Adjacency = "replace_one") -> float:
        """Best balanced accuracy at telling two inputs apart by the weights, by dp-accounting (PLD).

        It is (1 + delta at epsilon 0) / 2, rounded up; 1 where no epsilon is given either.
        """
        if not self.steps or self.vacuous:
            return 1.0
        if adjacency == "add_remove":
            accountant = self._add_remove()
        else:
            found = composed(self, ReleaseAccount(), "none", Responses())
            assert found is not None
            accountant = found[0]
        return min(1.0, (1 + max(0.0, float(accountant.get_delta(0.0)))) / 2 + 1e-12)

    def _add_remove(self) -> PLDAccountant:
        accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
        for step in self.steps:
            accountant.compose(step.event, step.count)
        return accountant


@dataclass(frozen=True)
class Responses:
    """Randomized responses on one record's task labels.

    Attributes:
        answers: ``(epsilon, number of classes)`` for each label.
    """

    answers: tuple[tuple[float, int], ...] = ()

    @property
    def epsilon(self) -> float:
        """Pure epsilon of all of them."""
        return math.fsum(epsilon for epsilon, _ in self.answers)


def compose(
    steps: StepAccount,
    releases: ReleaseAccount,
    mechanism: str,
    responses: Responses,
    delta: float,
    *,
    interval: float = _FINE,
) -> float:
    """Replace-one epsilon of one training record against someone who sees all of it together.

    The edge's weights, everybody's releases and the responses: an adaptive composition, so privacy loss
    distributions convolve. Gaussian parts enter with standard deviation ``2 / mu`` and a relation that
    doubles the sensitivity. Laplace releases are added to the rest's epsilon as they are pure. Answers of
    randomized response on letters enter exactly; those of another channel, and the choice of C, as a
    randomized response between two answers.

    Args:
        steps: DP-SGD on the edge; empty: no claim can be made (``inf``) unless nothing was trained.
        releases: The record's own.
        mechanism: Of the releases, as ``Mechanism`` names it.
        responses: On the record's task labels.
        delta: In (0, 1).
        interval: Discretization of the privacy loss.

    Returns:
        An upper bound; ``inf`` where there is none.
    """
    found = composed(steps, releases, mechanism, responses, interval=interval)
    return math.inf if found is None else at_least_0(found[0].get_epsilon(delta)) + found[1]


@lru_cache(maxsize=8)
def composed(
    steps: StepAccount,
    releases: ReleaseAccount,
    mechanism: str,
    responses: Responses,
    *,
    interval: float = _FINE,
) -> tuple[PLDAccountant, float] | None:
    """What ``compose`` reads its epsilon off: an accountant, only to be read, and the pure epsilon beside it.

    Returns:
        None where nothing bounds it.
    """
    if steps.vacuous:
        return None
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE, value_discretization_interval=interval)
    for step in steps.steps:
        accountant.compose(step.event, step.count)
    pure = 0.0
    if releases.releases and mechanism == "gaussian":
        if math.isinf(releases.mu_squared):
            return None
        accountant.compose(dp_event.GaussianDpEvent(2 / math.sqrt(releases.mu_squared)))
    elif releases.releases and mechanism not in CHANNELS:
        pure = releases.epsilon if mechanism == "laplace" else math.inf
    if math.isinf(pure) or (math.isinf(releases.epsilon) and mechanism in CHANNELS):
        return None
    # A pure mechanism loses no more than a randomized response between two answers (Kairouz, Oh and
    # Viswanath, 2015).
    clip = ((releases.clip_epsilon, 2),) if releases.clip_epsilon else ()
    exact = mechanism == RandomizedResponse.name
    letters = [(epsilon, k if exact else 2) for epsilon, k, count in releases.answers for _ in range(count)]
    if len(letters) > _MOST_ANSWERS:
        letters, pure = [], releases.epsilon
    for epsilon, classes in (*responses.answers, *clip, *letters):
        noise = classes / (math.exp(epsilon) + classes - 1)
        # One by one: of this event dp-accounting 0.6 counts one, whatever the count it is given.
        accountant.compose(dp_event.RandomizedResponseDpEvent(noise, classes))
    return None if math.isinf(pure) else (accountant, pure)


def person_epsilon(account: StepAccount, delta: float, records: int) -> float:
    """Epsilon of DP-SGD when all ``records`` records of one person are replaced.

    Removing k records is a mixture of Gaussians, as Binomial(k, q) of them enter a step (Ganesh, 2024,
    "Tight group-level DP guarantees for DP-SGD"); replacing is removing and adding, composed by
    ``(e, d) + (e, d) -> (2 e, d (1 + e^e))``. Loose by that last step, but true;
    ``inf`` where it would be vacuous by far.
    """
    weakest = min((step.noise_multiplier for step in account.steps), default=0.0)
    if weakest == 0 or account.vacuous or records > _MOST_RECORDS * weakest:
        return math.inf  # vacuous, and its distribution would fill the memory
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=_COARSE)
    for step in account.steps:
        many = list(range(records + 1))
        chances = binom.pmf(many, records, step.sample_rate).tolist()
        event: dp_event.DpEvent = dp_event.MixtureOfGaussiansDpEvent(step.noise_multiplier, many, chances)
        if step.sample_rate == 1:
            event = dp_event.GaussianDpEvent(step.noise_multiplier / records)
        accountant.compose(event, step.count)
    low, high, best = math.log(_SMALLEST_DELTA), math.log(delta), math.inf
    for _ in range(24):
        middle = (low + high) / 2
        epsilon = at_least_0(accountant.get_epsilon(math.exp(middle)))
        if middle + float(np.logaddexp(0, epsilon)) <= math.log(delta):
            best, low = 2 * epsilon, middle
        else:
            high = middle
    return best


def at_least_0(epsilon: float) -> float:
    """An accountant's epsilon: at a large delta Opacus' comes out below 0, where 0 is what holds.

    What is not a number bounds nothing: ``inf``.
    """
    return math.inf if math.isnan(epsilon) else max(0.0, float(epsilon))


def solve_noise_multiplier(
    target_epsilon: float, delta: float, plan: tuple[tuple[float, int], ...], adjacency: Adjacency
) -> float:
    """Smallest noise multiplier, on a grid of 0.0001, whose DP-SGD stays within ``target_epsilon``.

    Args:
        target_epsilon: Above 0.
        delta: In (0, 1).
        plan: ``(sample_rate, steps)`` groups of the whole schedule.
        adjacency: Of the target.

    Raises:
        ConfigError: No multiplier up to 10,000 reaches the target.
    """

    def spent(grid: int) -> float:
        multiplier = grid * _MULTIPLIER_STEP
        account = StepAccount(tuple(Steps(multiplier, rate, count) for rate, count in plan))
        return account.epsilon(delta, adjacency, interval=_COARSE)

    low, high = round(0.3 / _MULTIPLIER_STEP), round(1 / _MULTIPLIER_STEP)
    while spent(high) > target_epsilon:
        low, high = high, 2 * high
        if high * _MULTIPLIER_STEP > _LARGEST_MULTIPLIER:
            raise ConfigError(
                key="edge.dp_sgd.target_epsilon",
                value=target_epsilon,
                rule=f"cannot be reached with a noise multiplier up to {_LARGEST_MULTIPLIER:g}",
                remedy="Ask for a larger epsilon, fewer epochs or a smaller batch",
            )
    if spent(low) <= target_epsilon:
        return low * _MULTIPLIER_STEP
    while high - low > 1:
        middle = (low + high) // 2
        if spent(middle) <= target_epsilon:
            high = middle
        else:
            low = middle
    return high * _MULTIPLIER_STEP
