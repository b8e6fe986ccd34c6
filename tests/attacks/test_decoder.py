import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from privhier.attacks.decoder import DecoderAttack
from privhier.attacks.parts.decoders import Decoder, window_ssim
from privhier.attacks.view import AuxiliarySet, View


def test_the_training_objective_is_ssim():
    rng = np.random.default_rng(0)
    x = rng.random((3, 3, 20, 24)).astype(np.float32)
    y = np.clip(x + 0.2 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)
    theirs = [
        structural_similarity(
            a.astype(float), b.astype(float), data_range=1.0, channel_axis=0, use_sample_covariance=False
        )
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(window_ssim(torch.tensor(x), torch.tensor(y)), theirs, atol=1e-4)


@pytest.mark.parametrize("shape", [(48, 4, 4), (10, 1, 1), (12, 5, 5)], ids=["maps", "vector", "odd"])
def test_the_start_is_the_best_linear_reconstruction(shape):
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((400, *shape)).astype(np.float32)
    ratio = -(-12 // shape[1])
    mixing = torch.tensor(rng.standard_normal((3 * ratio**2, shape[0], 1, 1)), dtype=torch.float32)
    images = torch.pixel_shuffle(torch.conv2d(torch.tensor(maps), mixing), ratio)
    images = torch.nn.functional.interpolate(images, size=(12, 12), mode="bilinear").numpy() * 0.05 + 0.5
    decoder = Decoder(maps, (3, 12, 12), width=8, blocks=1)
    decoder.fit_start(maps[:300], images[:300])
    with torch.no_grad():
        guess, _ = decoder(torch.tensor(maps[300:]))
    error = ((guess.numpy() - images[300:]) ** 2).mean() / images.var()
    assert error < (0.001 if shape[1] in (1, 4) else 0.5)  # 5 to 12 is not whole: resizing blurs it


def test_its_own_error_estimate_ranks_the_victims():
    """Half of the records are released with much noise; the attacker should know that it fails there."""
    rng = np.random.default_rng(2)
    clean = rng.random((500, 3, 6, 6))
    images = (clean.repeat(2, axis=2).repeat(2, axis=3) * 255).astype(np.uint8)
    noise = np.where(rng.random((500, 1, 1, 1)) < 0.5, 0.02, 1.0) * rng.standard_normal(clean.shape)
    releases = (clean + noise)[:, None].astype(np.float32)
    view = View(
        threat_model="toy",
        releases=releases[400:],
        image_shape=(3, 12, 12),
        aux=AuxiliarySet(
            images=images[:400],
            labels={},
            n_classes={},
            groups=np.arange(400),
            draws=1,
            releases=lambda _k: releases[:400],
        ),
        seed=0,
    )
    result = DecoderAttack(epochs=2, width=8, blocks=1).run(view)
    error = np.abs(result.reconstructions - images[400:] / 255).mean(axis=(1, 2, 3))
    assert np.corrcoef(error, result.own_loss)[0, 1] > 0.7


def test_a_single_group_is_refused():
    aux = AuxiliarySet(
        images=np.zeros((30, 3, 12, 12), np.uint8),
        labels={},
        n_classes={},
        groups=np.zeros(30, np.int64),
        draws=1,
        releases=lambda _k: np.zeros((30, 1, 4), np.float32),
    )
    view = View("toy", np.zeros((1, 1, 4), np.float32), (3, 12, 12), aux, 0)
    assert "one group" in DecoderAttack().refuses(view)
