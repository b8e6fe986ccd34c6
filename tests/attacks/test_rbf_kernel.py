import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.attacks.logistic_regression import LogisticRegressionAttack
from privhier.attacks.rbf_kernel import RbfKernelAttack, median_gamma
from privhier.attacks.view import AuxiliarySet, View


def ring(n_classes=2):
    """Class 1 lies on a ring around class 0: no line tells them apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    angle, radius = rng.uniform(0, 2 * np.pi, 600), 1 + 2 * labels
    return toy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels, 0.4, n_classes)


def board():
    """Six by six squares, class by color."""
    clean = np.random.default_rng(0).uniform(0, 6, (2400, 2))
    return toy(clean, clean.astype(int).sum(axis=1) % 2, 0.05)


def toy(clean, labels, sigma, n_classes=2):
    half = len(labels) // 2

    def release(rows, draw):
        noise = np.random.default_rng(draw).standard_normal((len(rows), 1, 2))
        return (clean[rows, None] + sigma * noise).astype(np.float32)

    rows = np.arange(half)
    aux = AuxiliarySet(
        images=np.zeros((half, 3, 8, 8), np.uint8),
        labels={"gender": labels[:half]},
        n_classes={"gender": n_classes},
        groups=rows,
        draws=2,
        releases=lambda k: release(rows, k),
    )
    return View("toy", release(rows + half, 99), (3, 8, 8), aux, seed=1), labels[half:]


def test_a_ring_is_told_from_its_middle_where_lines_fail():
    view, truth = ring()
    curved = RbfKernelAttack(target="gender").run(view)
    straight = LogisticRegressionAttack(target="gender").run(view)
    assert roc_auc_score(truth, curved.probabilities[:, 1]) > 0.95
    assert roc_auc_score(truth, straight.probabilities[:, 1]) < 0.65
    assert (curved.predictions == truth).mean() > 0.9


def test_the_median_heuristic_is_scale_free():
    rows = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    distances = ((rows[:, None] - rows) ** 2).sum(axis=2)[np.triu_indices(300, 1)]
    assert median_gamma(rows) == pytest.approx(1 / np.median(distances), rel=1e-4)
    assert median_gamma(10 * rows) == pytest.approx(median_gamma(rows) / 100, rel=1e-4)
    assert np.isfinite(median_gamma(np.zeros((4, 2), np.float32)))


def test_a_narrow_kernel_is_found_where_the_median_is_too_wide():
    """A board of six by six squares needs a far larger gamma than the median heuristic's."""
    view, truth = board()
    median = RbfKernelAttack(target="gender", trials=0).run(view)
    searched = RbfKernelAttack(target="gender", trials=10).run(view)
    median, found = (roc_auc_score(truth, result.probabilities[:, 1]) for result in (median, searched))
    assert searched.selected["gamma"] > 2
    assert found > median + 0.05


def test_many_classes_are_refused():
    view, _ = ring(n_classes=21)
    assert "21 classes" in RbfKernelAttack(target="gender").refuses(view)
    assert RbfKernelAttack(target="gender", max_classes=21).refuses(view) is None
