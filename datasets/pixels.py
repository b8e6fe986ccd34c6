"""From a Pillow picture of any mode to 8-bit RGB.

``Image.convert("RGB")`` is right for every mode of 8 bits or fewer, and clips the deeper ones: a 16-bit
picture turns white, one of floats in [0, 1] black. Here these are scaled, and what has no known scale is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
"""Pillow's modes of more than 8 bits a channel. It reads 16-bit color by the high byte of each channel, which
is within one level of the division by 257."""

WHITE = 65535
STRIP = 2**20
_PHOTOMETRIC, _BITS = 262, 258  # TIFF 6.0, pages 37 and 29


class UnreadPictureError(ValueError):
    """A file that gives no picture; the message is the problem's reason, its kind before the colon."""


@dataclass(frozen=True)
class Depth:
    """What the numbers of a deep picture mean.

    Attributes:
        white: The integer that stands for full brightness.
        inverted: Whether 0 is white.
    """

    white: int = WHITE
    inverted: bool = False


def depth_of(picture: Image.Image) -> Depth:
    """What the file says of a freshly opened picture's depth; a copy of the picture no longer knows.

    Pillow unpacks TIFF's 12-bit samples without scaling them, and does not invert deep ones that count from
    white.
    """
    tags = getattr(picture, "tag_v2", None)
    if tags is None or picture.mode not in DEEP:
        return Depth()
    bits = tags.get(_BITS, (16,))
    twelve = (bits if isinstance(bits, int) else bits[0]) == 12
    return Depth(white=4095 if twelve else WHITE, inverted=tags.get(_PHOTOMETRIC) == 0)


def to_rgb(picture: Image.Image, depth: Depth) -> Image.Image:
    """``picture`` as 8-bit RGB.

    Up to 8 bits a channel this is Pillow's own conversion: transparency is dropped and the color stored under
    it kept, premultiplied color is divided by its alpha, CMYK, YCbCr, LAB and HSV are converted. Integers of
    more bits are divided by 257 (white to 255) and rounded to the nearest level, floats in [0, 1] multiplied
    by 255.

    Raises:
        UnreadPictureError: Values out of that range or not finite, or all so small that it would turn black.
    """
    if picture.mode == "La":
        picture = picture.convert("LA")  # Pillow has no direct way from premultiplied gray to RGB
    if picture.mode == "RGB":
        return picture
    if picture.mode not in DEEP:
        return picture.convert("RGB")
    values = np.asarray(picture)
    scaled = _from_floats(values) if picture.mode == "F" else _from_integers(values, depth.white)
    if depth.inverted:
        scaled = 255 - scaled
    return Image.fromarray(scaled).convert("RGB")


def _from_integers(values: npt.NDArray[np.integer], white: int) -> npt.NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise UnreadPictureError(
            f"pixel values out of range: {low} to {high}, whole numbers from 0 to {white} are read"
        )
    if white == WHITE and 0 < high <= 255:
        raise UnreadPictureError(
            f"pixel values out of range: none above {high} of {white}, it would turn black (8 bits in 16?)"
        )
    levels = ((np.arange(white + 1, dtype=np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)
    return _by_rows(values, lambda strip: levels[strip])


def _from_floats(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    # NaN makes both NaN, and every comparison with it false.
    if not (low >= 0.0 and high <= 1.0):
        raise UnreadPictureError(
            f"pixel values out of range: {low:g} to {high:g}, finite numbers from 0 to 1 are read"
        )
    return _by_rows(values, lambda strip: np.rint(strip * np.float32(255)).astype(np.uint8))


def _by_rows(
    values: npt.NDArray[Any], scale: Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    # A large picture's temporary arrays would be several times its size.
    found = np.empty(values.shape, dtype=np.uint8)
    step = max(1, STRIP // values.shape[1])
    for start in range(0, len(values), step):
        found[start : start + step] = scale(values[start : start + step])
    return found
