"""Batches of images as bytes: raw, or one JPEG or WebP a batch."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

FORMATS = {"jpeg": ("JPEG", 90), "jpeg50": ("JPEG", 50), "webp50": ("WEBP", 50)}
"""Codec to format and quality. 4:2:0, Pillow's default subsampling: no block straddles two pictures if the
side is a multiple of 16. WebP's pictures are at most 16,383 pixels tall."""


def raw_bytes(pixels: Pixels) -> bytes:
    """uint8 ``(B, 3, S, S)`` as they are."""
    return np.ascontiguousarray(pixels).tobytes()


def from_raw(data: bytes | memoryview, count: int, size: int) -> Pixels:
    """The inverse of ``raw_bytes``."""
    return np.frombuffer(data, np.uint8).reshape(count, 3, size, size)


def coded_bytes(pixels: Pixels, codec: str = "jpeg") -> bytes:
    """The batch as one tall picture: JPEG's 600 bytes of tables go up once a batch and not once a picture."""
    name, quality = FORMATS[codec]
    count, _, size, _ = pixels.shape
    tall = pixels.transpose(0, 2, 3, 1).reshape(count * size, size, 3)
    stream = io.BytesIO()
    Image.fromarray(tall).save(stream, name, quality=quality)
    return stream.getvalue()


def from_coded(data: bytes | memoryview, count: int, size: int, codec: str = "jpeg") -> Pixels:
    """The pictures of a tall one, uint8 ``(count, 3, size, size)``."""
    with Image.open(io.BytesIO(data), formats=FORMATS[codec][:1]) as image:
        tall = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(tall.reshape(count, size, size, 3).transpose(0, 3, 1, 2))


ENCODERS: dict[str, Callable[[Pixels], bytes]] = {
    "raw": raw_bytes,
    **{codec: partial(coded_bytes, codec=codec) for codec in FORMATS},
}
DECODERS: dict[str, Callable[[bytes | memoryview, int, int], Pixels]] = {
    "raw": from_raw,
    **{codec: partial(from_coded, codec=codec) for codec in FORMATS},
}
