"""The limit curve of label releases, told in areas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.metrics.label_auc import MOST_CELLS, label_limit
from privhier.metrics.label_space import label_floor

RNG = np.random.default_rng(0)


def test_one_bit_and_one_bit_is_a_straight_line_to_the_labels_themselves():
    counts = np.array([[40, 20], [10, 30]])
    curve = label_limit(counts, [2], area=True)
    whole = label_floor(counts / counts.sum())[1]
    assert (curve.leakage[0], curve.utility[0]) == (0.5, 0.5)
    assert (curve.leakage[-1], curve.utility[-1]) == pytest.approx((whole, 1.0))
    expected = 0.5 + (curve.leakage - 0.5) / (whole - 0.5) * 0.5
    assert curve.utility == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("sizes", "classes"), [([2], 3), ([3, 2], 5), ([2, 2], 2)])
@pytest.mark.parametrize("area", [True, False])
def test_curves_rise_and_end_where_the_labels_are(sizes, classes, area):
    counts = RNG.integers(5, 100, (int(np.prod(sizes)), classes))
    curve = label_limit(counts, sizes, area=area, points=9)
    assert (np.diff(curve.leakage) >= 0).all()
    assert (np.diff(curve.utility) > 0).all()
    assert curve.leakage[-1] <= label_floor(counts / counts.sum())[area] + 1e-9
    assert curve.utility[-1] == pytest.approx(1.0)


def test_no_point_is_above_what_a_simulated_release_of_the_labels_has():
    """The point halfway, played: the channel's answers scored on records have these areas."""
    counts = np.array([[400, 200], [100, 300]])
    curve = label_limit(counts, [2], area=True, points=3)
    task, secret = np.repeat([0, 0, 1, 1], counts.ravel()), np.repeat([0, 1, 0, 1], counts.ravel())
    rng = np.random.default_rng(0)
    answers = np.stack([np.where(rng.random(len(task)) < 0.75, task, 1 - task) for _ in range(200)])
    useful = np.mean([roc_auc_score(task, answer) for answer in answers])
    leaked = np.mean([roc_auc_score(secret, answer) for answer in answers])
    at = int(np.argmin(np.abs(curve.utility - 0.75)))
    assert (curve.leakage[at], curve.utility[at]) == pytest.approx((leaked, useful), abs=0.01)


def test_what_has_no_curve():
    assert label_limit(np.ones((MOST_CELLS + 1, 2)), [MOST_CELLS + 1], area=True) is None
    assert label_limit(np.array([[3, 0], [4, 0]]), [2], area=True) is None
    assert label_limit(np.array([[3, 1], [0, 0]]), [2], area=True) is None
