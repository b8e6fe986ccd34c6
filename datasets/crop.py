"""Which square of a picture is kept: the centre, or the face that MTCNN finds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; square."""

MARGIN = 1.3
"""Side of the kept square over the longer side of the detected face: hairline and chin stay in."""

LARGEST = 4_000_000
"""Above so many pixels MTCNN searches a picture reduced by a whole number: its memory is several hundred
bytes a pixel."""

SMALLEST = 24
"""Pictures with a shorter side than this (pixels) are below MTCNN's smallest face of 20 pixels."""


def center_square(width: int, height: int) -> Box:
    """The largest centred square of a ``width`` x ``height`` picture."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def square_around(face: Sequence[float], width: int, height: int) -> Box:
    """The square of ``MARGIN`` times the face's longer side around its centre, moved inside the picture."""
    left, top, right, bottom = face
    side = min(MARGIN * max(right - left, bottom - top), width, height)
    x = min(max((left + right - side) / 2, 0.0), width - side)
    y = min(max((top + bottom - side) / 2, 0.0), height - side)
    return x, y, x + side, y + side


class FaceFinder:
    """MTCNN of facenet-pytorch 2.5 (Zhang et al., 2016; weights in its wheel), on the CPU.

    Of several faces the one nearest the picture's centre is kept: in the data sets here the labeled
    person stands there, and the largest face may be a bystander's.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # facenet-pytorch 2.5 predates some deprecations of torch
            from facenet_pytorch import MTCNN  # imported only where asked for: it takes a second

            self._network = MTCNN(keep_all=True, device="cpu")

    def find(self, picture: Image.Image) -> Box | None:
        """The square around the face in an RGB picture, or None where no face is found."""
        if min(picture.size) < SMALLEST:
            return None
        factor = math.ceil(math.sqrt(picture.width * picture.height / LARGEST))
        searched = picture.reduce(factor) if factor > 1 else picture
        boxes: npt.NDArray[np.generic] | None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxes, _ = self._network.detect(searched)
        if boxes is None or len(boxes) == 0:
            return None
        faces = np.asarray(boxes, dtype=np.float64) * factor
        centers = (faces[:, :2] + faces[:, 2:]) / 2
        nearest = int(np.argmin(((centers - np.array(picture.size) / 2) ** 2).sum(axis=1)))
        return square_around(faces[nearest].tolist(), *picture.size)
