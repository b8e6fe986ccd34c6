"""CelebA (Liu, Luo, Wang and Tang, 2015): 40 binary attributes, identities, the official partition."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.celeba_tables import Attributes, Numbers, read_attributes, read_numbers
from privhier.datasets.layouts import find, find_folder, hint_for
from privhier.datasets.listing import Listing, Source, pictures_under, require_file, require_folder
from privhier.datasets.matching import match_rows
from privhier.datasets.registry import datasets

IMAGES = ("img_align_celeba", "Img/img_align_celeba", "img_align_celeba_png", "Img/img_align_celeba_png")
ATTRIBUTES = "list_attr_celeba"
IDENTITY = "identity_CelebA"
PARTITION = "list_eval_partition"
FOLDERS = ("", "Anno/", "Eval/", "Img/")
"""Where torchvision and Kaggle (the root itself) and the authors' own folders keep the label files."""


@datasets.register("celeba")
class CelebA(Source):
    """``celeba/`` as torchvision keeps it: ``img_align_celeba/``, ``list_attr_celeba.txt`` and two more.

    Or the authors' own folders (``Anno/``, ``Eval/``, ``Img/``), or Kaggle's form: ``.csv`` files, the images
    one folder deeper, and no identities (``identity_CelebA.txt``, put beside them, adds these).

    Columns: the attributes under the file's own names (``Male``, ``Smiling``, ...), 0 or 1, and
    ``partition`` (0 train, 1 valid, 2 test). Identities are the official numbers.
    """

    folder: ClassVar[str | None] = "celeba"

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows in the order of the attribute file."""
        images = find_folder(root, IMAGES)
        if images is None:
            images = require_folder(root / IMAGES[0], "CelebA's image folder", hint=_hint(root)).name
        path = _label_file(root, ATTRIBUTES) or _required(root, ATTRIBUTES, "CelebA's attribute file")
        kaggle = path.suffix.lower() == ".csv"
        table = read_attributes(path, images)
        identity = _numbers(root, IDENTITY, "CelebA's identity file", needed=not kaggle)
        partition = _numbers(root, PARTITION, "CelebA's partition file", needed=not kaggle, most=2)
        matched = match_rows(
            [f"{images}/{file}" for file in table.files], pictures_under(root, images), path.name
        )
        problems = [*table.problems, *matched.problems]
        problems += [problem for numbers in (identity, partition) if numbers for problem in numbers.problems]
        rows: list[int] = []
        paths: list[str] = []
        for row, picture in zip(matched.rows, matched.paths, strict=True):
            # Splits are cut between people: a record whose person is not known is left out always.
            if identity is not None and table.files[row] not in identity.of:
                problems.append(Problem(picture, f"missing label: {identity.file}"))
            else:
                rows.append(row)
                paths.append(picture)
        columns, lacking = _columns(table, partition, rows)
        return Listing(
            paths=tuple(paths),
            attributes=columns,
            identity=None
            if identity is None
            else np.array([identity.of[table.files[row]] for row in rows], dtype=np.int64),
            problems=tuple(problems),
            value_names={"partition": {0: "train", 1: "valid", 2: "test"}},
            lacking=lacking,
            unavailable=_unavailable(identity, partition),
            layout=f"{'Kaggle' if kaggle else 'official'}, labels in {path.name}, images in {images}/",
        )


def _columns(
    table: Attributes, partition: Numbers | None, rows: list[int]
) -> tuple[dict[str, np.ndarray], dict[str, dict[int, str]]]:
    chosen = np.asarray(rows, dtype=np.int64)
    columns: dict[str, np.ndarray] = {}
    lacking: dict[str, dict[int, str]] = {}
    for place, name in enumerate(table.names):
        column, empty = table.values[chosen, place], table.empty[chosen, place]
        columns[name] = column.astype(np.int64)
        lacking[name] = dict.fromkeys(np.flatnonzero(empty).tolist(), f"missing label: {name}")
    if partition is not None:
        parts = [partition.of.get(table.files[row], -1) for row in rows]
        columns["partition"] = np.array(parts, dtype=np.int64)
        lacking["partition"] = {
            row: f"missing label: {partition.file}" for row, part in enumerate(parts) if part < 0
        }
    return columns, {name: gaps for name, gaps in lacking.items() if gaps}


def _unavailable(identity: Numbers | None, partition: Numbers | None) -> dict[str, str]:
    why = {}
    if identity is None:
        why["identity"] = (
            f"Kaggle's form of CelebA names no people; put the official {IDENTITY}.txt beside its tables"
        )
    if partition is None:
        why["partition"] = f"there is no {PARTITION}.csv"
    return why


def _places(stem: str) -> list[str]:
    return [f"{folder}{stem}{suffix}" for suffix in (".txt", ".csv") for folder in FOLDERS]


def _label_file(root: Path, stem: str) -> Path | None:
    place = find(root, _places(stem))
    return None if place is None else root / place


def _required(root: Path, stem: str, what: str) -> Path:
    return require_file(root / f"{stem}.txt", what, hint=hint_for(root, _places(stem)))


def _numbers(root: Path, stem: str, what: str, *, needed: bool, most: int | None = None) -> Numbers | None:
    path = _label_file(root, stem)
    if path is None:
        if not needed:
            return None
        path = _required(root, stem, what)
    return read_numbers(path, most=most)


def _hint(root: Path) -> str:
    packed = find(root, [f"{folder}img_align_celeba{end}" for folder in FOLDERS for end in (".zip", ".7z")])
    if packed is not None:
        return f"Unpack {packed} where it lies. "
    wild = find(root, [f"{folder}img_celeba" for folder in FOLDERS])
    if wild is not None:
        return f"{wild}/ holds the pictures as found in the wild; the aligned ones are read. "
    return hint_for(root, IMAGES)
