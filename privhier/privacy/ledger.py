"""The account of every release of every record; all guarantees are computed from it.

One JSON line an event, on disk before the release it stands for is sent. A crash between the two
leaves a charge without a release, never a release without a charge.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from privhier.errors import ConfigError, GuaranteeError
from privhier.privacy.guarantees import Guarantee, ReleaseAccount, write_guarantees
from privhier.privacy.release import ReleaseMechanism

__all__ = ["Guarantee", "Ledger", "ReleaseEvent"]

Key = tuple[str, str, int]
"""(split, phase, epoch)"""
_MAX_RECORD = 2**28


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
        kind: ``release``; DP-SGD steps and randomized responses will be further kinds.
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

    def __post_init__(self) -> None:
        for name, lowest in (("records", 1), ("epoch", 0), ("releases", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise _error(name, value, f"must be an integer, at least {lowest}")
        for name in ("split", "phase"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise _error(name, getattr(self, name), "must be a name")
        if self.noise_source not in ("seeded", "system"):
            raise _error("noise_source", self.noise_source, "must be seeded or system")
        if self.kind != "release":
            raise _error("kind", self.kind, "is not an event this version can account for")
        ReleaseMechanism(self.mechanism, self.clip, self.sigma)  # refuses what is no mechanism

    @property
    def key(self) -> Key:
        """What names this release."""
        return (self.split, self.phase, self.epoch)


class Ledger:
    """Events in, guarantees out.

    Args:
        path: JSON-lines file, read if it is there and appended to; None: in memory only (tests).

    Raises:
        GuaranteeError: The file is not a ledger. A last line torn by a crash is dropped: it was being
            written before its release could be sent.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._events: list[ReleaseEvent] = []
        self._observed: dict[Key, npt.NDArray[np.int64]] = {}
        if path is not None and path.exists():
            self._read(path)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read an existing ledger; raises ``GuaranteeError`` if there is none."""
        if not path.is_file():
            raise _error("path", str(path), "must be an existing ledger")
        return cls(path)

    @property
    def events(self) -> tuple[ReleaseEvent, ...]:
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
        event = ReleaseEvent(
            split, records, phase, epoch, releases, mechanism.mechanism, mechanism.clip, mechanism.sigma,
            noise_source,  # type: ignore[arg-type]  # checked by the event
        )  # fmt: skip
        if not self._admit(event):
            return False
        self._append(event)
        self._events.append(event)
        return True

    def releases_per_record(self, split: str | None = None) -> int:
        """T: the largest number of releases any record of ``split`` (None: of any split) has had."""
        accounts = self.accounts()
        if split is None:
            return max((account.releases for account in accounts.values()), default=0)
        return accounts[split].releases if split in accounts else 0

    def accounts(self) -> dict[str, ReleaseAccount]:
        """Per split, the composed releases of one record; different noise scales compose exactly."""
        by_split: defaultdict[str, list[ReleaseEvent]] = defaultdict(list)
        for event in self._events:
            by_split[event.split].append(event)
        accounts = {}
        for split, events in by_split.items():
            ratios = [
                (math.inf if event.sigma == 0 else 2 * event.clip / event.sigma, event.releases)
                for event in events
            ]
            accounts[split] = ReleaseAccount(
                releases=sum(event.releases for event in events),
                mu_squared=math.fsum(count * ratio * ratio for ratio, count in ratios),
                epsilon=math.fsum(count * ratio for ratio, count in ratios),
            )
        return accounts

    def observe(self, split: str, phase: str, epoch: int, records: npt.NDArray[np.int64]) -> None:
        """Tell the ledger which records the uplink really carried; call it on the decoded message.

        Observations live in memory: after a resume they cover what this process carried.

        Raises:
            GuaranteeError: The release was never charged, or a record went up more often than charged.
        """
        key = (split, phase, epoch)
        allowed = self._allowed(key)
        records = np.asarray(records, dtype=np.int64)
        if records.size == 0:
            return
        if records.min() < 0 or records.max() >= _MAX_RECORD:
            raise _error("records", int(records.max()), "record numbers must index the data set")
        counts = self._observed.get(key, np.zeros(0, dtype=np.int64))
        fresh = np.bincount(records, minlength=len(counts))
        fresh[: len(counts)] += counts
        self._observed[key] = fresh
        if fresh.max() > allowed:
            raise _error(
                f"{split}/{phase}/{epoch}",
                int(fresh.max()),
                f"a record was carried more often than the {allowed} release(s) charged",
            )

    def verify(self, carried: Mapping[tuple[str, int], int] | None = None) -> None:
        """Compare everything observed with everything charged.

        Args:
            carried: ``UplinkStats.by_epoch``: releases carried per (phase, epoch). Given, it must equal
                what was observed, so a message that bypassed ``observe`` is found as well.

        Raises:
            GuaranteeError: Something went up that was not charged, or not observed.
        """
        totals: defaultdict[tuple[str, int], int] = defaultdict(int)
        for key, counts in self._observed.items():
            totals[key[1:]] += int(counts.sum())
            distinct = int((counts > 0).sum())
            charged = max((event.records for event in self._events if event.key == key), default=0)
            if counts.max() > self._allowed(key) or distinct > charged:
                raise _error(
                    "/".join(map(str, key)),
                    distinct,
                    f"more was carried than charged ({charged} records, {self._allowed(key)} times)",
                )
        if carried is None:
            return
        for name in sorted({*carried, *totals}):
            if carried.get(name, 0) != totals.get(name, 0):
                raise _error(
                    "/".join(map(str, name)),
                    carried.get(name, 0),
                    f"releases were carried, but {totals.get(name, 0)} were observed by the ledger",
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
            delta: For Gaussian releases; Laplace releases are pure (delta 0).
            largest_person: Split to k, the largest number of records one person has in it; None where
                the data set names no people. One person row each.
            labels_in_clear: Whether messages carried task labels.
            also_not_covered: Further lines for every row's ``does_not_cover``.

        Returns:
            The own-release row (of the split that spent most), the curious-cloud row, the person rows.
        """
        first = self._events[0] if self._events else None
        return write_guarantees(
            self.accounts(),
            mechanism=first.mechanism if first else "none",
            noise_source=first.noise_source if first else "",
            delta=delta,
            largest_person=largest_person,
            labels_in_clear=labels_in_clear,
            also_not_covered=also_not_covered,
        )

    def _allowed(self, key: Key) -> int:
        allowed = sum(event.releases for event in self._events if event.key == key)
        if allowed == 0:
            raise _error(
                "/".join(map(str, key)), "carried", "a release went up that the ledger was never charged for"
            )
        return allowed

    def _admit(self, event: ReleaseEvent) -> bool:
        """Whether to count an event; raises if it cannot stand beside the earlier ones."""
        for name in ("mechanism", "noise_source"):
            if self._events and getattr(event, name) != getattr(self._events[0], name):
                before = getattr(self._events[0], name)
                raise _error(name, getattr(event, name), f"one run has one {name}, it was {before!r} before")
        if event.noise_source == "system":
            return True
        same = next((earlier for earlier in self._events if earlier.key == event.key), None)
        if same is None:
            return True
        if same != event:
            raise _error(
                "/".join(map(str, event.key)),
                asdict(event),
                "a seeded release was charged before with other parameters; its noise would be reused",
            )
        return False

    def _append(self, event: ReleaseEvent) -> None:
        if self._path is None:
            return
        new = not self._path.exists()
        with self._path.open("ab") as stream:
            stream.write((json.dumps(asdict(event)) + "\n").encode())
            stream.flush()
            os.fsync(stream.fileno())
        if new:  # the file's name must survive a crash as well
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole, _, tail = data.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            event = _parse(line)
            if event is None:
                raise _error(f"{path.name}:{number}", line[:80], "is not an event; the account is incomplete")
            self._count(event)
        if not tail:
            return
        event = _parse(tail)
        with path.open("r+b") as stream:
            if event is None:
                stream.truncate(len(data) - len(tail))
            else:  # complete but for its line end: it was charged
                stream.seek(0, os.SEEK_END)
                stream.write(b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if event is not None:
            self._count(event)

    def _count(self, event: ReleaseEvent) -> None:
        if self._admit(event):
            self._events.append(event)


def _parse(line: bytes) -> ReleaseEvent | None:
    """The event of a line, or None if the line is not whole; a whole line of another kind raises."""
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(data, dict) and data.get("kind", "release") != "release":
        raise _error("kind", data["kind"], "is not an event this version can account for")
    if not isinstance(data, dict) or set(data) != {field.name for field in fields(ReleaseEvent)}:
        return None
    try:
        return ReleaseEvent(**data)
    except (ConfigError, GuaranteeError, TypeError):
        return None


def _error(field: str, value: object, rule: str) -> GuaranteeError:
    return GuaranteeError(
        key=f"ledger.{field}",
        value=value,
        rule=rule,
        remedy="No epsilon can be defended for this run; find the cause and start it anew",
    )
