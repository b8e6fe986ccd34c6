"""Noise keyed by record: standard noise, and nobody's draw depends on who else is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from privhier.errors import GuaranteeError
from privhier.privacy.noise import NoiseSource, RecordNoise

KINDS = ("gaussian", "laplace", "uniform")
MASK = 2**64 - 1


def drawn(kind: str, records, width: int = 5, stream: str = "s") -> torch.Tensor:
    source = RecordNoise(0, stream, records=np.asarray(records))
    assert isinstance(source, NoiseSource)
    return getattr(source, kind)((len(records), width))


@pytest.mark.parametrize("kind", KINDS)
def test_a_records_draw_depends_on_its_number_only(kind):
    records = np.arange(40) * 7
    whole = drawn(kind, records)
    for kept in (records[1:], records[:-1], records[::-1], records[[5]], records[::3]):
        rows = np.searchsorted(records, kept)
        assert torch.equal(drawn(kind, kept), whole[rows])
    assert len(torch.unique(whole)) == whole.numel()
    assert not torch.equal(whole, drawn(kind, records, stream="other"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [40_000, 7])
def test_blocks_leave_no_trace(kind, width):
    """Wide rows are drawn a part at a time, narrow ones many at once: the values are the same."""
    records = np.arange(5) if width > 7 else np.arange(6000)
    whole = drawn(kind, records, width)
    assert torch.equal(whole[3:4], drawn(kind, records[3:4], width))
    assert len(torch.unique(whole[0])) > 0.999 * width


def test_a_second_call_goes_on_in_every_records_stream():
    source = RecordNoise(0, "s", records=np.arange(4))
    first, second = source.gaussian((4, 3)), source.gaussian((4, 3))
    assert len(torch.unique(torch.cat([first, second]))) == 24
    again = RecordNoise(0, "s", records=np.array([2]))
    again.gaussian((1, 3))
    assert torch.equal(again.gaussian((1, 3))[0], second[2])


@pytest.mark.parametrize(
    ("kind", "law"), [("gaussian", stats.norm), ("laplace", stats.laplace), ("uniform", stats.uniform)]
)
def test_the_values_follow_their_law_along_and_across_records(kind, law):
    values = drawn(kind, np.arange(3000), 40).double().numpy()
    for sample in (values.ravel(), values[:, 0], values[:, 39], values[0], values[2999]):
        assert stats.kstest(sample, law.cdf).pvalue > 1e-6
    centered = values - values.mean()
    for other in (np.roll(centered, 1, axis=0), np.roll(centered, 1, axis=1), np.roll(centered, 7, axis=0)):
        correlation = float((centered * other).mean() / centered.var())
        assert abs(correlation) < 6 / np.sqrt(values.size)


def test_the_words_are_splitmix64s():
    """Against the published generator, step by step in whole numbers."""

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        return z ^ (z >> 31)

    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first word of seed 0, as published
    source = RecordNoise(0, "s", records=np.array([0]))
    state, found = int(source._starts[0]), source.uniform((1, 4))[0].tolist()
    for value in found:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        assert value == (mixed(state) >> 11) * 2.0**-53


def test_a_row_without_a_record_is_refused():
    with pytest.raises(GuaranteeError, match="one row each"):
        RecordNoise(0, "s", records=np.arange(3)).gaussian((4, 2))
    assert RecordNoise(0, "s", records=np.arange(0)).gaussian((0, 3)).shape == (0, 3)
