import math

import numpy as np
import pytest
import torch
from scipy import stats

from privhier.errors import ConfigError, ReleaseError
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.grid import rounded

WIRES = ["float32", "float16", "int8", "int4"]


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
@pytest.mark.parametrize("quantize", WIRES)
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
    mechanism.sanitize(extreme, noise()).values.sum().backward()
    assert torch.isfinite(extreme.grad).all()


def test_sigma_zero_only_clips_and_none_is_the_identity():
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) * 5
    clip_only = ReleaseMechanism("gaussian", 1.0, 0.0)
    assert clip_only.deterministic
    assert torch.equal(clip_only.sanitize(z, noise()), clip_only.clip_features(z))
    raw = ReleaseMechanism("none")
    assert raw.deterministic
    assert torch.equal(raw.sanitize(z, noise()), z)
    assert not ReleaseMechanism("gaussian", 1.0, 0.1).deterministic


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
    release = mechanism.sanitize(z, noise()).values
    assert torch.equal(release.half().float(), release)
    assert torch.isfinite(release).all()
    assert release.abs().max() == 65504.0
    exact = ReleaseMechanism("gaussian", 1e6, 1e5).sanitize(z, noise()).values
    assert torch.equal(mechanism.quantized(exact), release)


def every_scale(width, seed=0):
    """float32 ``(n, width)`` from subnormal to the largest there are, with zeros and ties."""
    rng = np.random.default_rng(seed)
    rows = [rng.uniform(-1, 1, (600, width)) * 2.0 ** rng.uniform(-150, 128, (600, 1)), np.zeros((2, width))]
    rows.append(rng.integers(-255, 256, (100, width)) / 2 * 2.0 ** rng.integers(-100, 100, (100, 1)))
    rows += [np.full((1, width), edge) for edge in (3.4028235e38, -3.4028235e38, 1e-45, 127.5, -7.5, 65520.0)]
    return np.concatenate(rows).astype(np.float32)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3, 3)])
def test_what_is_rounded_is_what_the_wire_carries(wire, shape):
    mechanism = ReleaseMechanism("none", quantize=wire)
    values = every_scale(math.prod(shape)).reshape(-1, *shape)
    release = mechanism.sanitize(torch.from_numpy(values), noise()).values
    assert release.dtype == torch.float32
    assert torch.equal(mechanism.quantized(release), release)
    assert release.numpy().tobytes() == rounded(values, wire).tobytes()
    records = np.arange(len(values))
    back = decode(encode(ReleaseMessage("run", "test", "cloud", 0, 0, records, release.numpy(), wire=wire)))
    assert back.payload.tobytes() == release.numpy().tobytes()
    # With a gradient to carry it is the same release.
    tracked = mechanism.quantized(torch.from_numpy(values).requires_grad_())
    assert tracked.detach().numpy().tobytes() == release.numpy().tobytes()


@pytest.mark.parametrize("wire", ["float16", "int8", "int4"])
def test_rounding_happens_after_noising_record_by_record(wire):
    z = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    mechanism = ReleaseMechanism("gaussian", 1.0, 0.4, wire)
    release = mechanism.sanitize(z, noise()).values
    exact = ReleaseMechanism("gaussian", 1.0, 0.4).sanitize(z, noise()).values
    assert torch.equal(release, torch.from_numpy(rounded(exact.numpy(), wire)))
    assert not torch.equal(release, exact)
    assert torch.equal(torch.cat([mechanism.quantized(row[None]) for row in exact]), release)


@pytest.mark.parametrize("wire", ["float16", "int8", "int4"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rounding_makes_nothing_finite(wire, bad):
    """A broken mechanism's values must still be refused on the wire."""
    release = torch.ones(3, 4)
    release[1, 2] = bad
    through = ReleaseMechanism("none", quantize=wire).quantized(release)
    assert torch.isfinite(through[[0, 2]]).all()
    assert not torch.isfinite(through[1]).all()


def test_an_empty_batch_is_rounded_too():
    for wire in WIRES:
        assert ReleaseMechanism("none", quantize=wire).sanitize(torch.zeros(0, 4), noise()).shape == (0, 4)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"mechanism": "gauss"}, "release.mechanism"),
        ({"mechanism": "gaussian", "clip": 0.0}, "release.clip"),
        ({"mechanism": "gaussian", "clip": math.nan}, "release.clip"),
        ({"mechanism": "gaussian", "sigma": -1.0}, "release.sigma"),
        ({"mechanism": "gaussian", "sigma": math.inf}, "release.sigma"),
        ({"mechanism": "none", "sigma": 1.0}, "release.sigma"),
        ({"quantize": "int2"}, "release.quantize"),
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
    there = mechanism.sanitize(z.cuda(), noise()).values
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), mechanism.sanitize(z, noise()), atol=1e-5)
    clipped = mechanism.clip_features((z * 1e30).cuda()).cpu().double()
    assert (clipped.norm(1 if name == "laplace" else 2, dim=1) <= 1.0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("wire", ["float16", "int8", "int4"])
def test_a_device_rounds_alike(wire):
    values, mechanism = torch.from_numpy(every_scale(7)), ReleaseMechanism("none", quantize=wire)
    assert torch.equal(mechanism.quantized(values.cuda()).cpu(), mechanism.quantized(values))
