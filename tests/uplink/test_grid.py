"""Integer grids: the definition in exact arithmetic, idempotence, the ends of float32's range."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from privhier.uplink.grid import LIMITS, dequantize, is_canonical, pack, quantize, rounded, unpack

WIRES = sorted(LIMITS)
LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-149


def records(seed=0, width=6):
    """float32 ``(n, width)``: every scale there is, zeros, subnormals, ties, the ends of the range."""
    rng = np.random.default_rng(seed)
    scales = 2.0 ** rng.uniform(-150, 127.5, (400, 1))
    rows = [rng.uniform(-1, 1, (400, width)) * scales, np.zeros((2, width))]
    for edge in (
        LARGEST,
        LARGEST / 2,
        127.5 * 2.0**120,
        7.5 * 2.0**124,
        TINY,
        2.0**-126,
        2.0**-129,
        2.0**-128,
    ):
        row = rng.uniform(-1, 1, width) * edge
        row[0] = edge
        rows.append(np.stack([row, -row]))
    for limit in LIMITS.values():  # where the largest value is a tie, or next to one
        for top in (limit + 0.5, limit, limit + 1, (limit + 0.5) / 2):
            for near in (
                np.float32(top),
                np.nextafter(np.float32(top), 0),
                np.nextafter(np.float32(top), 999),
            ):
                row = rng.integers(-limit, limit, width) + 0.5
                row[0] = near
                rows.append(row[None] * 2.0 ** rng.integers(-60, 60))
    with np.errstate(over="ignore", under="ignore"):
        found = np.concatenate(rows).astype(np.float32)
    assert np.isfinite(found).all()
    return found


def by_definition(record, limit):
    """Integers and exponent by trying exponents in exact arithmetic; Fraction rounds ties to even."""
    exact = [Fraction(float(value)) for value in record]
    bits = limit.bit_length()
    for exponent in range(-128, 129 - bits):
        whole = [round(value / Fraction(2) ** exponent) for value in exact]
        if max(map(abs, whole)) <= limit:
            break
    whole = [max(-limit, min(limit, value)) for value in whole]
    return whole, exponent if any(whole) else 0


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("width", [1, 6])
def test_it_is_the_definition(wire, width):
    values = records(width=width)
    q, exponents = quantize(values, LIMITS[wire])
    assert (q.dtype, exponents.dtype) == (np.int8, np.int8)
    for row, whole, exponent in zip(values, q, exponents, strict=True):
        assert (whole.tolist(), int(exponent)) == by_definition(row, LIMITS[wire])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("width", [1, 2, 33])
def test_values_alone_tell_integers_and_exponents(wire, width):
    limit = LIMITS[wire]
    q, exponents = quantize(records(1, width), limit)
    back = dequantize(q, exponents)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    assert not np.signbit(back[back == 0]).any()
    exact = q.astype(np.float64) * 2.0 ** exponents.astype(np.float64)[:, None]
    np.testing.assert_array_equal(back, exact)
    again = quantize(back, limit)
    np.testing.assert_array_equal(again[0], q)
    np.testing.assert_array_equal(again[1], exponents)
    assert is_canonical(q, exponents, limit)


@pytest.mark.parametrize(("wire", "share"), [("int8", 1 / 127.5), ("int4", 1 / 7.5)])
def test_the_error_is_at_most_half_a_step(wire, share):
    values = np.random.default_rng(2).normal(size=(500, 40)).astype(np.float32)
    values[::3] *= 2.0**100
    error = np.abs(rounded(values, wire) - values).max(axis=1) / np.abs(values).max(axis=1)
    assert error.max() <= share * (1 + 1e-6)
    assert error.max() > 0.8 * share


@pytest.mark.parametrize("wire", WIRES)
def test_a_record_does_not_feel_the_others(wire):
    values = records(3)
    alone = np.concatenate([rounded(values[k : k + 1], wire) for k in range(len(values))])
    np.testing.assert_array_equal(alone, rounded(values, wire))


def test_only_what_quantize_gives_is_canonical():
    def canonical(q, exponent, limit):
        return is_canonical(np.array([q], np.int8), np.array([exponent], np.int8), limit)

    for limit in LIMITS.values():
        half, highest = limit // 2 + 1, 128 - limit.bit_length()
        for exponent in (-128, -5, 0, highest):
            assert canonical([half, 0], exponent, limit)
            assert canonical([0, -limit], exponent, limit)
            assert canonical([half - 1, 0], exponent, limit) == (
                exponent == -128
            )  # else: a smaller step fits
            assert canonical([0, 0], exponent, limit) == (exponent == 0)
            assert not canonical([-limit - 1, half], exponent, limit)
        assert not canonical([limit, 0], highest + 1, limit)
    mixed = np.array([[127, 0], [3, 0]], np.int8)
    assert not is_canonical(mixed, np.zeros(2, np.int8), 127)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_two_integers_share_a_byte(width):
    q = np.random.default_rng(width).integers(-8, 8, (50, width)).astype(np.int8)
    packed = pack(q)
    assert packed.shape == (50, (width + 1) // 2)
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack(packed, width), q)
    if width % 2:
        assert not (packed[:, -1] >> 4).any()
    assert pack(np.array([[1, -1, 7]], np.int8)).tolist() == [[0xF1, 0x07]]


def test_floats_are_rounded_as_their_type_says():
    values = np.array([[1e9, -1e9, 65504.0, 1 / 3, -1e-9]], np.float32)
    assert rounded(values, "float32") is values
    half = rounded(values, "float16")
    assert half.tolist() == [[65504.0, -65504.0, 65504.0, float(np.float16(1 / 3)), 0.0]]
    assert not np.signbit(half[0, -1])
