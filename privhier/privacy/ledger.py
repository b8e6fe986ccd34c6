"""The account of everything that touches private records; all guarantees are computed from it.

Releases, DP-SGD epochs of the edge, randomized responses and the choice of a clip bound, one JSON line an
event, on disk before what it stands for happens. A crash between the two leaves a charge without a release,
never a release without a charge. An edited file is refused (``ledger_file.py``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from privhier.privacy.carried import Carried
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps
from privhier.privacy.events import (
    CHAIN_START,
    AnyRelease,
    ClipEvent,
    Event,
    Key,
    LabelEvent,
    LetterEvent,
    ReleaseEvent,
    StepEvent,
    alphabet_of,
    ledger_error,
    release_event,
    strength_of,
)
from privhier.privacy.guarantees import Guarantee, write_guarantees
from privhier.privacy.ledger_file import LedgerFile
from privhier.privacy.release import Release, ReleaseMechanism, as_releases

__all__ = ["Guarantee", "Ledger", "ReleaseEvent"]

E = TypeVar("E", ReleaseEvent, StepEvent, LabelEvent, ClipEvent)


class Ledger:
    """Events in, guarantees out.

    Args:
        path: JSON-lines file, read if it is there and appended to; None: in memory only (tests).
        repair: Whether a last line torn by a crash is cut off on disk: for whoever goes on writing.

    Raises:
        GuaranteeError: The file is not the ledger that was written here. A last line torn by a crash is
            dropped: it was being written before its release could be sent.
    """

    def __init__(self, path: Path | None, *, repair: bool = True) -> None:
        self._events: list[Event] = []
        self._carried = Carried(self._charged)
        self._file = None if path is None else LedgerFile(path)
        for event in [] if self._file is None else self._file.read(repair=repair):
            if not self._admit(event):
                raise ledger_error(
                    "/".join(map(str, event.key)), asdict(event), "stands twice: it counts once"
                )
            self._events.append(event)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read an existing ledger and change nothing on disk; raises ``GuaranteeError`` if there is none."""
        if not path.is_file():
            raise ledger_error("path", str(path), "must be an existing ledger")
        return cls(path, repair=False)

    @property
    def head(self) -> str:
        """Hash over all events on disk in order, 64 hexadecimal digits."""
        return CHAIN_START if self._file is None else self._file.head

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything charged, in order."""
        return tuple(self._events)

    def charge(
        self,
        split: str,
        records: int,
        phase: str,
        epoch: int,
        mechanism: ReleaseMechanism,
        noise_source: str,
        *,
        releases: int = 1,
    ) -> bool:
        """Write down that every record of ``split`` is about to be released; call it **before** sending.

        Under ``seeded`` the same charge again (a resumed epoch) is the same noise on the same features,
        sent again: it costs nothing and is not counted. Under ``system`` it is a new draw and counts.

        Args:
            split: Which records.
            records: How many, at most.
            phase: Phase, as in the messages.
            epoch: Epoch, as in the messages.
            mechanism: What sanitizes them.
            noise_source: ``NoiseSource.kind``.
            releases: Releases of each record under this phase and epoch.

        Returns:
            Whether the charge was counted (on disk and synced when this returns).

        Raises:
            GuaranteeError: Mechanism or noise source differ in kind from what was charged before, or a
                seeded release is repeated with other parameters (the same noise at two scales cancels).
        """
        event = release_event(
            mechanism,
            noise_source,  # type: ignore[arg-type]  # checked by the event
            split=split,
            records=records,
            phase=phase,
            epoch=epoch,
            releases=releases,
        )
        self._carried.charged(event.key, mechanism)
        return self._enter(event)

    def charge_once(
        self,
        split: str,
        records: int,
        phase: str,
        epoch: int,
        mechanism: ReleaseMechanism,
        noise_source: Literal["seeded", "system"],
    ) -> bool:
        """``charge`` over an uplink that never takes a release twice: a resumed epoch costs nothing again.

        Raises:
            GuaranteeError: It was charged before, as another mechanism or for other records.
        """
        key = (split, phase, epoch)
        before = self._charged(key)
        if not before:
            return self.charge(split, records, phase, epoch, mechanism, noise_source)
        now = release_event(
            mechanism,
            noise_source,
            split=split,
            records=records,
            phase=phase,
            epoch=epoch,
            releases=before[0].releases,
        )
        if before != [now]:
            earlier = [asdict(event) for event in before]
            raise ledger_error("/".join(map(str, key)), asdict(now), f"was charged before as {earlier}")
        return False

    def charge_steps(self, event: StepEvent) -> bool:
        """Write down one epoch of DP-SGD **before** its first step; returns whether it was counted.

        Raises:
            GuaranteeError: Another noise source, or a seeded epoch repeated with other parameters.
        """
        return self._enter(event)

    def charge_labels(self, event: LabelEvent) -> bool:
        """Write down one task's randomized responses **before** they are drawn.

        They are drawn once and cached, so the same charge again counts once whatever the noise source.

        Raises:
            GuaranteeError: Another noise source, or the same labels answered twice differently.
        """
        return self._enter(event)

    def charge_clip(self, event: ClipEvent) -> bool:
        """Write down the choice of a clip bound **before** it is drawn; returns whether it was counted.

        Raises:
            GuaranteeError: Another noise source, or a seeded draw repeated with other parameters.
        """
        return self._enter(event)

    def releases_per_record(self, split: str | None = None) -> int:
        """T: the largest number of releases any record of ``split`` (None: of any split) has had."""
        accounts = self.accounts()
        if split is None:
            return max((account.releases for account in accounts.values()), default=0)
        return accounts[split].releases if split in accounts else 0

    def accounts(self) -> dict[str, ReleaseAccount]:
        """Per split, the composed releases of one record; different noise scales compose exactly."""
        by_split: defaultdict[str, list[AnyRelease]] = defaultdict(list)
        for event in self._releases():
            by_split[event.split].append(event)
        chosen: defaultdict[str, float] = defaultdict(float)
        for choice in self._of(ClipEvent):
            chosen[choice.split] += choice.epsilon
        accounts = {}
        for split in sorted({*by_split, *chosen}):
            events = by_split[split]
            ratios = [(strength_of(event), event.releases) for event in events]
            accounts[split] = ReleaseAccount(
                releases=sum(event.releases for event in events),
                mu_squared=math.fsum(count * ratio * ratio for ratio, count in ratios),
                epsilon=math.fsum(count * ratio for ratio, count in ratios),
                clip_epsilon=chosen[split],
                answers=tuple(
                    (event.epsilon, event.letters, event.releases * event.groups)
                    for event in events
                    if isinstance(event, LetterEvent)
                ),
            )
        return accounts

    def steps(self) -> StepAccount:
        """DP-SGD on the edge, composed: equal mechanisms of all epochs together."""
        totals: defaultdict[tuple[float, float], int] = defaultdict(int)
        for event in self._of(StepEvent):
            totals[(event.noise_multiplier, event.sample_rate)] += event.compositions
        return StepAccount(tuple(Steps(*key, count) for key, count in sorted(totals.items())))

    def responses(self, split: str = "train") -> Responses:
        """The randomized responses on one record's task labels."""
        found = [event for event in self._of(LabelEvent) if event.split == split]
        return Responses(tuple((event.epsilon, event.classes) for event in found))

    def observe(
        self,
        split: str,
        phase: str,
        epoch: int,
        records: npt.NDArray[np.int64],
        releases: Release | Sequence[Release],
    ) -> Callable[[], None]:
        """Tell the ledger which records go up in which releases; call it **before** sending them.

        What is refused leaves no trace. Observations live in memory: after a resume they cover what this
        process carried.

        Args:
            split: Whose records.
            phase: Phase, as charged.
            epoch: Epoch, as charged.
            records: int64 ``(B,)`` record numbers, in the order of the rows.
            releases: Their release, or several with B rows together.

        Returns:
            To be called when the bytes are handed to an uplink: what was observed and never was fails
            ``verify``, as does what went up under another ledger.

        Raises:
            ReleaseError: Something else than releases.
            GuaranteeError: The release was never charged, or charged as another mechanism or noise source
                than it was made with; a record goes up more often than charged; a release was sent
                before; rows and records differ in number.
        """
        records = np.asarray(records, dtype=np.int64)
        return self._carried.add((split, phase, epoch), records, as_releases(releases))

    def verify(self, carried: Mapping[tuple[str, int], int] | None = None) -> None:
        """Compare everything observed with everything charged.

        Args:
            carried: ``UplinkStats.by_epoch``: releases carried per (phase, epoch). Given, it must equal
                what was observed, so a message that bypassed ``observe`` is found as well.

        Raises:
            GuaranteeError: Something went up that was not charged, or not observed.
        """
        self._carried.verify(carried)

    def verify_steps(self, executed: Iterable[StepEvent]) -> None:
        """Compare the DP-SGD epochs that were really run with those charged.

        Args:
            executed: What the optimizer did, epoch by epoch: its own count of noisy steps, and the noise
                and the norm bound it used, saved with the checkpoint. Of what was killed before its
                checkpoint ``agreement.check_begun`` knows how often it was begun.

        Raises:
            GuaranteeError: A step that was not charged, was charged less often than executed with fresh
                noise, or was once charged as something cheaper.
        """
        done = list(executed)
        for event in done:
            before = [charge for charge in self._of(StepEvent) if charge.key == event.key]
            if not before or any(charge != event for charge in before):
                raise ledger_error(
                    f"dp_sgd {event.phase}/{event.epoch}",
                    asdict(event),
                    f"was executed, but charged as {[asdict(charge) for charge in before] or None}",
                )
            if event.noise_source == "system" and len(before) < done.count(event):
                raise ledger_error(
                    f"dp_sgd {event.phase}/{event.epoch}",
                    done.count(event),
                    f"times executed with fresh noise, but charged {len(before)} time(s)",
                )

    def verify_clip(self, quantile: float, epsilon: float) -> None:
        """Compare how the clip bound was really drawn with what was charged.

        Raises:
            GuaranteeError: A bound read off records that was not charged, or was charged as less.
        """
        charged = self._of(ClipEvent)
        if any((event.quantile, event.epsilon) == (quantile, epsilon) for event in charged):
            return
        raise ledger_error(
            "clip_quantile",
            {"quantile": quantile, "epsilon": epsilon},
            f"was drawn, but charged as {[asdict(event) for event in charged] or None}",
        )

    def guarantees(
        self,
        *,
        delta: float,
        largest_person: Mapping[str, int] | None = None,
        labels_in_clear: bool = True,
        also_not_covered: Sequence[str] = (),
    ) -> list[Guarantee]:
        """The guarantee table.

        Args:
            delta: For Gaussian releases; Laplace releases and answers are pure (delta 0).
            largest_person: Split to k, the largest number of records one person has in it; None where
                the data set names no people. One person row each.
            labels_in_clear: Whether messages carried task labels.
            also_not_covered: Further lines for every row's ``does_not_cover``.

        Returns:
            The own-release row (of the split that spent most), the curious-cloud row, the person rows.
        """
        first = next(iter(self._releases()), None)
        return write_guarantees(
            self.accounts(),
            steps=self.steps(),
            responses=self.responses(),
            mechanism=first.mechanism if first else "none",
            alphabet=first if isinstance(first, LetterEvent) else None,
            noise_source=first.noise_source if first else "",
            delta=delta,
            largest_person=largest_person,
            labels_in_clear=labels_in_clear and not self.responses().answers,
            also_not_covered=also_not_covered,
        )

    def _charged(self, key: Key) -> list[AnyRelease]:
        return [event for event in self._releases() if event.key == key]

    def _releases(self) -> list[AnyRelease]:
        return [event for event in self._events if isinstance(event, AnyRelease)]

    def _of(self, kind: type[E]) -> list[E]:
        return [event for event in self._events if isinstance(event, kind)]

    def _enter(self, event: Event) -> bool:
        if not self._admit(event):
            return False
        if self._file is not None:
            self._file.append(event)
        self._events.append(event)
        return True

    def _admit(self, event: Event) -> bool:
        """Whether to count an event; raises if it cannot stand beside the earlier ones."""
        for earlier in self._events[:1]:
            _same("noise_source", event.noise_source, earlier.noise_source)
        if isinstance(event, AnyRelease):
            for release in self._releases()[:1]:
                _same("mechanism", event.mechanism, release.mechanism)
                _same("alphabet", alphabet_of(event), alphabet_of(release))
        if event.noise_source == "system" and not isinstance(event, LabelEvent):
            return True
        alike = (
            earlier for earlier in self._events if (earlier.kind, earlier.key) == (event.kind, event.key)
        )
        same = next(alike, None)
        if same is None:
            return True
        if same != event:
            raise ledger_error(
                "/".join(map(str, event.key)),
                asdict(event),
                "the same seeded draw was charged before with other parameters; its noise would be reused",
            )
        return False


def _same(name: str, now: str, before: str) -> None:
    if now != before:
        raise ledger_error(name, now, f"one run has one {name}, it was {before!r} before")
