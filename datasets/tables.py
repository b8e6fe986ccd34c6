"""Label tables (CSV and its like): one record a line, or a problem that names the line.

Python's own ``csv`` in its strict mode, one line at a time. pandas and pyarrow read a quote that is never
closed as one long cell, without a word, and lose the rows inside it; they also rename or drop repeated
headers and take ``NA`` for missing on rules of their own.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from privhier.datasets.base import Problem
from privhier.datasets.label_text import clean, read_lines
from privhier.datasets.listing import malformed_file
from privhier.errors import DataError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
INDEX = re.compile(r"(Unnamed: \d+(_level_\d+)?(\.\d+)?)?")
"""Headers of a column that has no name: left empty, or as pandas writes one that it had read."""


@dataclass(frozen=True)
class Table:
    """A label file.

    Attributes:
        path: Where it lies.
        header: Its column names, clean; a column that has none is called ``""``.
        rows: Their cells as written, as many as the header has.
        lines: The line of the file behind each row, from 1.
        problems: Rows that have fewer or more cells than the header.
        delimiter: What stands between the cells.
    """

    path: Path
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    problems: tuple[Problem, ...]
    delimiter: str = ","

    def column(self, name: str) -> list[str]:
        """The clean cells of one column."""
        place = self.header.index(name)
        memo: dict[str, str] = {}
        for row in self.rows:
            if row[place] not in memo:
                memo[row[place]] = clean(row[place])
        return [memo[row[place]] for row in self.rows]

    def names(self) -> list[str]:
        """The columns that have a name, in order; an index column has none."""
        return [name for name in self.header if name]

    def require(self, names: Sequence[str], remedy: str) -> None:
        """Refuse the table unless it has these columns.

        Raises:
            DataError: It lacks some; the message names them and those it has.
        """
        lacking = [name for name in names if name not in self.header]
        if lacking:
            raise malformed_file(
                self.path,
                f"lacks the columns {', '.join(lacking)}; it has {', '.join(self.names()) or 'none'}",
                remedy,
            )


def read_table(path: Path, needs: Sequence[str] = ()) -> Table:
    """Read a table with a header line.

    The delimiter (comma, semicolon, tab or bar) is the one under which the header has most of the columns
    in ``needs``, and of several such the one that gives most columns; a first line ``sep=;`` decides.

    Raises:
        DataError: As ``read_lines``; a quote that is not closed on its line; a name twice in the header;
            every row with as many cells too many or too few.
    """
    lines = read_lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    told = re.fullmatch(r'"?sep=(.)"?', lines[first].strip("\r\n ")) if first < len(lines) else None
    if told is not None:
        first += 1
    if first >= len(lines):
        raise malformed_file(path, "is empty", "Write a header line and a line for each image")
    delimiter = told[1] if told is not None else _delimiter(path, lines[first], first + 1, needs)
    header = _header(path, _cells(path, lines[first], first + 1, delimiter))
    rows: list[list[str]] = []
    numbers: list[int] = []
    ragged: list[tuple[int, int]] = []
    for number, line in enumerate(lines[first + 1 :], first + 2):
        cells = _cells(path, line, number, delimiter) if line.strip() else []
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header) and not any(cell.strip() for cell in cells[len(header) :]):
            cells = cells[: len(header)]  # delimiters at the end of a line hold nothing
        if len(cells) != len(header):
            ragged.append((number, len(cells)))
            continue
        rows.append([sys.intern(cell) for cell in cells])  # labels repeat: one string each in memory
        numbers.append(number)
    if ragged and not rows:
        number, count = ragged[0]
        raise malformed_file(
            path,
            f"no row fits the header: line {number} has {count} cells, the header {len(header)}",
            "Give the header a name for every column (an index column too), one delimiter for all lines",
        )
    problems = (
        Problem(f"{path.name} line {number}", f"ragged row: {count} cells, the header has {len(header)}")
        for number, count in ragged
    )
    return Table(path, header, rows, numbers, tuple(problems), delimiter)


def _cells(path: Path, line: str, number: int, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise _misquoted(path, line, number, error) from error


def _misquoted(path: Path, line: str, number: int, error: csv.Error) -> DataError:
    reason = "a quote that is not closed on its line" if "end of data" in str(error) else str(error)
    return malformed_file(
        path,
        f"line {number} cannot be read: {reason}: {line[:60]!r}",
        'Close the quote; a quote inside a quoted cell is written twice (""); no cell may hold a line break',
    )


def _delimiter(path: Path, line: str, number: int, needs: Sequence[str]) -> str:
    best, score = ",", (0, 1)
    misquoted: DataError | None = None
    for delimiter in DELIMITERS:
        try:
            names = [" ".join(clean(cell).split()) for cell in _cells(path, line, number, delimiter)]
        except DataError as error:
            misquoted = misquoted or error  # perhaps quoted for another delimiter
            continue
        found = (len(set(needs).intersection(names)), len(names))
        if found > score:
            best, score = delimiter, found
    if misquoted is not None and score == (0, 1):
        raise misquoted
    return best


def _header(path: Path, cells: list[str]) -> tuple[str, ...]:
    names = [" ".join(clean(cell).split()) for cell in cells]
    names = ["" if INDEX.fullmatch(name) else name for name in names]
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name and name in seen:
            raise malformed_file(
                path,
                f"has two columns named {name!r}: columns {seen[name]} and {place}",
                "Give each column a name of its own, or remove one",
            )
        seen[name] = place
    return tuple(names)
