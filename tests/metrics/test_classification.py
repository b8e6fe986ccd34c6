import time

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from privhier.metrics.classification import (
    auc,
    auc_resampled,
    balanced_accuracy,
    balanced_accuracy_resampled,
    macro_auc,
    macro_auc_resampled,
    mean_resampled,
    top1,
    top1_resampled,
    verification_auc,
    verification_auc_resampled,
)


@pytest.mark.parametrize("levels", [2, 7, 10_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auc_agrees_with_scikit_learn_with_ties_and_weights(levels, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400)
    scores = (rng.normal(size=400) + labels).round(3)
    scores = np.digitize(scores, np.linspace(-3, 4, levels)).astype(float)
    weights = rng.random(400) * rng.integers(0, 2, 400)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert auc(scores, labels, weights) == pytest.approx(expected, abs=1e-9)


def test_auc_by_the_definition_over_all_pairs():
    rng = np.random.default_rng(5)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 5, 60).astype(float)
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None]
    expected = ((positive > negative) + 0.5 * (positive == negative)).mean()
    assert auc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_integer_weights_are_repetitions():
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 3, 90), rng.dirichlet([1, 1, 1], 90)
    counts = rng.integers(0, 4, 90)
    repeated = np.repeat(np.arange(90), counts)
    assert macro_auc(scores, labels, counts) == pytest.approx(macro_auc(scores[repeated], labels[repeated]))
    predictions = scores.argmax(1)
    assert balanced_accuracy(predictions, labels, 3, counts) == pytest.approx(
        balanced_accuracy_score(labels[repeated], predictions[repeated])
    )
    assert top1(predictions, labels, counts) == pytest.approx(
        accuracy_score(labels[repeated], predictions[repeated])
    )


def test_macro_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 500)
    probabilities = rng.dirichlet(np.ones(5), 500) + np.eye(5)[labels] * 0.2
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auc(probabilities, labels) == pytest.approx(expected, abs=1e-9)
    two = rng.dirichlet([1, 1], 500)
    assert macro_auc(two, labels % 2) == pytest.approx(roc_auc_score(labels % 2, two[:, 1]), abs=1e-9)


def test_an_absent_class_is_skipped_and_a_single_class_has_no_auc():
    rng = np.random.default_rng(2)
    probabilities, labels = rng.dirichlet(np.ones(3), 100), rng.integers(0, 2, 100)
    mean_of_two = np.mean([auc(probabilities[:, k], labels == k) for k in (0, 1)])
    assert macro_auc(probabilities, labels) == pytest.approx(mean_of_two)
    assert np.isnan(macro_auc(probabilities, np.zeros(100, dtype=int)))
    assert balanced_accuracy(labels, labels, 3) == 1.0
    assert np.isnan(balanced_accuracy(np.zeros(0, int), np.zeros(0, int), 2))


def test_resampled_rows_equal_single_calls():
    rng = np.random.default_rng(4)
    labels, probabilities = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50)
    weights = rng.integers(0, 3, (20, 50)).astype(np.int16)
    weights[0, labels == 1] = 0
    weights[1] = 0
    predictions = probabilities.argmax(1)
    table = [
        (macro_auc_resampled(probabilities, labels, weights), lambda w: macro_auc(probabilities, labels, w)),
        (
            balanced_accuracy_resampled(predictions, labels, 3, weights),
            lambda w: balanced_accuracy(predictions, labels, 3, w),
        ),
        (top1_resampled(predictions, labels, weights), lambda w: top1(predictions, labels, w)),
    ]
    for rows, single in table:
        np.testing.assert_allclose(rows, [single(w) for w in weights], atol=1e-12)
        assert np.isnan(rows[1])
        assert not np.isnan(rows[0])
    values = rng.random(50)
    np.testing.assert_allclose(mean_resampled(values, weights[2:3]), np.average(values, weights=weights[2]))


def test_a_thousand_resamples_of_three_thousand_records_are_fast():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 3000), rng.normal(size=3000)
    weights = rng.integers(0, 3, (1000, 3000)).astype(np.int16)
    auc_resampled(scores, labels, weights[:10])
    start = time.process_time()
    auc_resampled(scores, labels, weights)
    vectorized = time.process_time() - start
    start = time.process_time()
    for row in weights[:50]:
        roc_auc_score(labels, scores, sample_weight=row)
    one_by_one = (time.process_time() - start) * 20
    assert vectorized < one_by_one / 3


def test_verification_auc_weighs_people():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(6), 3)
    first, second = np.triu_indices(18, 1)
    scores = rng.normal(size=len(first)) + (people[first] == people[second])
    a, b = people[first], people[second]
    assert verification_auc(scores, a == b) == pytest.approx(roc_auc_score(a == b, scores))
    weights = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0], [6, 0, 0, 0, 0, 0]], dtype=np.int16)
    got = verification_auc_resampled(scores, a, b, weights)
    assert got[0] == pytest.approx(roc_auc_score(a == b, scores))
    pair = np.where(a == b, weights[1][a], weights[1][a] * weights[1][b])
    assert got[1] == pytest.approx(roc_auc_score(a == b, scores, sample_weight=pair))
    assert np.isnan(got[2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: auc(np.array([0.1, np.nan]), np.array([0, 1])),
        lambda: auc(np.zeros(3), np.zeros(2)),
        lambda: auc(np.zeros(2), np.array([1, 2])),
        lambda: auc(np.zeros(2), np.array([0, 1]), np.ones(3)),
        lambda: macro_auc(np.zeros((2, 1)), np.zeros(2, int)),
        lambda: macro_auc(np.zeros((2, 3)), np.array([0, 3])),
        lambda: balanced_accuracy(np.zeros(2, int), np.array([0, -1]), 2),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(ValueError, match=r"must|expected|columns"):
        call()
