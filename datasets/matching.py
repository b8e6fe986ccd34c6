"""Label rows and the pictures they name: the same, the same under another spelling, or a near miss."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from privhier.datasets.base import Problem
from privhier.datasets.formats import PICTURE_SUFFIXES

Key = Callable[[str], str]


@dataclass(frozen=True)
class Matched:
    """Label rows that have an image, the first mention of each.

    Attributes:
        rows: Their row numbers, increasing.
        paths: The image of each.
        problems: Rows without image and repeated rows, images without row, and what was matched under
            another spelling (one problem for each kind of difference).
    """

    rows: list[int]
    paths: list[str]
    problems: list[Problem]


def match_rows(row_paths: Sequence[str], pictures: Collection[str], label_file: str) -> Matched:
    """Find each row's image.

    An exact match goes first. Then a path with backslashes, a name in Unicode's other form (NFC, NFD; as
    macOS and archives rewrite names), a suffix in the other case (``.JPG``), and, where no row at all finds
    an image of its own suffix, another suffix or none (``.png`` under labels of ``.jpg``). A spelling that
    fits two images matches neither. What nearly fits otherwise is named as a near miss.

    Args:
        row_paths: Image named by each label row, relative to the root.
        pictures: The images that are there, relative to the root.
        label_file: Name of the label file, for the problems.
    """
    search = _Search([posixpath.normpath(path) for path in row_paths], sorted(pictures))
    search.exact()
    for key, way in (
        (_slashes, ""),
        (_composed, "Unicode form (NFC, NFD)"),
        (_suffix_case, "the suffix's case"),
        (_stem, "the suffix"),
    ):
        if search.open:
            search.spelled(key, way, foreign=key is _stem)
    return Matched(
        rows=[row for row, found in enumerate(search.found) if found is not None],
        paths=[found for found in search.found if found is not None],
        problems=[*search.problems(label_file)],
    )


@dataclass
class _Search:
    rows: list[str]
    pictures: list[str]
    found: list[str | None] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    repeated: set[int] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)
    ways: dict[str, list[int]] = field(default_factory=dict)

    def exact(self) -> None:
        self.found = [None] * len(self.rows)
        present = set(self.pictures)
        seen: set[str] = set()
        for row, path in enumerate(self.rows):
            if path in seen:
                self.repeated.add(row)
            elif path in present:
                self.found[row] = path
                self.claimed.add(path)
            else:
                self.open.append(row)
            seen.add(path)

    def spelled(self, key: Key, way: str, *, foreign: bool) -> None:
        """Match open rows by ``key``; ``foreign``: only rows whose own suffix no matched row has."""
        by_key = _index(self.pictures, key)
        own = {_suffix(self.rows[row]) for row, path in enumerate(self.found) if path} if foreign else set()
        still: list[int] = []
        for row in self.open:
            hits = by_key.get(key(self.rows[row]), [])
            if len(hits) != 1 or (foreign and _suffix(self.rows[row]) in own):
                still.append(row)
            elif hits[0] in self.claimed:
                self.repeated.add(row)
            else:
                self.found[row] = hits[0]
                self.claimed.add(hits[0])
                if way:
                    self.ways.setdefault(way, []).append(row)
        self.open = still

    def problems(self, label_file: str) -> Iterable[Problem]:
        lost = set(self.open)
        near = _NearMisses([path for path in self.pictures if path not in self.claimed]) if lost else None
        yield from self._missing_folder(label_file)
        for row, path in enumerate(self.rows):
            if row in self.repeated:
                yield Problem(path, f"repeated label row: {label_file}")
            elif row in lost and near is not None:
                miss = near.of(path)
                yield Problem(
                    path,
                    f"near miss: {miss} ({label_file})" if miss else f"label row without image: {label_file}",
                )
        for path in self.pictures:
            if path not in self.claimed:
                yield Problem(path, f"image without label row: {label_file}")
        for way, rows in self.ways.items():
            first = rows[0]
            example = f"{self.rows[first]} is {self.found[first]}"
            yield Problem(
                label_file, f"matched under another spelling: {len(rows)} rows differ in {way}, as {example}"
            )

    def _missing_folder(self, label_file: str) -> Iterable[Problem]:
        """Where most rows that found nothing lack the same folders before their names, say which."""
        by_name = _index(self.pictures, posixpath.basename)
        before: Counter[str] = Counter()
        for row in self.open:
            ends = f"/{self.rows[row].lstrip('/')}"
            hits = [path for path in by_name.get(posixpath.basename(ends), ()) if path.endswith(ends)]
            if len(hits) == 1:
                before[hits[0].removesuffix(ends)] += 1
        if not before:
            return
        folder, count = before.most_common(1)[0]
        if 2 * count > len(self.open):
            yield Problem(
                label_file,
                f"missing folder: {count} rows name files that lie under {folder}/: write {folder}/ before "
                "their names",
            )


class _NearMisses:
    """Images that a row which found none may have meant."""

    def __init__(self, pictures: Sequence[str]) -> None:
        self.kinds: list[tuple[str, Key, Mapping[str, list[str]]]] = [
            (words, key, _index(pictures, key))
            for words, key in (
                ("the case differs from {}", lambda path: _suffix_case(path).casefold()),
                ("the suffix differs from {}", _stem),
                ("the file's name is not UTF-8: {}", _western),
                ("a file of that name lies at {}", lambda path: posixpath.basename(_suffix_case(path))),
            )
        ]

    def of(self, path: str) -> str:
        for words, key, by_key in self.kinds:
            hits = by_key.get(key(path), [])
            if hits:
                more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
                return words.format(hits[0]) + more
        return ""


def _index(pictures: Iterable[str], key: Key) -> Mapping[str, list[str]]:
    by_key: dict[str, list[str]] = defaultdict(list)
    for path in pictures:
        by_key[key(path)].append(path)
    return dict(by_key)


def _slashes(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", _slashes(path))


def _suffix_case(path: str) -> str:
    stem, suffix = posixpath.splitext(_composed(path))
    return stem + suffix.lower()


def _suffix(path: str) -> str:
    suffix = posixpath.splitext(_slashes(path))[1].lower()
    return suffix if suffix in PICTURE_SUFFIXES else ""


def _stem(path: str) -> str:
    composed = _composed(path)
    return posixpath.splitext(composed)[0] if _suffix(composed) else composed


def _western(path: str) -> str:
    raw = _composed(path).encode("utf-8", errors="surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
