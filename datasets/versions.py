"""Which records show one photo: identical files, versions by name, near-doubles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from privhier.datasets.base import IntArray, Problem
from privhier.datasets.near_doubles import Pairs

LONGEST_CHAIN = 32
"""Photos that near-doubles may tie together in a chain; larger sets are cut into stars."""


@dataclass(frozen=True)
class Versions:
    """The groups of a data set.

    Attributes:
        identical: int64 ``(N,)``, one number for all byte-identical files.
        group: int64 ``(N,)``, one number for all records of one photo.
        notices: One for each record that is a version of an earlier one.
    """

    identical: IntArray
    group: IntArray
    notices: tuple[Problem, ...]


def group_versions(
    paths: Sequence[str], digests: npt.NDArray[np.uint8], photo: IntArray | None, near: Pairs
) -> Versions:
    """Tie records together.

    Args:
        paths: The N files.
        digests: uint8 ``(N, 32)`` of each file's bytes.
        photo: int64 ``(N,)``, one number for all versions of a photo as the source names them, or None.
        near: Near-doubles among the N records, one record of identical files standing for all.

    Near-doubles tie in chains: if A looks like B and B like C, all three are one group. A data set of much
    the same pictures could end as one group, so a chain of more than ``LONGEST_CHAIN`` photos is cut into
    stars, in which all look like the best tied one; what that takes apart is noticed too.
    """
    identical = np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    sure = identical
    notices: list[Problem] = []
    if photo is not None:
        sure = _joined(identical, photo)
        notices += _notices(paths, photo, identical, "one photo by its name: as")
    group, apart = _tied(sure, near.rows)
    for (one, other), likeness in zip(near.rows.tolist(), near.likeness.tolist(), strict=True):
        if sure[one] != sure[other]:
            notices.append(Problem(paths[other], f"near-double: of {paths[one]}, {likeness:.3f} alike"))
    if apart:
        notices.append(
            Problem(paths[0], f"chain of near-doubles cut: {apart} pairs are not tied, in sets of many alike")
        )
    return Versions(identical, group, tuple(notices))


def equal_names(paths: Sequence[str]) -> tuple[Problem, ...]:
    """One notice for each file whose name an earlier one in another folder has (upper or lower case)."""
    first: dict[str, str] = {}
    found: list[Problem] = []
    for path in paths:
        earlier = first.setdefault(PurePosixPath(path).name.casefold(), path)
        if earlier != path:
            found.append(Problem(path, f"equal file name: {earlier}"))
    return tuple(found)


def _joined(one: IntArray, other: IntArray) -> IntArray:
    """Numbers of the sets tied by either numbering, directly or in a chain."""
    first = np.unique(one, return_inverse=True)[1]
    second = np.unique(other, return_inverse=True)[1] + len(one)
    return _components(first, second, 2 * len(one))[first]


def _tied(sure: IntArray, rows: IntArray) -> tuple[IntArray, int]:
    """Group numbers with near-doubles tied, and how many pairs were left apart."""
    unit = np.unique(sure, return_inverse=True)[1].astype(np.int64)
    count = int(unit.max()) + 1 if len(unit) else 0
    edges = np.unique(np.sort(unit[rows], axis=1), axis=0)
    label = _components(edges[:, 0], edges[:, 1], count)
    long = np.bincount(label, minlength=1) > LONGEST_CHAIN
    if not long.any():
        return label[unit], 0
    beside: dict[int, list[int]] = defaultdict(list)
    for one, other in edges[long[label[edges[:, 0]]]].tolist():
        beside[one].append(other)
        beside[other].append(one)
    star: dict[int, int] = {}
    for leader in sorted(beside, key=lambda each: (-len(beside[each]), each)):
        if leader not in star:
            for each in (leader, *beside[leader]):
                star.setdefault(each, leader)
    label = label + count
    for each, leader in star.items():
        label[each] = leader
    apart = sum(star[one] != star[other] for one in beside for other in beside[one] if one < other)
    return np.unique(label, return_inverse=True)[1].astype(np.int64)[unit], apart


def _components(one: IntArray, other: IntArray, count: int) -> IntArray:
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(count, count))
    labels: IntArray = connected_components(edges, directed=False)[1].astype(np.int64)
    return labels


def _notices(paths: Sequence[str], numbers: IntArray, known: IntArray, reason: str) -> list[Problem]:
    first: dict[int, int] = {}
    found: list[Problem] = []
    for row, number in enumerate(numbers.tolist()):
        earlier = first.setdefault(number, row)
        if known[earlier] != known[row]:
            found.append(Problem(paths[row], f"{reason} {paths[earlier]}"))
    return found
