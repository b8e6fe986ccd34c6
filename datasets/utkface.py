"""UTKFace (Zhang, Song and Qi, 2017): age, gender and race in the file name, no identities."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from privhier.datasets.base import IntArray, Problem
from privhier.datasets.listing import Listing, Source, pictures_under, require_folder
from privhier.datasets.registry import datasets

GENDERS = {0: "male", 1: "female"}
OLDEST = 116
"""The authors' own bound: ages run from 0 to 116."""
COPY = re.compile(r"\s*(\(\d+\)|- Copy( \(\d+\))?)$")
"""What a file manager appends to the name of a second copy."""
RACES = {0: "White", 1: "Black", 2: "Asian", 3: "Indian", 4: "Others"}


MALFORMED = f"malformed name: [age 0-{OLDEST}]_[gender 0-1]_[race 0-4]_[date&time] expected"


@datasets.register("utkface")
class UTKFace(Source):
    """``UTKFace/``: files ``[age]_[gender]_[race]_[date&time].jpg.chip.jpg``, here or in any folder below.

    Columns: ``age`` (years), ``gender`` (0 male, 1 female), ``race`` (0 White, 1 Black, 2 Asian,
    3 Indian, 4 Others). Names of one age, gender, race and date stamp are versions of one photo: the
    in-the-wild picture, its crop, and Kaggle's second folder of crops.
    """

    folder: ClassVar[str | None] = "UTKFace"

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; a name with three or fewer fields, or codes out of range, is a problem."""
        require_folder(root, "UTKFace's folder")
        paths: list[str] = []
        labels: list[tuple[int, int, int]] = []
        problems: list[Problem] = []
        for path in pictures_under(root):
            label = _parse(path.rpartition("/")[2])
            if label is None:
                problems.append(Problem(path, MALFORMED))
            else:
                paths.append(path)
                labels.append(label)
        table = np.array(labels, dtype=np.int64).reshape(len(labels), 3)
        return Listing(
            paths=tuple(paths),
            photo=_photos(paths, labels),
            attributes={name: table[:, place] for place, name in enumerate(("age", "gender", "race"))},
            problems=tuple(problems),
            value_names={"gender": GENDERS, "race": RACES},
        )


def _photos(paths: list[str], labels: list[tuple[int, int, int]]) -> IntArray:
    numbers: dict[tuple[int, int, int, str], int] = {}
    stamps = (COPY.sub("", path.rpartition("/")[2].partition(".")[0].split("_", 3)[3]) for path in paths)
    found = [
        numbers.setdefault((*label, stamp), len(numbers)) for label, stamp in zip(labels, stamps, strict=True)
    ]
    return np.array(found, dtype=np.int64)


def _parse(name: str) -> tuple[int, int, int] | None:
    fields = name.partition(".")[0].split("_")
    if len(fields) < 4 or not all(field.isascii() and field.isdigit() for field in fields[:3]):
        return None
    if len(fields[0]) > 3 or not fields[3]:
        return None
    age, gender, race = (int(field) for field in fields[:3])
    return (age, gender, race) if age <= OLDEST and gender in GENDERS and race in RACES else None
