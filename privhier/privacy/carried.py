"""What the uplink was seen to carry: how often each record went up, and in which releases. In memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from privhier.privacy.events import AnyRelease, Key, ledger_error, terms_of
from privhier.privacy.release import Release, ReleaseMechanism

_MAX_RECORD = 2**28
Charges = Callable[[Key], Sequence[AnyRelease]]
"""What a split, phase and epoch were charged for."""


class Carried:
    """The observations of one process, held against what was charged.

    Args:
        charges: The ledger's events of a split, phase and epoch.
    """

    def __init__(self, charges: Charges) -> None:
        self._charges = charges
        self._counts: dict[Key, npt.NDArray[np.int64]] = {}
        self._handed: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._classes: dict[Key, type[ReleaseMechanism]] = {}
        self._gone: WeakSet[Release] = WeakSet()

    def charged(self, key: Key, mechanism: ReleaseMechanism) -> None:
        """What is charged in this process was charged for mechanisms of this class."""
        self._classes[key] = type(mechanism)

    def add(
        self, key: Key, records: npt.NDArray[np.int64], releases: Sequence[Release]
    ) -> Callable[[], None]:
        """Enter one message; where it is refused, nothing is entered.

        Returns:
            To be called when its bytes are handed to an uplink; calls after the first change nothing.

        Raises:
            GuaranteeError: See ``Ledger.observe``.
        """
        name = "/".join(map(str, key))
        allowed = self._allowed(key)
        self._check_releases(name, self._charges(key), records, releases)
        for release in releases:
            wanted = self._classes.get(key, type(release.mechanism))
            if type(release.mechanism) is not wanted:
                raise ledger_error(name, repr(release.mechanism), f"is not the {wanted.__name__} charged")
        if records.size == 0:
            return lambda: None
        if records.min() < 0 or records.max() >= _MAX_RECORD:
            raise ledger_error("records", int(records.max()), "record numbers must index the data set")
        counts = self._counts.get(key, np.zeros(0, dtype=np.int64))
        fresh = np.bincount(records, minlength=len(counts))
        fresh[: len(counts)] += counts
        if fresh.max() > allowed:
            raise ledger_error(
                name,
                int(fresh.max()),
                f"a record was carried more often than the {allowed} release(s) charged",
            )
        self._counts[key] = fresh
        self._gone.update(releases)
        waiting = [len(records)]

        def handed() -> None:
            self._handed[key[1:]] += waiting.pop() if waiting else 0

        return handed

    def verify(self, carried: Mapping[tuple[str, int], int] | None) -> None:
        """See ``Ledger.verify``."""
        totals: defaultdict[tuple[str, int], int] = defaultdict(int)
        for key, counts in self._counts.items():
            totals[key[1:]] += int(counts.sum())
            distinct = int((counts > 0).sum())
            charged = max((event.records for event in self._charges(key)), default=0)
            if distinct > charged:
                raise ledger_error(
                    "/".join(map(str, key)),
                    distinct,
                    f"more was carried than charged ({charged} records, {self._allowed(key)} times)",
                )
        for name, observed in totals.items():
            if self._handed[name] != observed:
                raise ledger_error(
                    "/".join(map(str, name)),
                    observed,
                    f"releases were observed, but {self._handed[name]} were handed to an uplink",
                )
        if carried is None:
            return
        for name in sorted({*carried, *totals}):
            if carried.get(name, 0) != totals.get(name, 0):
                raise ledger_error(
                    "/".join(map(str, name)),
                    carried.get(name, 0),
                    f"releases were carried, but {totals.get(name, 0)} were observed by the ledger",
                )

    def _allowed(self, key: Key) -> int:
        allowed = sum(event.releases for event in self._charges(key))
        if allowed == 0:
            raise ledger_error(
                "/".join(map(str, key)), "carried", "a release went up that the ledger was never charged for"
            )
        return allowed

    def _check_releases(
        self,
        name: str,
        charges: Sequence[AnyRelease],
        records: npt.NDArray[np.int64],
        releases: Sequence[Release],
    ) -> None:
        """Whether these are fresh releases of so many records, made as was charged."""
        rows = sum(map(len, releases))
        if rows != len(records):
            raise ledger_error(name, rows, f"rows were released of {len(records)} records: one row a record")
        if len(set(releases)) < len(releases) or any(release in self._gone for release in releases):
            raise ledger_error(name, "a release sent before", "its noise is spent: a release is sent once")
        for release in releases:
            made = release.mechanism
            how = (made.terms, release.noise_source)
            for event in charges:
                if how != (terms_of(event), event.noise_source):
                    raise ledger_error(
                        name,
                        repr(release),
                        f"was made otherwise than it was charged: as {asdict(event)}",
                    )
