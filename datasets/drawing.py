"""Procedural faces: smooth shapes on a turning head, antialiased without supersampling.

The head is an ellipsoid seen from the front. A pixel's place on its surface, turned by yaw and pitch,
gives the coordinates features are drawn in, so eyes, mouth and hairline move and foreshorten together;
its normal gives the light. Shapes are implicit functions divided by their slope (distances to first
order), softened over one pixel: the same face at every image size.

Legend: b records, h height, w width; coordinates run from -1 (left, top) to 1 (right, bottom).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from privhier.datasets.base import ImageArray
from privhier.datasets.shapes import Float, Plane, ellipse, glow, roundness

Traits = Mapping[str, Float]
"""Name to float32 ``(n,)``, or ``(n, 3)`` for colors in 0..1; ``synthetic`` draws them all."""

VERSION = 1
"""Raise it when the same traits would give other pixels."""

BATCH = 16
"""Faces drawn at once: at 64 pixels their planes stay in a core's second-level cache."""

HEIGHT = 0.64
"""Half height of the head."""


def draw_faces(traits: Traits, size: int) -> ImageArray:
    """Draw faces as uint8 ``(n, 3, size, size)``; the same traits give the same pixels."""
    count = len(traits["yaw"])
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for start in range(0, count, BATCH):
        canvas = _Face({name: values[start : start + BATCH] for name, values in traits.items()}, size).draw()
        canvas *= 255
        canvas += 0.5
        images[start : start + BATCH] = np.clip(canvas, 0, 255, out=canvas)
    return images


class _Face:
    """A batch of faces being drawn, from the background forward."""

    def __init__(self, traits: Traits, size: int) -> None:
        # Numbers per record get two axes to broadcast over pixels; colors stay (b, 3).
        t = self.t = {name: v[:, None, None] if v.ndim == 1 else v for name, v in traits.items()}
        self.axis = axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
        dx = (axis[None, None, :] - t["x"]) / t["scale"]
        dy = (axis[None, :, None] - t["y"]) / t["scale"]
        cos, sin = np.cos(t["roll"]), np.sin(t["roll"])
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        below, above = np.maximum(v, 0), np.minimum(v, 0)
        width = t["width"] * (1 - t["taper"] * below * below - 0.25 * above * above)
        self.nx, self.ny = u / width, v / HEIGHT
        self.q = self.nx * self.nx + self.ny * self.ny
        self.nz = np.sqrt(np.maximum(1 - self.q, 0))
        # Orthographic view of a turned ellipsoid: x' = x cos(yaw) - z sin(yaw); the same for pitch.
        X = u * np.cos(t["yaw"]) - width * self.nz * np.sin(t["yaw"])
        Y = v * np.cos(t["pitch"]) - HEIGHT * self.nz * np.sin(t["pitch"])
        canvas = np.empty((len(traits["yaw"]), 3, size, size), dtype=np.float32)
        soft = t["scale"] * np.float32(size / 2)
        head = np.clip((1 - self.q) * t["width"] * 0.55 * soft + 0.5, 0, 1)
        self.plane = Plane(canvas, X, Y, u, v, head, soft)

    def draw(self) -> Float:
        plane, t = self.plane, self.t
        self._background()
        solid = np.maximum(plane.head, self._back_hair())
        self._neck_and_ears()
        plane.paint(plane.head, t["skin"])
        self._skin(self._window(-0.5, 0.6))
        self._beard(self._window(0.0, 0.75))
        self._nose(self._window(-0.15, 0.35))
        self._mouth(self._window(0.1, 0.62))
        self._eyes(self._window(-0.4, 0.15))
        solid = np.maximum(solid, self._front_hair())
        solid = np.maximum(solid, self._hat())
        self._light(solid)
        self._glasses(self._window(-0.32, 0.2))
        canvas = plane.rgb
        canvas *= t["tint"][:, :, None, None]
        return canvas

    def _window(self, top: float, bottom: float) -> Plane:
        """Pixels that can hold what lies between two heights of the head, whatever the batch's poses."""
        t, size = self.t, len(self.axis)
        tilt = 0.55 * np.abs(np.sin(t["roll"])) + HEIGHT * np.abs(np.sin(t["pitch"])) + 0.02
        first = np.searchsorted(self.axis, float((t["y"] + t["scale"] * (top - tilt)).min()))
        last = np.searchsorted(self.axis, float((t["y"] + t["scale"] * (bottom + tilt)).max()))
        reach = t["scale"] * (t["width"] + 0.12)
        left = np.searchsorted(self.axis, float((t["x"] - reach).min()))
        right = np.searchsorted(self.axis, float((t["x"] + reach).max()))
        return self.plane.window(
            slice(int(first), min(int(last), size)), slice(int(left), min(int(right), size))
        )

    def _background(self) -> None:
        plane, t, axis = self.plane, self.t, self.axis
        slope = np.cos(t["back_angle"]) * axis[None, None, :] + np.sin(t["back_angle"]) * axis[None, :, None]
        blend = 0.5 + 0.45 * slope
        near, far = (t[name][:, :, None, None] for name in ("back_near", "back_far"))
        np.multiply(blend[:, None], far - near, out=plane.rgb)
        plane.rgb[...] += near
        spot = glow(
            axis[None, None, :] - t["spot_x"], axis[None, :, None] - t["spot_y"], t["spot_r"], t["spot_r"]
        )
        plane.paint(spot * 0.8, t["back_spot"])

    def _back_hair(self) -> Float:
        """Hair behind the head: long to the shoulders, short to the ears. Returns its coverage."""
        plane, t = self.plane, self.t
        across = plane.u / (t["width"] * t["volume"] * 1.1)
        down = (plane.v - 0.12) / 0.84
        squared = across * across
        long = plane.inside((1 - squared * squared - down * down * down * down) * 0.2)
        short = ellipse(plane, plane.u, plane.v + 0.05, t["width"] * t["volume"], HEIGHT * t["volume"])
        short *= plane.inside(0.04 - plane.v)
        hair: Float = short + t["long_hair"] * (np.maximum(long, short) - short)
        plane.paint(hair, t["hair"] * 0.72)
        return hair

    def _neck_and_ears(self) -> None:
        t = self.t
        low = self._window(0.3, 1.4)
        neck = low.inside(t["neck"] + 0.25 * np.maximum(low.v - 0.72, 0) - np.abs(low.u))
        low.paint(neck * low.inside(low.v - 0.3), t["skin"] * 0.7)
        self._shoulders()
        middle = self._window(-0.22, 0.22)
        side = np.abs(middle.u + 0.1 * np.sin(t["yaw"])) - t["width"] * 0.99
        ear = ellipse(middle, side, middle.v - 0.02, t["ear"], t["ear"] * 1.9)
        ear *= 1 - 0.95 * t["long_hair"]
        middle.paint(ear, t["skin"] * 0.86)
        inner = ellipse(middle, side - 0.01, middle.v - 0.02, t["ear"] * 0.5, t["ear"])
        middle.paint(inner * ear, t["skin"] * 0.66)

    def _shoulders(self) -> None:
        plane, t = self.plane, self.t
        size = len(self.axis)
        first = int(np.searchsorted(self.axis, float((t["y"] + t["scale"] * 0.55).min())))
        low = plane.window(slice(first, size), slice(0, size))
        across = low.u / t["shoulder"]
        body: Float = low.inside(low.v - 0.76 - 0.28 * across * across)
        collar = low.inside(low.v - 0.93 + 0.9 * np.abs(low.u))
        low.paint(body * np.maximum(collar, low.inside(np.abs(low.u) - t["neck"])), t["clothes"])

    def _skin(self, plane: Plane) -> None:
        """Cheeks, the folds beside the mouth, eye sockets, and the lines of age."""
        t = self.t
        side = np.abs(plane.X)
        cheek = glow(side - 0.25, plane.Y - 0.15, 0.15, 0.12) * (0.12 + 0.2 * t["smile"])
        plane.paint(cheek, t["blush"])
        plane.shade(glow(side - t["eye_gap"], plane.Y - t["eye_y"], 0.15, 0.11), 0.86)
        plane.shade(glow(plane.X, plane.Y - 0.53, 0.12, 0.05), 1.08)
        fold_x = 0.1 + 0.28 * (plane.Y - 0.12)
        fold = plane.inside(0.011 - np.abs(side - fold_x)) * glow(side * 0, plane.Y - 0.24, 1.0, 0.12)
        plane.shade(fold, 1 - 0.32 * np.clip(t["age"] + 0.25 * t["smile"], 0, 1))
        waves = 0.5 + 0.5 * np.cos(plane.Y * 75 + plane.X * plane.X * 6)
        waves *= waves * glow(plane.X, plane.Y + 0.29, 0.27, 0.11)
        plane.shade(waves, 1 - 0.55 * t["age"])
        bag = np.abs(plane.Y - t["eye_y"] - 0.085 + (side - t["eye_gap"]) ** 2 * 4)
        bag = plane.inside(0.012 - bag) * glow(side - t["eye_gap"], side * 0, 0.1, 1.0)
        plane.shade(bag, 1 - 0.45 * t["age"])

    def _beard(self, plane: Plane) -> None:
        t = self.t
        across = plane.X * plane.X
        jaw = plane.inside(plane.Y - 0.45 + 2.3 * across)
        chin = ellipse(plane, plane.X, plane.Y - 0.49, 0.13, 0.13)
        beard = chin + t["full_beard"] * (np.maximum(jaw, chin) - chin)
        moustache = plane.inside(0.042 * (1 - across / 0.045) - np.abs(plane.Y - 0.255 - across * 1.6))
        strength = t["beard"] * t["beard_density"]
        plane.paint(np.maximum(beard, moustache) * strength * plane.head, t["hair"] * 0.85)

    def _nose(self, plane: Plane) -> None:
        t = self.t
        side, tip = np.abs(plane.X), plane.Y - t["nose_y"]
        plane.shade(glow(plane.X, tip + 0.01, t["nose_w"] * 1.5, 0.05), 0.80)
        ridge = glow(side - t["nose_w"] * 0.62, tip + 0.12, 0.035, 0.15)
        plane.shade(ridge, 0.84)
        plane.shade(glow(plane.X, tip + 0.08, 0.04, 0.17), 1.12)
        plane.shade(ellipse(plane, side - t["nose_w"] * 0.55, tip, 0.026, 0.015), 0.45)

    def _mouth(self, plane: Plane) -> None:
        """Lips around a middle line that a smile bends; teeth show where the mouth is open."""
        t = self.t
        half = t["mouth_w"] * (1 + 0.3 * t["smile"])
        squared = (plane.X / half) ** 2
        fade = 1 - squared
        bend = 0.13 * t["smile"] - 0.022
        height = plane.Y - (t["mouth_y"] - bend * (squared - 0.35))
        gap = t["open"] * fade
        upper, lower = t["lip"] * 0.75 * fade, t["lip"] * fade
        lips = plane.inside(np.minimum(height + upper + gap * 0.3, lower + gap * 0.7 - height))
        plane.paint(lips, t["lip_color"])
        hole = plane.inside(np.minimum(height + gap * 0.3, gap * 0.7 - height))
        hole *= fade > 0
        plane.paint(hole * (t["open"] > 0), t["lip_color"] * 0.28)
        teeth = plane.inside(np.minimum(height + gap * 0.3, gap * 0.45 - height))
        plane.paint(teeth * (fade > 0.08) * (t["open"] > 0) * t["teeth"], 0.95)
        line = plane.inside(0.011 - np.abs(height)) * (fade > 0) * (t["open"] <= 0)
        plane.shade(line, 0.4)
        plane.shade(glow(plane.X, plane.Y - t["mouth_y"] - 0.1, 0.1, 0.035), 0.88)

    def _eyes(self, plane: Plane) -> None:
        t = self.t
        side = np.abs(plane.X) - t["eye_gap"]
        down = plane.Y - t["eye_y"]
        squared = (side / t["eye_w"]) ** 2
        lid = t["eye_size"] * t["squint"] * (1 - squared)
        white = plane.inside(lid - np.abs(down))
        plane.paint(white, 0.94)
        looking = np.abs(plane.X - t["gaze"]) - t["eye_gap"]
        radius = t["eye_w"] * 0.44
        plane.paint(ellipse(plane, looking, down, radius, radius) * white, t["iris"])
        plane.paint(ellipse(plane, looking, down, radius * 0.5, radius * 0.5) * white, 0.03)
        plane.paint(ellipse(plane, looking + 0.012, down + 0.014, 0.012, 0.012) * white, 1.0)
        lash = plane.inside(t["lash"] - np.abs(down + lid)) * (squared < 1)
        plane.shade(lash, 0.22)
        brow = side / (t["eye_w"] * 1.35)
        arch = down + t["brow_y"] - 0.03 * brow * brow - t["brow_tilt"] * brow
        thick = t["brow_h"] * (1 - 0.65 * brow * brow)
        hairs = plane.inside(np.minimum(thick - np.abs(arch), (1 - np.abs(brow)) * 0.12))
        plane.paint(hairs * 0.9, t["hair"] * 0.55)

    def _front_hair(self) -> Float:
        """Hair over the forehead, above a curved hairline. Returns its coverage."""
        t = self.t
        plane = self.plane
        outline = ellipse(plane, plane.u, plane.v + 0.05, t["width"] * t["volume"], HEIGHT * t["volume"])
        line = t["hairline"] + (1.0 + 1.6 * t["long_hair"]) * plane.X * plane.X
        line += t["parting"] * plane.X
        hair = plane.inside(line - plane.Y) * np.maximum(outline, plane.head * (plane.v < 0))
        plane.paint(hair, t["hair"])
        strands = np.cos(plane.X * t["strand"] + plane.Y * t["strand"] * t["curl"])
        plane.shade(hair * strands, 1.13)
        return hair

    def _hat(self) -> Float:
        """A cap with a fold, or a hat with a brim. Returns its coverage."""
        plane, t = self.plane, self.t
        wide = t["width"] * np.maximum(t["volume"], 1.1) + 0.03
        crown = ellipse(plane, plane.u, plane.v + 0.16, wide, 0.66)
        edge = -0.3 + 0.35 * plane.X * plane.X * (1 - t["brim"]) - plane.Y
        crown *= plane.inside(edge) * t["hat"]
        plane.paint(crown, t["hat_color"])
        plane.shade(crown * plane.inside(0.12 - edge), 0.72)
        brim = ellipse(plane, plane.u, plane.Y + 0.3, wide * 1.45, 0.075) * t["hat"] * t["brim"]
        plane.paint(brim, t["hat_color"] * 0.82)
        hat: Float = np.maximum(crown, brim)
        return hat

    def _light(self, solid: Float) -> None:
        """Lambert's law on the ellipsoid, on everything that belongs to the head."""
        t = self.t
        facing = t["light_x"] * self.nx + t["light_y"] * self.ny + t["light_z"] * self.nz
        level = t["ambient"] + (1.18 - t["ambient"]) * np.clip(facing, 0, 1)
        level -= 1
        level *= solid
        level += 1
        self.plane.rgb[...] *= level[:, None]

    def _glasses(self, plane: Plane) -> None:
        t = self.t
        side, down = np.abs(plane.X) - t["eye_gap"], plane.Y - t["eye_y"] - 0.01
        rx, ry = t["eye_gap"] * 0.68, t["lens"]
        round_lens = roundness(side, down, rx, ry)
        square_lens = (side / rx) ** 4 + (down / ry) ** 4
        level = round_lens + t["square"] * (square_lens - round_lens)
        distance = (1 - level) * np.sqrt(rx * ry) * (0.5 - 0.25 * t["square"])
        rim = plane.inside(t["rim"] - np.abs(distance))
        bar = plane.inside(np.minimum(t["rim"] - np.abs(down + 0.02), t["eye_gap"] - rx - np.abs(plane.X)))
        temple = plane.inside(np.minimum(t["rim"] - np.abs(down + 0.02), side - rx))
        temple *= glow(plane.u, side * 0, t["width"] * 1.1, 1.0) > 0
        plane.paint(plane.inside(distance) * t["glasses"] * 0.14, 1.0)
        plane.paint(np.maximum(rim, np.maximum(bar, temple)) * t["glasses"], t["frame"])
