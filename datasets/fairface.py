"""FairFace (Karkkainen and Joo, 2021): age group, gender and race balanced over seven groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import field_validator

from privhier.datasets.base import Problem
from privhier.datasets.cells import is_missing, spreadsheet_date
from privhier.datasets.layouts import find, folders_in, hint_for
from privhier.datasets.listing import (
    Listing,
    Source,
    malformed_file,
    pictures_under,
    require_file,
    require_folder,
)
from privhier.datasets.matching import match_rows
from privhier.datasets.registry import datasets
from privhier.datasets.tables import Table, read_table

AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
GENDERS = ("Male", "Female")
RACES = (
    "White",
    "Black",
    "Indian",
    "East Asian",
    "Southeast Asian",
    "Middle Eastern",
    "Latino_Hispanic",
)
VALUES = {"age": AGES, "gender": GENDERS, "race": RACES, "service_test": ("True", "False")}
"""Every column's values; there are no others."""

PARTS = ("train", "val")
PADDINGS = {0.25: ("025", "0.25"), 1.25: ("125", "1.25")}
"""How much of the picture around a face is kept, and how folders name it."""


@datasets.register("fairface")
class FairFace(Source):
    """``fairface/``: ``fairface_label_{train,val}.csv`` and images ``{train,val}/1.jpg``.

    The images may lie one folder deeper (``fairface-img-margin025-trainval/train/``), one part may be
    missing, and Kaggle's ``{train,val}_labels.csv`` are read too.

    Columns, as the files have them: ``age`` ("0-2" ... "more than 70"), ``gender`` ("Male",
    "Female"), ``race`` ("White", "East Asian", ...), ``service_test`` ("True", "False"); and
    ``partition`` ("train", "val"). No identities.

    Args:
        padding: Which of the two releases to read where both are there: 0.25 or 1.25.
    """

    folder: ClassVar[str | None] = "fairface"
    names_repeat: ClassVar[bool] = True

    padding: float | None = None

    @field_validator("padding")
    @classmethod
    def _known(cls, padding: float | None) -> float | None:
        if padding is not None and padding not in PADDINGS:
            raise ValueError("must be 0.25 or 1.25")
        return padding

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; the training file's rows, then the validation file's."""
        base = self._base(root)
        rows = _Rows()
        found = 0
        for part in PARTS:
            images = f"{base}{part}"
            labels = find(root, _label_places(base, part))
            if labels is not None and (root / images).is_dir():
                rows.add(root, base, part, read_table(root / labels, ["file", *VALUES]))
                found += 1
            elif labels is not None:
                rows.problems.append(Problem(labels, f"part not read: its images ({images}/) are missing"))
            elif (root / images).is_dir():
                label_file = f"fairface_label_{part}.csv"
                rows.problems.append(Problem(f"{images}/", f"part not read: {label_file} is missing"))
        if not found:
            _refuse_nothing(root, base)
        return rows.listing(f"images in {' and '.join(f'{base}{part}' for part in rows.parts)}")

    def _base(self, root: Path) -> str:
        """Where ``train/`` and ``val/`` lie: ``""``, or a folder of the root with a ``/`` at its end."""
        bases = [
            base
            for base in ("", *(f"{name}/" for name in folders_in(root) if name not in PARTS))
            if set(PARTS).intersection(folders_in(root / base))
        ]
        named = {
            padding: [base for base in bases if any(mark in base for mark in marks)]
            for padding, marks in PADDINGS.items()
        }
        if self.padding is not None:
            plain = [base for base in bases if not any(base in group for group in named.values())]
            bases = named[self.padding] or (plain[:1] if "" in plain else plain)
        elif "" in bases:
            bases = ["", *(base for group in named.values() for base in group)]
        if len(bases) > 1:
            raise malformed_file(
                root,
                f"holds the images several times: {', '.join(base or 'train/, val/' for base in bases)}",
                "Set dataset.options.padding to 0.25 or 1.25, or dataset.root to one of these folders",
            )
        return bases[0] if bases else ""


@dataclass
class _Rows:
    paths: list[str] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    lacking: dict[str, dict[int, str]] = field(default_factory=lambda: {name: {} for name in VALUES})
    problems: list[Problem] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def add(self, root: Path, base: str, part: str, table: Table) -> None:
        table.require(sorted({"file", *VALUES}), "Use the official file")
        self.parts.append(f"{part}/")
        self.problems.extend(table.problems)
        columns = {name: table.column(name) for name in VALUES}
        named = [cell.replace("\\", "/") for cell in table.column("file")]
        start = base if any(cell.startswith(f"{part}/") for cell in named) else f"{base}{part}/"
        rows = [row for row, cell in enumerate(named) if not is_missing(cell)]
        self.problems += [
            Problem(f"{table.path.name} line {table.lines[row]}", "label row without a file name")
            for row in sorted(set(range(len(named))).difference(rows))
        ]
        matched = match_rows(
            [f"{start}{named[row]}" for row in rows], pictures_under(root, f"{base}{part}"), table.path.name
        )
        self.problems.extend(matched.problems)
        for place, path in zip(matched.rows, matched.paths, strict=True):
            labels = []
            for name, column in columns.items():
                label, why = _label(name, column[rows[place]])
                if why:
                    self.lacking[name][len(self.paths)] = why
                labels.append(label)
            self.paths.append(path)
            self.cells.append([*labels, part])

    def listing(self, layout: str) -> Listing:
        table = np.array(self.cells, dtype=str).reshape(len(self.cells), len(VALUES) + 1)
        return Listing(
            paths=tuple(self.paths),
            attributes={name: table[:, place] for place, name in enumerate((*VALUES, "partition"))},
            problems=tuple(self.problems),
            lacking={name: gaps for name, gaps in self.lacking.items() if gaps},
            layout=layout,
        )


KNOWN = {name: {value.casefold(): value for value in values} for name, values in VALUES.items()}


def _label(name: str, cell: str) -> tuple[str, str]:
    """The value that a cell writes, or ``""`` and why it is none."""
    known = KNOWN[name].get(cell.casefold())
    if known is not None:
        return known, ""
    if is_missing(cell):
        return "", f"missing label: {name}"
    date = spreadsheet_date(cell) if name == "age" else None
    if date is not None:
        return "", f"unreadable label: {name} is {cell!r}: a spreadsheet made a date of {date}"
    return "", f"unreadable label: {name} is {cell[:40]!r}: not one of {', '.join(VALUES[name])}"


def _label_places(base: str, part: str) -> list[str]:
    names = (f"fairface_label_{part}.csv", f"{part}_labels.csv", f"fairface_{part}.csv")
    return [f"{folder}{name}" for name in names for folder in dict.fromkeys((base, ""))]


def _refuse_nothing(root: Path, base: str) -> None:
    """Say which of the two is missing where no part has both its images and its labels."""
    hint = hint_for(root, [place for part in PARTS for place in _label_places("", part)])
    for part in PARTS:
        label_file = f"fairface_label_{part}.csv"
        if (root / f"{base}{part}").is_dir():
            require_file(root / label_file, f"FairFace's {label_file}", hint=hint)
    require_folder(root / PARTS[0], f"FairFace's {PARTS[0]} folder", hint=hint)
