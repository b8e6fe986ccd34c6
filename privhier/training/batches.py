"""Images and labels of a split, batch by batch, in an order that depends on seed, phase and epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from privhier.datasets.base import ImageArray, IntArray, Splits
from privhier.seeding import torch_stream


@dataclass(frozen=True)
class TrainingData:
    """What the edge owns: images, task labels, sensitive labels and the splits.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, usually a memory map.
        task: int64 ``(N, n_tasks)`` class numbers.
        sensitive: int64 ``(N, n_sensitive)`` class numbers; -1 where not known to the edge.
        task_classes: Task attribute to its number of classes, in column order.
        sensitive_classes: Sensitive attribute to its number of classes, in column order.
        splits: Record numbers of each split.
        persons: int64 ``(N,)``, one number a person, -1 where not known; None where nobody is.
        task_class_names: Task attribute to its classes' names, in the order of their numbers; may lack some.
    """

    images: ImageArray
    task: Tensor
    sensitive: Tensor
    task_classes: Mapping[str, int]
    sensitive_classes: Mapping[str, int]
    splits: Splits
    persons: Tensor | None = None
    task_class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.images.shape[-1])

    def persons_of(self, records: IntArray) -> Tensor:
        """int64 ``(B,)``, the person of each of these records; -1 where not known."""
        return torch.full((len(records),), -1) if self.persons is None else self.persons[records]

    def pixels(self, records: IntArray) -> Tensor:
        """uint8 ``(B, 3, H, W)`` of these records."""
        return torch.from_numpy(np.ascontiguousarray(self.images[records]))


def shuffled_batches(
    records: IntArray, batch_size: int, seed: int, phase: str, epoch: int
) -> Iterator[IntArray]:
    """Disjoint batches that together hold every record exactly once, in a fresh order each epoch."""
    order = torch.randperm(len(records), generator=torch_stream(seed, "shuffle", phase, epoch)).numpy()
    yield from ordered_batches(records[order], batch_size)


def ordered_batches(records: IntArray, batch_size: int) -> Iterator[IntArray]:
    """Consecutive batches, ``batch_count`` of them: all of ``batch_size`` records but the last.

    Where batches hold several records, a last one of one record joins its neighbor (BatchNorm cannot take
    one alone).
    """
    count = batch_count(len(records), batch_size)
    for number in range(count):
        start = number * batch_size
        yield records[start : start + batch_size if number < count - 1 else None]


def batch_count(n_records: int, batch_size: int) -> int:
    """How many batches an epoch over so many records has; ``ordered_batches`` cuts them."""
    full, rest = divmod(n_records, batch_size)
    return full + (1 if rest > 1 or (rest == 1 and full == 0) else 0)
