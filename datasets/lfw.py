"""Labeled Faces in the Wild (Huang, Ramesh, Berg and Learned-Miller, 2007): people, and their gender."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.label_text import clean, read_lines
from privhier.datasets.layouts import find, find_folder, folders_in, hint_for
from privhier.datasets.listing import (
    Column,
    Listing,
    Source,
    pictures_under,
    require_file,
    require_folder,
)
from privhier.datasets.matching import match_rows
from privhier.datasets.registry import datasets

FOLDERS = {"deepfunneled": "lfw-deepfunneled", "funneled": "lfw_funneled", "original": "lfw"}
HOMES = ("", "lfw_home/", "lfw-py/")
"""The root itself (torchvision, Kaggle), scikit-learn's folder, torchvision's folder."""

LISTS = ("male_names.txt", "female_names.txt")
PICTURE = re.compile(r"(.+)_[0-9]+\.[^.]+")
LISTED = re.compile(r"(.+)_[0-9]+(\.[^.]+)?")


@datasets.register("lfw")
class LFW(Source):
    """``lfw-py/`` as torchvision's LFWPeople keeps it: ``lfw-deepfunneled/Name/Name_0001.jpg``.

    Or as scikit-learn keeps it (``lfw_home/lfw_funneled/``), or Kaggle, one folder deeper.

    Column: ``gender`` (0 male, 1 female), one value a person: the majority of that person's images in
    ``male_names.txt`` and ``female_names.txt``. People listed in neither, or equally in both, are
    reported and skipped. Without the two lists (scikit-learn and Kaggle have none) there is no gender, only
    people. Identity numbers follow the sorted names of all people in the folder.

    Args:
        variant: Which of the three releases to read; none: the first of them that is there.
    """

    folder: ClassVar[str | None] = "lfw-py"

    variant: Literal["deepfunneled", "funneled", "original"] | None = None

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows sorted by path."""
        images = self._images(root)
        lists = _lists(root, images)
        pictures, problems = _of_people(pictures_under(root, images), images.count("/") + 2)
        people = {name: number for number, name in enumerate(sorted({_person(path) for path in pictures}))}
        genders: dict[str, int] | None = None
        if lists is not None:
            genders, unmatched = _genders(lists, images, pictures)
            problems += unmatched
            kept = [path for path in pictures if _person(path) in genders]
        else:
            kept = pictures
        columns: dict[str, Column] = {}
        if genders is not None:
            columns["gender"] = np.array([genders[_person(path)] for path in kept], dtype=np.int64)
        return Listing(
            paths=tuple(kept),
            attributes=columns,
            identity=np.array([people[_person(path)] for path in kept], dtype=np.int64),
            problems=tuple(problems),
            value_names={"gender": {0: "male", 1: "female"}},
            unavailable={} if columns else {"gender": f"{' and '.join(LISTS)} are not there"},
            layout=f"images in {images}/, {'with' if columns else 'without'} genders",
        )

    def _images(self, root: Path) -> str:
        variants = list(FOLDERS) if self.variant is None else [self.variant]
        places = [f"{home}{FOLDERS[variant]}" for variant in variants for home in HOMES]
        images = find_folder(root, places)
        if images is not None and not set(FOLDERS.values()).intersection(folders_in(root / images)):
            return images
        hint = hint_for(root, places)
        others = find(root, [f"{home}{name}" for name in FOLDERS.values() for home in HOMES])
        if self.variant is not None and others is not None:
            hint = f"Set dataset.options.variant: {others}/ is there. "
        return require_folder(root / FOLDERS[variants[0]], "LFW's image folder", hint=hint).name


def _lists(root: Path, images: str) -> tuple[Path, Path] | None:
    """Both lists of genders, beside the images' folder or in the root; None where there is neither."""
    homes = [f"{parent}/" for parent in Path(images).parents if str(parent) != "."]
    found = [find(root, [f"{home}{name}" for home in ("", *homes)]) for name in LISTS]
    if found[0] is None and found[1] is None:
        return None
    male, female = (
        require_file(root / (place or name), f"LFW's {name}")
        for place, name in zip(found, LISTS, strict=True)
    )
    return male, female


def _of_people(pictures: list[str], depth: int) -> tuple[list[str], list[Problem]]:
    kept: list[str] = []
    problems: list[Problem] = []
    for path in pictures:
        match = PICTURE.fullmatch(path.rpartition("/")[2])
        at_home = path.count("/") == depth
        if match is not None and at_home and _spelled(match[1]) == _person(path):
            kept.append(path)
        else:
            problems.append(Problem(path, "malformed name: Name/Name_0001.jpg expected"))
    return kept, problems


def _genders(
    lists: tuple[Path, Path], images: str, pictures: list[str]
) -> tuple[dict[str, int], list[Problem]]:
    votes: dict[str, Counter[int]] = {}
    problems: list[Problem] = []
    for gender, label_file in enumerate(lists):
        named, malformed = _listed(label_file)
        for person, _ in named:
            votes.setdefault(person, Counter())[gender] += 1
        listed = match_rows(
            [f"{images}/{person}/{name}" for person, name in named], pictures, label_file.name
        ).problems
        # An image in neither list is no problem: its person's other images say the gender.
        problems += [*malformed, *(one for one in listed if not one.reason.startswith("image without"))]
    genders: dict[str, int] = {}
    for path in pictures:
        person = _person(path)
        counts = votes.get(person, Counter())
        if counts[0] == counts[1]:
            why = "listed as both" if counts[0] else "in neither list"
            problems.append(Problem(path, f"no gender for this person: {why}"))
        else:
            genders[person] = int(counts[1] > counts[0])
    return genders, problems


def _listed(label_file: Path) -> tuple[list[tuple[str, str]], list[Problem]]:
    """The person and the file of every name in a list."""
    named: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for line, text in enumerate(read_lines(label_file), 1):
        for name in clean(text).split():
            match = LISTED.fullmatch(name)
            if match is not None:
                named.append((_spelled(match[1]), name))
            else:
                where = f"{label_file.name} line {line}"
                problems.append(Problem(where, "malformed label row: Name_0001.jpg expected"))
    return named, problems


def _person(path: str) -> str:
    return _spelled(path.split("/")[-2])


def _spelled(name: str) -> str:
    return unicodedata.normalize("NFC", name)
