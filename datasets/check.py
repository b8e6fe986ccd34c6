"""What a data set holds and what is wrong with it: ``privhier data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from privhier.config import DatasetConfig
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.base import AttributeLabels, FaceDataset, IntArray, Problem, examples
from privhier.datasets.cache import Progress
from privhier.datasets.listing import Column
from privhier.datasets.load import load_dataset
from privhier.datasets.relations import refuse_same_attributes, told_together
from privhier.errors import DataError

FIRST_PROBLEMS = 8
MOST_VALUES = 12
"""Columns with more distinct values than this are summarized by their range."""


@dataclass(frozen=True)
class ColumnReport:
    """One attribute column.

    Attributes:
        name: Column name.
        kind: ``"integer"``, ``"number"`` or ``"text"``.
        distinct: Number of distinct values.
        counts: Value (with its human name where known) to records, the most frequent ``MOST_VALUES``.
        low, mean, high: Of a numeric column; None for text.
    """

    name: str
    kind: str
    distinct: int
    counts: dict[str, int]
    low: float | None = None
    mean: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DatasetReport:
    """A data set in numbers.

    Attributes:
        name: Registered name.
        records: Usable images.
        image_size: Their height and width in pixels.
        identities: Number of people, or None where the source names none.
        images_per_identity: Fewest, median and most images of one person.
        duplicate_groups, duplicate_files: Sets of byte-identical files, and the files in them.
        conflicting_groups: Sets of identical files whose labels (or identities) differ.
        conflicts: The same, by column.
        version_groups, version_files: Photos with several versions (identical files, versions by name and
            near-doubles), and their files; no split cuts these groups.
        largest_group: Files of the photo that has most.
        notices: Kind of notice to how often it occurred: versions of an earlier record, names that repeat.
        first_notices: A few of them.
        problems: Kind of problem to how often it occurred.
        first_problems: A few of them, of every kind.
        columns: Every attribute column.
        fingerprint: Of the data set as loaded.
        layout: Which of the source's layouts was found; empty where there is but one.
        unavailable: Columns (or ``identity``) that this copy lacks, or lacks for some records, and why.
        attributes: Each task and secret of the configuration with its classes, or why a run would refuse it.
    """

    name: str
    records: int
    image_size: int
    identities: int | None
    images_per_identity: tuple[int, float, int] | None
    duplicate_groups: int
    duplicate_files: int
    conflicting_groups: int
    conflicts: dict[str, int]
    version_groups: int
    version_files: int
    largest_group: int
    notices: dict[str, int]
    first_notices: tuple[Problem, ...]
    problems: dict[str, int]
    first_problems: tuple[Problem, ...]
    columns: tuple[ColumnReport, ...]
    fingerprint: str
    layout: str = ""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        people = "no identities"
        if self.identities is not None and self.images_per_identity is not None:
            low, median, high = self.images_per_identity
            people = f"{self.identities:,} people with {low} to {high} images (median {median:g})"
        lines = [
            f"{self.name}: {self.records:,} images at {self.image_size}x{self.image_size}, {people}",
            f"duplicates: {self.duplicate_groups:,} groups of byte-identical files ({self.duplicate_files:,} "
            f"files), {self.conflicting_groups:,} with conflicting labels",
        ]
        lines += [f"  conflicting in {name}: {count:,}" for name, count in self.conflicts.items() if count]
        lines += [f"layout: {self.layout}"] if self.layout else []
        lines.append(
            f"photos in several versions: {self.version_groups:,} groups that no split cuts "
            f"({self.version_files:,} files, at most {self.largest_group:,} of one photo)"
        )
        lines += [f"  {kind}: {count:,}" for kind, count in self.notices.items()]
        lines += [f"    {notice.where}: {notice.reason}" for notice in self.first_notices]
        lines += [f"column {column.name} ({column.kind}): {_values(column)}" for column in self.columns]
        lines += [f"no {name}: {why}" for name, why in self.unavailable.items()]
        lines += [f"attribute {text}" for text in self.attributes]
        lines.append(f"problems: {sum(self.problems.values()):,}")
        lines += [f"  {kind}: {count:,}" for kind, count in self.problems.items()]
        lines += [f"    {problem.where}: {problem.reason}" for problem in self.first_problems]
        return [*lines, f"fingerprint {self.fingerprint}"]


def check_dataset(config: DatasetConfig, *, seed: int = 0, progress: Progress | None = None) -> DatasetReport:
    """Read every picture of the data set (or its cache) and report. Raises as ``load_dataset`` does."""
    dataset = load_dataset(config, seed=seed, progress=progress)
    return replace(describe(dataset), attributes=tuple(_attributes(config, dataset)))


def describe(dataset: FaceDataset) -> DatasetReport:
    """Report on a data set that is loaded."""
    identical = dataset.duplicate_group if dataset.identical is None else dataset.identical
    sizes = np.bincount(np.unique(identical, return_inverse=True)[1])
    versions = np.bincount(np.unique(dataset.duplicate_group, return_inverse=True)[1])
    people = None if dataset.identity is None else np.unique(dataset.identity, return_counts=True)[1]
    labels = dict(dataset.attributes)
    if dataset.identity is not None:
        labels["identity"] = dataset.identity
    conflicts = {name: _conflicts(identical, column) for name, column in labels.items()}
    return DatasetReport(
        name=dataset.name,
        records=len(dataset),
        image_size=int(dataset.images.shape[-1]),
        identities=None if people is None else len(people),
        images_per_identity=None
        if people is None
        else (int(people.min()), float(np.median(people)), int(people.max())),
        duplicate_groups=int((sizes > 1).sum()),
        duplicate_files=int(sizes[sizes > 1].sum()),
        conflicting_groups=len(set().union(*conflicts.values())),
        conflicts={name: len(groups) for name, groups in conflicts.items()},
        version_groups=int((versions > 1).sum()),
        version_files=int(versions[versions > 1].sum()),
        largest_group=int(versions.max()),
        notices=count_kinds(dataset.notices),
        first_notices=dataset.notices[:FIRST_PROBLEMS],
        problems=count_kinds(dataset.problems),
        first_problems=examples(dataset.problems, FIRST_PROBLEMS),
        columns=tuple(_column(name, column, dataset) for name, column in dataset.attributes.items()),
        fingerprint=dataset.fingerprint,
        layout=dataset.layout,
        unavailable=dataset.unavailable,
    )


def _attributes(config: DatasetConfig, dataset: FaceDataset) -> Iterator[str]:
    labels: dict[str, AttributeLabels] = {}
    for name in (*config.task, *config.sensitive):
        try:
            labels[name] = evaluate_attribute(name, dataset)
        except DataError as error:
            yield f"{name}: refused: {error.rule}"
            continue
        classes, counts = labels[name].classes, np.bincount(labels[name].values).tolist()
        many = len(classes) > MOST_VALUES
        shown = (f"{text}: {count:,}" for text, count in zip(classes, counts, strict=True))
        yield f"{name}: {f'{len(classes)} classes' if many else '; '.join(shown)}"
    task, sensitive = ([name for name in part if name in labels] for part in (config.task, config.sensitive))
    try:
        refuse_same_attributes(labels, task, sensitive)
    except DataError as error:
        yield f"{error.value}: refused: {error.rule}"
    for name in told_together(labels, task, sensitive):
        yield f"{name}: the tasks together tell it on all {len(dataset):,} records"


def _conflicts(identical: IntArray, column: Column) -> set[int]:
    codes = np.unique(column, return_inverse=True)[1]
    pairs = np.unique(np.stack([identical, codes], axis=1), axis=0)
    groups, values = np.unique(pairs[:, 0], return_counts=True)
    return set(groups[values > 1].tolist())


def count_kinds(problems: tuple[Problem, ...]) -> dict[str, int]:
    """Kind of problem or notice to how often it occurred, the most frequent first."""
    return dict(Counter(problem.reason.partition(":")[0] for problem in problems).most_common())


def _column(name: str, column: Column, dataset: FaceDataset) -> ColumnReport:
    values, counts = np.unique(column, return_counts=True)
    names = dataset.value_names.get(name, {})
    order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    shown = {
        f"{value} {names[value]}" if value in names else str(value): int(count)
        for value, count in zip(values[order].tolist(), counts[order].tolist(), strict=True)
    }
    if column.dtype.kind not in "iufb":
        return ColumnReport(name, "text", len(values), shown)
    numbers = column.astype(np.float64)
    kind = "number" if column.dtype.kind == "f" else "integer"
    low, mean, high = float(numbers.min()), float(numbers.mean()), float(numbers.max())
    return ColumnReport(name, kind, len(values), shown, low, mean, high)


def _values(column: ColumnReport) -> str:
    if column.distinct > MOST_VALUES and column.mean is not None:
        return f"{column.distinct} values from {column.low:g} to {column.high:g}, mean {column.mean:.4g}"
    more = (
        f", and {column.distinct - len(column.counts)} more" if column.distinct > len(column.counts) else ""
    )
    return ", ".join(f"{value}: {count:,}" for value, count in column.counts.items()) + more
