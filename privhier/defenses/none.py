"""No defense: the reference every other one is compared with."""

from __future__ import annotations

from torch import Tensor

from privhier.defenses.base import Defense, DefenseBatch, defenses, task_loss_per_record


@defenses.register("none")
class NoDefense(Defense):
    """Task exits only shape the edge; the adversarial exits train on detached features, as a monitor."""

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, plus the monitors' own that stops at ``z``: ``(B,)``."""
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
