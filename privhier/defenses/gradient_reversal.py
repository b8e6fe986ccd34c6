"""Gradient reversal (Ganin and Lempitsky, 2015): the edge climbs what the adversarial exits descend.

Known limit: it can leave everything in place while its own adversary looks beaten; only fresh attackers
tell.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from privhier.defenses.base import (
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseOptions,
    classification_loss,
    defenses,
    task_loss_per_record,
)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0] * -ctx.weight, None


def reverse_gradient(z: Tensor, weight: float) -> Tensor:
    """``z`` itself, whose gradient is multiplied by ``-weight`` on the way back."""
    result: Tensor = _Reverse.apply(z, weight)
    return result


@defenses.register("gradient_reversal")
class GradientReversal(Defense):
    """The edge's gradient is the task's minus ``weight`` times the adversaries'.

    The adversarial exits themselves descend their cross-entropy at full scale, in the same backward.
    """

    Options: ClassVar[type[DefenseOptions]] = AdversarialOptions
    options: AdversarialOptions

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy plus the adversaries' behind the reversal: ``(B,)``."""
        reversed_z = reverse_gradient(batch.z, self.options.weight * batch.strength)
        adversary = classification_loss(batch.edge.adversary_logits(reversed_z), batch.sensitive_labels)
        return task_loss_per_record(batch) + adversary
