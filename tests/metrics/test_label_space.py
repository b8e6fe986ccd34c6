import itertools

import numpy as np
import pytest

from privhier.metrics.classification import balanced_accuracy
from privhier.metrics.label_space import (
    LARGEST,
    best_utility,
    joint_shares,
    label_cells,
    label_curve,
    label_floor,
    least_leakage,
    task_gain,
)


def some_joint(cells, classes, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(cells * classes, 0.7)).reshape(cells, classes)


def scores(joint, gain, channel):
    """Utility and leakage of a channel ``(..., Y, A)``, by their definitions."""
    conditional = (joint / joint.sum(axis=0)).T
    leaked = np.einsum("sy,...ya->...sa", conditional, channel).max(axis=-2).sum(axis=-1) / joint.shape[1]
    return (gain * channel).sum(axis=(-2, -1)), leaked


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 3])
def test_two_by_two_channels_by_brute_force(seed, classes):
    joint = some_joint(2, classes, seed)
    gain = task_gain(joint, [2])
    side = np.linspace(0, 1, 401)
    first, second = (grid.ravel() for grid in np.meshgrid(side, side))
    channels = np.stack([np.stack([1 - first, first], -1), np.stack([1 - second, second], -1)], -2)
    utility, leaked = scores(joint, gain, channels)
    for limit in np.linspace(1 / classes, least_leakage(joint, gain, 1.0)[0], 7):
        best, channel = best_utility(joint, gain, limit)
        assert scores(joint, gain, channel) == (pytest.approx(best, abs=1e-7), pytest.approx(limit, abs=1e-7))
        assert least_leakage(joint, gain, best)[0] <= limit + 1e-7
        brute = utility[leaked <= limit + 1e-9].max()
        assert brute - 1e-7 <= best <= brute + 0.005  # the grid's width


def test_two_labels_and_a_binary_secret_in_closed_form():
    joint = some_joint(2, 2, 5)
    variation = np.abs(joint[:, 0] / joint[:, 0].sum() - joint[:, 1] / joint[:, 1].sum()).sum() / 2
    curve = label_curve(joint, task_gain(joint, [2]), points=5)
    np.testing.assert_allclose(curve.utility, 0.5 + (curve.leakage - 0.5) / variation, atol=1e-6)
    assert curve.leakage[[0, -1]] == pytest.approx([0.5, 0.5 + variation / 2])
    assert label_floor(joint)[0] == pytest.approx(0.5 + variation / 2)


def test_more_letters_than_actions_do_not_help():
    # Random searches over channels to six letters, each decoded as well as can be for the task.
    joint = some_joint(3, 2, 1)
    gain = task_gain(joint, [3])
    rng = np.random.default_rng(0)
    channels = rng.dirichlet(np.full(6, 0.2), (20_000, 3))
    _, leaked = scores(joint, np.zeros((3, 6)), channels)
    decoded = np.einsum("yb,nyz->nbz", gain, channels).max(axis=1).sum(axis=-1)
    curve = label_curve(joint, gain, points=41)
    assert (decoded <= np.interp(leaked, curve.leakage, curve.utility) + 1e-3).all()


def test_a_secret_known_helps_to_hide_and_nothing_does_better():
    joint = some_joint(2, 2, 3)
    gain = task_gain(joint, [2])
    blind, knowing = label_curve(joint, gain), label_curve(joint, gain, secret_known=True)
    same = np.interp(blind.leakage, knowing.leakage, knowing.utility)
    assert (same >= blind.utility - 1e-6).all()
    assert (same > blind.utility + 0.01).any()
    # Brute force: W(1 | y, s) on a grid.
    side = np.linspace(0, 1, 21)
    grid = np.array(list(itertools.product(side, repeat=4))).reshape(-1, 2, 2)
    ones = grid * joint / joint.sum(axis=0)
    leaked = (ones.sum(axis=1).max(axis=1) + (1 - ones.sum(axis=1)).max(axis=1)) / 2
    of_label = (grid * joint).sum(axis=2) / joint.sum(axis=1)
    utility = (1 - of_label[:, 0] + of_label[:, 1]) / 2
    best = np.interp(leaked, knowing.leakage, knowing.utility)
    assert (utility <= best + 1e-3).all()
    for limit in knowing.leakage[[0, 5, 15]]:
        wanted = np.interp(limit, knowing.leakage, knowing.utility)
        assert utility[leaked <= limit + 0.02].max() > wanted - 0.01  # the grid meets no limit exactly


def test_a_curve_is_concave_rises_and_ends_at_full_utility():
    joint = some_joint(8, 5, 2)
    gain = task_gain(joint, [4, 2])
    curve = label_curve(joint, gain, points=9)
    assert curve.leakage[0] == pytest.approx(0.2)
    assert curve.leakage[-1] <= label_floor(joint)[0] + 1e-9
    assert curve.utility[-1] == pytest.approx(1.0)
    assert curve.utility[0] >= (1 / 4 + 1 / 2) / 2 - 1e-9
    assert (np.diff(curve.utility) > 0).all()
    assert (np.diff(curve.utility, 2) < 1e-7).all()


def test_a_secret_that_is_independent_costs_nothing_and_one_that_is_the_task_costs_all():
    free = np.full((2, 2), 0.25)
    assert best_utility(free, task_gain(free, [2]), 0.5)[0] == pytest.approx(1.0)
    assert label_floor(free) == (pytest.approx(0.5), pytest.approx(0.5))
    tied = np.eye(2) / 2
    for limit in (0.5, 0.7, 1.0):
        assert best_utility(tied, task_gain(tied, [2]), limit)[0] == pytest.approx(limit)
    assert label_floor(tied) == (pytest.approx(1.0), pytest.approx(1.0))


def test_gain_is_the_mean_balanced_accuracy_of_the_tasks():
    rng = np.random.default_rng(0)
    sizes, n = [3, 2], 400
    tasks = [rng.integers(0, size, n) for size in sizes]
    answers = [rng.integers(0, size, n) for size in sizes]
    cells, said = label_cells(tasks, sizes), label_cells(answers, sizes)
    joint = joint_shares(cells, rng.integers(0, 2, n), 6, 2)
    counts = np.zeros((6, 6))
    np.add.at(counts, (cells, said), 1)
    channel = counts / counts.sum(axis=1, keepdims=True)
    expected = np.mean([balanced_accuracy(a, t, k) for a, t, k in zip(answers, tasks, sizes, strict=True)])
    assert (task_gain(joint, sizes) * channel).sum() == pytest.approx(expected)
    assert cells.tolist() == [2 * a + b for a, b in zip(*(task.tolist() for task in tasks), strict=True)]


def test_a_class_that_never_occurs_is_not_counted():
    joint = np.array([[0.25, 0.25], [0.25, 0.25], [0.0, 0.0]])
    assert best_utility(joint, task_gain(joint, [3]), 0.5)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: best_utility(some_joint(2, 2), np.eye(2), 0.4),
        lambda: best_utility(some_joint(2, 2), np.eye(2), float("nan")),
        lambda: best_utility(some_joint(2, 2), np.eye(3), 0.6),
        lambda: best_utility(some_joint(2, 2), np.full((2, 2), np.nan), 0.6),
        lambda: best_utility(some_joint(LARGEST + 1, 2), np.ones((LARGEST + 1, 2)), 0.6),
        lambda: best_utility(np.array([[1.0, 0.0], [0.0, 0.0]]), np.eye(2), 0.6),
        lambda: least_leakage(some_joint(2, 2), np.eye(2), 2.1),
        lambda: least_leakage(some_joint(2, 2), np.eye(2), float("nan")),
        lambda: label_curve(some_joint(2, 2), np.eye(2), points=1),
        lambda: label_floor(np.array([[0.5], [0.5]])),
        lambda: label_floor(np.array([[0.5, np.nan], [0.5, 0.0]])),
        lambda: task_gain(some_joint(6, 2), [2, 2]),
        lambda: label_cells([np.array([0, 2])], [2]),
        lambda: joint_shares(np.array([0, 2]), np.array([0, 1]), 2, 2),
        lambda: joint_shares(np.zeros(0, int), np.zeros(0, int), 2, 2),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r"must|at most|nothing leaks|do not make|at least"):
        call()
