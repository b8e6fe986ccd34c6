"""The edge's outbox on disk: a message is in it before it is sent, and stays until the cloud has it.

What is spooled is never drawn again. The index remembers every message ever spooled, by its place in the
run, so that a process that was killed knows what has left and what has not.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from privhier.errors import OutputError, UplinkError
from privhier.files import sync_folder, whole_file
from privhier.uplink.codec import decode

Key = tuple[str, str, int, int]
"""Split, phase, epoch, batch."""


@dataclass(frozen=True)
class Entry:
    """One message that was spooled.

    Attributes:
        sequence: Its number, from 0, without gaps.
        key: Split, phase, epoch, batch.
        records: Releases in it.
        size: Its bytes.
        digest: BLAKE2b of its bytes, hexadecimal.
    """

    sequence: int
    key: Key
    records: int
    size: int
    digest: str

    @classmethod
    def of(cls, sequence: int, data: bytes) -> Entry:
        """The entry of these bytes; raises ``UplinkError`` if they are no message."""
        message = decode(data)
        return cls(sequence, message.key, len(message.records), len(data), digest(data))


class Spool:
    """Messages on disk, one file each until acknowledged; thread-safe.

    Args:
        folder: Made if missing. One process at a time.

    Attributes:
        entries: Every message ever spooled, in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._index = folder / "index.jsonl"
        self.entries: list[Entry] = []
        self._by_key: dict[Key, Entry] = {}
        self._acknowledged = 0
        self._read()

    def find(self, key: Key) -> Entry | None:
        """What was spooled for this place in the run, if anything."""
        return self._by_key.get(key)

    def append(self, data: bytes) -> Entry:
        """Put a message on disk, flushed, and number it.

        Raises:
            UplinkError: Not a message, or its place in the run is taken: a release is never redrawn.
            OutputError: The disk is full or cannot be written; nothing was spooled.
        """
        with self._lock:
            entry = Entry.of(len(self.entries), data)
            if entry.key in self._by_key:
                raise UplinkError(
                    key="uplink.spool",
                    value="/".join(map(str, entry.key)),
                    rule="was spooled before; a spooled release is never redrawn",
                    remedy="Send it once",
                )
            try:
                with whole_file(self._path(entry.sequence)) as stream:
                    stream.write(data)
                self._note(entry)
            except OSError as error:
                raise OutputError(
                    key="--out",
                    value=str(self._folder),
                    rule=f"the spool cannot be written: {error}",
                    remedy="Free space and go on with --resume; nothing of this batch has left",
                ) from error
            return entry

    def read(self, sequence: int) -> bytes:
        """The bytes of a message that is not acknowledged yet."""
        return self._path(sequence).read_bytes()

    def acknowledge(self, following: int) -> None:
        """The cloud has everything below ``following``: forget those bytes, not that they were sent.

        Raises:
            UplinkError: The cloud claims messages that were never spooled.
        """
        with self._lock:
            if following > len(self.entries):
                raise UplinkError(
                    key="uplink.acknowledgement",
                    value=following,
                    rule=f"only {len(self.entries)} messages were ever spooled here",
                    remedy="Is this run's folder older than the cloud's? Start both anew",
                )
            for sequence in range(self._acknowledged, following):
                self._path(sequence).unlink(missing_ok=True)
            self._acknowledged = max(self._acknowledged, following)

    @property
    def acknowledged(self) -> int:
        """Messages the cloud is known to have."""
        return self._acknowledged

    @property
    def waiting(self) -> int:
        """Messages that wait for an acknowledgement."""
        return len(self.entries) - self._acknowledged

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for an acknowledgement."""
        return sum(entry.size for entry in self.entries[self._acknowledged :])

    def releases(self) -> Mapping[tuple[str, str, int], int]:
        """``(split, phase, epoch)`` to the releases that were ever spooled for it."""
        counts: Counter[tuple[str, str, int]] = Counter()
        for entry in self.entries:
            counts[entry.key[:3]] += entry.records
        return counts

    def totals(self) -> dict[str, int]:
        """messages, records and bytes ever spooled."""
        return {
            "messages": len(self.entries),
            "records": sum(entry.records for entry in self.entries),
            "bytes": sum(entry.size for entry in self.entries),
        }

    def _path(self, sequence: int) -> Path:
        return self._folder / f"{sequence:08d}.msg"

    def _note(self, entry: Entry) -> None:
        new = not self._index.exists()
        line = json.dumps([entry.sequence, *entry.key, entry.records, entry.size, entry.digest]) + "\n"
        with self._index.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            sync_folder(self._folder)
        self.entries.append(entry)
        self._by_key[entry.key] = entry

    def _read(self) -> None:
        """Take up what a process before left: a torn last line goes, a file without its line gets one."""
        data = self._index.read_bytes() if self._index.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with self._index.open("r+b") as stream:
                stream.truncate(len(whole))
        for line in whole.splitlines():
            number, split, phase, epoch, batch, records, size, found = json.loads(line)
            entry = Entry(number, (split, phase, epoch, batch), records, size, found)
            if number != len(self.entries):
                raise UplinkError(
                    key="uplink.spool",
                    value=str(self._index),
                    rule=f"names message {number} where {len(self.entries)} should stand",
                    remedy="The folder is damaged; start the run anew",
                )
            self.entries.append(entry)
            self._by_key[entry.key] = entry
        files = sorted(int(path.stem) for path in self._folder.glob("*.msg"))
        for sequence in files:
            if sequence == len(self.entries):  # killed between the file and its line
                self._note(Entry.of(sequence, self.read(sequence)))
        self._acknowledged = min((n for n in files if n < len(self.entries)), default=len(self.entries))
        missing = set(range(self._acknowledged, len(self.entries))) - set(files)
        if missing:
            raise UplinkError(
                key="uplink.spool",
                value=str(self._path(min(missing))),
                rule="is missing, and the cloud has not acknowledged it",
                remedy="The folder is damaged; start the run anew",
            )


def digest(data: bytes) -> str:
    """BLAKE2b with 16 bytes, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
