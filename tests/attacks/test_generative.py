from dataclasses import replace

import pytest
import torch

from privhier.attacks.generative import GenerativeAttack, VariationalAutoencoder

QUICK = GenerativeAttack(latent=16, width=8, epochs=30, steps=60)


def test_it_finds_images_it_can_draw(scene):
    for vector in (False, True):
        world = scene(vector=vector)
        result = QUICK.run(world.view)
        assert world.error_left(result) < 0.75
        assert result.queries == 8


def test_a_search_explains_the_releases_better_than_its_start(scene):
    """Own losses are misfit plus prior: the longer the search, the lower."""
    view = scene().view
    none, some = (replace(QUICK, epochs=5, steps=steps, weights=(1.0,)).run(view) for steps in (1, 40))
    assert (some.own_loss < none.own_loss).all()


def test_much_noise_asks_for_the_strongest_prior(scene):
    view = scene(clip=10.0, sigma=1e4).view
    assert QUICK.run(view).selected["prior"] == max(QUICK.weights)


@pytest.mark.parametrize("size", [(16, 16), (12, 12), (50, 50)])
def test_the_autoencoder_keeps_the_shape_whatever_the_size(size):
    model = VariationalAutoencoder((3, *size), latent=5, width=4)
    x = torch.rand(2, 3, *size)
    assert model(x).shape == x.shape
    assert model.encode(x)[0].shape == (2, 5)
    assert (model.negative_bound(x, torch.zeros(2, 5)) > 0).all()


def test_it_is_refused_without_the_weights(scene):
    assert "weights" in QUICK.refuses(scene(white=False).view)
