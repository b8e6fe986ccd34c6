"""Drawn scans as 16-bit gray PNG with a table: a stand-in to try the medical recipe on.

    python experiments/medical_drawn/drawn.py data/medical_drawn --patients 200

Each patient has three scans of one geometry. ``finding`` (the task) is a bright spot in a lung, ``sex`` (a
secret) two soft shadows below, ``site`` (a secret) the scanner: another contrast and a burned-in marker.
Site b has the finding more often (``--tied``), as where one clinic sees the severe cases: a shortcut.
Nobody's body is behind the pictures, and no number of a run on them says anything of medicine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from privhier.seeding import numpy_stream

WHITE = 65535
"""Full brightness of a 16-bit picture."""
PER_PATIENT = 3
HEADER = "image,patient,finding,sex,site"
Values = npt.NDArray[np.float64]


def main() -> None:
    """Draw, and write the scans and ``labels.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tied", type=float, default=0.3, help="phi of finding and site, -1 to 1")
    asked = parser.parse_args()
    draw(asked.folder, patients=asked.patients, size=asked.size, seed=asked.seed, tied=asked.tied)


def draw(folder: Path, *, patients: int, size: int, seed: int, tied: float) -> None:
    """Write ``folder`` with ``patients`` times ``PER_PATIENT`` scans of ``size`` pixels and their table."""
    (folder / "scans").mkdir(parents=True)
    rows = [HEADER]
    for patient in range(patients):
        person = numpy_stream(seed, "scans", "patient", patient)
        female, at_b = (bool(value) for value in person.random(2) < 0.5)
        body = person.uniform(-1, 1, 6)
        for number in range(PER_PATIENT):
            one = numpy_stream(seed, "scans", "scan", patient, number)
            finding = bool(one.random() < (1 + (tied if at_b else -tied)) / 2)
            name = f"scans/{patient:04}_{number}.png"
            pixels = scan(one, body, size=size, finding=finding, female=female, at_b=at_b)
            Image.fromarray(np.rint(pixels * WHITE).astype(np.uint16)).save(folder / name)
            rows.append(f"{name},p{patient:04},{int(finding)},{'f' if female else 'm'},{'ab'[at_b]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def scan(
    stream: np.random.Generator, body: Values, *, size: int, finding: bool, female: bool, at_b: bool
) -> Values:
    """One scan, float64 ``(size, size)`` in [0, 1]."""
    across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    across, down = across + stream.uniform(-0.06, 0.06), down + stream.uniform(-0.06, 0.06)
    picture = 0.62 + 0.06 * down + 0.03 * stream.standard_normal((size, size))
    sides = (-1, 1)
    for side, wide, high in zip(sides, body[:2], body[2:4], strict=True):
        lung = _spot(across - 0.42 * side, down + 0.05, 0.27 + 0.03 * wide, 0.55 + 0.05 * high)
        picture -= 0.34 * lung
    for rib in np.linspace(-0.6, 0.5, 7) + 0.03 * body[4]:
        picture += 0.05 * np.exp(-(((down - rib - 0.25 * across**2) / 0.035) ** 2))
    picture += 0.22 * np.exp(-((across / (0.09 + 0.01 * body[5])) ** 2))  # the spine
    if female:
        picture += 0.1 * sum(_spot(across - 0.45 * side, down - 0.6, 0.3, 0.22) for side in sides)
    side, height = stream.choice(sides), stream.uniform(-0.4, 0.3)  # drawn in every scan, shown in some
    if finding:
        picture += 0.3 * _spot(across - 0.42 * side, down - height, 0.12, 0.12)
    picture = np.clip(picture, 0, 1)
    if at_b:
        picture = 0.08 + 0.84 * picture**0.85
        picture[: size // 10, : size // 10] = 0.97  # the marker
    return np.clip(picture, 0, 1)


def _spot(across: Values, down: Values, wide: float, high: float) -> Values:
    """A soft ellipse of height 1 about the origin."""
    return np.asarray(1 / (1 + np.exp(8 * (np.hypot(across / wide, down / high) - 1))))


if __name__ == "__main__":
    main()
