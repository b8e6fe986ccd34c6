"""What the table's rows allow: computed from the mechanism, never less than what can be reached."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from privhier.privacy.accounting import gaussian_mu, solve_sigma
from privhier.privacy.allowed import everything_allows, releases_allow, responses_allow, together
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps
from privhier.privacy.distinguishing import approximate_accuracy, pure_accuracy, release_accuracy
from privhier.privacy.guarantee import CURIOUS_CLOUD, OWN_RELEASES, TASK_LABELS
from privhier.privacy.guarantees import write_guarantees


def account(mechanism: str, epsilon: float, delta: float = 1e-5, releases: int = 1, clip: float = 0.0):
    sigma = solve_sigma(mechanism, epsilon, delta, 1.0, releases)
    ratio = 2 / sigma
    return ReleaseAccount(releases, releases * ratio**2, releases * ratio, clip)


def test_one_number_of_epsilon_is_two_promises():
    assert releases_allow(account("gaussian", 8.0), "gaussian") == pytest.approx(0.79758, abs=1e-5)
    assert releases_allow(account("laplace", 8.0), "laplace") == pytest.approx(1 - math.exp(-4) / 2, abs=1e-9)
    two = ReleaseAccount(1, 64.0, 8.0, answers=((8.0, 2, 1),))
    assert releases_allow(two, "randomized_response") == pytest.approx(0.99966, abs=1e-5)


@pytest.mark.parametrize("releases", [1, 3])
@pytest.mark.parametrize("records", [1, 4])
def test_gaussian_and_laplace_are_those_of_all_releases_of_all_records(releases, records):
    one = account("gaussian", 4.0, releases=releases)
    sigma = solve_sigma("gaussian", 4.0, 1e-5, 1.0, releases)
    wanted = norm.cdf(gaussian_mu(sigma, 1.0, releases * records) / 2)
    assert releases_allow(one, "gaussian", records) == pytest.approx(wanted, abs=1e-9)
    one = account("laplace", 2.0, releases=releases)
    wanted = release_accuracy("laplace", releases / 1.0, 1.0, releases * records)
    assert releases_allow(one, "laplace", records) == pytest.approx(wanted, abs=1e-9)


def test_releases_of_unequal_scale_are_taken_by_their_epsilon():
    parts = (0.5, 1.5)
    uneven = ReleaseAccount(2, sum(e * e for e in parts), sum(parts))
    assert releases_allow(uneven, "laplace") == pure_accuracy(2.0)


def test_letters_are_those_of_their_channel():
    k, epsilon = 16, 8.0
    keep = math.exp(epsilon) / (math.exp(epsilon) + k - 1)
    letters = ReleaseAccount(1, epsilon**2, epsilon, answers=((epsilon, k, 1),))
    found = releases_allow(letters, "randomized_response")
    assert found == pytest.approx((1 + keep - (1 - keep) / (k - 1)) / 2, abs=1e-9)
    assert found < pure_accuracy(epsilon)
    several = ReleaseAccount(2, 2.0, 2.0, answers=((0.5, k, 4),))
    more = releases_allow(several, "randomized_response")
    assert releases_allow(ReleaseAccount(1, 0.25, 0.5, answers=((0.5, k, 1),)), "randomized_response") < more
    assert more <= pure_accuracy(2.0)


def test_a_drawn_clip_bound_and_nothing_at_all():
    alone = releases_allow(account("gaussian", 4.0), "gaussian")
    both = releases_allow(account("gaussian", 4.0, clip=0.5), "gaussian")
    assert alone < both == together(alone, pure_accuracy(0.5))
    assert both <= approximate_accuracy(4.5, 1e-5)
    assert releases_allow(ReleaseAccount(), "none") == 0.5
    assert releases_allow(ReleaseAccount(1), "none") == 1.0


def test_parts_seen_together_allow_no_less_than_what_two_can_reach():
    """Two coins of 0.75 each: whoever sees both is right with 0.75 at least; the bound holds and is no 1."""
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    exact = 0.5 + np.abs(np.outer(p, p) - np.outer(q, q)).sum() / 4
    assert exact <= together(0.75, 0.75) < 1
    assert together(1.0, 0.6) == 1.0
    assert together() == pytest.approx(0.5)


def test_randomized_labels_by_brute_force():
    answers = ((1.0, 2), (0.5, 4))
    rows = []
    for epsilon, classes in answers:
        stay = math.exp(epsilon) / (math.exp(epsilon) + classes - 1)
        row = np.full((2, classes), (1 - stay) / (classes - 1))
        row[0, 0] = row[1, 1] = stay
        rows.append(row)
    exact = 0.5 + np.abs(np.outer(rows[0][0], rows[1][0]) - np.outer(rows[0][1], rows[1][1])).sum() / 4
    assert exact <= responses_allow(Responses(answers)) <= pure_accuracy(1.5)
    assert responses_allow(Responses(((1.0, 2),))) == pytest.approx(pure_accuracy(1.0), abs=1e-9)


def test_dp_sgd_by_a_closed_form():
    """Full-participation Gaussian steps are one Gaussian: mu = 2 sqrt(T) / multiplier under replace-one."""
    steps = StepAccount((Steps(8.0, 1.0, 4),))
    exact = norm.cdf(2 * 2 / 8.0 / 2)
    assert exact <= steps.accuracy("replace_one") <= exact + 1e-3
    assert norm.cdf(2 / 8.0 / 2) <= steps.accuracy("add_remove") <= norm.cdf(2 / 8.0 / 2) + 1e-3
    own = ReleaseAccount(1, 0.25, 0.5)
    exact = norm.cdf(math.sqrt(0.25 + 0.25) / 2)
    found = everything_allows(steps, own, "gaussian", Responses())
    assert exact <= found <= exact + 1e-3
    assert everything_allows(steps, own, "laplace", Responses()) >= found
    assert everything_allows(StepAccount((Steps(0.1, 1.0, 1),)), own, "gaussian", Responses()) == 1.0


def test_every_row_with_an_epsilon_says_what_it_allows():
    own = ReleaseAccount(2, 2 * 0.25**2, 2 * 0.25, 0.25)
    rows = write_guarantees(
        {"train": own, "test": own}, steps=StepAccount((Steps(4.0, 0.1, 20),)),
        responses=Responses(((0.7, 2),)),
        mechanism="gaussian", noise_source="system", delta=1e-6, largest_person={"train": 3, "test": 2},
        labels_in_clear=False, also_not_covered=[],
    )  # fmt: skip
    named = {row.name: row for row in rows}
    assert {OWN_RELEASES, CURIOUS_CLOUD, TASK_LABELS} <= named.keys()
    assert len(rows) == 8
    for row in rows:
        assert row.epsilon is not None
        assert 0.5 < row.allows <= approximate_accuracy(row.epsilon, row.delta) + 0.01, row.name
    assert named[CURIOUS_CLOUD].allows > named[OWN_RELEASES].allows
    bare = write_guarantees(
        {"train": ReleaseAccount(1, math.inf, math.inf)}, steps=StepAccount(), responses=Responses(),
        mechanism="none", noise_source="", delta=1e-6, largest_person=None, labels_in_clear=True,
        also_not_covered=[],
    )  # fmt: skip
    assert [(row.epsilon, row.allows) for row in bare] == [(None, None), (None, None)]
