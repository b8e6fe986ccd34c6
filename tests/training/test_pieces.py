"""Batches, learning rate and the data the edge trains on."""

from __future__ import annotations

import numpy as np
import pytest

from privhier.config import OptimizerConfig
from privhier.training.batches import batch_count, ordered_batches, shuffled_batches
from privhier.training.optimize import learning_rate


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 100])
def test_batches_hold_every_record_exactly_once(n):
    records = np.arange(100, 100 + n)
    batches = list(shuffled_batches(records, 8, 0, "joint", 3))
    assert len(batches) == batch_count(n, 8)
    assert sorted(np.concatenate(batches)) == records.tolist()
    assert n == 1 or min(map(len, batches)) > 1


def test_order_depends_on_seed_phase_and_epoch():
    records = np.arange(64)

    def order(*key):
        return np.concatenate(list(shuffled_batches(records, 8, *key))).tolist()

    assert order(0, "joint", 0) == order(0, "joint", 0)
    assert (
        len({tuple(order(*key)) for key in [(0, "joint", 0), (1, "joint", 0), (0, "joint", 1), (0, "x", 0)]})
        == 4
    )


def test_ordered_batches_keep_the_order():
    assert np.concatenate(list(ordered_batches(np.arange(17), 4))).tolist() == list(range(17))


def test_cosine_falls_from_lr_to_zero_and_constant_stays():
    cosine = OptimizerConfig(lr=0.1)
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.1)
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.05)
    assert learning_rate(cosine, 100, 100) == pytest.approx(0.0)
    assert learning_rate(OptimizerConfig(lr=0.1, schedule="constant"), 70, 100) == 0.1
