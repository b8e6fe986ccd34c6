"""Guarantee rows as the page shows them: a person's rows, one a split, as one group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from privhier.evaluation.result import GuaranteeRow

_OF_PERSON = re.compile(r"^(?P<name>.*\bone person), (?P<part>.+) records$")
_COUNT = re.compile(r"\ball (\d+) ")


@dataclass(frozen=True)
class Part:
    """One number of a statement.

    Attributes:
        label: Of which split; empty for a statement with one number.
        records: How many records of one person are replaced, where the group says so.
        row: The guarantee.
        limits: What it does not cover besides what no statement does.
    """

    label: str
    records: str | None
    row: GuaranteeRow
    limits: list[str]

    @property
    def count(self) -> list[str]:
        """``k = 3``, or nothing."""
        return [] if self.records is None else [f"k = {self.records}"]


@dataclass(frozen=True)
class Statement:
    """One row, or one group of rows that differ in the split and in how many records a person has there."""

    name: str
    adjacency: str
    parts: tuple[Part, ...]

    @property
    def first(self) -> GuaranteeRow:
        """What they have in common is read off this one."""
        return self.parts[0].row

    @property
    def numbers(self) -> list[tuple[str, GuaranteeRow]]:
        """``(labels, row)``, those of equal numbers in one: ``test, val, k = 2``."""
        found: dict[tuple[object, ...], list[Part]] = {}
        for part in self.parts:
            key = (part.records, part.row.epsilon, part.row.delta, part.row.allows, part.row.nats)
            found.setdefault(key, []).append(part)
        return [
            (", ".join([*(p.label for p in same), *same[0].count]), same[0].row) for same in found.values()
        ]

    @property
    def notes(self) -> list[str]:
        """Every remark once."""
        return list(dict.fromkeys(part.row.note for part in self.parts if part.row.note))


def common_limits(rows: Sequence[GuaranteeRow]) -> list[str]:
    """What no statement covers, in the first one's order."""
    if not rows:
        return []
    return [item for item in rows[0].does_not_cover if all(item in row.does_not_cover for row in rows)]


def statements(rows: Sequence[GuaranteeRow]) -> list[Statement]:
    """The rows in order; those of a person that follow one another and differ only in the split together."""
    common = common_limits(rows)
    groups: list[list[GuaranteeRow]] = []
    for row in rows:
        if groups and _key(row) is not None and _key(groups[-1][0]) == _key(row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [_statement(group, common) for group in groups]


def _key(row: GuaranteeRow) -> tuple[str, str, str] | None:
    """What the rows of one group share; None for a row that stands alone."""
    named = _OF_PERSON.match(row.name)
    return None if named is None else (named["name"], row.adversary, row.unit)


def _statement(group: Sequence[GuaranteeRow], common: Sequence[str]) -> Statement:
    limits = [[item for item in row.does_not_cover if item not in common] for row in group]
    if len(group) == 1:
        return Statement(group[0].name, group[0].adjacency, (Part("", None, group[0], limits[0]),))
    named = [_OF_PERSON.match(row.name) for row in group]
    counts = [_COUNT.search(row.adjacency) for row in group]
    adjacencies = {_COUNT.sub("all k ", row.adjacency, count=1) for row in group}
    same = len(adjacencies) == 1
    parts = [
        Part(name["part"] if name else row.name, count[1] if same and count else None, row, own)
        for name, count, row, own in zip(named, counts, group, limits, strict=True)
    ]
    adjacency = adjacencies.pop() if same else "; ".join(row.adjacency for row in group)
    return Statement(named[0]["name"] if named[0] else group[0].name, adjacency, tuple(parts))


def by_words(parts: Iterable[Part], field: str) -> list[tuple[str, str]]:
    """``(labels, words)`` of what the parts cover (``covers``) or do not (``limits``), equal words once.

    The labels are empty where the words hold for all parts.
    """
    parts = list(parts)
    said: dict[str, list[str]] = {}
    for part in parts:
        for words in part.row.covers if field == "covers" else part.limits:
            said.setdefault(words, []).append(part.row.name)
    return [("" if len(names) == len(parts) else ", ".join(names), words) for words, names in said.items()]
