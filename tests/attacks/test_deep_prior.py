from dataclasses import replace

import numpy as np
import pytest
import torch

from privhier.attacks.deep_prior import DeepPriorAttack, Generators

QUICK = DeepPriorAttack(steps=200, width=16, levels=2)


def test_an_unprotected_release_is_inverted(scene):
    world = scene()
    result = QUICK.run(world.view)
    assert world.error_left(result) < 0.5
    assert result.selected["steps"] > 50
    assert result.queries == 8


def test_under_noise_it_stops_early(scene):
    world = scene(clip=10.0, sigma=0.3)
    result = QUICK.run(world.view)
    assert 0 < result.selected["steps"] < 100
    assert world.error_left(result) < 0.7


def test_where_nothing_is_left_it_guesses_the_mean_image(scene):
    world = scene(clip=10.0, sigma=1e4)
    result = replace(QUICK, steps=40).run(world.view)
    assert result.selected["steps"] == 0
    assert world.error_left(result) == pytest.approx(1.0, abs=0.05)


def test_every_image_has_a_network_of_its_own():
    torch.manual_seed(0)
    pair = Generators(2, (3, 18, 18), 4, 2)
    x = pair()
    assert x.shape == (2, 3, 18, 18)
    torch.testing.assert_close(x[0], x[1])
    gradients = torch.autograd.grad(x[0].sum(), list(pair.parameters()))
    for gradient in gradients:
        assert not gradient.chunk(2)[1].any()
    assert any(gradient.chunk(2)[0].any() for gradient in gradients)


def test_batches_change_nothing(scene):
    world = scene(t=2)
    quick = replace(QUICK, steps=10)
    whole, parts = quick.run(world.view), replace(quick, batch=4).run(world.view)
    np.testing.assert_allclose(whole.reconstructions, parts.reconstructions, atol=1e-3)


def test_it_is_refused_without_the_weights(scene):
    assert "weights" in QUICK.refuses(scene(white=False).view)
