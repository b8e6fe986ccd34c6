"""Maximal leakage in the guarantee table: the sum of what was charged, rounded up; "none" without noise."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from privhier.privacy.events import ClipEvent
from privhier.privacy.guarantee import Guarantee
from privhier.privacy.leakage_guarantee import (
    MAXIMAL_LEAKAGE,
    factor,
    letters_released,
    maximal_leakage_row,
    released_of,
    values_released,
)
from privhier.privacy.ledger import Ledger
from privhier.privacy.maximal_leakage import gaussian_leakage, laplace_leakage
from privhier.privacy.release import ReleaseMechanism


def row_of(*parts, noise_source: str = "system") -> Guarantee:
    return maximal_leakage_row({"train": list(parts)}, noise_source=noise_source, open_ends=["an open end"])


def charged(*mechanisms: ReleaseMechanism, split: str = "train") -> Ledger:
    ledger = Ledger(None)
    for epoch, mechanism in enumerate(mechanisms):
        ledger.charge(split, 10, "joint", epoch, mechanism, "system")
    return ledger


def test_all_charged_releases_add_up_whatever_their_noise():
    gaussian = [ReleaseMechanism("gaussian", 1.0, sigma) for sigma in (1.0, 1.0, 2.0)]
    row = maximal_leakage_row(released_of(charged(*gaussian).events, 8), noise_source="system")
    wanted = 2 * gaussian_leakage(1.0, 1.0, 8) + gaussian_leakage(2.0, 1.0, 8)
    assert row.nats == pytest.approx(wanted, rel=1e-9)
    assert (row.name, row.measure, row.epsilon, row.delta) == (MAXIMAL_LEAKAGE, "maximal_leakage", None, None)
    assert "2 x 8 values with Gaussian noise; 1 x 8 values" in row.covers[0]
    laplace = released_of(charged(ReleaseMechanism("laplace", 1.0, 0.5)).events, 4)
    assert maximal_leakage_row(laplace, noise_source="system").nats == laplace_leakage(0.5, 1.0, 4)


def test_the_split_that_released_most_counts_and_a_drawn_clip_bound_with_it():
    ledger = charged(ReleaseMechanism("gaussian", 1.0, 1.0))
    ledger.charge("test", 10, "joint", 0, ReleaseMechanism("gaussian", 1.0, 1.0), "system")
    ledger.charge_clip(ClipEvent("train", 10, 0.5, 0.5, "system"))
    row = maximal_leakage_row(released_of(ledger.events, 2), noise_source="system")
    assert row.nats == pytest.approx(gaussian_leakage(1.0, 1.0, 2) + 0.5)
    assert "(train: " in row.covers[0]
    assert "clip bound" in row.covers[0]


def test_values_without_noise_have_none_and_letters_without_noise_have_k():
    for mechanism in ("none", "gaussian"):
        row = row_of(values_released(mechanism, 0.0, 1.0, 8, 1), letters_released("none", 4, 1, 0.0, 1))
        assert row.nats is None
        assert row.note.startswith("none: values without noise")
        assert row.covers == []
    row = row_of(letters_released("none", 16, 2, 0.0, 3), noise_source="seeded")
    assert row.nats == pytest.approx(6 * math.log(16))
    assert "P(guess) <= 1.678e+07 times" in row.covers[0]
    assert "simulation" not in row.note


@pytest.mark.parametrize("channel", ["randomized_response", "subset_selection", "truncated_geometric"])
def test_letters_through_a_channel_leak_less_than_epsilon_and_less_than_k(channel):
    for letters, epsilon in ((2, 1.0), (16, 3.0), (64, 8.0)):
        one, many = (letters_released(channel, letters, 1, epsilon, count) for count in (1, 4))
        assert 0 < one.nats <= min(epsilon, math.log(letters)) + 1e-9
        assert many.nats == pytest.approx(4 * one.nats)
    two = letters_released("randomized_response", 2, 1, 1.0, 1)
    assert two.nats == pytest.approx(math.log(2 * math.e / (1 + math.e)))


def test_the_bound_holds_for_the_best_guess_of_a_letter_itself():
    """Brute force: 4 letters, uniform; who sees the answer guesses right with sum_y max_x P(x) W(y|x)."""
    part = letters_released("randomized_response", 4, 1, 2.0, 1)
    keep = math.exp(2) / (math.exp(2) + 3)
    channel = np.full((4, 4), (1 - keep) / 3)
    np.fill_diagonal(channel, keep)
    for prior in ([0.25] * 4, [0.7, 0.1, 0.1, 0.1]):
        guess = (np.array(prior)[:, None] * channel).max(axis=0).sum()
        assert guess <= math.exp(part.nats) * max(prior)
    assert (np.full(4, 0.25)[:, None] * channel).max(axis=0).sum() == pytest.approx(math.exp(part.nats) / 4)


def test_what_is_printed_is_rounded_up():
    for nats in np.linspace(1e-6, 30, 300):
        assert float(factor(float(nats))) >= math.exp(nats)
    row = row_of(values_released("gaussian", 0.7, 1.0, 8, 1))
    found = re.search(r"L = (\S+) nats; .* probability (\S+) or", row.note)
    assert found is not None
    assert float(found[1]) >= row.nats
    assert float(found[2]) <= math.exp(-row.nats)


def test_it_says_whom_it_binds_and_what_it_leaves_open():
    row = row_of(values_released("gaussian", 1.0, 1.0, 8, 1), noise_source="seeded")
    assert "that record's own releases and nothing else" in row.adversary
    assert "whatever the secret" in row.covers[0]
    for words in ("worst single record", "training records against", "several records", "an open end"):
        assert any(words in line for line in row.does_not_cover), words
    assert "simulation" in row.note
    nothing = maximal_leakage_row({}, noise_source="system")
    assert (nothing.nats, nothing.note) == (0.0, "nothing was released")
