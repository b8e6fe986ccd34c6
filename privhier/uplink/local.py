"""The uplink inside one process: the same bytes as over a wire, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from privhier.uplink.codec import MAX_BYTES, decode
from privhier.uplink.outgoing import OutgoingMessage, bytes_of


@dataclass
class UplinkStats:
    """What went up.

    Attributes:
        messages: Messages carried.
        records: Releases carried (a record counts once for each of its releases).
        bytes: Bytes carried, headers included.
        by_epoch: ``(phase, epoch)`` to the releases carried in it; ``Ledger.verify`` compares it with
            what was charged.
    """

    messages: int = 0
    records: int = 0
    bytes: int = 0
    by_epoch: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def bytes_per_record(self) -> float:
        """Mean bytes of one release, its share of headers included; 0 before anything was sent."""
        return self.bytes / self.records if self.records else 0.0


class LocalUplink:
    """Hands every message's bytes to ``sink``.

    Args:
        sink: Called with the bytes; whatever it returns is dropped.
        max_bytes: Largest message allowed.

    Attributes:
        stats: Counts of everything carried since the start.

    Example:
        >>> received = []
        >>> LocalUplink(received.append).stats
        UplinkStats(messages=0, records=0, bytes=0, by_epoch={})
    """

    def __init__(self, sink: Callable[[bytes], object], *, max_bytes: int = MAX_BYTES) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self.stats = UplinkStats()

    def send(self, message: OutgoingMessage) -> None:
        """Check, count and hand over one message; raises ``UplinkError`` before anything is counted."""
        data = bytes_of(message)
        found = decode(data, max_bytes=self._max_bytes)
        key = (found.phase, found.epoch)
        self.stats.messages += 1
        self.stats.records += len(found.records)
        self.stats.bytes += len(data)
        self.stats.by_epoch[key] = self.stats.by_epoch.get(key, 0) + len(found.records)
        self._sink(data)
