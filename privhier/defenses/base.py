"""The defense contract: one per-sample scalar loss for the edge and everything on it, one backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from privhier.config import Choice, Section
from privhier.config.choices import build
from privhier.config.contracts import faults_of_class
from privhier.defenses.batch import UNKNOWN_LABEL, DefenseBatch, DefenseData
from privhier.models.edge import EdgeSegment
from privhier.registry import Registry

__all__ = [
    "UNKNOWN_LABEL",
    "AdversarialOptions",
    "Defense",
    "DefenseBatch",
    "DefenseData",
    "DefenseOptions",
    "build_defense",
    "classification_loss",
    "defenses",
    "task_loss_per_record",
]

Need = Literal["clipped", "images", "persons", "values", "letters", "map"]
"""Of a batch: the clipped features, the images, the persons. Of a run: releases of values, of letters, a map
``(C, h, w)``."""


class DefenseOptions(Section):
    """Options of a defense: strictly typed, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AdversarialOptions(DefenseOptions):
    """Options of the defenses that work against the adversarial exits."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the defense term against the task loss (sum over task attributes of cross-entropy)."""
    adversary_steps: int = Field(0, ge=0)
    """Extra steps of the adversarial exits alone before each step of the edge."""


class Defense(nn.Module, ABC):
    """What shapes the edge's objective.

    A defense's own parameters, if it has any, are this module's parameters: the training loop puts them
    into the edge's optimizer, and checkpoints hold them with its buffers. ``repr`` names the defense and its
    options. In order, a training calls ``outlet`` (a network is built), ``attach``, ``begin``, then for
    every batch ``loss``, one backward, one step, ``adversary_loss`` as often as ``adversary_steps`` says, and
    ``after_step``; after the last epoch of pre-training ``finish``, where ``finishes``; at the end
    ``report``.

    Args:
        options: Validated options, an instance of the class's ``Options``; None: its defaults.

    Attributes:
        Options: Its options; none unless the class names others.
        mixes_records: Whether a record's loss depends on the other records of its batch, as distance
            correlation, HSIC or MMD do. Legal without ``edge.dp_sgd``, refused with it: its guarantee is
            about what one record does to a step.
        needs: What it asks for beyond ``z``, labels and exits; see ``Need``. What a run cannot give
            is refused before it starts.
        finishes: Whether ``finish`` fits something in closed form after pre-training; then there are no
            joint epochs, which would move the edge away from what was fitted.
    """

    Options: ClassVar[type[DefenseOptions]] = DefenseOptions
    mixes_records: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()
    finishes: ClassVar[bool] = False

    def __init__(self, options: DefenseOptions | None = None) -> None:
        super().__init__()
        self.options = self.Options() if options is None else options

    @property
    def adversary_steps(self) -> int:
        """Extra adversary-only steps the training loop takes before each step of the edge."""
        return int(getattr(self.options, "adversary_steps", 0))

    @property
    def needs_noise(self) -> bool:
        """Whether it counts by the Gaussian noise of the release: a run without any is refused."""
        return False

    @property
    def reads_data(self) -> bool:
        """Whether it learns from records outside of the one loss, in ``begin``, ``after_step``, ``finish``.

        Only then are these called. It is refused under DP-SGD, whose guarantee knows nothing of it.
        """
        return self.finishes

    @property
    def has_parameters(self) -> bool:
        """Whether it trains parameters of its own, now or from ``attach`` on, or puts any into the edge."""
        return next(self.parameters(), None) is not None

    def members(self, name: str) -> Iterator[tuple[str, str, Defense]]:
        """Each defense that this one is made of, with its registered name and the key it stands under.

        Args:
            name: Its own, where it is made of no others.
        """
        yield name, "defense", self

    def outlet(self, feature_shape: Sequence[int]) -> nn.Module | None:
        """A module ``(B, *feature_shape)`` to the same, between bottleneck and clip; None: nothing there.

        It becomes a part of the edge, is saved and deployed with it, and its parameters are trained with
        the edge's. Until it is trained or fitted it must be the identity or nearly so, or a mask on it (what
        it leaves is what it was given), and it takes every record by itself. Drawn at random from torch's
        generator, which the caller has seeded and isolated.
        """
        return None

    def check(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Called before a run writes anything, where ``reads_data``: refuse what cannot be done.

        The edge is as initialized and nothing may be changed; raise ``ConfigError``.
        """

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Called once before training, also before a resumed one, where ``reads_data``: priors, budgets.

        A function of its arguments: what training changes belongs into parameters or buffers.
        """

    def after_step(self, batch: DefenseBatch) -> None:
        """Called without gradients after a step on this batch, where ``reads_data``.

        The caller has seeded and isolated torch's generator, afresh for every step.
        """

    def finish(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Called once after pre-training, where ``finishes``: fits ``edge.outlet`` or buffers in closed form.

        All exits are then trained anew on what the outlet lets through, and letters found after that.
        """

    def report(self, batch: DefenseBatch) -> dict[str, Any]:
        """What it can say of the trained edge, as plain data for the run's report; by default nothing.

        Args:
            batch: Validation records, which no weight was trained on: ``clipped`` whether needed or not, and
                the same as ``z``; neither images nor persons.
        """
        return {}

    def adversaries(self) -> Iterator[nn.Parameter]:
        """Those of its own parameters that ``adversary_loss`` trains, beside the adversarial exits'."""
        return iter(())

    def attach(self, edge: EdgeSegment) -> None:
        """Called once before the first step, and before Opacus puts its hooks on the edge.

        Copy here what must stay outside these, and make what has the edge's shapes; parameters made here, of
        which ``has_parameters`` tells beforehand, are trained. Drawn at random from torch's generator,
        which the caller has seeded and isolated.
        """

    @abstractmethod
    def loss(self, batch: DefenseBatch) -> Tensor:
        """One loss per record, ``(B,)``: task exits, adversarial exits and defense term together.

        The mean over the batch, and one backward, trains everything on the edge. A record contributes
        nothing to an attribute whose label it lacks. Where records mix, each has its share of the batch's
        loss: the mean of the shares is what is minimized.

        At ``strength`` 0 it is the task's cross-entropy and ``adversary_loss`` on ``z``, and no more.
        """

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        """Loss ``(B,)`` of the adversarial exits on detached ``z``, for the extra adversary-only steps.

        It reaches no parameter but theirs and those of ``adversaries``.
        """
        return classification_loss(batch.edge.adversary_logits(z.detach()), batch.sensitive_labels)

    def forward(self, batch: DefenseBatch) -> Tensor:
        """Same as ``loss``."""
        return self.loss(batch)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.model_dump().items())
        return f"{type(self).__name__}({options})"


def _faults(entry: Any) -> Iterator[str]:
    yield from faults_of_class(entry, Defense)
    needs = getattr(entry, "needs", None)
    if not (isinstance(needs, frozenset) and needs <= set(get_args(Need))):
        yield f"needs must be a frozenset of {', '.join(get_args(Need))}, not {needs!r}"
    options = getattr(entry, "Options", None)
    if not (isinstance(options, type) and issubclass(options, DefenseOptions)):
        yield "it lacks Options: ClassVar[type[DefenseOptions]], a subclass of DefenseOptions"


defenses: Registry[type[Defense]] = Registry(
    "defenses", key="defense.name", builtin="privhier.defenses.builtin", check=_faults
)


def classification_loss(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Cross-entropy in nats per record, summed over attributes: ``(B,)``; unknown labels count 0.

    Args:
        logits: ``(B, K)`` per attribute.
        labels: int64 ``(B,)`` per attribute, in [0, K) or -1.
    """
    losses = [
        F.cross_entropy(logits_bk, labels_b, reduction="none", ignore_index=UNKNOWN_LABEL)
        for logits_bk, labels_b in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses).sum(0)


def task_loss_per_record(batch: DefenseBatch) -> Tensor:
    """Cross-entropy of the task exits per record, summed over task attributes: ``(B,)``."""
    return classification_loss(batch.edge.task_logits(batch.z), batch.task_labels)


def build_defense(choice: Choice) -> Defense:
    """The defense ``choice.name`` with validated options.

    Raises:
        UnknownNameError: No such defense; the message names the nearest.
        ConfigError: An option that is unknown, of the wrong type or out of range, under the key
            ``defense.options.NAME``.
    """
    return build(defenses, choice)
