"""A training that leaves the finite numbers ends at once, and says which key to lower."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from privhier.errors import TrainingError

Side = Literal["edge", "cloud"]


def exploded(side: Side, lr: float, what: str, where: str) -> TrainingError:
    """The error of a training whose numbers are no longer finite.

    Args:
        side: Whose optimizer it was.
        lr: Its learning rate, as configured.
        what: What is not finite, e.g. ``"the loss is nan"``.
        where: And where that showed, e.g. ``"joint epoch 2 of run debug"``.
    """
    return TrainingError(
        key=f"training.{side}.lr",
        value=lr,
        rule=f"training of the {side} exploded: {what} in {where}",
        remedy=f"Lower training.{side}.lr, e.g. to {min(lr / 10, 1e-2):.3g}, and choose another --out; the "
        "checkpoint of the epoch before is kept",
    )


def loss_text(loss: torch.Tensor) -> str | None:
    """What to say of a loss that is not finite; None where it is."""
    value = float(loss)
    return None if math.isfinite(value) else f"the loss is {value}"


def weights_text(modules: Iterable[nn.Module]) -> str | None:
    """What to say of weights and buffers that are not finite; None where all are."""
    for module in modules:
        for name, value in module.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                return f"the weights {name} hold {float(value[~value.isfinite()][0])}"
    return None


def logits_text(logits: Iterable[torch.Tensor]) -> str | None:
    """What to say of logits that are not finite; None where all are."""
    for value in logits:
        if not bool(value.isfinite().all()):
            return f"the logits are {float(value[~value.isfinite()][0])}"
    return None
