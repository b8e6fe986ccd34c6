"""The attack contract: a frozen set of hyper-parameters with ``run(view)``; its repr is its test id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

from privhier.attacks.once import Timed
from privhier.attacks.refusals import Kind, usual_refusal
from privhier.attacks.view import View
from privhier.config.choices import check_bounds
from privhier.config.contracts import (
    faults_of_call,
    faults_of_class,
    faults_of_constant,
    faults_of_flag,
    faults_of_options,
)
from privhier.registry import Registry

__all__ = ["KINDS", "Attack", "AttackResult", "Kind", "attacks"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
KINDS: tuple[Kind, ...] = get_args(Kind)


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
        seconds: Wall time of training and inference, with what was found already computed for other
            attacks on the same view, so that order does not matter. Nobody fills it in by hand.
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


@dataclass(frozen=True)
class Attack(Timed, ABC):
    """A frozen dataclass of hyper-parameters with ``run``; a subclass adds its fields, each with a default.

    ``target`` (attribute attacks) names the attribute; other kinds leave it ``"identity"`` or ``""``.
    """

    kind: ClassVar[Kind]
    """What it attacks; a subclass says it."""
    white_box: ClassVar[bool] = False
    """Whether it needs the edge's weights; such an attack runs on the white-box view only."""
    expensive: ClassVar[bool] = False
    """Whether it optimizes for every victim anew, so that it may be given fewer of them."""
    target: str = ""

    def __post_init__(self) -> None:
        """Hold the options' bounds as a configuration does; a subclass with rules of its own calls it.

        Raises:
            ConfigError: A value out of its range.
        """
        check_bounds(self)

    def refuses(self, view: View) -> str | None:
        """Why this attack does not apply to this view (a reason for the report), or None.

        By default: where what its kind is trained on is missing. An attack that makes no use of task
        labels also says ``label_refusal``, so that it is not run twice on the same releases.
        """
        return usual_refusal(view, self.kind, self.target, white_box=self.white_box)

    @abstractmethod
    def run(self, view: View) -> AttackResult:
        """Train on the view's auxiliary set, select on its own validation split, attack the victims.

        The result's ``seconds`` are filled in around it.
        """

    @classmethod
    def broken_rules(cls) -> Iterator[str]:
        """Rules of a family of attacks that this one breaks; asked for when it is registered."""
        yield from ()


def _faults(entry: Any) -> Iterator[str]:
    """Why a class is no attack; one that does not inherit from ``Attack`` must have all of it itself."""
    if not isinstance(entry, type):
        yield f"it is a {type(entry).__name__}, not a class"
        return
    yield from faults_of_options(entry)
    kind = getattr(entry, "kind", None)
    if kind not in KINDS:
        said = "lacks kind" if kind is None else f"has kind {kind!r}"
        yield f"it {said}: kind: ClassVar[Kind] must be one of {', '.join(KINDS)}"
    yield from faults_of_constant(entry, "kind")
    yield from faults_of_flag(entry, "white_box", "whether it needs the edge's weights")
    yield from faults_of_flag(entry, "expensive", "whether it optimizes for every victim anew")
    target = {one.name: one for one in fields(entry)}.get("target") if is_dataclass(entry) else None
    if target is None or not target.init or not isinstance(target.default, str):
        yield 'it lacks the field target: str = ""'
    if issubclass(entry, Attack):
        yield from faults_of_class(entry, Attack)
        yield from entry.broken_rules()
    for name, gives in (("refuses", "a reason or None"), ("run", "an AttackResult")):
        yield from faults_of_call(getattr(entry, name, None), f"{name}(view), which gives {gives}", "", "")


attacks: Registry[type[Attack]] = Registry(
    "attacks", key="attacks", builtin="privhier.attacks.builtin", check=_faults
)
