"""Antialiased shapes for drawing: implicit functions over planes of pixels, painted onto a canvas.

Legend: b records, h height, w width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
"""float32 throughout: Python numbers do not widen it (NumPy 2), though its stubs think so."""
Number = Float | float


@dataclass(frozen=True)
class Plane:
    """A rectangle of the canvas with the coordinates of its pixels.

    Attributes:
        rgb: float32 ``(b, 3, h, w)`` in 0..1, a view of the canvas; painting changes it in place.
        X, Y: float32 ``(b, h, w)``, coordinates on the turned head.
        u, v: float32 ``(b, h, w)``, coordinates in the picture plane, upright with the head.
        head: float32 ``(b, h, w)``, coverage of the head's outline.
        soft: float32 ``(b, 1, 1)``, pixels per unit of these coordinates.
    """

    rgb: Float
    X: Float
    Y: Float
    u: Float
    v: Float
    head: Float
    soft: Float

    def window(self, rows: slice, columns: slice) -> Plane:
        """The part in these pixel rows and columns."""
        planes = (self.X, self.Y, self.u, self.v, self.head)
        X, Y, u, v, head = (plane[:, rows, columns] for plane in planes)
        return Plane(self.rgb[:, :, rows, columns], X, Y, u, v, head, self.soft)

    def inside(self, distance: Float) -> Float:
        """Coverage 0..1 of pixels at a signed distance (positive inside), soft over one pixel."""
        coverage: Float = distance * self.soft
        coverage += 0.5
        return np.clip(coverage, 0, 1, out=coverage)

    def paint(self, coverage: Float, color: Number) -> None:
        """Lay ``color``, float32 ``(b, 3)`` or a gray level, over the canvas where ``coverage`` is."""
        tone = color[:, :, None, None] if isinstance(color, np.ndarray) else np.float32(color)
        difference = tone - self.rgb
        difference *= coverage[:, None]
        self.rgb[...] += difference

    def shade(self, coverage: Float, factor: Number) -> None:
        """Multiply the canvas by ``factor`` where ``coverage`` is."""
        self.rgb[...] *= (1 + coverage * (np.float32(factor) - 1))[:, None]


def ellipse(plane: Plane, x: Float, y: Float, rx: Number, ry: Number) -> Float:
    """Coverage of the ellipse with half axes ``rx``, ``ry`` around the origin of the planes ``x``, ``y``."""
    return plane.inside((1 - roundness(x, y, rx, ry)) * np.sqrt(np.float32(rx * ry)) * np.float32(0.5))


def glow(x: Float, y: Float, rx: Number, ry: Number) -> Float:
    """A spot that fades from 1 at its centre to 0 at the ellipse's edge."""
    spot: Float = np.maximum(1 - roundness(x, y, rx, ry), 0)
    return spot


def roundness(x: Float, y: Float, rx: Number, ry: Number) -> Float:
    """The ellipse's implicit function: 0 at the centre, 1 on its edge."""
    across, down = x / np.float32(rx), y / np.float32(ry)
    total: Float = across * across + down * down
    return total
