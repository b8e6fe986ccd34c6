"""What every data set gives: images decoded once, attributes as a table, groups no split may cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privhier.errors import printable

IntArray = npt.NDArray[np.int64]
ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """One file or label row that was skipped (or is odd), and why; counted and reported, never silent.

    Both texts go into results, reports and terminals: what cannot be shown in a file's name is escaped here.
    """

    where: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", printable(self.where))
        object.__setattr__(self, "reason", printable(self.reason))

    @property
    def kind(self) -> str:
        """What is counted: the reason up to its colon."""
        return self.reason.partition(":")[0]


def examples(problems: Sequence[Problem], most: int) -> tuple[Problem, ...]:
    """``most`` problems in their order, one of each kind before a second of any: many hide few otherwise."""
    rank: Counter[str] = Counter()
    ranked = []
    for place, problem in enumerate(problems):
        ranked.append((rank[problem.kind], place))
        rank[problem.kind] += 1
    return tuple(problems[place] for place in sorted(place for _, place in sorted(ranked)[:most]))


@dataclass(frozen=True)
class FaceDataset:
    """Face images with attributes, identities where known, and groups.

    Attributes:
        name: Registered name of the data set.
        images: uint8 ``(N, 3, H, W)`` RGB, a read-only memory map (or an array, ``synthetic``).
        attributes: Column name to an array of N values (integers, floats or strings), raw as the
            source has them; expressions in the configuration are computed from these.
        identity: int64 ``(N,)``, one number a person, or None where the source names no people.
        group: int64 ``(N,)``: records that no split may separate under the unknown-people protocol
            (identity, else duplicate group).
        duplicate_group: int64 ``(N,)``: all records of one photo share a number, be they identical files,
            versions by name or near-doubles (``versions.py``); no split ever cuts these.
        problems: Every file or row that was skipped.
        fingerprint: SHA-256 over file names, their bytes, labels, size, crop and code version (not over
            where the files lie); logged with each run.
        value_names: Human names of coded values, e.g. ``{"gender": {0: "male", 1: "female"}}``.
        unavailable: Columns (or ``identity``) that this copy of the data lacks, or lacks for some of these
            records, and why.
        layout: Which of the source's layouts was found, in words; empty where there is but one.
        identical: int64 ``(N,)``: byte-identical files share a number; None: as ``duplicate_group``.
        notices: What is odd about records that are kept: versions of an earlier one, names that repeat.
    """

    name: str
    images: ImageArray
    attributes: Mapping[str, npt.NDArray[np.generic]]
    identity: IntArray | None
    group: IntArray
    duplicate_group: IntArray
    problems: tuple[Problem, ...] = field(default=())
    fingerprint: str = ""
    value_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    identical: IntArray | None = None
    notices: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return int(self.images.shape[0])


@dataclass(frozen=True)
class AttributeLabels:
    """One attribute expression evaluated on a data set.

    Attributes:
        name: The expression as written in the configuration; the attribute's name everywhere.
        values: int64 ``(N,)`` class numbers in ``0..K-1``.
        classes: K class names for reports, e.g. ``("age < 20", "20 <= age < 40", ...)``.
    """

    name: str
    values: IntArray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Record numbers of each split, sorted; disjoint by group (asserted where they are made).

    ``aux`` is what the attacker owns. Under the known-people protocol, aux, train and test hold
    different photos of the same people, and only duplicate groups are kept whole.
    """

    train: IntArray
    val: IntArray
    aux: IntArray
    test: IntArray
