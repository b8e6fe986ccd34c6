"""From the cells of a column to labels: missing is missing, numbers are numbers, the rest is text.

Closed: only ASCII digits make a number. Python's own ``int`` and ``float`` also take ``1_000``, Arabic and
full-width digits, ``nan`` and ``inf``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from privhier.datasets.listing import Column
from privhier.errors import printable

WORDS = ("nan", "+nan", "-nan", "na", "n/a", "n.a.", "n.a", "nat", "null", "none", "nil")
CODES = ("#n/a", "#na", "#n/a n/a", "#null!", "#value!", "#ref!", "#div/0!", "#name?", "#num!", r"\n", "@na")
NOTHING = frozenset(
    [*WORDS, *CODES, "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"]
    + [f"{start}{word}{end}" for word in WORDS for start, end in ("<>", "()", "[]", "{}")]
)
"""Cells that say "no value", in lower case: those of pandas, R, SQL and spreadsheets."""

MARKS = re.compile(r"[-\u2010-\u2015\u2212.?*_/~\u2026\uff1f]+")
"""Cells of dashes, dots or question marks alone say the same."""

INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INFINITE = re.compile(r"[+-]?inf(inity)?|[+-]?\u221e", re.IGNORECASE)
GROUPED = re.compile(r"[+-]?\d+([_'\u2019,\s]\d+)+(\.\d+)?")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAY_MONTH = re.compile(r"(\d{1,2})[-. /]{1,2}([a-z]{3})[a-z]*\.?([-. /]\d{2,4})?", re.IGNORECASE)
MONTH_YEAR = re.compile(r"([a-z]{3})[a-z]*\.?[-. /](\d{2,4})", re.IGNORECASE)
PLAIN_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}")
MOSTLY = 0.9
"""Where this share of a column's cells are numbers, the others are faults and no classes."""
RANGE = re.compile(r"\d+\s*[-\u2013]\s*\d+")


@dataclass(frozen=True)
class Labels:
    """One column.

    Attributes:
        values: int64, float64 or text, one a row; a stand-in where the row has no label.
        lacking: Row to why it has no label.
        notes: What a reader should know about the column as a whole.
    """

    values: Column
    lacking: dict[int, str]
    notes: tuple[str, ...] = ()


def is_missing(cell: str, nothing: Collection[str] | None = None) -> bool:
    """Whether a clean cell says "no value": empty, or in ``nothing`` (default: ``NOTHING`` and ``MARKS``)."""
    if nothing is not None:
        return not cell or cell.lower() in nothing
    return not cell or cell.lower() in NOTHING or MARKS.fullmatch(cell) is not None


def spreadsheet_date(cell: str) -> str | None:
    """What a spreadsheet took for a date (``9-Mar`` for 3-9), as the range it most likely was; else None.

    Example:
        >>> spreadsheet_date("9-Mar"), spreadsheet_date("Oct-19"), spreadsheet_date("3-9")
        ('3-9', '10-19', None)
    """
    if (match := DAY_MONTH.fullmatch(cell)) and match[2].lower() in MONTHS:
        return f"{MONTHS.index(match[2].lower()) + 1}-{int(match[1])}"
    if (match := MONTH_YEAR.fullmatch(cell)) and match[1].lower() in MONTHS:
        return f"{MONTHS.index(match[1].lower()) + 1}-{int(match[2]) % 100}"
    return "a range" if PLAIN_DATE.fullmatch(cell) else None


def read_labels(name: str, cells: Sequence[str], *, nothing: Collection[str] | None = None) -> Labels:
    """Type a column: all whole numbers int64, all numbers float64, true and false in any case ``"True"`` and
    ``"False"``, else text.

    A cell that only looks like a number (``1_000``, Arabic digits, ``inf``, ``1,5``, more than 64 bits) is no
    label: it is refused, not read another way. So is text in a column of which nine of ten cells are
    numbers, and in a column of text a date among ranges. Texts that differ in case alone are one value.

    Args:
        name: The column's name, for the reasons.
        cells: Clean cells.
        nothing: Cells, in lower case, that are missing beside the empty one; none: see ``is_missing``.
    """
    memo = {cell: printable(" ".join(cell.split())) for cell in set(cells)}
    cells = [memo[cell] for cell in cells]
    counts = Counter(cells)
    missing = {cell for cell in counts if is_missing(cell, nothing)}
    present = [cell for cell in counts if cell not in missing]
    refused = {cell: why for cell in present if (why := _false_number(cell)) is not None}
    text = [cell for cell in present if cell not in refused and not NUMBER.fullmatch(cell)]
    numeric = sum(counts[cell] for cell in present) - sum(counts[cell] for cell in text)
    if text and numeric >= MOSTLY * sum(counts[cell] for cell in present):
        refused |= dict.fromkeys(text, "not a number, as nearly all of its column are")
        text = []
    notes: tuple[str, ...] = ()
    if text:
        refused = _dates(present)
        lacking = missing | refused.keys()
        spelling, notes = _spellings(name, {cell: counts[cell] for cell in present if cell not in lacking})
        values: Column = np.array([spelling.get(cell, "") for cell in cells], dtype=str)
    else:
        values = _as_numbers(cells, missing | refused.keys())
    reasons = dict.fromkeys(missing, f"missing label: {name}")
    reasons |= {cell: f"unreadable label: {name} is {cell[:40]!r}: {why}" for cell, why in refused.items()}
    lacks = {row: reasons[cell] for row, cell in enumerate(cells) if cell in reasons}
    return Labels(values, lacks, notes)


def _false_number(cell: str) -> str | None:
    """Why a cell that looks like a number is none; None where it is one, or does not look like one."""
    if NUMBER.fullmatch(cell):
        if INTEGER.fullmatch(cell):
            small = len(cell.lstrip("+-0")) < 20 and -(2**63) <= int(cell) < 2**63
            return None if small else "a whole number of more than 64 bits"
        return None if np.isfinite(float(cell)) else "more than a 64-bit number can hold"
    if INFINITE.fullmatch(cell):
        return "not a finite number"
    if GROUPED.fullmatch(cell):
        return "not a number: write it with digits and a decimal point alone"
    plain = unicodedata.normalize("NFKC", cell)
    plain = (
        "".join(str(unicodedata.decimal(one, one)) for one in plain)
        .replace("\u066b", ".")
        .replace("\u2212", "-")
    )
    looks = plain != cell and (NUMBER.fullmatch(plain) or GROUPED.fullmatch(plain))
    return "not a number: write it with the digits 0 to 9" if looks else None


def _dates(present: Sequence[str]) -> dict[str, str]:
    if not any(RANGE.fullmatch(cell) for cell in present):
        return {}
    return {
        cell: f"a spreadsheet made a date of {was}"
        for cell in present
        if not RANGE.fullmatch(cell) and (was := spreadsheet_date(cell)) is not None
    }


def _as_numbers(cells: Sequence[str], lacking: Collection[str]) -> Column:
    kind = int if all(INTEGER.fullmatch(cell) for cell in set(cells).difference(lacking)) else float
    return np.array(
        [kind(0) if cell in lacking else kind(cell) for cell in cells],
        dtype=np.int64 if kind is int else np.float64,
    )


def _spellings(name: str, counts: Mapping[str, int]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The value that each cell of a text column stands for, and what a reader should know."""
    words = {cell for cell in counts if cell.lower() in ("true", "false")}
    if words and words.union({"0", "1"}) >= counts.keys():
        truth = {cell: "True" if cell.lower() in ("true", "1") else "False" for cell in counts}
        mixed = "mixed column: {!r} writes true and false as 1 and 0 too: read as one pair"
        return truth, (mixed.format(name),) if words != counts.keys() else ()
    spelling, notes = one_spelling(name, counts)
    numbers = sum(count for cell, count in counts.items() if NUMBER.fullmatch(cell))
    if numbers:
        text = next(cell for cell in counts if not NUMBER.fullmatch(cell))
        notes.append(
            f"mixed column: {name!r} has numbers ({numbers}) beside text like {text!r}: all read as text"
        )
    return spelling, tuple(notes)


def one_spelling(name: str, counts: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Values that differ in case alone are one: the spelling that most cells have, and a note for each."""
    alike: dict[str, list[str]] = {}
    for cell in counts:
        alike.setdefault(cell.casefold(), []).append(cell)
    spelling: dict[str, str] = {}
    notes: list[str] = []
    for group in alike.values():
        chosen = min(group, key=lambda cell: (-counts[cell], cell))
        spelling |= dict.fromkeys(group, chosen)
        if len(group) > 1:
            shown = ", ".join(f"{cell!r} ({counts[cell]})" for cell in group)
            notes.append(f"values alike: {name!r} has {shown}: read as one, {chosen!r}")
    return spelling, notes
