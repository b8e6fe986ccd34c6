"""Any other faces: a folder of images and one CSV file that labels them."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.listing import (
    Column,
    Listing,
    Source,
    malformed_file,
    match_rows,
    pictures_under,
    require_file,
    require_folder,
)


class Folder(Source):
    """``dataset.root`` holds images, in any folders, and a CSV file with a header line.

    Args:
        csv: The CSV file, relative to the root.
        image: Its column that names the image, relative to the root.
        identity: Its column that names the person; none: no identities.
        columns: The columns to use as attributes; none: all others. A row with an empty cell in one of
            them is reported and skipped.

    A column whose cells are all whole numbers becomes int64, all numbers float64, else strings.
    """

    folder: ClassVar[str | None] = None

    csv: str = "labels.csv"
    image: str = "image"
    identity: str | None = None
    columns: list[str] | None = None

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows in the order of the CSV file."""
        require_folder(root, "the data set's folder")
        path = require_file(root / self.csv, "the CSV file of dataset.options.csv")
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="")
            header = list(reader.fieldnames or ())
            table = list(reader)
        special = [self.image] if self.identity is None else [self.image, self.identity]
        names = [name for name in header if name not in special] if self.columns is None else self.columns
        lacking = [name for name in (*special, *names) if name not in header]
        if lacking:
            raise malformed_file(
                path,
                f"lacks the columns {', '.join(lacking)}; it has {', '.join(header)}",
                "Set dataset.options.image, identity and columns to columns of the file",
            )
        files = [PurePosixPath(row[self.image].strip()).as_posix() for row in table]
        rows, problems = match_rows(files, pictures_under(root), self.csv)
        kept: list[int] = []
        for row in rows:
            empty = [name for name in (*special, *names) if not table[row][name].strip()]
            if empty:
                problems.append(Problem(files[row], f"missing label: {', '.join(empty)}"))
            else:
                kept.append(row)
        identity = None
        if self.identity is not None:
            people = np.array([table[row][self.identity].strip() for row in kept], dtype=str)
            identity = np.unique(people, return_inverse=True)[1].astype(np.int64)
        return Listing(
            paths=tuple(files[row] for row in kept),
            attributes={name: _column([table[row][name].strip() for row in kept]) for name in names},
            identity=identity,
            problems=tuple(problems),
        )


def _column(cells: list[str]) -> Column:
    for kind in (np.int64, np.float64):
        try:
            column = np.array([kind(cell) for cell in cells], dtype=kind)
        except (ValueError, OverflowError):
            continue
        # "nan" and "inf" parse as floats but order nothing: such a column stays text.
        if np.isfinite(column).all():
            return column
    return np.array(cells, dtype=str)
