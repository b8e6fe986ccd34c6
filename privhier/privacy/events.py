"""What a run can be charged for: releases, DP-SGD epochs, randomized responses, a clip bound."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from privhier.errors import ConfigError, GuaranteeError
from privhier.privacy.mechanism import Mechanism, Name

Key = tuple[str, str, int]
"""(split, phase, epoch)"""


@dataclass(frozen=True)
class ReleaseEvent:
    """One charge: every record of a split has been released (``releases`` times) in one epoch.

    Attributes:
        split: Which records: ``train``, ``val``, ``test``, ...
        records: How many there are at most.
        phase: Phase of the schedule, as on the wire.
        epoch: Epoch of the phase, as on the wire.
        releases: Releases of each record.
        mechanism: ``none``, ``gaussian`` or ``laplace``.
        clip: C.
        sigma: Noise scale in feature units.
        noise_source: ``seeded`` or ``system``.
        kind: ``release``.
    """

    split: str
    records: int
    phase: str
    epoch: int
    releases: int
    mechanism: Literal["none", "gaussian", "laplace"]
    clip: float
    sigma: float
    noise_source: Literal["seeded", "system"]
    kind: Literal["release"] = "release"

    NUMBER: ClassVar[dict[str, int]] = {"records": 1, "epoch": 0, "releases": 1}
    NAME: ClassVar[tuple[str, ...]] = ("split", "phase")

    def __post_init__(self) -> None:
        _check(self)
        if self.mechanism not in ("none", "gaussian", "laplace"):
            raise ledger_error("mechanism", self.mechanism, "must be none, gaussian or laplace")
        Mechanism(self.mechanism, self.clip, self.sigma)  # refuses what is no mechanism

    @property
    def key(self) -> Key:
        """What names this event among those of its kind."""
        return (self.split, self.phase, self.epoch)


@dataclass(frozen=True)
class LetterEvent:
    """One charge: the letters of every record of a split have been released in one epoch.

    Attributes:
        split: Which records: ``train``, ``val``, ``test``, ...
        records: How many there are at most.
        phase: Phase of the schedule, as on the wire.
        epoch: Epoch of the phase, as on the wire.
        releases: Releases of each record.
        mechanism: ``none`` (true letters), or a channel's name.
        letters: K.
        groups: M, letters of a record in one release.
        epsilon: Pure, replace-one, of one answer; 0 for ``none``.
        noise_source: ``seeded`` or ``system``.
        kind: ``letters``.
    """

    split: str
    records: int
    phase: str
    epoch: int
    releases: int
    mechanism: Name
    letters: int
    groups: int
    epsilon: float
    noise_source: Literal["seeded", "system"]
    kind: Literal["letters"] = "letters"

    NUMBER: ClassVar[dict[str, int]] = {
        "records": 1, "epoch": 0, "releases": 1, "letters": 2, "groups": 1,
    }  # fmt: skip
    NAME: ClassVar[tuple[str, ...]] = ("split", "phase")

    def __post_init__(self) -> None:
        _check(self)
        Mechanism(self.mechanism, letters=self.letters, groups=self.groups, epsilon=self.epsilon)

    @property
    def key(self) -> Key:
        """What names this event among those of its kind."""
        return (self.split, self.phase, self.epoch)


AnyRelease = ReleaseEvent | LetterEvent
"""What went up, as values or as letters."""


def release_event(
    mechanism: Mechanism,
    noise_source: Literal["seeded", "system"],
    *,
    split: str,
    records: int,
    phase: str,
    epoch: int,
    releases: int = 1,
) -> AnyRelease:
    """What releases of this mechanism are charged as."""
    kind = LetterEvent if mechanism.letters else ReleaseEvent
    where: dict[str, Any] = {
        "split": split,
        "records": records,
        "phase": phase,
        "epoch": epoch,
        "releases": releases,
    }
    return kind(**where, **mechanism.terms, noise_source=noise_source)


def terms_of(event: AnyRelease) -> dict[str, Any]:
    """How a charge says that its releases are made, as ``Mechanism.terms`` says it."""
    return {field.name: getattr(event, field.name) for field in fields(event) if field.name not in _WHERE}


def strength_of(event: AnyRelease) -> float:
    """``2C / sigma`` of one release, or the pure epsilon of its letters; ``inf`` without noise."""
    if isinstance(event, LetterEvent):
        return event.groups * event.epsilon if event.epsilon else math.inf
    return 2 * event.clip / event.sigma if event.sigma else math.inf


def alphabet_of(event: AnyRelease) -> str:
    """What one release is made of, in words."""
    if isinstance(event, LetterEvent):
        return f"{event.groups} of {event.letters} letters"
    return "values"


_WHERE = {"split", "records", "phase", "epoch", "releases", "noise_source", "kind"}


@dataclass(frozen=True)
class StepEvent:
    """One charge: one epoch of DP-SGD on the edge.

    Attributes:
        records: Training records that could take part.
        phase: Phase of the schedule.
        epoch: Epoch of the phase.
        steps: Noisy optimizer steps of the epoch.
        sampling: ``poisson``: every record enters every step with probability ``sample_rate``, and
            nobody sees which. ``disjoint``: every record enters exactly one of the epoch's steps and the
            cloud sees which; that is one full-participation step, without amplification.
        sample_rate: In (0, 1] for ``poisson``; 1 for ``disjoint``.
        noise_multiplier: Standard deviation of the noise over ``max_grad_norm``.
        max_grad_norm: L2 bound of one record's gradient over all parameters of the edge together.
        noise_source: ``seeded`` or ``system``.
        kind: ``dp_sgd``.
    """

    records: int
    phase: str
    epoch: int
    steps: int
    sampling: Literal["poisson", "disjoint"]
    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    noise_source: Literal["seeded", "system"]
    kind: Literal["dp_sgd"] = "dp_sgd"

    NUMBER: ClassVar[dict[str, int]] = {"records": 1, "epoch": 0, "steps": 1}
    NAME: ClassVar[tuple[str, ...]] = ("phase",)

    def __post_init__(self) -> None:
        _check(self)
        if self.sampling not in ("poisson", "disjoint"):
            raise ledger_error("sampling", self.sampling, "must be poisson or disjoint")
        if not 0 < self.sample_rate <= 1:
            raise ledger_error("sample_rate", self.sample_rate, "must lie in (0, 1]")
        if self.sampling == "disjoint" and self.sample_rate != 1:
            raise ledger_error(
                "sample_rate",
                self.sample_rate,
                "must be 1 for disjoint batches: who sees the batches enjoys no amplification",
            )
        for name in ("noise_multiplier", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ledger_error(name, getattr(self, name), "must be above 0 and finite")

    @property
    def key(self) -> Key:
        """What names this event among those of its kind."""
        return ("train", self.phase, self.epoch)

    @property
    def compositions(self) -> int:
        """How many mechanisms of rate ``sample_rate`` one record meets in this epoch."""
        return self.steps if self.sampling == "poisson" else 1


@dataclass(frozen=True)
class LabelEvent:
    """One charge: every record's label of one task was replaced by a randomized response, once.

    Attributes:
        split: Which records.
        records: How many.
        attribute: The task attribute.
        classes: K, at least 2.
        epsilon: Pure, replace-one, above 0.
        noise_source: ``seeded`` or ``system``.
        kind: ``randomized_response``.
    """

    split: str
    records: int
    attribute: str
    classes: int
    epsilon: float
    noise_source: Literal["seeded", "system"]
    kind: Literal["randomized_response"] = "randomized_response"

    NUMBER: ClassVar[dict[str, int]] = {"records": 1, "classes": 2}
    NAME: ClassVar[tuple[str, ...]] = ("split", "attribute")

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.epsilon < math.inf:
            raise ledger_error("epsilon", self.epsilon, "must be above 0 and finite")

    @property
    def key(self) -> Key:
        """What names this event among those of its kind."""
        return (self.split, f"label {self.attribute}", 0)


@dataclass(frozen=True)
class ClipEvent:
    """One charge: the clip bound was drawn from the norms of a split's records.

    Attributes:
        split: Which records.
        records: How many.
        quantile: In (0, 1).
        epsilon: Pure, replace-one, above 0.
        noise_source: ``seeded`` or ``system``.
        kind: ``clip_quantile``.
    """

    split: str
    records: int
    quantile: float
    epsilon: float
    noise_source: Literal["seeded", "system"]
    kind: Literal["clip_quantile"] = "clip_quantile"

    NUMBER: ClassVar[dict[str, int]] = {"records": 1}
    NAME: ClassVar[tuple[str, ...]] = ("split",)

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.quantile < 1:
            raise ledger_error("quantile", self.quantile, "must lie strictly between 0 and 1")
        if not 0 < self.epsilon < math.inf:
            raise ledger_error("epsilon", self.epsilon, "must be above 0 and finite")

    @property
    def key(self) -> Key:
        """What names this event among those of its kind."""
        return (self.split, "clip", 0)


Event = ReleaseEvent | LetterEvent | StepEvent | LabelEvent | ClipEvent
KINDS: dict[str, type[Event]] = {
    "release": ReleaseEvent,
    "letters": LetterEvent,
    "dp_sgd": StepEvent,
    "randomized_response": LabelEvent,
    "clip_quantile": ClipEvent,
}


CHAIN_START = "0" * 64
"""What the first event of a ledger follows."""


def chained(before: str, event: Event) -> str:
    """The hash of an event that follows ``before``: SHA-256 over that hash and the event, in hexadecimal."""
    text = json.dumps(asdict(event), sort_keys=True)
    return hashlib.sha256(f"{before} {text}".encode()).hexdigest()


def parse_line(line: bytes) -> tuple[Event, str] | None:
    """The event of a line and its hash, or None if it is none; a whole line of another kind raises."""
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    chain = data.pop("chain", None)
    if not isinstance(chain, str):
        return None
    kind = KINDS.get(data.get("kind", "release"))
    if kind is None:
        raise ledger_error("kind", data["kind"], "is not an event this version can account for")
    if set(data) != {field.name for field in fields(kind)}:
        return None
    try:
        return kind(**data), chain
    except (ConfigError, GuaranteeError, TypeError):
        return None


def ledger_error(field: str, value: object, rule: str) -> GuaranteeError:
    """A broken account, in the words of every message about it."""
    return GuaranteeError(
        key=f"ledger.{field}",
        value=value,
        rule=rule,
        remedy="No epsilon can be defended for this run; find the cause and start it anew",
    )


def _check(event: Event) -> None:
    for name, lowest in event.NUMBER.items():
        value = getattr(event, name)
        if type(value) is not int or value < lowest:
            raise ledger_error(name, value, f"must be an integer, at least {lowest}")
    for name in event.NAME:
        if not isinstance(getattr(event, name), str) or not getattr(event, name):
            raise ledger_error(name, getattr(event, name), "must be a name")
    if event.noise_source not in ("seeded", "system"):
        raise ledger_error("noise_source", event.noise_source, "must be seeded or system")
    if KINDS.get(event.kind) is not type(event):
        raise ledger_error("kind", event.kind, "is not an event this version can account for")
