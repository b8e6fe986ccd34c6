"""Labeled Faces in the Wild (Huang, Ramesh, Berg and Learned-Miller, 2007): people, and their gender."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.listing import Listing, Source, pictures_under, require_file, require_folder

FOLDERS = {"deepfunneled": "lfw-deepfunneled", "funneled": "lfw_funneled", "original": "lfw"}
LISTS = ("male_names.txt", "female_names.txt")


class LFW(Source):
    """``lfw-py/`` as torchvision's LFWPeople keeps it: ``lfw-deepfunneled/Name/Name_0001.jpg``.

    Column: ``gender`` (0 male, 1 female), one value a person: the majority of that person's images in
    ``male_names.txt`` and ``female_names.txt``. People listed in neither, or equally in both, are
    reported and skipped. Identity numbers follow the sorted names of all people in the folder.

    Args:
        variant: Which of the three releases to read.
    """

    folder: ClassVar[str | None] = "lfw-py"

    variant: Literal["deepfunneled", "funneled", "original"] = "deepfunneled"

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows sorted by path."""
        images = FOLDERS[self.variant]
        require_folder(root / images, "LFW's image folder")
        votes: dict[str, Counter[int]] = {}
        listed: list[tuple[str, str]] = []
        for gender, label_file in enumerate(LISTS):
            text = require_file(root / label_file, f"LFW's {label_file}").read_text(encoding="utf-8")
            for name in text.split():
                person = name.rpartition("_")[0]
                votes.setdefault(person, Counter())[gender] += 1
                listed.append((f"{images}/{person}/{name}", label_file))
        pictures = pictures_under(root, images)
        people = {
            person: number for number, person in enumerate(sorted({_person(path) for path in pictures}))
        }
        paths: list[str] = []
        genders: list[int] = []
        problems: list[Problem] = []
        for path in pictures:
            counts = votes.get(_person(path), Counter())
            if counts[0] == counts[1]:
                why = "listed as both" if counts[0] else "in neither list"
                problems.append(Problem(path, f"no gender for this person: {why}"))
            else:
                paths.append(path)
                genders.append(int(counts[1] > counts[0]))
        present = set(pictures)
        problems.extend(
            Problem(path, f"label row without image: {label_file}")
            for path, label_file in listed
            if path not in present
        )
        return Listing(
            paths=tuple(paths),
            attributes={"gender": np.array(genders, dtype=np.int64)},
            identity=np.array([people[_person(path)] for path in paths], dtype=np.int64),
            problems=tuple(problems),
            value_names={"gender": {0: "male", 1: "female"}},
        )


def _person(path: str) -> str:
    return path.split("/")[-2]
