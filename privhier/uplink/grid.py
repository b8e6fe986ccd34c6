"""Integer grids: a record as small integers times one power of two.

A power of two makes the grid exact: float32 carries every grid value without error, rounding twice is
rounding once, and integers and exponent can be read off the values alone.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Wire = Literal["float32", "float16", "int8", "int4"]
"""How values go over the wire."""
LIMITS: dict[str, int] = {"int8": 127, "int4": 7}
"""Largest integer of a grid, in size; the grids are symmetric."""

_LOWEST = -128
"""Smallest exponent: what one signed byte holds. The step is then 2**-128."""
_FLOAT16_MAX = np.float32(65504)

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.int8]


def quantize(values: npt.NDArray[Any], limit: int) -> tuple[ByteArray, ByteArray]:
    """Round every record to ``q * 2**e``, to nearest, ties to even.

    ``e`` is the smallest exponent with which the record's largest value rounds to at most ``limit`` in
    size, so the step is at most the largest value over ``limit / 2``. It lies between -128 (smaller values
    become 0) and the highest with which ``limit * 2**e`` is a float32 (larger values saturate there). A
    record of zeros has ``e`` = 0.

    Args:
        values: float32 ``(B, n)``, finite.
        limit: 127 (int8) or 7 (int4).

    Returns:
        ``q`` int8 ``(B, n)`` in [-limit, limit], ``e`` int8 ``(B,)``.
    """
    bits = limit.bit_length()
    wide = values.astype(np.float64)  # float32's subnormals are normal here, and dividing by 2**e is exact
    largest = np.abs(wide).max(axis=1)
    mantissa, exponent = np.frexp(largest)
    exponent = exponent - bits + (mantissa * 2**bits >= limit + 0.5)
    exponent = np.clip(exponent, _LOWEST, 128 - bits)
    wide /= np.ldexp(1.0, exponent)[:, None]
    q = np.clip(np.rint(wide), -limit, limit).astype(np.int8)
    exponent[~q.any(axis=1)] = 0
    return q, exponent.astype(np.int8)


def dequantize(q: ByteArray, exponents: ByteArray) -> FloatArray:
    """``q * 2**e``, float32 ``(B, n)``, exact; the inverse of ``quantize`` on its results."""
    scale = np.ldexp(1.0, exponents.astype(np.int64)).astype(np.float32)
    return q.astype(np.float32) * scale[:, None]


def is_canonical(q: ByteArray, exponents: ByteArray, limit: int) -> bool:
    """Whether these are what ``quantize`` gives for their values: in range, the smallest exponents."""
    largest = np.maximum(q.max(axis=1).astype(np.int64), -q.min(axis=1).astype(np.int64))
    usual = (largest > limit // 2) & (exponents <= 128 - limit.bit_length())
    smallest = (largest > 0) & (exponents == _LOWEST)
    zero = (largest == 0) & (exponents == 0)
    return bool(((largest <= limit) & (usual | smallest | zero)).all())


def pack(q: ByteArray) -> npt.NDArray[np.uint8]:
    """Two integers of four bits a byte, the first in the low half: ``(B, n)`` to ``(B, ceil(n / 2))``.

    Four bits hold two's complement; where n is odd the last half byte is 0.
    """
    halves = (q & 15).astype(np.uint8)
    packed = np.ascontiguousarray(halves[:, 0::2])
    packed[:, : halves.shape[1] // 2] |= halves[:, 1::2] << 4
    return packed


def unpack(packed: npt.NDArray[np.uint8], n: int) -> ByteArray:
    """Inverse of ``pack``: int8 ``(B, n)`` in [-8, 7]."""
    q = np.empty((packed.shape[0], 2 * packed.shape[1]), dtype=np.int8)
    q[:, 0::2] = ((packed & 15) ^ 8).view(np.int8) - 8
    q[:, 1::2] = ((packed >> 4) ^ 8).view(np.int8) - 8
    return q[:, :n]


def rounded(values: FloatArray, wire: Wire) -> FloatArray:
    """Finite values as the far end sees them, float32 ``(B, *shape)``: rounded record by record.

    float16 saturates at 65504 in size. No result is a negative zero, but for float32's, which is untouched.
    """
    if wire == "float32":
        return values
    if wire == "float16":
        half = np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
        return half.astype(np.float32) + np.float32(0)
    return dequantize(*quantize(values.reshape(len(values), -1), LIMITS[wire])).reshape(values.shape)
