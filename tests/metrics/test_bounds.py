import numpy as np
import pytest
from scipy.stats import beta, norm

from privhier.metrics.bounds import (
    auc_lower_bound,
    macro_auc_lower_bound,
    mean_auc_lower_bound,
    recall_lower_bound,
)
from privhier.metrics.classification import auc, macro_auc


def test_recall_bound_is_hoeffding_s_and_close_to_clopper_pearson():
    labels = np.repeat([0, 1], 2000)
    predictions = np.where(np.arange(4000) % 10 < 8, labels, 1 - labels)
    bound = recall_lower_bound(predictions, labels, 2)
    assert bound == pytest.approx(0.8 - np.sqrt(np.log(1e4) / 2 * 2 / (4 * 2000)))
    clopper_pearson = beta.ppf(0.5e-4, 1600, 401)  # per class, union over the two
    assert bound == pytest.approx(clopper_pearson, abs=0.01)


def test_bounds_hold_far_more_often_than_they_promise_even_at_a_loose_level():
    rng = np.random.default_rng(0)
    truth_auc, misses = norm.cdf(1 / np.sqrt(2)), np.zeros(2)
    for _ in range(400):
        labels = (rng.random(300) < 0.3).astype(int)
        scores = rng.normal(size=300) + labels
        misses[0] += auc_lower_bound(scores, labels, error=0.1) > truth_auc
        misses[1] += recall_lower_bound((scores > 0.5).astype(int), labels, 2, error=0.1) > norm.cdf(0.5)
    assert (misses <= 40).all()
    assert auc_lower_bound(scores, labels, error=0.1) > 0.6  # and they are not empty


def test_more_checks_and_fewer_records_lower_the_bound():
    rng = np.random.default_rng(1)
    labels = np.arange(2000) % 2
    scores = rng.normal(size=2000) + 2 * labels
    one = auc_lower_bound(scores, labels)
    assert auc_lower_bound(scores, labels, n_checks=20) < one
    assert auc_lower_bound(scores[:200], labels[:200]) < one
    assert auc_lower_bound(scores, np.zeros(2000, int)) == 0.0
    assert recall_lower_bound(labels, labels, 3) == 0.0
    with pytest.raises(ValueError, match="error"):
        auc_lower_bound(scores, labels, error=0.0)


def test_macro_bound_unites_its_classes():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 4000)
    probabilities = rng.dirichlet(np.ones(4), 4000) + 0.5 * np.eye(4)[labels]
    each = [auc_lower_bound(probabilities[:, k], labels == k, n_checks=4) for k in range(4)]
    assert macro_auc_lower_bound(probabilities, labels) == pytest.approx(np.mean(each))
    assert macro_auc_lower_bound(probabilities, np.minimum(labels, 2)) == 0.0
    two = np.stack([1 - probabilities[:, 0], probabilities[:, 0]], 1)
    assert macro_auc_lower_bound(two, labels == 0) == auc_lower_bound(probabilities[:, 0], labels == 0)


def test_the_mean_of_pairs_is_bounded_by_bounded_differences():
    labels = np.repeat([0, 1], [300, 700])
    scores = np.random.default_rng(0).normal(size=1000) + labels
    probabilities = np.stack([-scores, scores], axis=1)
    slack = np.sqrt(np.log(1e4) / 2 * (1 / 300 + 1 / 700))
    assert mean_auc_lower_bound(probabilities, labels) == pytest.approx(auc(scores, labels) - slack)
    assert mean_auc_lower_bound(probabilities, labels, n_checks=9) < mean_auc_lower_bound(
        probabilities, labels
    )
    assert mean_auc_lower_bound(probabilities, np.zeros(1000, int)) == 0.0


def test_the_mean_of_pairs_is_covered_for_five_classes_of_unequal_records():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), (20, 40, 60, 80, 200))
    clear = np.eye(5)[labels] * (np.arange(400) % 2)[:, None]  # every other record is told, the rest is not
    drawn = [macro_auc(clear + rng.random((400, 5)), labels) for _ in range(400)]
    expected = np.mean(drawn)
    misses = sum(
        mean_auc_lower_bound(clear + rng.random((400, 5)), labels, error=0.1) > expected for _ in range(400)
    )
    assert misses <= 40
