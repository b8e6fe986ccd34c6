"""No defense: the reference every other one is compared with."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from privhier.defenses.base import Defense, DefenseBatch, DefenseOptions, defenses, task_loss


@defenses.register("none")
class NoDefense(Defense):
    """Task exits only shape the edge; the adversarial exits train on detached features, as a monitor."""

    Options: ClassVar[type[DefenseOptions]] = DefenseOptions

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, plus the monitors' own that stops at ``z``: ``(B,)``."""
        return task_loss(batch) + self.adversary_loss(batch.z, batch)
