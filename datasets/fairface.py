"""FairFace (Karkkainen and Joo, 2021): age group, gender and race balanced over seven groups."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.listing import (
    Listing,
    Source,
    malformed_file,
    match_rows,
    pictures_under,
    require_file,
    require_folder,
)

COLUMNS = ("age", "gender", "race", "service_test")


class FairFace(Source):
    """``fairface/``: ``fairface_label_{train,val}.csv`` and images ``{train,val}/1.jpg``.

    Columns, as the files have them: ``age`` ("0-2" ... "more than 70"), ``gender`` ("Male",
    "Female"), ``race`` ("White", "East Asian", ...), ``service_test`` ("True", "False"); and
    ``partition`` ("train", "val"). No identities.
    """

    folder: ClassVar[str | None] = "fairface"
    names_repeat: ClassVar[bool] = True

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; the training file's rows, then the validation file's."""
        paths: list[str] = []
        cells: list[list[str]] = []
        problems: list[Problem] = []
        for part in ("train", "val"):
            label_file = f"fairface_label_{part}.csv"
            require_folder(root / part, f"FairFace's {part} folder")
            files, values = _table(require_file(root / label_file, f"FairFace's {label_file}"))
            rows, unmatched = match_rows(files, pictures_under(root, part), label_file)
            problems.extend(unmatched)
            for row in rows:
                if all(values[row]):
                    paths.append(files[row])
                    cells.append([*values[row], part])
                else:
                    lacking = [name for name, cell in zip(COLUMNS, values[row], strict=True) if not cell]
                    problems.append(Problem(files[row], f"missing label: {', '.join(lacking)}"))
        table = np.array(cells, dtype=str).reshape(len(cells), len(COLUMNS) + 1)
        return Listing(
            paths=tuple(paths),
            attributes={name: table[:, place] for place, name in enumerate((*COLUMNS, "partition"))},
            problems=tuple(problems),
        )


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        lacking = {"file", *COLUMNS}.difference(reader.fieldnames or ())
        if lacking:
            raise malformed_file(
                path, f"lacks the columns {', '.join(sorted(lacking))}", "Use the official file"
            )
        rows = [row for row in reader if row["file"]]
    return [row["file"] for row in rows], [[(row[name] or "").strip() for name in COLUMNS] for row in rows]
