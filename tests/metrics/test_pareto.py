from __future__ import annotations

import numpy as np
import pytest
from pymoo.indicators.hv import HV

from privhier.metrics.pareto import additive_epsilon, coverage, hypervolume, pareto_mask

REFERENCE = (0.5, 1.0)


def brute_force_mask(u, v):
    def dominated(i):
        at_least = (u >= u[i]) & (v <= v[i])
        better = (u > u[i]) | (v < v[i])
        return bool((at_least & better).any())

    return np.array([not dominated(i) for i in range(len(u))])


def grid(seed, n):
    """Coarse values, so that ties and copies are frequent."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, n) / 5, rng.integers(0, 6, n) / 5


@pytest.mark.parametrize(
    ("utility", "leakage", "area"),
    [
        ([1.0], [0.0], 0.5),  # the whole box
        ([0.9], [0.6], 0.4 * 0.4),
        ([0.9, 0.8], [0.6, 0.7], 0.4 * 0.4),  # a dominated point adds nothing
        ([0.9, 0.9], [0.6, 0.6], 0.4 * 0.4),  # nor does a copy
        ([0.9, 0.7], [0.6, 0.5], 0.4 * 0.4 + 0.2 * 0.1),
        ([0.9, 0.8, 0.7], [0.9, 0.7, 0.5], 0.1 * 0.4 + 0.2 * 0.3 + 0.2 * 0.2),
        ([0.4, 0.9], [0.1, 1.2], 0.0),  # worse than the reference in one direction
        ([0.5, 0.9], [0.1, 1.0], 0.0),  # on its edge
        ([], [], 0.0),
    ],
)
def test_hypervolume_of_closed_forms(utility, leakage, area):
    assert hypervolume(np.array(utility), np.array(leakage), REFERENCE) == pytest.approx(area, abs=1e-12)


def test_hypervolume_of_a_line_tends_to_its_integral():
    # leakage = utility on [0.5, 1]: the area left of the line is the triangle 0.5 * 0.5 / 2.
    u = np.linspace(0.5, 1.0, 20_001)
    assert hypervolume(u, u, REFERENCE) == pytest.approx(0.125, abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_hypervolume_agrees_with_pymoo(seed, n):
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0.3, 1.0, n), rng.uniform(0.2, 1.1, n)
    theirs = HV(ref_point=np.array([-0.5, 1.0]))(np.column_stack([-u, v]))
    assert hypervolume(u, v, REFERENCE) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_pareto_set_is_that_of_the_definition(seed):
    u, v = grid(seed, 40)
    assert (pareto_mask(u, v) == brute_force_mask(u, v)).all()


def test_copies_of_a_winner_stay_and_copies_of_a_loser_go():
    u, v = np.array([0.9, 0.9, 0.9, 0.8, 0.8]), np.array([0.5, 0.5, 0.5, 0.5, 0.6])
    assert pareto_mask(u, v).tolist() == [True, True, True, False, False]


def test_sets_along_leading_axes_are_separate():
    rng = np.random.default_rng(0)
    u, v = rng.random((5, 3, 12)), rng.random((5, 3, 12))
    volumes, masks = hypervolume(u, v, REFERENCE), pareto_mask(u, v)
    for index in np.ndindex(5, 3):
        assert volumes[index] == pytest.approx(float(hypervolume(u[index], v[index], REFERENCE)))
        assert (masks[index] == pareto_mask(u[index], v[index])).all()


@pytest.mark.parametrize("seed", range(6))
def test_shifting_by_the_additive_epsilon_just_covers(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 9)), rng.random((2, 6))
    shift = additive_epsilon(*a, *b)
    assert coverage(a[0] + shift + 1e-9, a[1] - shift - 1e-9, *b) == 1.0
    assert coverage(a[0] + shift - 1e-6, a[1] - shift + 1e-6, *b) < 1.0


@pytest.mark.parametrize("seed", range(6))
def test_one_set_covers_another_exactly_if_that_adds_no_volume(seed):
    rng = np.random.default_rng(seed)
    b = np.array([rng.uniform(0.55, 0.95, 5), rng.uniform(0.55, 0.95, 5)])
    for shift in ([[0.01], [-0.01]], [[0.01], [0.01]]):
        a = b + np.array(shift)
        both = np.concatenate([a, b], axis=1)
        added = hypervolume(*both, REFERENCE) - hypervolume(*a, REFERENCE)
        assert (added <= 1e-12) == (coverage(*a, *b) == 1.0) == (additive_epsilon(*a, *b) <= 1e-12)


def test_a_set_covers_itself_and_covering_is_not_symmetric():
    u, v = np.array([0.9, 0.7]), np.array([0.7, 0.5])
    assert coverage(u, v, u, v) == 1.0
    assert additive_epsilon(u, v, u, v) == 0.0
    assert coverage(u, v, u[:1] + 0.1, v[:1]) == 0.0
    assert coverage(u[:1], v[:1], u, v) == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    u = np.array([0.9, bad])
    for function in (pareto_mask, lambda a, b: hypervolume(a, b, REFERENCE)):
        with pytest.raises(ValueError, match="finite"):
            function(u, np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="shape"):
        pareto_mask(np.array([0.9]), np.array([0.5, 0.5]))
