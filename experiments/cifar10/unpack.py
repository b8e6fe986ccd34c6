"""Unpack the zip of CIFAR-10's images into an ignored folder and write a table with a second attribute.

    python experiments/cifar10/unpack.py                      # from $PRIVHIER_DATA/cifar10/cifar10_jpeg.zip
    python experiments/cifar10/unpack.py cifar10_jpeg.zip --to runs/cifar10_images

The zip holds ``train/CLASS/NNNN.jpg``, ``test/CLASS/NNNN.jpg`` and ``labels.csv``, whose ``vehicle`` is a
matter of the class, so that no defense could hide it. ``classes.csv`` has ``bright`` instead: whether the
image's mean luminance is above the median of all.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from privhier.storage.files import write_atomic

IN_DATA = Path("cifar10") / "cifar10_jpeg.zip"


def unpack(source: Path, target: Path) -> int:
    """Every member of ``source`` under ``target``; how many. Members that would leave it are refused."""
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        inside = target.resolve()
        for name in names:
            if not (inside / name).resolve().is_relative_to(inside):
                raise SystemExit(f"{source.name}: {name!r} lies outside of the folder; nothing was unpacked")
        archive.extractall(target)
    return len(names)


def brightness(path: Path) -> float:
    """Mean luminance (ITU-R 601) of an image, 0 to 255."""
    with Image.open(path) as image:
        return float(np.asarray(image.convert("L")).mean())


def write_classes(folder: Path) -> int:
    """Write ``classes.csv`` (``image``, ``label``, ``bright``) beside ``labels.csv``; how many rows."""
    with (folder / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    light = np.array([brightness(folder / row["image"]) for row in rows])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "bright"])
    bright = light > np.median(light)
    writer.writerows([row["image"], row["label"], int(one)] for row, one in zip(rows, bright, strict=True))
    write_atomic(folder / "classes.csv", text.getvalue())
    return len(rows)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--to", type=Path, default=Path("runs/cifar10_images"))
    options = parser.parse_args()
    if options.source is None:
        if "PRIVHIER_DATA" not in os.environ:
            parser.error("name the zip, or set PRIVHIER_DATA to the folder that holds cifar10/")
        options.source = Path(os.environ["PRIVHIER_DATA"]) / IN_DATA
    if not options.source.is_file():
        parser.error(f"there is no file {options.source}")
    print(f"{unpack(options.source, options.to):,} files in {options.to}", flush=True)
    print(f"{write_classes(options.to):,} labels in {options.to / 'classes.csv'}")


if __name__ == "__main__":
    main()
