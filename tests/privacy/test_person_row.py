"""The row "training records of one person against the curious cloud": delta is spent once."""

from __future__ import annotations

import math

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation

from privhier.privacy.accounting import gaussian_delta, gaussian_epsilon
from privhier.privacy.composition import StepAccount, Steps, person_epsilon
from privhier.privacy.events import LabelEvent, StepEvent
from privhier.privacy.guarantee import Guarantee
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import ReleaseMechanism

DELTA = 1e-5
MULTIPLIER, EPOCHS, CLIP, SIGMA, K = 40.0, 3, 1.0, 9.0, 4


def row_of(*, dp_sgd: bool = True, labels: bool = True, k: int = K, joint: int = EPOCHS) -> Guarantee | None:
    """A run of joint epochs alone: everything in it is Gaussian, so all of it can be checked exactly."""
    ledger = Ledger(None)
    if labels:
        ledger.charge_labels(LabelEvent("train", 100, "smiling", 2, 0.25, "system"))
    for epoch in range(joint):
        ledger.charge("train", 100, "joint", epoch, ReleaseMechanism("gaussian", CLIP, SIGMA), "system")
        if dp_sgd:
            ledger.charge_steps(StepEvent(100, "joint", epoch, 4, "disjoint", 1.0, MULTIPLIER, 1.0, "system"))
    rows = ledger.guarantees(delta=DELTA, largest_person={"train": k, "test": 2})
    found = [row for row in rows if row.name == "training records of one person against the curious cloud"]
    assert len(found) <= 1
    return found[0] if found else None


def steps_of_a_person(delta: float, k: int = K) -> float:
    """Replacing k records in E full steps: removing them and adding others, each mu-GDP."""
    mu = k * math.sqrt(EPOCHS) / MULTIPLIER
    best = math.inf
    for power in range(1, 4000):
        one = gaussian_epsilon(mu, delta * 10 ** (-power / 1000))
        spent = gaussian_delta(mu, one) * (1 + math.exp(one))
        if spent <= delta:
            best = min(best, 2 * one)
    return best


def releases_of_a_person(delta: float, k: int = K) -> float:
    return gaussian_epsilon(math.sqrt(k * EPOCHS) * 2 * CLIP / SIGMA, delta)


def test_delta_is_split_between_weights_and_releases_and_spent_once():
    row = row_of()
    assert row.delta == DELTA
    expected = steps_of_a_person(DELTA / 2) + releases_of_a_person(DELTA / 2) + K * 0.25
    assert row.epsilon == pytest.approx(expected, rel=2e-3)
    twice = steps_of_a_person(DELTA) + releases_of_a_person(DELTA) + K * 0.25
    assert row.epsilon > twice * 1.005  # each half at the whole delta would be 2 delta in all


def test_it_bounds_what_the_composed_mechanism_really_spends():
    """Weights and releases of all k records together are one Gaussian mechanism; responses are pure."""
    row = row_of(labels=False)
    mu = math.sqrt((2 * K * math.sqrt(EPOCHS) / MULTIPLIER) ** 2 + K * EPOCHS * (2 * CLIP / SIGMA) ** 2)
    assert row.epsilon >= gaussian_epsilon(mu, DELTA)


def test_replacing_spends_delta_for_removing_and_for_adding():
    account = StepAccount((Steps(2.0, 0.02, 300),))
    other = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    other.compose(dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(2.0)), 300)
    found = person_epsilon(account, DELTA, 1)
    half = found / 2
    # (e, d) for removing, (e, e^e d) for adding after it: together within delta, and nearly all of it.
    spent = other.get_delta(half) * (1 + math.exp(half))
    assert 0.97 * DELTA < spent < 1.03 * DELTA


def test_labels_and_the_number_of_records_count():
    row, fewer = row_of(), row_of(k=1)
    assert fewer.epsilon < row.epsilon
    assert row.epsilon - row_of(labels=False).epsilon == pytest.approx(K * 0.25)
    assert row.unit == "person"
    assert f"all {K} training records of one person" in row.adjacency
    assert "task labels stay and count as public" in row_of(labels=False).adjacency
    assert "task labels stay" not in row.adjacency
    assert any("other splits" in line for line in row.does_not_cover)


def test_without_dp_sgd_there_is_no_such_row():
    assert row_of(dp_sgd=False) is None


def test_a_person_with_too_many_records_gets_no_number():
    row = row_of(k=2000)
    assert row.epsilon is None
    assert row.delta is None
    assert row.covers == []
