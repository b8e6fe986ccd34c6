"""CelebA's label files, in the authors' own form (counts, names and blanks) and in Kaggle's (CSV)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import Problem
from privhier.datasets.cells import is_missing
from privhier.datasets.label_text import clean, read_lines
from privhier.datasets.listing import malformed_file
from privhier.datasets.tables import read_table

COUNT = re.compile(r"[0-9]{1,18}")
EMPTY, WRONG = 2, -9
CODES = {"-1": -1, "1": 1, "0": 0, "-1.0": -1, "1.0": 1, "0.0": 0}
"""Cells of the attribute file; with a point where a table with gaps was saved by pandas."""


@dataclass(frozen=True)
class Attributes:
    """The attribute file.

    Attributes:
        files: File name of each row.
        names: Attribute names, k of them.
        values: int8 ``(rows, k)``, 0 or 1; 0 where there is no label.
        empty: bool ``(rows, k)``: no label.
        problems: Rows that are not read.
    """

    files: list[str]
    names: list[str]
    values: npt.NDArray[np.int8]
    empty: npt.NDArray[np.bool_]
    problems: list[Problem]


@dataclass(frozen=True)
class Numbers:
    """A file of one number an image: ``file`` name, number ``of`` each image, and ``problems``."""

    file: str
    of: dict[str, int]
    problems: list[Problem]


def read_attributes(path: Path, images: str) -> Attributes:
    """Read the attribute file: cells of -1 and 1, or all through of 0 and 1 (some copies).

    Args:
        path: ``list_attr_celeba.txt`` or ``.csv``.
        images: The image folder, for the problems.

    Raises:
        DataError: Not in its format; a name twice in its header.
    """
    if path.suffix.lower() == ".csv":
        names, rows, told, problems = _csv(path)
    else:
        names, rows, told, problems = _text(path)
    files: list[str] = []
    codes: list[npt.NDArray[np.int8]] = []
    expected = f"malformed label row: {len(names)} cells of -1 or 1 expected"
    count = len(problems)
    for file, cells in rows:
        count += 1
        row = [CODES[cell] if cell in CODES else _code(cell) for cell in cells]
        if len(row) != len(names) or WRONG in row:
            problems.append(Problem(f"{images}/{file}", expected))
        else:
            files.append(file)
            codes.append(np.array(row, dtype=np.int8))
    if told is not None and told != count:
        problems.append(Problem(path.name, f"count line: says {told} rows, the file has {count}"))
    table = np.stack(codes) if codes else np.zeros((0, len(names)), dtype=np.int8)
    if (table == -1).any():  # then 0 is no value: which of the two it should be, nobody can know
        wrong = (table == 0).any(axis=1)
        problems += [Problem(f"{images}/{files[row]}", expected) for row in np.flatnonzero(wrong).tolist()]
        files = [file for file, bad in zip(files, wrong.tolist(), strict=True) if not bad]
        table = table[~wrong]
    return Attributes(files, names, (table == 1).astype(np.int8), table == EMPTY, problems)


def _code(cell: str) -> int:
    return EMPTY if is_missing(clean(cell)) else WRONG


Rows = Iterator[tuple[str, list[str]]]


def _text(path: Path) -> tuple[list[str], Rows, int, list[Problem]]:
    lines = read_lines(path)
    first = lines[0].strip()
    names = clean(lines[1]).split() if len(lines) > 1 else []
    if not COUNT.fullmatch(first) or not names:
        raise malformed_file(
            path, "must start with a line of one count and a line of attribute names", "Use the official file"
        )
    for place, name in enumerate(names):
        if name in names[:place]:
            raise malformed_file(
                path,
                f"has two columns named {name!r}: columns {names.index(name) + 1} and {place + 1}",
                "Use the official file",
            )
    # The official file pads its cells with one or two spaces; split() takes any number.
    cells = (line.split() for line in lines[2:])
    return names, ((clean(row[0]), row[1:]) for row in cells if row), int(first), []


def _csv(path: Path) -> tuple[list[str], Rows, None, list[Problem]]:
    table = read_table(path, ["image_id"])
    table.require(["image_id"], "Use Kaggle's own file, or the official list_attr_celeba.txt")
    image = table.header.index("image_id")
    places = [place for place, name in enumerate(table.header) if name and place != image]
    rows = ((clean(row[image]), [row[place].strip() for place in places]) for row in table.rows)
    return [table.header[place] for place in places], rows, None, list(table.problems)


def read_numbers(path: Path, *, most: int | None) -> Numbers:
    """Read a file of images and numbers: two words a line, or a CSV file of two columns.

    Args:
        path: ``identity_CelebA`` or ``list_eval_partition``, ``.txt`` or ``.csv``.
        most: The largest number there is; none: any.
    """
    if path.suffix.lower() == ".csv":
        table = read_table(path, ["image_id"])
        problems = list(table.problems)
        named = [place for place, name in enumerate(table.header) if name]
        pairs = [
            (line, [clean(row[place]) for place in named])
            for line, row in zip(table.lines, table.rows, strict=True)
        ]
    else:
        problems = []
        pairs = [(line, clean(text).split()) for line, text in enumerate(read_lines(path), 1)]
    found: dict[str, int] = {}
    for line, cells in pairs:
        if not cells:
            continue
        number = int(cells[1]) if len(cells) == 2 and COUNT.fullmatch(cells[1]) else -1
        if number < 0 or (most is not None and number > most):
            what = "a number" if most is None else f"a number from 0 to {most}"
            problems.append(
                Problem(f"{path.name} line {line}", f"malformed label row: a file and {what} expected")
            )
        elif found.setdefault(cells[0], number) != number:
            problems.append(
                Problem(f"{path.name} line {line}", f"repeated label row: {cells[0]} has two numbers")
            )
    return Numbers(path.name, found, problems)
