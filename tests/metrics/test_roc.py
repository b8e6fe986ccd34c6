import numpy as np
import pytest
from sklearn.metrics import roc_curve

from privhier.metrics.roc import resolves, roc_points, tpr_at_fpr, tpr_at_fpr_resampled


def reference(scores, labels, fpr, weights=None):
    rates, heights, _ = roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    return heights[rates <= fpr + 1e-12].max()


@pytest.mark.parametrize("levels", [3, 20, None])
@pytest.mark.parametrize("fpr", [0.01, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_agrees_with_scikit_learn_with_ties_and_weights(levels, fpr, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 600)
    scores = rng.normal(size=600) + labels
    if levels is not None:
        scores = np.digitize(scores, np.linspace(-2, 3, levels)).astype(float)
    assert tpr_at_fpr(scores, labels, fpr) == pytest.approx(reference(scores, labels, fpr), abs=1e-6)
    weights = rng.integers(0, 4, (5, 600))
    expected = [reference(scores, labels, fpr, row) for row in weights]
    assert tpr_at_fpr_resampled(scores, labels, fpr, weights) == pytest.approx(expected, abs=1e-6)


def test_integer_weights_are_repetitions():
    rng = np.random.default_rng(3)
    labels, scores, counts = rng.integers(0, 2, 300), rng.normal(size=300), rng.integers(0, 4, 300)
    repeated = np.repeat(np.arange(300), counts)
    assert tpr_at_fpr(scores, labels, 0.05, counts) == tpr_at_fpr(scores[repeated], labels[repeated], 0.05)


def test_a_step_is_not_interpolated_and_a_tie_is_not_cut():
    labels = np.array([1, 0, 1, 0])
    assert tpr_at_fpr(np.array([4.0, 3, 2, 1]), labels, 0.999) == 1.0
    assert tpr_at_fpr(np.array([4.0, 3, 2, 1]), labels, 0.5) == 1.0
    assert tpr_at_fpr(np.array([4.0, 3, 2, 1]), labels, 0.0) == 0.5
    assert tpr_at_fpr(np.array([4.0, 4, 2, 1]), labels, 0.0) == 0.0


def test_a_rate_that_the_negatives_cannot_resolve_is_no_number():
    scores, labels = np.arange(200.0), np.repeat([0, 1], 100)
    assert tpr_at_fpr(scores, labels, 0.01) == 1.0
    assert np.isnan(tpr_at_fpr(scores, labels, 0.0099))
    assert np.isnan(tpr_at_fpr_resampled(scores, labels, 0.0099, np.ones((3, 200)))).all()
    assert resolves(labels, 0.01)
    assert not resolves(labels, 0.0099)


def test_a_class_without_weight_gives_nan():
    scores, labels = np.arange(20.0), np.repeat([0, 1], 10)
    weights = np.stack([np.ones(20), labels == 0, labels == 1]).astype(float)
    assert np.isnan(tpr_at_fpr_resampled(scores, labels, 0.5, weights)).tolist() == [False, True, True]


def test_points_lie_on_the_curve_and_reach_from_one_negative_to_all():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    scores = rng.normal(size=800) + labels
    points = roc_points(scores, labels, 30)
    rates, heights = zip(*points, strict=True)
    assert rates[0] == 1 / 400
    assert points[-1] == (1.0, 1.0)
    assert 15 < len(points) <= 30
    assert list(heights) == sorted(heights)
    assert heights == pytest.approx([reference(scores, labels, rate) for rate in rates], abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "fpr", "message"),
    [
        ([0.0, 1.0], [0, 1], 1.5, r"lies in \[0, 1\]"),
        ([0.0, np.nan], [0, 1], 1.0, "finite"),
        ([0.0, 1.0], [0, 2], 1.0, "0 or 1"),
        ([0.0, 1.0, 2.0], [0, 1], 1.0, "expected scores"),
    ],
)
def test_nonsense_is_refused(scores, labels, fpr, message):
    with pytest.raises(ValueError, match=message):
        tpr_at_fpr(np.array(scores), np.array(labels), fpr)


def test_a_curve_of_one_class_is_refused():
    with pytest.raises(ValueError, match="positives and negatives"):
        roc_points(np.arange(3.0), np.ones(3))
