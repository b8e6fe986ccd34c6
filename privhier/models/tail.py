"""The cloud tail: everything that sees releases only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class CloudTail(nn.Module):
    """Expander, remaining stages and head.

    Attributes:
        expander: Releases ``(B, *release_shape)`` to the features ``(B, C, h, w)`` at the cut.
        tail: Features to ``(B, sum of K)`` logits.
        task_classes: Task attribute to its number of classes K, in order.
    """

    def __init__(self, expander: nn.Module, tail: nn.Module, *, task_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.expander = expander
        self.tail = tail
        self.task_classes = dict(task_classes)
        self._sizes = list(task_classes.values())

    def forward(self, release: Tensor) -> list[Tensor]:
        """Releases ``(B, *release_shape)`` float32 to one ``(B, K)`` of logits per task, in order."""
        logits: Tensor = self.tail(self.expander(release))
        return list(torch.split(logits, self._sizes, dim=1))
