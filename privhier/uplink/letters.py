"""Letters on the wire: ``ceil(log2 K)`` bits each, one after the other through the whole message.

A payload of letters ``(B, M)`` is read row by row. With b = ``ceil(log2 K)``, letter number i takes the bits
``i b`` to ``(i + 1) b - 1`` of the stream, its least significant bit first; bit t of the stream is bit
``t % 8`` of byte ``t // 8``, counted from the least significant. The bits that fill the last byte are 0. A
letter is below K, so one sequence of letters has one form, and bytes that are not such a form are refused.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


def bits_of(alphabet: int) -> int:
    """Bits of one letter of ``alphabet`` letters, 1 to 12: ``ceil(log2 K)``."""
    return (alphabet - 1).bit_length()


def packed_bytes(count: int, alphabet: int) -> int:
    """Bytes of ``count`` packed letters."""
    return (count * bits_of(alphabet) + 7) // 8


def pack_letters(letters: IntArray, alphabet: int) -> ByteArray:
    """Letters of any shape, each from 0 to ``alphabet - 1``, to uint8 ``(packed_bytes,)``."""
    places = np.arange(bits_of(alphabet))
    bits = (letters.reshape(-1, 1) >> places) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def unpack_letters(packed: ByteArray, count: int, alphabet: int) -> IntArray | None:
    """Inverse of ``pack_letters``: int64 ``(count,)``.

    Args:
        packed: uint8 ``(packed_bytes(count, alphabet),)``.
        count: How many letters.
        alphabet: K, 2 to 4,096.

    Returns:
        None where ``pack_letters`` never gives these bytes: a letter from K on, a filling bit that is set.
    """
    width = bits_of(alphabet)
    bits = np.unpackbits(packed, bitorder="little")
    if bits[count * width :].any():
        return None
    letters = np.zeros(count, dtype=np.int64)
    for place in range(width):
        letters |= bits[place : count * width : width].astype(np.int64) << place
    return None if count and int(letters.max()) >= alphabet else letters
