import itertools

import numpy as np
import pytest

from privhier.metrics.classification import auc
from privhier.metrics.optimal import best_auc, best_balanced_accuracy, best_macro_auc


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("classes", "letters"), [(2, 1), (2, 4), (3, 4), (4, 3)])
def test_no_deterministic_attacker_has_a_higher_balanced_accuracy_and_one_reaches_it(rng, classes, letters):
    frequencies = rng.dirichlet(np.full(letters, 0.5), classes)
    answers = itertools.product(range(classes), repeat=letters)
    brute = max(sum(frequencies[k, c] for c, k in enumerate(answer)) / classes for answer in answers)
    assert best_balanced_accuracy(frequencies) == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("letters", [1, 2, 3, 5])
def test_no_score_has_a_higher_auc_and_one_reaches_it(rng, letters):
    counts = rng.integers(0, 9, (2, letters)) + [[1] + [0] * (letters - 1)] * 2
    labels = np.repeat([0, 1], counts.sum(axis=1))
    seen = np.concatenate([np.repeat(np.arange(letters), row) for row in counts])
    scores = itertools.product(range(letters), repeat=letters)  # every ranking, ties included
    brute = max(auc(np.array(score)[seen].astype(float), labels) for score in scores)
    p, q = counts[1] / counts[1].sum(), counts[0] / counts[0].sum()
    assert best_auc(p, q) == pytest.approx(brute, abs=1e-12)
    formula = 0.5 + np.abs(np.outer(p, q) - np.outer(q, p)).sum() / 4
    assert best_auc(p, q) == pytest.approx(formula, abs=1e-12)


def test_leading_dimensions_are_so_many_samples(rng):
    many = rng.dirichlet(np.ones(6), (5, 7, 3))
    counts = np.array([10, 20, 70])
    assert best_balanced_accuracy(many).shape == best_macro_auc(many, counts).shape == (5, 7)
    assert best_balanced_accuracy(many)[2, 3] == best_balanced_accuracy(many[2, 3])
    assert best_macro_auc(many, counts)[2, 3] == pytest.approx(best_macro_auc(many[2, 3], counts))


def test_macro_auc_mixes_the_rest_by_its_records():
    frequencies = np.eye(3)[[0, 1, 1]]
    # Class 0 is known; 1 against the rest (0 with 1 record, 2 with 3) ties with three of four.
    expected = np.mean([1.0, 1 - 0.5 * 3 / 4, 1 - 0.5 * 2 / 3])
    assert best_macro_auc(frequencies, np.array([1, 2, 3])) == pytest.approx(expected)
    two = frequencies[:2]
    assert best_macro_auc(two, np.array([5, 9])) == best_auc(two[1], two[0]) == 1.0


def test_equal_distributions_are_chance(rng):
    p = rng.dirichlet(np.ones(50))
    assert best_auc(p, p) == pytest.approx(0.5, abs=1e-12)
    assert best_balanced_accuracy(np.stack([p, p, p])) == pytest.approx(1 / 3)
