"""The edge segment: everything that sees images, and its early exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from privhier.models.exits import Exit


class EdgeSegment(nn.Module):
    """Trunk, bottleneck and early exits.

    Attributes:
        trunk: Normalized images ``(B, 3, S, S)`` to features ``(B, C, h, w)``.
        bottleneck: Features to ``(B, *release_shape)``.
        task_exits: One exit per task attribute, in the order of ``task_names``.
        adversarial_exits: One exit per sensitive attribute, in the order of ``sensitive_names``.
        release_shape: Shape of one record's release, ``(d,)`` or ``(C, h, w)``.
    """

    def __init__(
        self,
        trunk: nn.Module,
        bottleneck: nn.Module,
        *,
        task_exits: Mapping[str, Exit],
        adversarial_exits: Mapping[str, Exit],
        release_shape: Sequence[int],
        description: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = bottleneck
        # Lists, since attribute expressions such as race==0 are no valid module names.
        self.task_exits = nn.ModuleList(task_exits.values())
        self.adversarial_exits = nn.ModuleList(adversarial_exits.values())
        self.task_names = tuple(task_exits)
        self.sensitive_names = tuple(adversarial_exits)
        self.release_shape = tuple(release_shape)
        self._description = dict(description)

    def features(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, S, S)``, normalized float32, to raw features ``(B, *release_shape)``.

        Raw: neither clipped nor noised. They must not leave the edge.
        """
        return self.bottleneck(self.trunk(x))  # type: ignore[no-any-return]

    def task_logits(self, z: Tensor) -> list[Tensor]:
        """Task exits on ``z (B, *release_shape)``: one ``(B, K)`` per task attribute, in order."""
        return [head(z) for head in self.task_exits]

    def adversary_logits(self, z: Tensor) -> list[Tensor]:
        """Adversarial exits on ``z (B, *release_shape)``: one ``(B, K)`` per sensitive attribute."""
        return [head(z) for head in self.adversarial_exits]

    def forward(self, x: Tensor) -> Tensor:
        """Same as ``features``."""
        return self.features(x)

    def note(self, **facts: Any) -> None:
        """Add facts to the description."""
        self._description |= facts

    def describe(self) -> dict[str, Any]:
        """Plain data for the report: backbone, cut, shapes, parameter counts, origin of the weights."""
        parts = {"trunk": self.trunk, "bottleneck": self.bottleneck}
        parts |= {"task_exits": self.task_exits, "adversarial_exits": self.adversarial_exits}
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        return self._description | {"release_shape": list(self.release_shape), "parameters": counts}
