from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.attacks.averaging import AveragingAttack, average_log, single_releases
from privhier.attacks.view import AuxiliarySet, View


def toy(repeats, useful=None):
    """A weak signal under noise that is drawn anew for every release; only ``useful`` releases hold it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1200)
    signal = 0.35 * (2 * labels - 1)[:, None] * np.ones((1, 6)) / np.sqrt(6) * 2
    useful = np.ones(repeats) if useful is None else np.asarray(useful, float)

    def release(rows, draw):
        noise = np.random.default_rng((5, draw)).standard_normal((len(rows), repeats, 6))
        return (signal[rows, None] * useful[:, None] + noise).astype(np.float32)

    rows = np.arange(600)
    aux = AuxiliarySet(
        images=np.zeros((600, 3, 8, 8), np.uint8),
        labels={"gender": labels[:600]},
        n_classes={"gender": 2},
        groups=rows,
        draws=2,
        releases=lambda k: release(rows, k),
    )
    return View("toy", release(rows + 600, 99), (3, 8, 8), aux, seed=1), labels[600:]


def read(view, truth, **options):
    result = AveragingAttack(target="gender", epochs=4, **options).run(view)
    return roc_auc_score(truth, result.probabilities[:, 1]), result


def test_more_releases_tell_more():
    """Independent noise: the AUC of T releases is Phi(sqrt(T) * d / sqrt 2), d = 1.4 of one release."""
    from scipy.stats import norm

    for repeats in (2, 8):
        score, _ = read(*toy(repeats))
        assert score == pytest.approx(norm.cdf(np.sqrt(repeats) * 1.4 / np.sqrt(2)), abs=0.03)


def test_useless_releases_are_weighed_down():
    view, truth = toy(8, useful=[1, 0, 0, 0, 0, 0, 0, 0])
    score, result = read(view, truth)
    alone, _ = read(*toy(2, useful=[1, 0]))
    assert score > alone - 0.06
    assert "one for all" not in result.selected["learner"]


def test_one_release_is_refused_and_says_who_else():
    view, _ = toy(2)
    single = replace(view, releases=view.releases[:, :1])
    assert "nothing to average" in AveragingAttack(target="gender").refuses(single)
    assert AveragingAttack(target="gender").refuses(view) is None


def test_the_perceptron_can_be_left_out():
    view, _ = toy(2)
    result = AveragingAttack(target="gender", epochs=0).run(view)
    assert result.selected["learner"].startswith("logistic regression")


def test_logs_are_averaged():
    p = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [1.0, 0.0]]], np.float32)
    even = average_log(p, np.array([0.5, 0.5], np.float32))
    expected = np.sqrt(p[0].prod(axis=0)) / np.sqrt(p[0].prod(axis=0)).sum()
    np.testing.assert_allclose(even[0], expected, rtol=1e-5)
    assert 0.99 < even[1, 0] < 1  # certainty of one release is bounded, so the other still counts
    np.testing.assert_allclose(average_log(p, np.array([1, 0], np.float32)), p[:, 0], rtol=1e-5)


def test_every_release_becomes_a_row_of_its_record():
    view, _ = toy(3)
    singles = single_releases(view)
    assert singles.releases.shape == (1800, 1, 6)
    np.testing.assert_array_equal(singles.releases.reshape(600, 3, 6), view.releases)
    np.testing.assert_array_equal(singles.aux.releases(1).reshape(600, 3, 6), view.aux.releases(1))
    np.testing.assert_array_equal(singles.aux.groups.reshape(600, 3)[:, 2], view.aux.groups)
