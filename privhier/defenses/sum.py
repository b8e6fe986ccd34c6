"""Weighted combinations of other defenses: each adds its own term, the task and the exits learn once."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field, JsonValue, field_validator
from torch import Tensor, nn

from privhier.config import Choice, Section
from privhier.config.choices import build, check_options
from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.errors import ConfigError, PrivhierError, TrainingError
from privhier.models.edge import EdgeSegment
from privhier.seeding import isolated_rng

T = TypeVar("T")
_NAME, _KEY = "sum", "defense.options.parts"
_OWN = re.compile(r"\bdefense\.(?=(?:name|options)\b(?!\.parts\b))")
"""Where a part names a key as if it were the run's one defense."""


def _one() -> list[dict[str, JsonValue]]:
    return [{"name": "max_entropy"}]


class SumOptions(DefenseOptions):
    """Options of a weighted combination."""

    parts: list[dict[str, JsonValue]] = Field(default_factory=_one, min_length=1)
    """Each ``{name: DEFENSE, weight: 1.0, options: {...}}``; a bare string is the name."""

    @field_validator("parts", mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"name": part} if isinstance(part, str) else part for part in value]


class Part(Section):
    """One defense of a combination."""

    name: str
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Of its term, whatever weight its own options give it."""
    options: dict[str, JsonValue] = Field(default_factory=dict)


@defenses.register(_NAME)
class Sum(Defense):
    r"""The edge is shaped by several defenses at once: the task and :math:`\sum_p w_p T_p`.

    A part's term :math:`T_p` is what its loss adds to the task's and its adversaries' cross-entropy, which is
    what is left of it at strength 0; its own adversaries learn whatever its weight. Each part's loss is
    computed once a step. The parts see copies of the exits that hold the same values as constants, so that
    the exits themselves are trained by the task and by their own cross-entropy once, and under DP-SGD are
    passed through once a step.

    It needs what any part needs, mixes records if one does, finishes if one does, and takes the most extra
    adversary steps of any. Parts are no sums; one of them may put an outlet into the edge.
    """

    Options: ClassVar[type[DefenseOptions]] = SumOptions
    options: SumOptions

    def __init__(self, options: DefenseOptions | None = None) -> None:
        super().__init__(options)
        chosen = [
            check_options(Part, raw, f"{_KEY}[{number}]", of="a part of sum")
            for number, raw in enumerate(self.options.parts)
        ]
        self.weights = [part.weight for part in chosen]
        self._names = [part.name for part in chosen]
        seed = torch.initial_seed()  # of the generator that the caller has seeded; nothing is drawn
        built = []
        for number, part in enumerate(chosen):
            with (
                isolated_rng(seed, "part", number),
                _named(number),
            ):  # two alike draw adversaries of their own
                built.append(_made(number, part))
        self.parts = nn.ModuleList(built)
        needs: frozenset[Need] = frozenset().union(*(part.needs for part in built))
        _check_together(chosen, built, needs)
        # Constants of a class elsewhere; here they are what the parts are.
        vars(self).update(
            needs=needs,
            mixes_records=any(part.mixes_records for part in built),
            finishes=any(part.finishes for part in built),
        )
        self._exits: tuple[tuple[nn.ModuleList, nn.ModuleList], ...] = ()

    @property
    def _built(self) -> list[Defense]:
        return [part for part in self.parts if isinstance(part, Defense)]

    @property
    def adversary_steps(self) -> int:
        """The most of any part."""
        return max(part.adversary_steps for part in self._built)

    @property
    def needs_noise(self) -> bool:
        """Whether a part does."""
        return any(part.needs_noise for part in self._built)

    def members(self, name: str) -> Iterator[tuple[str, str, Defense]]:
        """The parts."""
        for number, (own, part) in enumerate(zip(self._names, self._built, strict=True)):
            yield own, _where(number), part

    def report(self, batch: DefenseBatch) -> dict[str, Any]:
        """What the parts have to say."""
        return {
            key: said for found in self._ask(lambda part: part.report(batch)) for key, said in found.items()
        }

    @property
    def reads_data(self) -> bool:
        """Whether a part does."""
        return any(part.reads_data for part in self._built)

    @property
    def has_parameters(self) -> bool:
        """Whether a part has any."""
        return any(part.has_parameters for part in self._built)

    def outlet(self, feature_shape: Sequence[int]) -> nn.Module | None:
        """The outlet of the one part that has one."""
        found = self._ask(lambda part: part.outlet(feature_shape))
        return next((outlet for outlet in found if outlet is not None), None)

    def attach(self, edge: EdgeSegment) -> None:
        """Attach the parts, and copy the exits before Opacus puts its hooks on them."""
        self._exits = (_copies(edge),)
        self._ask(lambda part: part.attach(edge))

    def check(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Ask the parts that read data."""
        self._ask(lambda part: part.check(edge, data), of=_reads)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Show the training records to the parts that read them."""
        self._ask(lambda part: part.begin(edge, data), of=_reads)

    def after_step(self, batch: DefenseBatch) -> None:
        """Tell the parts that read data."""
        self._ask(lambda part: part.after_step(batch), of=_reads)

    def finish(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Fit the parts that finish, in order."""
        self._ask(lambda part: part.finish(edge, data), of=lambda part: part.finishes)

    def adversaries(self) -> Iterator[nn.Parameter]:
        """Those of all parts."""
        for part in self._built:
            yield from part.adversaries()

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        """The exits' cross-entropy once, and that of every part's own adversaries: ``(B,)``."""
        losses = super().adversary_loss(z, batch)
        beside = self._beside(batch)
        exits = super().adversary_loss(z, beside)
        for learning in self._ask(lambda part: part.adversary_loss(z, beside), of=_has_adversaries):
            losses = losses + learning - exits
        return losses

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, the exits' own, what the parts themselves learn, and the terms: ``(B,)``.

        Raises:
            TrainingError: A part gives anything but one loss a record.
        """
        beside = self._beside(batch)
        losses = task_loss_per_record(batch) + super().adversary_loss(batch.z, batch)
        exits = super().adversary_loss(batch.z, beside)
        plain = task_loss_per_record(beside) + exits
        wholes = self._ask(lambda part: _loss_of(part, beside))
        for weight, part, whole in zip(self.weights, self._built, wholes, strict=True):
            losses = losses + weight * (whole - plain)
            if weight != 1 and _has_adversaries(part):  # of their learning that holds `weight` times
                losses = losses + (1 - weight) * (part.adversary_loss(batch.z, beside) - exits)
        return losses

    def _ask(
        self, act: Callable[[Defense], T], *, of: Callable[[Defense], bool] = lambda part: True
    ) -> list[T]:
        """What parts answer, in order; what one of them refuses is put under its own key."""
        found = []
        for number, part in enumerate(self._built):
            if of(part):
                with _named(number):
                    found.append(act(part))
        return found

    def _beside(self, batch: DefenseBatch) -> DefenseBatch:
        """The batch with an edge whose exits are constants that no hook sees, at their present values."""
        edge = batch.edge
        copies = self._exits[0] if self._exits else _copies(edge)
        for copied, exits in zip(copies, (edge.task_exits, edge.adversarial_exits), strict=True):
            for constant, parameter in zip(copied.parameters(), exits.parameters(), strict=True):
                constant.data = parameter.data
        still = copy.copy(edge)
        still._modules = {**edge._modules, "task_exits": copies[0], "adversarial_exits": copies[1]}
        return replace(batch, edge=still)


def _reads(part: Defense) -> bool:
    return part.reads_data


def _has_adversaries(part: Defense) -> bool:
    return next(part.adversaries(), None) is not None


def _loss_of(part: Defense, batch: DefenseBatch) -> Tensor:
    losses = part.loss(batch)
    if not isinstance(losses, Tensor) or losses.shape != (len(batch.z),):  # else it would be broadcast
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise TrainingError(
            key="defense.name",
            value=type(part).__name__,
            rule=f"must give one loss a record, ({len(batch.z)},), and gave {shape}",
            remedy="Return a tensor (B,) from its loss(); the training loop takes the mean",
        )
    return losses


def _where(number: int) -> str:
    return f"{_KEY}[{number}]"


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Put what is refused inside under the key of this part: it does not know that it is one."""
    where = _where(number)
    try:
        yield
    except PrivhierError as error:
        key, rule, remedy = (_OWN.sub(f"{where}.", text) for text in (error.key, error.rule, error.remedy))
        if where not in f"{key} {rule}":
            rule = f"{rule} (asked for by {where})"
        # In place, so that it stays what it is: subclasses may be made of other things.
        PrivhierError.__init__(error, key=key, value=error.value, rule=rule, remedy=remedy)
        raise


def _copies(edge: EdgeSegment) -> tuple[nn.ModuleList, nn.ModuleList]:
    task, adversarial = (copy.deepcopy(exits) for exits in (edge.task_exits, edge.adversarial_exits))
    return task.requires_grad_(False), adversarial.requires_grad_(False)


def _made(number: int, part: Part) -> Defense:
    where = f"{_where(number)}.name"
    if part.name == _NAME:
        raise ConfigError(
            key=where,
            value=part.name,
            rule="must be another defense: a sum within a sum is one sum",
            remedy="List its parts here, their weights multiplied by its own",
        )
    return build(defenses, Choice(name=part.name, options=part.options), key=where)


def _check_together(chosen: Sequence[Part], built: Sequence[Defense], needs: frozenset[Need]) -> None:
    """Refuse parts that exclude one another."""
    outlets = [
        part.name for part, made in zip(chosen, built, strict=True) if type(made).outlet is not Defense.outlet
    ]
    if len(outlets) > 1:
        raise ConfigError(
            key=_KEY,
            value=outlets,
            rule="put more than one outlet between bottleneck and clip, each made as if it were alone",
            remedy="Keep one of them",
        )
    for one, other in (("letters", "values"), ("letters", "map")):
        if {one, other} <= needs:
            who = [part.name for part, made in zip(chosen, built, strict=True) if made.needs & {one, other}]
            raise ConfigError(
                key=_KEY,
                value=who,
                rule=f"are made for releases that exclude one another: {one}, and {other}",
                remedy="Keep those of one kind of release",
            )
