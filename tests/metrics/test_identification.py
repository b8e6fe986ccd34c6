import numpy as np
import pytest
from sklearn.metrics import roc_curve

from privhier.metrics.identification import (
    cosine_similarities,
    rank1_hits,
    rank1_resampled,
    true_accept_rate,
    true_accept_rate_resampled,
)


def test_cosines_equal_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    expected = [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a]
    np.testing.assert_allclose(cosine_similarities(a, b), expected, atol=1e-12)
    with pytest.raises(ValueError, match="expected"):
        cosine_similarities(a, b[:, :2])


def test_rank1_equals_ranking_every_probe():
    rng = np.random.default_rng(1)
    gallery_people = np.array([3, 1, 4, 1, 5, 9])
    probe_people = rng.choice(gallery_people, 200)
    similar = rng.standard_normal((200, 6)) + 1.5 * (probe_people[:, None] == gallery_people)
    expected = []
    for row, person in zip(similar, probe_people, strict=True):
        ranked = sorted(range(6), key=lambda k, row=row: -row[k])
        expected.append(float(gallery_people[ranked[0]] == person))
    hits = rank1_hits(similar, probe_people, gallery_people)
    assert hits.tolist() == expected
    assert 0.5 < hits.mean() < 0.95


def test_ties_are_shared_so_that_saying_nothing_scores_chance():
    people = np.arange(20)
    assert rank1_hits(np.ones((20, 20)), people, people).mean() == pytest.approx(1 / 20)
    rng = np.random.default_rng(2)
    similar = rng.integers(0, 3, (300, 20)).astype(float)
    probes = rng.integers(0, 20, 300)
    broken = [
        rank1_hits(similar + 1e-6 * rng.random(similar.shape), probes, people).mean() for _ in range(400)
    ]
    assert rank1_hits(similar, probes, people).mean() == pytest.approx(np.mean(broken), abs=3e-3)


def test_a_probe_must_be_in_the_gallery_and_shapes_must_fit():
    with pytest.raises(ValueError, match="closed-set"):
        rank1_hits(np.zeros((1, 2)), np.array([7]), np.array([1, 2]))
    with pytest.raises(ValueError, match="similarities for 1 probes"):
        rank1_hits(np.zeros((2, 2)), np.array([1]), np.array([1, 2]))
    with pytest.raises(ValueError, match="finite"):
        rank1_hits(np.full((1, 2), np.nan), np.array([1]), np.array([1, 2]))


def test_resampled_rank1_equals_repeating_people():
    rng = np.random.default_rng(3)
    people, hits = rng.integers(0, 6, 40), rng.random(40).round()
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=30)
    expected = [np.repeat(hits, row[people]).mean() for row in weights]
    np.testing.assert_allclose(rank1_resampled(hits, people, weights), expected, atol=1e-12)
    assert np.isnan(rank1_resampled(hits[:1], np.array([2]), np.array([[1, 1, 0]]))[0])


@pytest.mark.parametrize("far", [0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
def test_the_accept_rate_equals_scikit_learns_curve(far, decimals):
    rng = np.random.default_rng(4)
    same = rng.random(4000) < 0.3
    scores = (rng.standard_normal(4000) + 2 * same).round(decimals)
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    expected = tpr[fpr <= far + 1e-12].max()
    assert true_accept_rate(scores, same, far) == pytest.approx(expected, abs=1e-6)


def test_too_few_impostors_resolve_nothing():
    rng = np.random.default_rng(5)
    same = np.arange(1099) < 100
    scores = rng.standard_normal(1099)
    assert np.isnan(true_accept_rate(scores, same, 0.001))
    assert np.isfinite(true_accept_rate(np.append(scores, 0.0), np.append(same, False), 0.001))
    assert np.isnan(true_accept_rate(scores[:100], same[:100], 0.01))


def test_resampled_accept_rates_equal_repeating_people():
    """Each person drawn w times brings its own pairs w times, and w * v pairs with one drawn v times."""
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 12, 900), rng.integers(0, 12, 900)
    second[:300] = first[:300]
    scores = rng.standard_normal(900) + 1.5 * (first == second)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=20)
    expected = []
    for row in weights:
        times = np.where(first == second, row[first], row[first] * row[second])
        expected.append(true_accept_rate(np.repeat(scores, times), np.repeat(first == second, times), 0.05))
    got = true_accept_rate_resampled(scores, first, second, weights, 0.05)
    np.testing.assert_allclose(got, expected, atol=1e-9)
    assert np.ptp(got) > 0.02
