import math

import numpy as np
import pytest
import torch
from scipy import stats

from privhier.errors import ConfigError, ReleaseError
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism


def noise():
    return SeededNoise(0, "test")


class Broken:
    """A noise source with one thing wrong."""

    kind = "seeded"

    def __init__(self, spoil):
        self._inner, self._spoil = noise(), spoil

    def gaussian(self, shape):
        return self._spoil(self._inner.gaussian(shape))

    def laplace(self, shape):
        return self._spoil(self._inner.laplace(shape))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("clip", [1e-12, 1e-3, 1.0, 7.3, 1e12])
def test_no_record_ever_exceeds_the_clip(order, clip):
    mechanism = ReleaseMechanism("laplace" if order == 1 else "gaussian", clip, 1.0)
    rng = np.random.default_rng(0)
    for shape in ((64, 1), (64, 7), (16, 3, 8, 8), (4, 20_000)):
        for low, high in ((-30, 30), (37, 37.5), (-45, -30), (-3, 3)):
            size = 10 ** rng.uniform(low, high, shape)
            z = torch.from_numpy((size * rng.choice([-1.0, 1.0], shape)).astype(np.float32))
            clipped = mechanism.clip_features(z)
            assert clipped.dtype == torch.float32
            flat = clipped.numpy().astype(np.float64).reshape(len(z), -1)
            norms = np.linalg.norm(flat, order, axis=1)
            assert (norms <= clip).all()
            before = np.linalg.norm(z.numpy().astype(np.float64).reshape(len(z), -1), order, axis=1)
            # ... and not shrunk for nothing: clipped records sit on the sphere, the others are untouched.
            assert (norms[before > clip] >= clip * (1 - 1e-5)).all()
            inside = torch.from_numpy(before < clip * 0.999_99)
            assert torch.equal(clipped[inside], z[inside])


def test_direction_is_kept_and_the_norm_is_the_whole_tensor_s():
    z = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 10
    for name, order in (("gaussian", 2), ("laplace", 1)):
        clipped = ReleaseMechanism(name, 2.0, 1.0).clip_features(z)
        assert torch.allclose(clipped.flatten(1).norm(order, dim=1), torch.full((5,), 2.0), rtol=1e-5)
        assert torch.allclose(torch.cosine_similarity(clipped.flatten(1), z.flatten(1)), torch.ones(5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["none", "gaussian", "laplace"])
def test_non_finite_features_are_refused_and_counted(name, bad):
    z = torch.zeros(4, 2, 3)
    z[1, 0, 0] = bad
    z[3, 1, 2] = bad
    with pytest.raises(ReleaseError, match="2 of 4 records"):
        ReleaseMechanism(name).sanitize(z, noise())
    with pytest.raises(ReleaseError, match="finite"):
        ReleaseMechanism(name).sanitize(torch.full((1, 2), 1e300, dtype=torch.float64), noise())


def test_features_must_be_a_batch_of_floats():
    for z in (torch.zeros(3), torch.zeros(3, 2, dtype=torch.long)):
        with pytest.raises(ReleaseError, match="floating point"):
            ReleaseMechanism("gaussian").clip_features(z)
    assert ReleaseMechanism("gaussian", 1.0, 1.0).sanitize(torch.zeros(0, 4), noise()).shape == (0, 4)
    assert ReleaseMechanism("gaussian").clip_features(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == (
        torch.float32
    )


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize("quantize", ["float32", "float16"])
def test_gradients_flow_as_if_the_noise_were_a_constant(name, quantize):
    mechanism = ReleaseMechanism(name, 1.0, 0.5, quantize)
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 1, 6)[:, None]
    z = values.clone().requires_grad_()
    direction = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    (mechanism.sanitize(z, noise()) * direction).sum().backward()
    double = values.double().requires_grad_()
    norm = double.norm(1 if name == "laplace" else 2, dim=1, keepdim=True)
    (double / norm.clamp_min(1) * direction).sum().backward()
    assert torch.allclose(z.grad, double.grad.float(), atol=1e-5)
    extreme = torch.tensor([[0.0, 0.0], [1e37, -1e37], [1e-40, 0.0]], requires_grad=True)
    mechanism.sanitize(extreme, noise()).sum().backward()
    assert torch.isfinite(extreme.grad).all()


def test_sigma_zero_only_clips_and_none_is_the_identity():
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) * 5
    clip_only = ReleaseMechanism("gaussian", 1.0, 0.0)
    assert clip_only.deterministic
    assert torch.equal(clip_only.sanitize(z, noise()), clip_only.clip_features(z))
    raw = ReleaseMechanism("none")
    assert raw.deterministic
    assert torch.equal(raw.sanitize(z, noise()), z)
    assert math.isinf(raw.sensitivity)
    assert not ReleaseMechanism("gaussian", 1.0, 0.1).deterministic
    assert ReleaseMechanism("laplace", 1.5, 0.1).sensitivity == 3.0


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_what_is_added_is_noise_of_exactly_the_stated_scale(name):
    mechanism = ReleaseMechanism(name, 1.0, 0.7)
    z = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    for source in (noise(), SystemNoise()):
        added = (mechanism.sanitize(z, source) - mechanism.clip_features(z)).numpy().ravel()
        law = stats.norm(scale=0.7) if name == "gaussian" else stats.laplace(scale=0.7)
        assert stats.kstest(added.astype(np.float64), law.cdf).pvalue > 1e-6


def test_every_release_is_fresh_in_every_record_call_and_mode():
    mechanism = ReleaseMechanism("gaussian", 1.0, 0.7)
    z = torch.ones(50, 40)
    for source in (noise(), SystemNoise()):
        with torch.no_grad():  # as in evaluation: there is no switch that turns the noise off
            added = torch.cat([mechanism.sanitize(z, source) for _ in range(2)])
        assert len({row.numpy().tobytes() for row in added}) == 100
        correlation = torch.corrcoef(added - added.mean(1, keepdim=True)) - torch.eye(100)
        assert correlation.abs().max() < 6.5 / math.sqrt(40)
    assert not hasattr(mechanism, "train")
    assert not hasattr(mechanism, "eval")


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda draw: draw * 0, "equal noise|unit scale"),
        (lambda draw: draw[:1].expand_as(draw).contiguous(), "every record anew"),
        (lambda draw: draw[:, :1, :1].clone().expand(-1, 1, 1), "must be float32"),
        (lambda draw: draw / 2, "unit scale"),
        (lambda draw: draw * math.nan, "unit scale"),
        (lambda draw: draw.double(), "must be float32"),
    ],
    ids=["off", "reused", "per-record scalar", "half", "nan", "float64"],
)
def test_sabotaged_noise_is_caught_before_anything_is_released(name, spoil, words):
    mechanism = ReleaseMechanism(name, 1.0, 1.0)
    mechanism.sanitize(torch.zeros(16, 8, 8), noise())
    with pytest.raises(ReleaseError, match=words):
        mechanism.sanitize(torch.zeros(16, 8, 8), Broken(spoil))


def test_one_value_a_record_shared_by_all_is_caught_too():
    with pytest.raises(ReleaseError, match="every record anew"):
        ReleaseMechanism("gaussian", 1.0, 1.0).sanitize(
            torch.zeros(16, 1), Broken(lambda draw: draw[:1].expand_as(draw).contiguous())
        )


def test_float16_is_a_function_of_the_release_and_survives_the_wire():
    mechanism = ReleaseMechanism("gaussian", 1e6, 1e5, "float16")
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) * 1e5
    release = mechanism.sanitize(z, noise())
    assert mechanism.wire_dtype == torch.float16
    assert torch.equal(release.half().float(), release)
    assert torch.isfinite(release).all()
    assert release.abs().max() == 65504.0
    exact = ReleaseMechanism("gaussian", 1e6, 1e5).sanitize(z, noise())
    assert torch.equal(mechanism.quantized(exact), release)
    assert ReleaseMechanism("gaussian").wire_dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"mechanism": "gauss"}, "release.mechanism"),
        ({"mechanism": "gaussian", "clip": 0.0}, "release.clip"),
        ({"mechanism": "gaussian", "clip": math.nan}, "release.clip"),
        ({"mechanism": "gaussian", "sigma": -1.0}, "release.sigma"),
        ({"mechanism": "gaussian", "sigma": math.inf}, "release.sigma"),
        ({"mechanism": "none", "sigma": 1.0}, "release.sigma"),
        ({"quantize": "int8"}, "release.quantize"),
    ],
)
def test_wrong_settings_are_refused_by_name(fields, key):
    with pytest.raises(ConfigError) as caught:
        ReleaseMechanism(**fields)
    assert caught.value.key == key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_a_device_gets_the_same_release(name):
    mechanism = ReleaseMechanism(name, 1.0, 0.5)
    z = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * 3
    there = mechanism.sanitize(z.cuda(), noise())
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), mechanism.sanitize(z, noise()), atol=1e-5)
    clipped = mechanism.clip_features((z * 1e30).cuda()).cpu().double()
    assert (clipped.norm(1 if name == "laplace" else 2, dim=1) <= 1.0).all()
