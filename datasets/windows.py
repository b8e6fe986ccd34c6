"""Gray thumbnails of pictures seen through windows: what two versions of one photo have in common.

A version of a photo that was cropped shows a window of the other; one that was padded shows the other as a
window. So each picture is compared as a whole with windows of every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from privhier.datasets.base import ImageArray

FloatArray = npt.NDArray[np.float32]

SIDE = 32
"""Pixels a side of the gray copies that windows are cut from (fewer where the pictures have fewer)."""

SHIFTS = (-0.0125, -0.00625, 0.0, 0.00625, 0.0125)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's "L"
CHUNK = 1024
GRADIENT_SIDE, FINEST = 24, 12
"""Parts a side in which gradients are taken, and the highest frequency compared (half periods a side): finer
detail is lost where a version was stored smaller."""


@dataclass(frozen=True)
class Window:
    """A square part of a picture.

    Attributes:
        zoom: Its side over the picture's.
        right, down: Where its centre lies off the picture's, over the picture's side.
        mirror: Whether it is seen mirrored.
    """

    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0
    mirror: bool = False


def _windows() -> tuple[Window, ...]:
    shifted = [
        Window(zoom, right * most, down * most)
        for zoom, most in ((0.95, 0.025), (0.9, 0.05))
        for right in (-1, 0, 1)
        for down in (-1, 0, 1)
    ]
    # To 0.42: FairFace's chips of padding 0.25 show 1.5 / 3.5 of those of padding 1.25.
    padded = [Window(1 / 1.2), Window(1 / 1.4)]
    centered = [Window(0.95**step) for step in range(3, 18)]
    return (Window(), Window(mirror=True), *shifted, *padded, *centered)


WINDOWS = _windows()
"""The first is the whole picture. Crops of up to a tenth of the side are met wherever they lie, smaller ones
in the centre, each within 2.5 % of its size."""


def gray_copies(images: ImageArray) -> ImageArray:
    """uint8 ``(N, s, s)``, ``s`` at most ``SIDE``, of uint8 ``(N, 3, H, H)``; read in chunks."""
    size = images.shape[-1]
    side = min(SIDE, size)
    shrink = _averages(size, side, 1.0, 0.0)
    copies: ImageArray = np.empty((len(images), side, side), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        red, green, blue = images[start : start + CHUNK].transpose(1, 0, 2, 3)
        part = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        copies[start : start + CHUNK] = np.rint(shrink @ part @ shrink.T)
    return copies


def seen_through(copies: ImageArray, window: Window, side: int) -> tuple[FloatArray, FloatArray]:
    """What ``window`` shows of each picture: ``(N, side**2)``, mean 0, length 1; and its contrast.

    The contrast is the standard deviation in gray levels. Brightness and contrast are taken out, so that the
    product of two rows is their normalized cross-correlation.
    """
    size = copies.shape[-1]
    rows = _averages(size, side, window.zoom, window.down)
    columns = _averages(size, side, window.zoom, window.right)
    if window.mirror:
        columns = columns[::-1]
    seen = np.empty((len(copies), side * side), dtype=np.float32)
    for start in range(0, len(copies), CHUNK):
        part = rows @ copies[start : start + CHUNK].astype(np.float32) @ columns.T
        seen[start : start + CHUNK] = part.reshape(len(part), -1)
    seen -= seen.mean(axis=1, keepdims=True)
    length = np.linalg.norm(seen, axis=1)
    seen /= np.maximum(length, 1e-6)[:, None]
    return seen, length / side


def gradients_through(copies: ImageArray, window: Window) -> FloatArray:
    """The gradients of what ``window`` shows of each picture, ``(N, d)`` of length 1, up to ``FINEST``.

    In the frequency domain: cosine coefficients times their frequency, so that the product of two rows is the
    correlation of gradients (Parseval). Faces lit alike before one background correlate in gray levels above
    0.97, and in gradients much less.
    """
    size = copies.shape[-1]
    cosines = dct(np.eye(GRADIENT_SIDE), axis=0, norm="ortho")[: FINEST + 1]
    rows = (cosines @ _averages(size, GRADIENT_SIDE, window.zoom, window.down)).astype(np.float32)
    across = _averages(size, GRADIENT_SIDE, window.zoom, window.right)
    columns = (cosines @ (across[::-1] if window.mirror else across)).astype(np.float32)
    frequency = np.hypot.outer(np.arange(FINEST + 1), np.arange(FINEST + 1)).astype(np.float32)
    frequency[frequency > FINEST] = 0.0
    seen: FloatArray = (rows @ copies.astype(np.float32) @ columns.T * frequency).reshape(len(copies), -1)
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6)
    return seen


def neighbors(window: Window) -> Iterator[Window]:
    """Windows a little larger, smaller and beside ``window``, itself among them, inside the picture."""
    for step in range(-2, 3):
        zoom = window.zoom * (1.0 + 0.0125 * step)
        if zoom <= 1.0:
            most = (1.0 - zoom) / 2
            for right in SHIFTS:
                for down in SHIFTS:
                    x = float(np.clip(window.right + right, -most, most))
                    y = float(np.clip(window.down + down, -most, most))
                    yield Window(zoom, x, y, window.mirror)


def _averages(size: int, side: int, zoom: float, shift: float) -> FloatArray:
    """``(side, size)``: each row averages the pixels under one of ``side`` equal parts of the window."""
    edges = size * ((1.0 - zoom) / 2 + shift + zoom * np.arange(side + 1) / side)
    pixel = np.arange(size)
    under = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.clip(under, 0.0, None)
    shares: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
