import numpy as np
import pytest

from privhier.metrics.classification import auc, auc_resampled
from privhier.metrics.intervals import (
    excess_interval,
    group_bootstrap_weights,
    max_interval,
    percentile_interval,
)


def test_whole_groups_are_drawn_with_replacement():
    groups = np.array([7, 7, 7, 2, 5, 5])
    weights = group_bootstrap_weights(groups, 4000, np.random.default_rng(0))
    assert weights.shape == (4000, 6)
    assert weights.dtype == np.int16
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, [0, 3, 4]].sum(1) == 3).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(weights[:, 0].var(), 2 / 3, atol=0.06)
    again = group_bootstrap_weights(groups, 4000, np.random.default_rng(0))
    assert (weights == again).all()


def test_grouped_data_get_wider_intervals_than_if_they_were_independent():
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.integers(0, 2, 60), 10)
    scores = np.repeat(rng.normal(size=60), 10) + labels

    def width(groups):
        weights = group_bootstrap_weights(groups, 500, np.random.default_rng(2))
        interval = percentile_interval(auc(scores, labels), auc_resampled(scores, labels, weights))
        return interval.high - interval.low

    assert width(np.repeat(np.arange(60), 10)) > 2 * width(np.arange(600))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        labels = np.arange(200) % 2
        scores = rng.normal(size=200) + labels  # true AUC: Phi(1 / sqrt 2) = 0.7602
        weights = group_bootstrap_weights(np.arange(200), 200, rng)
        interval = percentile_interval(auc(scores, labels), auc_resampled(scores, labels, weights), 0.95)
        hits += interval.low <= 0.76025 <= interval.high
    assert 178 <= hits <= 199


def test_the_interval_always_holds_its_value_and_counts_dropped_resamples():
    interval = percentile_interval(0.9, np.array([0.1, 0.2, np.nan, 0.3]))
    assert (interval.low, interval.value, interval.high, interval.dropped) == (0.1, 0.9, 0.9, 1)
    interval = percentile_interval(0.5, np.full(3, np.nan))
    assert (interval.low, interval.high, interval.dropped) == (0.5, 0.5, 3)
    assert np.isnan(percentile_interval(np.nan, np.ones(3)).low)
    assert percentile_interval(30.0, np.array([25.0, np.inf, np.inf])).high == np.inf
    with pytest.raises(ValueError, match="confidence"):
        percentile_interval(0.5, np.ones(3), 1.5)


def test_the_maximum_is_chosen_anew_in_every_resample():
    values = np.array([0.6, np.nan, 0.7])
    resampled = np.array([[0.9, 0.5, np.nan], [np.nan] * 3, [0.6, 0.8, np.nan]])
    best, interval = max_interval(values, resampled)
    assert best == 2
    assert (interval.low, interval.value, interval.high, interval.dropped) == (0.7, 0.7, 0.9, 1)
    with pytest.raises(ValueError, match="no attacker"):
        max_interval(np.array([np.nan]), np.ones((1, 3)))
    with pytest.raises(ValueError, match="expected"):
        max_interval(np.ones(2), np.ones((3, 4)))


def test_wrong_groups_are_refused():
    with pytest.raises(ValueError, match="groups"):
        group_bootstrap_weights(np.zeros((2, 2)), 10, np.random.default_rng(0))


def test_excess_is_the_difference_of_two_maxima_paired():
    values, floor = np.array([0.6, 0.7]), np.array([0.65, np.nan])
    resampled = np.array([[0.62, 0.58, np.nan], [0.69, 0.71, np.nan]])
    floor_resampled = np.array([[0.66, 0.61, 0.6], [np.nan, 0.72, np.nan]])
    found = excess_interval(values, resampled, floor, floor_resampled)
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high, found.dropped) == (pytest.approx(-0.01), pytest.approx(0.05), 1)
    with pytest.raises(ValueError, match="same resamples"):
        excess_interval(values, resampled, floor, floor_resampled[:, :2])
    with pytest.raises(ValueError, match="no attacker"):
        excess_interval(values, resampled, np.array([np.nan, np.nan]), floor_resampled)


def test_pairing_takes_out_what_both_share_and_covers_the_truth():
    rng = np.random.default_rng(0)
    n, resamples, covered, widths = 150, 300, 0, []
    for _ in range(150):
        shared = rng.normal(size=n)  # easy and hard records, for both
        attacker, floor = shared + 0.3 + 0.2 * rng.normal(size=n), shared + 0.2 * rng.normal(size=n)
        weights = group_bootstrap_weights(np.arange(n), resamples, rng) / n
        sides = [(np.array([side.mean()]), (weights @ side)[None]) for side in (attacker, floor)]
        found = excess_interval(*sides[0], *sides[1])
        covered += found.low <= 0.3 <= found.high
        apart = percentile_interval(sides[0][0][0], sides[0][1][0])
        widths.append((found.high - found.low) / (apart.high - apart.low))
    assert covered >= 0.88 * 150
    assert np.mean(widths) < 0.4
