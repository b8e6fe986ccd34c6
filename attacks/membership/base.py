"""The contract of membership attacks: a frozen set of hyper-parameters with ``run(view)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from privhier.attacks.membership.view import MembershipView
from privhier.registry import Registry

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MembershipResult:
    """What an attacker says about the candidates, before anyone looks at who was in.

    Attributes:
        scores: By part of the network, float64 ``(n,)``; larger says "member".
        selected: What was settled while attacking.
        seconds: Wall time, shadow models that were trained for it included.
        queries: Predictions of single records, asked of the target and of the shadow models.
    """

    scores: Mapping[str, Scores]
    selected: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    queries: int = 0


@runtime_checkable
class MembershipAttack(Protocol):
    """A frozen dataclass of hyper-parameters; its repr is its id."""

    expensive: ClassVar[bool]
    """Whether it trains models with the target's own procedure."""

    @property
    def shadows(self) -> int:
        """Shadow models it uses."""
        ...

    def refuses(self, view: MembershipView) -> str | None:
        """Why this attack does not apply to this view (a reason for the report), or None."""
        ...

    def run(self, view: MembershipView) -> MembershipResult:
        """Train the shadow models that are not there yet, and score every candidate."""
        ...


membership_attacks: Registry[type[MembershipAttack]] = Registry(
    "membership_attacks", key="attacks.membership"
)
