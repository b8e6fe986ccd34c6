"""The edge segment: everything that sees images, and its early exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode
from privhier.models.span import span


class EdgeSegment(nn.Module):
    """Trunk, bottleneck and early exits.

    Attributes:
        trunk: Normalized images ``(B, 3, S, S)`` to features ``(B, C, h, w)``.
        bottleneck: Features to ``(B, *feature_shape)``.
        task_exits: One exit per task attribute, in the order of ``task_names``.
        adversarial_exits: One exit per sensitive attribute, in the order of ``sensitive_names``.
        feature_shape: What exits see of one record, ``(d,)`` or ``(C, h, w)``; of letters their values.
        release_shape: Shape of one record's release: the same, or ``(M,)`` letters.
        code: What letters there are, where a release is made of letters; see ``codebook``.
        outlet: What a defense put between bottleneck and clip: ``(B, *feature_shape)`` to the same.
    """

    def __init__(
        self,
        trunk: nn.Module,
        bottleneck: nn.Module,
        *,
        task_exits: Mapping[str, Exit],
        adversarial_exits: Mapping[str, Exit],
        feature_shape: Sequence[int],
        description: Mapping[str, Any],
        code: LetterCode | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = bottleneck
        # Lists, since attribute expressions such as race==0 are no valid module names.
        self.task_exits = nn.ModuleList(task_exits.values())
        self.adversarial_exits = nn.ModuleList(adversarial_exits.values())
        self.task_names = tuple(task_exits)
        self.sensitive_names = tuple(adversarial_exits)
        self.feature_shape = tuple(feature_shape)
        self.code = code
        self.outlet: nn.Module = nn.Identity()
        self.release_shape = self.feature_shape if code is None else (code.groups,)
        self._description = dict(description)

    @property
    def task_heads(self) -> list[Exit]:
        """The task exits, in order."""
        return [head for head in self.task_exits if isinstance(head, Exit)]

    @property
    def codebook(self) -> LetterCode | None:
        """What letters there are; None where none are released, and before they were found."""
        return self.code if self.code is not None and bool(self.code.settled) else None

    def read(self, released: Tensor) -> Tensor:
        """What exits see of a release that went up: its values ``(B, *feature_shape)``.

        Args:
            released: ``(B, *release_shape)``; letters as whole numbers of any type.
        """
        code = self.codebook
        if code is None:
            return released
        return code.values_of(released.long().to(code.settled.device)).detach()

    def features(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, S, S)``, normalized float32, to raw features ``(B, *feature_shape)``.

        Raw: neither clipped nor noised. They must not leave the edge.
        """
        return self.outlet(self.inner_features(x))  # type: ignore[no-any-return]

    def inner_features(self, x: Tensor) -> Tensor:
        """Images to what the bottleneck makes of them, ``(B, *feature_shape)``, before the outlet."""
        return self.bottleneck(self.trunk(x))  # type: ignore[no-any-return]

    def task_logits(self, z: Tensor) -> list[Tensor]:
        """Task exits on ``z (B, *feature_shape)``: one ``(B, K)`` per task attribute, in order."""
        with span("exits"):
            return [head(z) for head in self.task_exits]

    def adversary_logits(self, z: Tensor) -> list[Tensor]:
        """Adversarial exits on ``z (B, *feature_shape)``: one ``(B, K)`` per sensitive attribute."""
        with span("exits"):
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
        parts |= {} if self.code is None else {"code": self.code}
        parts |= {} if isinstance(self.outlet, nn.Identity) else {"outlet": self.outlet}
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        return self._description | {"release_shape": list(self.release_shape), "parameters": counts}
