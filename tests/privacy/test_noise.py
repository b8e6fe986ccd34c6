import copy
import math
import os
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from privhier.privacy.noise import NoiseSource, SeededNoise, SystemNoise

SOURCES = {"seeded": lambda: SeededNoise(0, "test"), "system": SystemNoise}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_the_law_is_right_in_the_middle_and_in_the_tails(name, law):
    noise = SOURCES[name]()
    draw = getattr(noise, law)((1000, 400))
    assert draw.dtype == torch.float32
    assert draw.device.type == "cpu"
    values = draw.numpy().astype(np.float64).ravel()
    reference = stats.norm if law == "gaussian" else stats.laplace
    # Levels of one in a million: the system source cannot be seeded and must not flicker.
    assert stats.kstest(values, reference.cdf).pvalue > 1e-6
    n = len(values)
    spread, kurtosis = (1, 3) if law == "gaussian" else (2, 24 / 4)
    assert abs(values.var() - spread) < 6 * spread * np.sqrt((kurtosis - 1) / n)
    for quantile in (1e-3, 1e-4):
        edge = reference.isf(quantile)
        for count in ((values > edge).sum(), (values < -edge).sum()):
            assert stats.binomtest(int(count), n, quantile).pvalue > 1e-6


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_values_records_and_calls_are_independent(name, law):
    noise = SOURCES[name]()
    first, second = getattr(noise, law)((300, 500)), getattr(noise, law)((300, 500))
    rows = torch.cat([first, second])
    correlation = torch.corrcoef(rows) - torch.eye(600)
    assert correlation.abs().max() < 7 / np.sqrt(500)  # 180,000 pairs of records
    flat = first.flatten()
    for lag in (1, 2, 250, 500, 75_000):
        lagged = torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1]
        squares = torch.corrcoef(torch.stack([flat[:-lag].abs(), flat[lag:].abs()]))[0, 1]
        assert max(abs(lagged), abs(squares)) < 6 / np.sqrt(75_000)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 7), (0, 4)])
def test_any_shape(shape):
    for make in SOURCES.values():
        assert isinstance(make(), NoiseSource)
        assert make().gaussian(shape).shape == shape
        assert make().laplace(shape).shape == shape


def test_seeded_noise_is_reproducible_named_and_moves_on():
    a, b, c = SeededNoise(0, "release", 1), SeededNoise(0, "release", 1), SeededNoise(0, "release", 2)
    first = a.gaussian((4, 5))
    assert torch.equal(first, b.gaussian((4, 5)))
    assert not torch.equal(first, a.gaussian((4, 5)))
    assert not torch.equal(first, c.gaussian((4, 5)))
    assert not torch.equal(first, SeededNoise(1, "release", 1).gaussian((4, 5)))


def test_no_source_touches_the_global_generators():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for make in SOURCES.values():
        make().gaussian((10, 10))
        make().laplace((10, 10))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_system_noise_keeps_nothing_that_could_be_copied_or_seeded():
    torch.manual_seed(0)
    source = SystemNoise()
    draws = [source.gaussian((2, 8)) for source in (source, source, SystemNoise())]
    torch.manual_seed(0)
    draws += [source.gaussian((2, 8))]
    draws += [pickle.loads(pickle.dumps(source)).gaussian((2, 8)), copy.deepcopy(source).gaussian((2, 8))]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not torch.equal(one, other)
    assert not hasattr(source, "__dict__")
    with pytest.raises(AttributeError):
        source.seed = 1


class Bytes:
    """The operating system's entropy, counted, or replaced by bytes of our own."""

    def __init__(self, own=None):
        self.asked, self._own, self._urandom = [], own, os.urandom

    def __call__(self, count):
        self.asked.append(count)
        return self._urandom(count) if self._own is None else self._own(count)


@pytest.mark.parametrize("law", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("shape", [(1, 4), (50, 40)])
def test_every_value_of_system_noise_takes_64_bits_of_entropy(monkeypatch, law, shape):
    spy = Bytes()
    monkeypatch.setattr(os, "urandom", spy)
    getattr(SystemNoise(), law)(shape)
    assert sum(spy.asked) >= 8 * math.prod(shape)


@pytest.mark.parametrize("law", ["gaussian", "laplace", "uniform"])
def test_system_noise_is_made_of_all_its_entropy_and_of_nothing_else(monkeypatch, law):
    """The same bytes give the same values; other bytes anywhere give another value somewhere."""
    count = 6

    def draw(changed=None):
        words = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x0123_4567_89AB_CDEF)
        if changed is not None:
            words[changed] ^= np.uint64(1 << 63)
        left = bytearray(words.tobytes())

        def own(size):
            taken = bytes(left[:size])
            del left[:size]
            assert len(taken) == size, "more entropy than one word a value"
            return taken

        monkeypatch.setattr(os, "urandom", Bytes(own))
        return getattr(SystemNoise(), law)((count,))

    first = draw()
    assert torch.equal(first, draw())
    assert all(not torch.equal(first, draw(place)) for place in range(count))
