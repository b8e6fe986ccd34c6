"""Task cells: records whose task labels are all the same, numbered one way by whoever counts within them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from privhier.defenses.batch import UNKNOWN_LABEL


def task_cells(labels: Sequence[Tensor], classes: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """The cell of every record, and whether all its task labels are known.

    Cells are numbered as digits are, the last task's label changing fastest: in the order of the labels,
    whatever numbers of classes are assumed. A label that is not known is numbered as class 0.

    Args:
        labels: int64 ``(n,)`` per task attribute, at least one; -1 where not known.
        classes: Number of classes per task; None: as many as these labels show.

    Returns:
        int64 ``(n,)`` in ``[0, product of classes)``, and bool ``(n,)``.

    Example:
        >>> task_cells([torch.tensor([0, 1, 1, -1]), torch.tensor([2, 0, 1, 1])], [2, 3])
        (tensor([2, 3, 4, 1]), tensor([ True,  True,  True, False]))
    """
    cells, known = torch.zeros_like(labels[0]), torch.ones_like(labels[0], dtype=torch.bool)
    for number, column in enumerate(labels):
        seen = column.clamp_min(0)
        size = int(seen.max()) + 1 if classes is None else classes[number]
        cells = cells * size + seen
        known = known & (column != UNKNOWN_LABEL)
    return cells, known
