"""Who accounts what, re-derived by another accountant over a grid."""

from __future__ import annotations

import math

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import RDPAccountant

from privhier.errors import ConfigError
from privhier.privacy.accounting import gaussian_epsilon
from privhier.privacy.composition import (
    ReleaseAccount,
    Responses,
    StepAccount,
    Steps,
    compose,
    person_epsilon,
    solve_noise_multiplier,
)

DELTA = 1e-5
GRID = [(0.8, 0.01, 500), (1.0, 0.02, 1000), (1.5, 0.05, 300), (3.0, 0.2, 200)]


def account(*steps: tuple[float, float, int]) -> StepAccount:
    return StepAccount(tuple(Steps(*step) for step in steps))


@pytest.mark.parametrize("step", GRID)
def test_prv_agrees_with_pld_under_add_or_remove(step):
    multiplier, rate, count = step
    other = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    other.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier)), count)
    wanted = other.get_epsilon(DELTA)
    found = account(step).epsilon(DELTA, "add_remove")
    assert abs(found - wanted) <= 0.01 * wanted + 0.02
    looser = RdpAccountant(list(RDPAccountant.DEFAULT_ALPHAS))
    looser.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier)), count)
    assert found <= looser.get_epsilon(DELTA)


def test_replace_one_is_the_figure_of_the_relation_and_not_a_doubled_sensitivity():
    assert account((1.0, 0.02, 1000)).epsilon(DELTA) == pytest.approx(6.24, abs=0.01)


@pytest.mark.parametrize("epochs", [1, 10, 30])
def test_full_participation_composes_exactly(epochs):
    """E steps with every record in are a Gaussian mechanism: replace-one mu is 2 sqrt(E) / multiplier."""
    steps = account((4.0, 1.0, epochs))
    mu = 2 * math.sqrt(epochs) / 4.0
    assert steps.epsilon(DELTA) == pytest.approx(gaussian_epsilon(mu, DELTA), rel=1e-3)
    assert steps.epsilon(DELTA, "add_remove") == pytest.approx(
        gaussian_epsilon(mu / 2, DELTA), rel=0.01, abs=0.02
    )


@pytest.mark.parametrize("releases", [1, 10])
def test_releases_and_full_steps_add_in_squares(releases):
    own = ReleaseAccount(releases, releases * 0.5**2, 0.0)
    mu = math.sqrt(releases * 0.5**2 + 5 * (2 / 4.0) ** 2)
    found = compose(account((4.0, 1.0, 5)), own, "gaussian", Responses(), DELTA)
    assert found == pytest.approx(gaussian_epsilon(mu, DELTA), rel=1e-3)
    assert found >= gaussian_epsilon(mu, DELTA) - 1e-9


def test_responses_alone_are_pure_and_together_never_more_than_the_sum():
    nothing = ReleaseAccount()
    answers = Responses(((1.0, 2), (0.5, 4)))
    assert answers.epsilon == 1.5
    alone = compose(StepAccount(), nothing, "gaussian", Responses(((1.0, 2),)), 1e-9)
    assert alone == pytest.approx(1.0, abs=1e-3)
    steps = account((1.5, 0.05, 300))
    together = compose(steps, nothing, "gaussian", answers, DELTA)
    assert steps.epsilon(DELTA) < together <= steps.epsilon(DELTA) + answers.epsilon + 1e-3


def test_laplace_releases_add_their_pure_epsilon():
    steps, own = account((4.0, 1.0, 5)), ReleaseAccount(2, 0.0, 1.25)
    found = compose(steps, own, "laplace", Responses(), DELTA)
    assert found == pytest.approx(steps.epsilon(DELTA) + 1.25, rel=1e-6)


@pytest.mark.parametrize("mechanism", ["gaussian", "none", "laplace"])
def test_no_noise_no_epsilon(mechanism):
    silent = ReleaseAccount(1, math.inf, math.inf)
    assert compose(account((4.0, 1.0, 5)), silent, mechanism, Responses(), DELTA) == math.inf


@pytest.mark.parametrize("adjacency", ["replace_one", "add_remove"])
def test_a_solved_multiplier_reaches_its_target_from_below(adjacency):
    plan = ((0.05, 60), (1.0, 2))
    multiplier = solve_noise_multiplier(4.0, DELTA, plan, adjacency)
    steps = account(*((multiplier, rate, count) for rate, count in plan))
    assert 3.95 <= steps.epsilon(DELTA, adjacency) <= 4.0


def test_an_unreachable_target_is_refused():
    with pytest.raises(ConfigError, match="target_epsilon"):
        solve_noise_multiplier(1e-7, 1e-12, ((1.0, 100),), "replace_one")


def test_a_person_costs_more_than_a_record_and_many_records_have_no_number():
    steps = account((2.0, 0.02, 300))
    record = steps.epsilon(DELTA)
    one, three = person_epsilon(steps, DELTA, 1), person_epsilon(steps, DELTA, 3)
    assert record <= one < three < math.inf
    assert person_epsilon(account((0.7, 0.1, 300)), DELTA, 200) == math.inf
