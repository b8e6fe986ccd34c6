"""Which reconstructions a report shows: the best, the median and the worst, with scores and the mean face."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from privhier.assessment import pictures
from privhier.assessment.pictures import reconstruction_sheets

N, SIDE = 9, 16


@pytest.fixture
def subject(monkeypatch):
    """Nine victims whose reconstructions are noisier one by one; drawn noise, no faces."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, SIDE, SIDE), dtype=np.uint8)
    victims = SimpleNamespace(test=np.arange(20, 30), pictured=rng.permutation(10), aux=np.array([4, 1, 7]))
    truth = images[victims.test[victims.pictured[:N]]] / 255
    noise = rng.standard_normal(truth.shape) * np.linspace(0, 1, N)[:, None, None, None]
    drawn = {"decoder": ((truth + noise).astype(np.float32), rng.random(N).astype(np.float32))}
    stored = {Path("own"): drawn, Path("other"): {"decoder": (np.zeros_like(truth, np.float32), np.ones(N))}}
    monkeypatch.setattr(pictures, "_stored", lambda _, folder: stored[folder])
    prepared = SimpleNamespace(data=SimpleNamespace(images=images))
    return SimpleNamespace(config=None, folder=Path("own"), prepared=prepared, victims=victims)


def test_best_median_and_worst_are_those_of_the_score(subject):
    (sheet,) = reconstruction_sheets(subject, None)
    assert [label for label, *_ in sheet.rows] == ["best", "best", "median", "median", "worst", "worst"]
    own = [scores[0] for scores in sheet.scores]
    assert own == sorted(own, reverse=True)
    assert own[0] == pytest.approx(1.0)  # it is the original
    assert sheet.count == N
    first = subject.prepared.data.images[subject.victims.test[subject.victims.pictured[0]]]
    assert np.array_equal(sheet.rows[0][1], first)
    assert all(reference is None for *_, reference in sheet.rows)


def test_the_mean_face_is_that_of_the_attackers_own_images(subject):
    (sheet,) = reconstruction_sheets(subject, Path("other"))
    mean = subject.prepared.data.images[[1, 4, 7]].mean(axis=0) / 255
    assert np.allclose(sheet.mean_image, mean, atol=1e-6)
    assert all(own > blank for own, _, blank in sheet.scores[:2])
    assert all(theirs is not None and abs(theirs) < 0.1 for _, theirs, _ in sheet.scores)


@pytest.mark.parametrize(
    ("count", "labels"), [(1, ["best"]), (2, ["best", "worst"]), (3, ["best", "median", "worst"])]
)
def test_of_few_each_is_shown_once(count, labels):
    chosen = pictures._chosen(np.linspace(1, 0, count))
    assert list(chosen.values()) == labels
    assert len(chosen) == count
