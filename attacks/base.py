"""The attack contract: a frozen set of hyper-parameters with ``run(view)``; its repr is its test id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from privhier.attacks.view import View
from privhier.registry import Registry

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Kind = Literal["attribute", "verification", "reconstruction", "property"]


@dataclass(frozen=True)
class AttackResult:
    """What an attacker says about the victims, before anyone looks at their truth.

    Exactly the fields of its kind are set.

    Attributes:
        probabilities: attribute: float32 ``(n, K)``, rows sum to 1.
        predictions: attribute: int64 ``(n,)``, the decision rule chosen on the attacker's own
            validation split to maximize balanced accuracy.
        embeddings: verification: float32 ``(n, E)``; cosine similarity says "same person".
        reconstructions: reconstruction: float32 ``(n, 3, H, W)`` in [0, 1].
        shares: property: float32 ``(P, K)``, the estimated share of every class in every population.
        own_loss: reconstruction: float32 ``(n,)``, the attacker's own estimate of its error.
        validation: The attacker's score on its own validation split (AUC, or -loss).
        selected: Hyper-parameters it chose there.
        seconds: Wall time of training and inference; the bench adds what it found already computed for
            other attacks on the same view, so that order does not matter.
        queries: Releases of auxiliary records it used.
    """

    probabilities: FloatArray | None = None
    predictions: IntArray | None = None
    embeddings: FloatArray | None = None
    reconstructions: FloatArray | None = None
    own_loss: FloatArray | None = None
    shares: FloatArray | None = None
    validation: float = float("nan")
    selected: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    queries: int = 0


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of hyper-parameters.

    ``target`` (attribute attacks) names the attribute; other kinds leave it ``"identity"`` or ``""``.
    """

    kind: ClassVar[Kind]
    white_box: ClassVar[bool]
    """Whether it needs the edge's weights; such an attack runs on the white-box view only."""
    expensive: ClassVar[bool]
    """Whether it optimizes for every victim anew, so that it may be given fewer of them."""

    @property
    def target(self) -> str:
        """Name of the attribute, ``"identity"`` or ``""``."""
        ...

    def refuses(self, view: View) -> str | None:
        """Why this attack does not apply to this view (a reason for the report), or None."""
        ...

    def run(self, view: View) -> AttackResult:
        """Train on the view's auxiliary set, select on its own validation split, attack the victims."""
        ...


attacks: Registry[type[Attack]] = Registry("attacks", key="attacks")
