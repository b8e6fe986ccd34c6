"""A clip bound drawn from private norms: its epsilon is exact, and a cheaper mechanism is caught."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from privhier.privacy import clip_quantile
from privhier.privacy.clip_quantile import POINTS, draw_quantile, grid, probabilities
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps, compose
from privhier.privacy.events import ClipEvent
from privhier.privacy.guarantees import CURIOUS_CLOUD, OWN_RELEASES
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism

VALUES = grid(1e-2, 1e2)


def neighbours() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sets that differ in one record: replaced by any other, far or near, and left out."""
    generator = torch.Generator().manual_seed(0)
    base = torch.exp(torch.randn(41, generator=generator)).double()
    tied = torch.ones(40, dtype=torch.float64)
    pairs = []
    for norms in (base, tied, torch.tensor([0.5], dtype=torch.float64)):
        for other in (0.0, 0.011, 1.0, 99.0, 1e9, math.inf, math.nan):
            changed = norms.clone()
            changed[0] = other
            pairs.append((norms, changed))
        if len(norms) > 1:
            pairs.append((norms, norms[1:]))
    return pairs


def largest_loss(epsilon: float, quantile: float, mechanism=probabilities) -> float:
    losses = []
    for one, other in neighbours():
        p, q = (mechanism(norms, VALUES, quantile, epsilon) for norms in (one, other))
        losses.append(float(np.abs(np.log(p) - np.log(q)).max()))
    return max(losses)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_no_replaced_or_removed_record_moves_a_probability_by_more_than_epsilon(epsilon, quantile):
    loss = largest_loss(epsilon, quantile)
    assert epsilon / 4 < loss <= epsilon * (1 + 1e-9)


def test_sabotage_half_the_sensitivity_is_seen():
    def cheaper(norms, values, quantile, epsilon):
        return probabilities(norms, values, quantile, 2 * epsilon)

    assert largest_loss(1.0, 0.5, cheaper) > 1.0


@pytest.mark.parametrize("source", [SeededNoise(0, "clip"), SystemNoise()], ids=["seeded", "system"])
def test_draws_have_the_stated_probabilities(source, monkeypatch):
    monkeypatch.setattr(clip_quantile, "POINTS", 8)
    values, norms = grid(0.1, 10.0), torch.linspace(0.1, 10, 9)
    assert len(values) == 8
    expected = probabilities(norms, values, 0.5, 1.0)
    drawn = np.array([draw_quantile(norms, values, 0.5, 1.0, source) for _ in range(20_000)])
    found = np.array([(drawn == value).mean() for value in values])
    assert np.abs(found - expected).max() < 0.015


def test_with_many_records_it_is_the_quantile():
    norms = torch.exp(torch.randn(5000, generator=torch.Generator().manual_seed(1)).double())
    for quantile in (0.2, 0.5, 0.9):
        drawn = draw_quantile(norms, VALUES, quantile, 0.5, SeededNoise(0, quantile.hex()))
        assert float((norms <= drawn).double().mean()) == pytest.approx(quantile, abs=0.02)


def test_the_grid_ends_where_it_says():
    assert len(VALUES) == POINTS
    assert VALUES[0] == pytest.approx(1e-2)
    assert VALUES[-1] == pytest.approx(1e2)


def charged(noise_source: str = "seeded") -> Ledger:
    ledger = Ledger(None)
    ledger.charge_clip(ClipEvent("train", 100, 0.5, 0.3, noise_source))
    for split in ("train", "test"):
        ledger.charge(split, 100, "cloud", 0, ReleaseMechanism("gaussian", 2.0, 2.0), noise_source)
    return ledger


def test_its_epsilon_is_in_every_row_of_a_training_record_and_in_no_test_records_account():
    accounts = charged().accounts()
    assert accounts["train"].clip_epsilon == 0.3
    assert accounts["test"].clip_epsilon == 0
    plain = accounts["test"].spent("gaussian", 1e-5)
    assert accounts["train"].spent("gaussian", 1e-5) == pytest.approx(plain + 0.3)
    assert accounts["train"].spent("gaussian", 1e-5, 4) == pytest.approx(
        accounts["test"].spent("gaussian", 1e-5, 4) + 4 * 0.3
    )
    rows = {row.name: row for row in charged().guarantees(delta=1e-5)}
    own = rows[OWN_RELEASES]
    assert own.epsilon == pytest.approx(plain + 0.3)
    assert any("clip bound, drawn once as a quantile" in line for line in own.covers)
    assert rows[CURIOUS_CLOUD].epsilon is None


def test_composed_with_dp_sgd_it_costs_something_and_at_most_its_epsilon():
    steps = StepAccount((Steps(2.0, 1.0, 2),))
    own = ReleaseAccount(releases=1, mu_squared=1.0)
    more = ReleaseAccount(releases=1, mu_squared=1.0, clip_epsilon=0.5)
    without, with_clip = (
        compose(steps, account, "gaussian", Responses(), 1e-5, interval=1e-3) for account in (own, more)
    )
    assert without < with_clip <= without + 0.5 + 0.01


def test_a_seeded_draw_repeated_costs_nothing_and_a_system_draw_costs_again():
    seeded, system = charged(), charged("system")
    for ledger, source in ((seeded, "seeded"), (system, "system")):
        ledger.charge_clip(ClipEvent("train", 100, 0.5, 0.3, source))
    assert seeded.accounts()["train"].clip_epsilon == 0.3
    assert system.accounts()["train"].clip_epsilon == pytest.approx(0.6)
