"""Synthetic faces: who they are, how each picture differs, and their ground-truth attributes.

A person is a fixed draw of geometry and color; pictures of one person vary in pose, light, expression,
hat and background. No picture of anybody is behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from privhier.datasets.base import ImageArray, IntArray
from privhier.datasets.drawing import VERSION, draw_faces
from privhier.datasets.listing import Listing, Source
from privhier.datasets.registry import datasets
from privhier.registry import nearest
from privhier.seeding import numpy_stream

Float = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

OF_PERSON = {"male": 0.5, "dark_hair": 0.5, "glasses": 0.3, "beard": 0.45}
"""Binary attributes fixed for a person, and how often they are 1 (beard: among men)."""
OF_PICTURE = {"smiling": 0.5, "hat": 0.2}
"""Binary attributes drawn for each picture."""

SKINS = np.array([(0.96, 0.79, 0.68), (0.87, 0.66, 0.51), (0.67, 0.46, 0.32), (0.42, 0.27, 0.19)])
DARK_HAIRS = np.array([(0.07, 0.06, 0.06), (0.16, 0.10, 0.07), (0.24, 0.15, 0.10)])
FAIR_HAIRS = np.array([(0.88, 0.72, 0.42), (0.68, 0.32, 0.14), (0.58, 0.41, 0.25), (0.80, 0.62, 0.34)])
GRAY_HAIR = np.array((0.74, 0.74, 0.73))
IRISES = np.array([(0.25, 0.14, 0.08), (0.30, 0.48, 0.66), (0.30, 0.46, 0.28), (0.42, 0.30, 0.14)])

PERSON_RANGES = {
    "width": (0.455, 0.525),
    "taper": (0.30, 0.62),
    "eye_gap": (0.185, 0.235),
    "eye_w": (0.082, 0.108),
    "eye_size": (0.038, 0.056),
    "eye_y": (-0.09, -0.03),
    "brow_y": (0.105, 0.135),
    "brow_tilt": (-0.022, 0.022),
    "nose_w": (0.055, 0.085),
    "nose_y": (0.13, 0.185),
    "mouth_w": (0.160, 0.205),
    "mouth_y": (0.335, 0.385),
    "ear": (0.045, 0.07),
    "volume": (1.05, 1.19),
    "hairline": (-0.48, -0.34),
    "parting": (-0.28, 0.28),
    "strand": (30.0, 60.0),
    "curl": (-0.8, 0.8),
    "beard_density": (0.6, 0.95),
    "lens": (0.085, 0.115),
    "rim": (0.011, 0.02),
}
PICTURE_RANGES = {
    "yaw": (-0.36, 0.36),
    "pitch": (-0.14, 0.14),
    "roll": (-0.15, 0.15),
    "x": (-0.05, 0.05),
    "y": (-0.02, 0.06),
    "scale": (1.0, 1.17),
    "light_x": (-0.75, 0.75),
    "light_y": (-0.65, 0.1),
    "ambient": (0.5, 0.72),
    "gaze": (-0.03, 0.03),
    "back_angle": (0.0, 6.2832),
    "spot_x": (-1.0, 1.0),
    "spot_y": (-1.0, 0.4),
    "spot_r": (0.3, 1.0),
}


@datasets.register("synthetic")
class Synthetic(Source):
    """Drawn faces with known truth; nothing is read from disk.

    Columns: ``smiling``, ``male``, ``glasses``, ``hat``, ``beard``, ``dark_hair`` (0 or 1), ``skin``
    (0 light, 1 medium, 2 tan, 3 dark), ``age`` (years, 18 to 80). ``smiling`` and ``hat`` belong to the
    picture, the others to the person. Faces depend on the run's seed.

    Args:
        images: Number of pictures.
        identities: Number of people; pictures are shared out evenly.
        correlated: Two of the binary attributes, tied by ``correlation``; each is then 1 half the time.
        correlation: Their phi coefficient, -1 to 1; between attributes of the person, over people.
    """

    on_disk: ClassVar[bool] = False

    images: int = Field(4000, ge=1)
    identities: int = Field(200, ge=1)
    correlated: tuple[str, str] = ("smiling", "male")
    correlation: float = Field(0.0, ge=-1, le=1)

    @field_validator("correlated")
    @classmethod
    def _known(cls, pair: tuple[str, str]) -> tuple[str, str]:
        known = [*OF_PERSON, *OF_PICTURE]
        for name in pair:
            if name not in known:
                raise ValueError(f"must name two of its attributes, {name!r} is none. {nearest(name, known)}")
        if pair[0] == pair[1]:
            raise ValueError("must name two different attributes")
        return pair

    @model_validator(mode="after")
    def _enough(self) -> Synthetic:
        if self.identities > self.images:
            raise ValueError(f"identities ({self.identities}) may not exceed images ({self.images})")
        return self

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; draws who is in each picture, and draws no pixel yet."""
        person = np.arange(self.images, dtype=np.int64) % self.identities
        flags = self._flags(person, seed)
        skin = _stream(seed, "skin").integers(0, len(SKINS), self.identities)
        age = _stream(seed, "age").integers(18, 81, self.identities)
        people = _people(flags, skin, age, seed)
        pictures = _pictures(flags, self.images, seed)

        def render(rows: IntArray, size: int) -> ImageArray:
            traits = {name: values[person[rows]] for name, values in people.items()}
            traits |= {name: values[rows] for name, values in pictures.items()}
            return draw_faces(traits, size)

        columns = {
            name: (values if name in OF_PICTURE else values[person]).astype(np.int64)
            for name, values in flags.items()
        }
        return Listing(
            paths=tuple(f"face-{VERSION}-{seed}-{row}" for row in range(self.images)),
            attributes={
                **columns,
                "skin": skin[person].astype(np.int64),
                "age": age[person].astype(np.int64),
            },
            identity=person,
            value_names={"skin": {0: "light", 1: "medium", 2: "tan", 3: "dark"}},
            render=render,
        )

    def _flags(self, person: IntArray, seed: int) -> dict[str, Flags]:
        """The binary attributes, of people (``identities`` values) and of pictures (``images`` values)."""
        tied = set(self.correlated) if self.correlation else set()
        draws = {
            name: _stream(seed, name).random(self.images if name in OF_PICTURE else self.identities)
            for name in (*OF_PERSON, *OF_PICTURE)
        }
        shares = {**OF_PERSON, **OF_PICTURE}
        flags = {name: draw < (0.5 if name in tied else shares[name]) for name, draw in draws.items()}
        if tied:
            # With both at one half, P(second == first) = (1 + phi) / 2. A person's attribute leads, since
            # a picture's can follow it but not the other way round.
            first, second = sorted(self.correlated, key=lambda name: name in OF_PICTURE)
            lead = flags[first]
            if first in OF_PERSON and second in OF_PICTURE:
                lead = lead[person]
            flags[second] = lead == (draws[second] < (1 + self.correlation) / 2)
        if "beard" not in tied:
            flags["beard"] &= flags["male"]
        return flags


def _stream(seed: int, name: str) -> np.random.Generator:
    return numpy_stream(seed, "synthetic", name)


def _uniform(seed: int, ranges: dict[str, tuple[float, float]], count: int) -> dict[str, Float]:
    return {
        name: _stream(seed, name).uniform(low, high, count).astype(np.float32)
        for name, (low, high) in ranges.items()
    }


def _color(seed: int, name: str, base: npt.NDArray[np.float64], jitter: float) -> Float:
    noise = _stream(seed, name).uniform(-jitter, jitter, base.shape)
    return np.clip(base + noise, 0.02, 1).astype(np.float32)


def _chance(seed: int, name: str, count: int, share: float | Float) -> Float:
    return (_stream(seed, name).random(count) < share).astype(np.float32)


def _people(flags: dict[str, Flags], skin: IntArray, age: IntArray, seed: int) -> dict[str, Float]:
    """Geometry and color of each person; gender moves several by about half their spread."""
    count = len(skin)
    male = flags["male"].astype(np.float32)
    traits = _uniform(seed, PERSON_RANGES, count)
    traits["width"] += 0.02 * male
    traits["taper"] -= 0.22 * male
    traits["neck"] = 0.17 + 0.075 * male
    traits["shoulder"] = 0.78 + 0.2 * male
    traits["brow_h"] = 0.014 + 0.018 * male + 0.008 * _stream(seed, "brow_h").random(count).astype(np.float32)
    traits["brow_y"] -= 0.018 * male
    traits["lash"] = 0.022 - 0.012 * male
    traits["lip"] = 0.046 - 0.016 * male + 0.008 * _stream(seed, "lip").random(count).astype(np.float32)
    traits["hairline"] -= 0.05 * male
    traits["long_hair"] = _chance(seed, "long_hair", count, 0.78 - 0.70 * male)
    traits["full_beard"] = _chance(seed, "full_beard", count, 0.65)
    traits["square"] = _chance(seed, "square", count, 0.5)
    traits["glasses"], traits["beard"] = (flags[name].astype(np.float32) for name in ("glasses", "beard"))
    traits["age"] = (np.clip((age - 30) / 45, 0, 1)).astype(np.float32)
    traits["skin"] = _color(seed, "skin_tone", SKINS[skin], 0.025)
    traits["hair"] = _hair(flags["dark_hair"], age, seed)
    iris = _stream(seed, "iris").integers(0, len(IRISES), count)
    traits["iris"] = _color(seed, "iris_tone", IRISES[iris], 0.05)
    traits["frame"] = _color(seed, "frame", np.full((count, 3), 0.16), 0.14)
    paint = (0.35 * (1 - male))[:, None] * np.array([(0.72, 0.12, 0.18)], dtype=np.float32)
    natural = traits["skin"] * np.array([(0.80, 0.58, 0.56)], dtype=np.float32)
    traits["lip_color"] = natural * (1 - 0.35 * (1 - male))[:, None] + paint
    traits["blush"] = np.clip(traits["skin"] * np.array([(1.0, 0.70, 0.66)], dtype=np.float32), 0, 1)
    return traits


def _hair(dark: Flags, age: IntArray, seed: int) -> Float:
    draw = _stream(seed, "hair")
    fair = FAIR_HAIRS[draw.integers(0, len(FAIR_HAIRS), len(age))]
    # Only hair that was not dark turns gray here, so that dark_hair stays what the eye sees.
    gray = np.clip((age - 45) / 25, 0, 1) * (draw.random(len(age)) < 0.8)
    fair = fair + gray[:, None] * (GRAY_HAIR - fair)
    base = np.where(dark[:, None], DARK_HAIRS[draw.integers(0, len(DARK_HAIRS), len(age))], fair)
    return _color(seed, "hair_tone", base, 0.03)


def _pictures(flags: dict[str, Flags], count: int, seed: int) -> dict[str, Float]:
    """Pose, light, expression and surroundings of each picture."""
    traits = _uniform(seed, PICTURE_RANGES, count)
    traits["light_z"] = np.sqrt(np.maximum(1 - traits["light_x"] ** 2 - traits["light_y"] ** 2, 0.1))
    smiling = flags["smiling"].astype(np.float32)
    degree = _stream(seed, "degree").random(count).astype(np.float32)
    traits["smile"] = smiling * (0.7 + 0.3 * degree) + (1 - smiling) * 0.15 * degree
    # Most smiles show teeth, and some neutral mouths are open: teeth alone do not give a smile away.
    parted = _chance(seed, "parted", count, 0.15 + 0.65 * smiling)
    traits["open"] = parted * (
        0.04 + 0.025 * smiling + 0.04 * _stream(seed, "open").random(count).astype(np.float32)
    )
    traits["teeth"] = _chance(seed, "teeth", count, 0.5 + 0.5 * smiling)
    traits["squint"] = (
        1 - 0.3 * smiling * degree - 0.15 * _stream(seed, "lids").random(count).astype(np.float32)
    )
    traits["hat"] = flags["hat"].astype(np.float32)
    traits["brim"] = _chance(seed, "brim", count, 0.5)
    for name in ("hat_color", "clothes"):
        traits[name] = _color(seed, name, np.full((count, 3), 0.45), 0.38)
    for name in ("back_near", "back_far", "back_spot"):
        traits[name] = _color(seed, name, np.full((count, 3), 0.55), 0.28)
    exposure = _stream(seed, "exposure").uniform(0.85, 1.12, (count, 1))
    traits["tint"] = (exposure * _stream(seed, "tint").uniform(0.94, 1.06, (count, 3))).astype(np.float32)
    return traits
