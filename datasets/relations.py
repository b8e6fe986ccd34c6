"""Attributes that say the same: a secret that the task itself tells cannot be hidden by any defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from privhier.datasets.base import AttributeLabels, IntArray
from privhier.errors import DataError


def determines(known: IntArray, other: IntArray) -> bool:
    """Whether ``other`` is a function of ``known``: each of its values meets one value of ``other`` only.

    Args:
        known: int64 ``(N,)``.
        other: int64 ``(N,)``.
    """
    pairs = np.unique(np.stack([known, other], axis=1), axis=0)
    return len(pairs) == len(np.unique(known))


def refuse_same_attributes(
    labels: Mapping[str, AttributeLabels], task: Sequence[str], sensitive: Sequence[str]
) -> None:
    """Refuse attributes that are one attribute under two names, and a task that tells a secret.

    Compared are the labels of all records, not how the expressions are written: ``smiling`` against
    ``smiling==1``, its complement, or the same classes under other names. A secret that tells the task is
    no fault: a person's identity tells every attribute that people keep.

    Raises:
        DataError: Two attributes tell one another, or a task tells a secret; the message names both.
    """
    for first, second in combinations([*task, *sensitive], 2):
        one, two = labels[first].values, labels[second].values
        if determines(one, two) and determines(two, one):
            raise _refusal(first, second, task, sensitive, len(one), _how_same(one, two))
    for first in task:
        for second in sensitive:
            one, two = labels[first].values, labels[second].values
            if determines(one, two):
                how = f"each class of {first} has one class of {second}"
                raise _refusal(first, second, task, sensitive, len(one), how)


def told_together(
    labels: Mapping[str, AttributeLabels], task: Sequence[str], sensitive: Sequence[str]
) -> list[str]:
    """The secrets that the tasks tell together (none of them alone does: that is refused).

    For a warning, not a refusal: with many cells of few records each this may be chance.
    """
    if len(task) < 2:
        return []
    columns = np.stack([labels[name].values for name in task], axis=1)
    cell = np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return [name for name in sensitive if determines(cell, labels[name].values)]


def _how_same(one: IntArray, two: IntArray) -> str:
    if np.array_equal(one, two):
        return "their labels are equal"
    if max(int(one.max()), int(two.max())) == 1:
        return "one is the complement of the other"
    return "they are the same classes in another order"


def _refusal(
    first: str, second: str, task: Sequence[str], sensitive: Sequence[str], count: int, how: str
) -> DataError:
    secret = first in task and second in sensitive
    keys = {"dataset.task" if name in task else "dataset.sensitive": None for name in (first, second)}
    return DataError(
        key=" and ".join(keys),
        value=f"{first}, {second}",
        rule=f"{'tell' if secret else 'are'} the same on all {count} records: {how}"
        + (": no defense can hide what the task itself says" if secret else ""),
        remedy="Choose another secret or another task" if secret else "Remove one of the two",
    )
