"""The contract of membership attacks: a frozen set of hyper-parameters with ``run(view)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from privhier.attacks.membership.view import MembershipView
from privhier.attacks.once import Timed
from privhier.config.choices import option
from privhier.config.contracts import faults_of_class, faults_of_flag, faults_of_options
from privhier.registry import Registry

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MembershipResult:
    """What an attacker says about the candidates, before anyone looks at who was in.

    Attributes:
        scores: By part of the network, float64 ``(n,)``; larger says "member".
        selected: What was settled while attacking.
        seconds: Wall time, the shadow models it uses included, whoever trained them and when.
        queries: Predictions of single records, asked of the target and of the shadow models.
    """

    scores: Mapping[str, Scores]
    selected: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    queries: int = 0


@dataclass(frozen=True)
class MembershipAttack(Timed, ABC):
    """A frozen dataclass of hyper-parameters; its repr is its id.

    Attributes:
        shadows: Shadow models it uses, an even number: two at a time share out the candidates.
    """

    expensive: ClassVar[bool] = True
    """Whether it trains models with the target's own procedure."""
    shadows: int = option(16, low=4, high=1024)

    def __post_init__(self) -> None:
        if self.shadows % 2:
            raise ValueError("shadows must be even: two at a time share out the candidates")

    def refuses(self, view: MembershipView) -> str | None:
        """Why this attack does not apply to this view (a reason for the report), or None."""
        return None

    @abstractmethod
    def run(self, view: MembershipView) -> MembershipResult:
        """Train the shadow models that are not there yet, and score every candidate.

        The result's ``seconds`` are filled in around it.
        """


def _faults(entry: Any) -> Iterator[str]:
    """Why a class is no membership attack."""
    yield from faults_of_class(entry, MembershipAttack)
    if isinstance(entry, type):
        yield from faults_of_options(entry)
        yield from faults_of_flag(entry, "expensive", "whether it trains models as the target was trained")


membership_attacks: Registry[type[MembershipAttack]] = Registry(
    "membership_attacks",
    key="attacks.membership",
    builtin="privhier.attacks.membership.builtin",
    check=_faults,
)
