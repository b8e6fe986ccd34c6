"""Reconstructions as the page shows them: each beside its original, its score and the mean face."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from PIL import Image

from privhier.evaluation.sheets import ReconstructionSheet

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """One picture: what it is, where it lies (a data URI), and its score in words."""

    title: str
    uri: str
    score: str


@dataclass(frozen=True)
class Victim:
    """One record's pictures, the original first."""

    label: str
    pictures: list[Shown]


def victims_of(sheet: ReconstructionSheet) -> list[Victim]:
    """The rows of a sheet, each with the mean of the attacker's own faces where it is known."""
    mean = None if sheet.mean_image is None else data_uri("image/png", png(as_bytes(sheet.mean_image)))
    found = []
    for (label, original, own, other), scores in zip_longest(sheet.rows, sheet.scores):
        shown = [
            Shown("original", data_uri("image/png", png(original)), ""),
            Shown("reconstruction", data_uri("image/png", png(as_bytes(own))), _words(scores, 0)),
        ]
        if other is not None:
            uri = data_uri("image/png", png(as_bytes(other)))
            shown.append(Shown("from the open network", uri, _words(scores, 1)))
        if mean is not None:
            shown.append(Shown("the mean face", mean, _words(scores, 2)))
        found.append(Victim(label, shown))
    return found


def data_uri(kind: str, data: bytes) -> str:
    """Bytes inside the page itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(image: ImageArray) -> bytes:
    """An image ``(3, H, W)`` as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(stream, format="PNG")
    return stream.getvalue()


def as_bytes(image: FloatArray) -> ImageArray:
    """An image in [0, 1] as uint8; what is outside is cut, what is not a number is black."""
    return np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)


def _words(scores: Sequence[float | None] | None, place: int) -> str:
    score = None if scores is None else scores[place]
    return "" if score is None else f"SSIM {score:.3f}"
