"""Any other faces: a folder of images and one table (CSV) that labels them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np

from privhier.datasets.base import IntArray, Problem
from privhier.datasets.cells import is_missing, one_spelling, read_labels
from privhier.datasets.layouts import hint_for, there
from privhier.datasets.listing import Listing, Source, pictures_under, require_file, require_folder
from privhier.datasets.matching import match_rows
from privhier.datasets.registry import datasets
from privhier.datasets.tables import DELIMITERS, Table, read_table


@datasets.register("folder")
class Folder(Source):
    """``dataset.root`` holds images, in any folders, and a table with a header (comma, semicolon or tab).

    Args:
        csv: The table, relative to the root.
        image: Its column that names the image, relative to the root.
        identity: Its column that names the person; none: no identities.
        columns: The columns to use as attributes; none: all others that have a name.
        missing: Cells (in any case) that mean "no value", beside the empty one; none: ``NA``, ``NaN``,
            ``n/a``, ``null``, ``None``, ``?``, ``-`` and their like. Give it where one of these is a class.
        near_doubles: Tie pictures that look like versions of one photo, so that no split cuts between them.
            False where pictures of different people look alike by nature (scans): identical files are tied
            then, and what else belongs together ``identity`` must say.

    A column whose cells are all whole numbers becomes int64, all numbers float64, ``true`` and ``false`` in
    any case ``"True"`` and ``"False"``, else strings, of which those that differ in case alone are one. A
    record without a label is reported and left out of runs that use the column; without a person it is left
    out always.
    """

    folder: ClassVar[str | None] = None

    csv: str = "labels.csv"
    image: str = "image"
    identity: str | None = None
    columns: list[str] | None = None
    missing: list[str] | None = None
    near_doubles: bool = True

    @property
    def seeks_near_doubles(self) -> bool:
        """See ``Source``."""
        return self.near_doubles

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows in the order of the table."""
        require_folder(root, "the data set's folder")
        table = self._table(root)
        special = [self.image] if self.identity is None else [self.image, self.identity]
        names = [name for name in table.names() if name not in special]
        if self.columns is not None:
            names = self.columns
        table.require([*special, *names], self._which_are_meant(table, names))
        nothing = None if self.missing is None else frozenset(cell.strip().lower() for cell in self.missing)
        cells = table.column(self.image)
        named = [row for row, cell in enumerate(cells) if not is_missing(cell, nothing)]
        problems = [*table.problems, *_unnamed(table, named)]
        inside = f"{root.as_posix().rstrip('/')}/"
        matched = match_rows(
            [cells[row].removeprefix(inside) for row in named], pictures_under(root), table.path.name
        )
        problems += matched.problems
        rows, paths, identity = self._people(
            table, [named[row] for row in matched.rows], matched.paths, nothing, problems
        )
        labels = {}
        for name in names:
            column = table.column(name)
            labels[name] = read_labels(name, [column[row] for row in rows], nothing=nothing)
        return Listing(
            paths=tuple(paths),
            attributes={name: column.values for name, column in labels.items()},
            identity=identity,
            problems=tuple(problems),
            lacking={name: column.lacking for name, column in labels.items() if column.lacking},
            notes={name: column.notes for name, column in labels.items() if column.notes},
            layout=f"labels in {self.csv}, separated by {DELIMITERS.get(table.delimiter, table.delimiter)}"
            + ("" if self.near_doubles else "; near-doubles are not looked for"),
        )

    def _which_are_meant(self, table: Table, names: Sequence[str]) -> str:
        """How to name the columns that the table lacks."""
        asked = {
            "image": ("names each row's picture", [self.image]),
            "identity": ("says who it shows", [] if self.identity is None else [self.identity]),
            "columns": ("lists the attributes", names),
        }
        meant = {key: role for key, (role, wanted) in asked.items() if set(wanted) - set(table.header)}
        remedy = "Say which columns are meant: of dataset.options, "
        remedy += ", ".join(f"{key} {role}" for key, role in meant.items())
        if meant and table.names():
            remedy += f", for instance dataset.options.{next(iter(meant))}={table.names()[0]}"
        return remedy

    def _people(
        self,
        table: Table,
        rows: list[int],
        paths: list[str],
        nothing: frozenset[str] | None,
        problems: list[Problem],
    ) -> tuple[list[int], list[str], IntArray | None]:
        """Rows whose person is known, their images, and a number a person; all rows where none are asked for.

        Splits are cut between people: a record whose person is not known is left out always.
        """
        if self.identity is None:
            return rows, paths, None
        cells = table.column(self.identity)
        known = [not is_missing(cells[row], nothing) for row in rows]
        problems += [
            Problem(path, f"missing label: {self.identity}")
            for path, person in zip(paths, known, strict=True)
            if not person
        ]
        rows, paths = list(compress(rows, known)), list(compress(paths, known))
        people = [cells[row] for row in rows]
        spelling, notes = one_spelling(self.identity, Counter(people))
        problems += [Problem(table.path.name, note) for note in notes]
        spelled = np.array([spelling[person] for person in people], dtype=str)
        numbers = np.unique(spelled, return_inverse=True)[1].astype(np.int64)
        return rows, paths, numbers

    def _table(self, root: Path) -> Table:
        path = root / self.csv
        hint = ""
        if not there(path):
            tables = sorted(one.name for one in root.iterdir() if one.suffix.lower() in (".csv", ".tsv"))
            hint = f"Set dataset.options.csv to {' or '.join(tables)}. " if tables else ""
            hint = hint or hint_for(root, [self.csv])
        needs = [self.image, *([] if self.identity is None else [self.identity]), *(self.columns or ())]
        remedy = (
            "Write that table (a header, one row an image), name yours in dataset.options.csv, relative to "
            "dataset.root, or point dataset.root at the folder that holds it"
        )
        file = require_file(path, "the CSV file of dataset.options.csv", hint=hint, remedy=remedy)
        return read_table(file, needs)


def _unnamed(table: Table, named: list[int]) -> list[Problem]:
    return [
        Problem(f"{table.path.name} line {table.lines[row]}", "label row without a file name")
        for row in sorted(set(range(len(table.rows))).difference(named))
    ]
