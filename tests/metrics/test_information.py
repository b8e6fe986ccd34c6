"""Information between labels: against the definition, and that chance alone is not taken for information."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from privhier.metrics.information import entropy, information_beyond_chance, mutual_information
from privhier.seeding import numpy_stream


def table_of(rows, columns) -> np.ndarray:
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def test_entropy_and_information_are_the_definitions():
    rng = numpy_stream(0, "information")
    rows = rng.integers(0, 4, 500)
    columns = (rows + rng.integers(0, 3, 500)) % 5
    table = table_of(rows, columns)
    assert mutual_information(table) == pytest.approx(mutual_info_score(rows, columns))
    shares = np.bincount(rows) / 500
    assert entropy(np.bincount(rows)) == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert entropy(np.array([3, 0, 0])) == 0
    assert entropy(np.zeros(3)) == 0


def test_chance_is_not_taken_for_information_and_information_not_for_chance():
    rng = numpy_stream(1, "information")
    by_chance, dependent = [], []
    for _ in range(200):
        rows, columns = rng.integers(0, 6, 800), rng.integers(0, 5, 800)
        by_chance.append(information_beyond_chance(table_of(rows, columns)))
        assert mutual_information(table_of(rows, columns)) > 0
        shifted = np.where(rng.random(800) < 0.3, rows % 5, columns)
        dependent.append(information_beyond_chance(table_of(rows, shifted)))
    assert sum(value > 0 for value in by_chance) <= 2
    joint = np.array([[0.3 * (r % 5 == c) + 0.7 / 5 for c in range(5)] for r in range(6)]) / 6
    truth = mutual_information(joint * 10**9)
    assert np.mean(dependent) == pytest.approx(truth, rel=0.05)  # the plug-in value lies 12 % above
    assert min(dependent) > 0


def test_what_cannot_be_compared_says_nothing():
    assert information_beyond_chance(np.zeros((3, 2))) == 0
    assert information_beyond_chance(np.array([[5, 9, 0], [0, 0, 0]])) == 0
    assert information_beyond_chance(np.array([[50, 0, 0], [0, 50, 0]])) == pytest.approx(
        math.log(2) - 1 / 200
    )
