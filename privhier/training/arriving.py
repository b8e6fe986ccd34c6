"""Rows that arrive in any portions, cut into the batches that a complete cache would be cut into."""

from __future__ import annotations

import numpy as np
import torch

from privhier.training.batches import ordered_batches

Rows = tuple[torch.Tensor, torch.Tensor]


class ArrivingBatches:
    """Cuts them; it holds what has arrived and is not a whole batch yet.

    Args:
        total: Rows that are to come.
        batch_size: As configured.
    """

    def __init__(self, total: int, batch_size: int) -> None:
        self._left, self._batch_size = total, batch_size
        self._size = self._next()
        self._waiting: list[Rows] = []
        self._count = 0

    def add(self, payload: torch.Tensor, labels: torch.Tensor) -> list[Rows]:
        """Rows that came; returns the batches that are complete now."""
        self._waiting.append((payload, labels))
        self._count += len(labels)
        ready: list[Rows] = []
        if 0 < self._size <= self._count:
            z, y = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            while 0 < self._size <= len(y):
                size = self._size
                self._left -= size
                self._size = self._next()
                ready.append((z[:size], y[:size]))
                z, y = z[size:], y[size:]
            self._waiting, self._count = [(z, y)], len(y)
        return ready

    def _next(self) -> int:
        """Rows of the next batch; 0 after the last. Nothing is made for the whole of what was announced."""
        near = np.arange(min(self._left, 2 * self._batch_size + 1))
        return len(next(ordered_batches(near, self._batch_size))) if len(near) else 0
