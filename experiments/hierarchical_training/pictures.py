"""Batches of images as bytes: raw, or one JPEG a batch."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

QUALITY = 90
"""4:2:0, Pillow's default subsampling. No block straddles two pictures if the side is a multiple of 16."""


def raw_bytes(pixels: Pixels) -> bytes:
    """uint8 ``(B, 3, S, S)`` as they are."""
    return np.ascontiguousarray(pixels).tobytes()


def from_raw(data: bytes | memoryview, count: int, size: int) -> Pixels:
    """The inverse of ``raw_bytes``."""
    return np.frombuffer(data, np.uint8).reshape(count, 3, size, size)


def jpeg_bytes(pixels: Pixels) -> bytes:
    """The batch as one tall JPEG: its 600 bytes of tables go up once a batch and not once a picture."""
    count, _, size, _ = pixels.shape
    tall = pixels.transpose(0, 2, 3, 1).reshape(count * size, size, 3)
    stream = io.BytesIO()
    Image.fromarray(tall).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def from_jpeg(data: bytes | memoryview, count: int, size: int) -> Pixels:
    """The pictures of a tall JPEG, uint8 ``(count, 3, size, size)``."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        tall = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(tall.reshape(count, size, size, 3).transpose(0, 3, 1, 2))


ENCODERS: dict[str, Callable[[Pixels], bytes]] = {"raw": raw_bytes, "jpeg": jpeg_bytes}
DECODERS: dict[str, Callable[[bytes | memoryview, int, int], Pixels]] = {"raw": from_raw, "jpeg": from_jpeg}
