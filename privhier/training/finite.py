"""A training that leaves the finite numbers ends at once, and says which key to lower."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from privhier.errors import TrainingError

Side = Literal["edge", "cloud"]
LOOK_EVERY = 16
"""Steps between two looks at the loss where a look makes a device wait."""


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


class LossWatch:
    """Looks at losses for one that is not finite: each at once, or on a device several together.

    A look waits for the device; between two looks it is kept busy. Nothing leaves the edge unseen: features
    that are to be released are looked at by themselves.

    Args:
        device: Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = 1 if device.type == "cpu" else LOOK_EVERY
        self._waiting: list[torch.Tensor] = []

    def see(self, loss: torch.Tensor) -> str | None:
        """Take the next loss; what to say of one that is not finite, if it is time to look."""
        self._waiting.append(loss)
        return self.look() if len(self._waiting) >= self.every else None

    def look(self) -> str | None:
        """Look at all that were not looked at yet: what to say of the first that is not finite."""
        values = torch.stack(self._waiting).tolist() if self._waiting else []
        self._waiting.clear()
        bad = next((value for value in values if not math.isfinite(value)), None)
        return None if bad is None else f"the loss is {bad}"


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
