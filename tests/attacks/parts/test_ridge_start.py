"""Where inversion begins: a linear guess on own records alone, never worse than the mean image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privhier.attacks.parts import ridge_start
from privhier.attacks.parts.matching import own_cases
from privhier.attacks.parts.ridge_start import RidgeStart


def guessed(view):
    start = RidgeStart(view, "inversion", own_cases(view, "inversion"))
    return start, start(torch.from_numpy(np.array(view.releases)))


def linear_world(shape, size, n=400):
    """Releases that are linear in images, so that the guess is exact."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, *size, generator=rng)
    if len(shape) == 3:
        maps = torch.nn.functional.pixel_unshuffle(images, size[0] // shape[1])
        mixed = torch.nn.functional.conv2d(maps, torch.rand(shape[0], maps.shape[1], 1, 1, generator=rng))
        return mixed[:, None] + 1, images
    mixed = images.flatten(1) @ torch.rand(3 * size[0] * size[1], shape[0], generator=rng)
    return mixed[:, None], images


def test_maps_that_are_linear_in_images_are_undone():
    releases, images = linear_world((12, 4, 4), (8, 8))
    by_penalty = dict(ridge_start._guesses_of_maps(releases[:300], images[:300]))
    assert list(by_penalty) == list(ridge_start.PENALTIES)
    error = [float((guess(releases[300:]) - images[300:]).abs().mean()) for guess in by_penalty.values()]
    assert error[0] < 1e-3
    assert error == sorted(error), "the more penalty, the nearer to the mean"
    assert error[-1] > 0.15


def test_vectors_are_those_of_a_plain_ridge():
    releases, images = linear_world((6,), (4, 4), n=100)
    by_penalty = dict(ridge_start._guesses_of_vectors(releases[:90], images[:90]))
    x, y = releases[:90].flatten(1).double().numpy(), images[:90].flatten(1).double().numpy()
    center, spread = x.mean(axis=0), x.std(axis=0)
    z = (x - center) / spread
    for penalty in (1e-2, 1.0):
        lifted = z.T @ z + penalty * np.square(z).sum() / len(z) * np.eye(6)
        weights = np.linalg.solve(lifted, z.T @ (y - y.mean(axis=0)))
        told = (releases[90:].flatten(1).double().numpy() - center) / spread @ weights + y.mean(axis=0)
        found = by_penalty[penalty](releases[90:]).flatten(1).numpy()
        np.testing.assert_allclose(found, told, atol=2e-4)


def test_blocks_are_put_together_as_they_were_cut():
    images = torch.rand(2, 3, 6, 20)
    blocks = ridge_start._cut(images, (2, 5)).reshape(2, 30, 3, 4)
    assert torch.equal(ridge_start._put_together(blocks, (2, 5)), images)


@pytest.mark.parametrize("vector", [False, True])
def test_it_is_a_better_guess_than_the_mean_and_sees_own_records_alone(scene, vector):
    view = scene(vector=vector).view
    start, images = guessed(view)
    truth = torch.from_numpy(scene(vector=vector).truth)
    mean = torch.from_numpy(view.aux.images.mean(axis=0) / 255).float()
    assert float((images - truth).square().mean()) < 0.6 * float((mean - truth).square().mean())
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    again, same = guessed(replace(view))
    assert again.penalty == start.penalty
    assert torch.equal(same, images)
    # Other victims: the guess for these releases stays what it was.
    others = replace(view, releases=np.ascontiguousarray(view.releases[::-1] * 3))
    elsewhere, _ = guessed(others)
    assert torch.equal(elsewhere(torch.from_numpy(np.array(view.releases))), images)


def test_where_nothing_is_left_it_is_the_mean_image(scene):
    start, images = guessed(scene(clip=10.0, sigma=1e4).view)
    assert start.penalty is None
    assert torch.equal(images[0], images[1])
    assert start.queries == 96


def test_many_states_are_averaged_where_they_would_be_too_many_channels(scene, monkeypatch):
    view = scene(clip=10.0, sigma=0.1, t=3).view
    _, beside = guessed(view)
    monkeypatch.setattr(ridge_start, "_PATCH", 60)
    _, averaged = guessed(replace(view))
    assert averaged.shape == beside.shape
    assert not torch.equal(averaged, beside)
