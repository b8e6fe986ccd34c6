from dataclasses import replace

import numpy as np
import pytest
import torch

from privhier.attacks.substitute import SubstituteAttack, mean_discrepancy

QUICK = SubstituteAttack(steps=10, width=8)


def untouchable(_draw):
    raise AssertionError("an attacker without queries asked for a release of its own image")


@pytest.mark.slow
def test_releases_are_read_without_weights_and_without_queries(scene):
    world = scene(victims=60, white=False, tinted=True)
    view = replace(world.view, aux=replace(world.view.aux, releases=untouchable))
    result = SubstituteAttack(steps=400, width=8, learning_rate=3e-3).run(view)
    assert world.error_left(result) < 0.85
    assert result.queries == 0


@pytest.mark.parametrize("vector", [False, True])
def test_one_victim_is_enough(scene, vector):
    world = scene(victims=1, vector=vector, t=2, white=False)
    first, second = QUICK.run(world.view), QUICK.run(world.view)
    assert first.reconstructions.shape == (1, 3, 16, 16)
    assert np.isfinite(first.reconstructions).all()
    assert np.isfinite(first.own_loss).all()
    np.testing.assert_array_equal(first.reconstructions, second.reconstructions)


def test_it_says_that_it_uses_the_victims_jointly(scene):
    assert SubstituteAttack.joint
    world = scene(victims=8, white=False)
    alone = QUICK.run(world.first(2).view).reconstructions
    assert not np.allclose(QUICK.run(world.view).reconstructions[:2], alone)


def test_the_discrepancy_is_zero_for_equal_samples_and_grows_with_distance():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert float(mean_discrepancy(rows, rows)) == pytest.approx(0, abs=1e-6)
    near, far = (float(mean_discrepancy(rows, rows + shift)) for shift in (0.3, 2.0))
    assert 0 < near < far
    assert float(mean_discrepancy(rows, 3 * rows)) > 0.01
    assert float(mean_discrepancy(rows[:1], rows[1:2])) > 0


def test_labels_are_of_no_use_to_it(scene):
    view = scene(victims=2, white=False).view
    assert QUICK.refuses(view) is None
    labelled = replace(view, task_labels=np.zeros((2, 1), np.int64), task_classes=(2,))
    assert "task labels" in QUICK.refuses(labelled)
