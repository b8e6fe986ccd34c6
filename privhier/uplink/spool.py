"""The edge's outbox on disk: a message is in it before it is sent, and stays until the cloud has it.

What is spooled is never drawn again. The index remembers every message ever spooled, by its place in the
run, so that a process that was killed knows what has left and what has not.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from privhier.errors import OutputError, UplinkError
from privhier.storage.files import sync_folder, whole_file
from privhier.uplink.chain import digest
from privhier.uplink.outgoing import OutgoingMessage, bytes_of
from privhier.uplink.spool_index import INDEX, Entry, Key, SpoolIndex, damaged

_NAME = re.compile(r"[0-9]{8,}\.msg")


class Spool:
    """Messages on disk, one file each until acknowledged; thread-safe.

    Opening it reads and checks all of it, every message that waits included.

    Args:
        folder: Made if missing. One process at a time.

    Attributes:
        entries: Every message ever spooled, in order.

    Raises:
        UplinkError: The folder is damaged; nothing in it was changed.
        OutputError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._by_key: dict[Key, Entry] = {}
        self._acknowledged = 0
        self._index = SpoolIndex(folder / INDEX)
        self.entries = self._index.entries
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise self._unwritable(error) from error

    @property
    def identity(self) -> str:
        """Drawn once for this folder, 32 hexadecimal digits; no part of any result."""
        return self._index.folder

    def chain(self, following: int) -> bytes:
        """Running digest of all messages below ``following`` (see ``chain.py``)."""
        return self._index.chains[following]

    def find(self, key: Key) -> Entry | None:
        """What was spooled for this place in the run, if anything."""
        return self._by_key.get(key)

    def append(self, message: OutgoingMessage) -> Entry:
        """Put a message on disk, flushed, and number it.

        Raises:
            UplinkError: Not made of releases, or its place in the run is taken: a release is never redrawn.
            OutputError: The disk is full or cannot be written; nothing was spooled.
        """
        data = bytes_of(message)
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
                raise self._unwritable(error) from error
            return entry

    def read(self, sequence: int) -> bytes:
        """The bytes of a message that is not acknowledged yet.

        Raises:
            UplinkError: They are not what was spooled.
            OSError: The file cannot be read.
        """
        data, entry = self._path(sequence).read_bytes(), self.entries[sequence]
        if len(data) != entry.size or digest(data) != entry.digest:
            raise damaged(self._path(sequence), "its bytes are not those that were spooled")
        return data

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
        line = self._index.line(entry)
        self._write(line)
        self._index.add(line, entry)
        self._by_key[entry.key] = entry

    def _write(self, line: bytes) -> None:
        """Add a line, in place of what an interrupted write left after the last whole one."""
        path, start = self._index.path, self._index.length
        new = not path.exists()
        with path.open("ab") as stream:
            stream.truncate(start)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            sync_folder(self._folder)

    def _open(self) -> None:
        """Take up what a process before left: a cut last line is written again from its message."""
        files = sorted(int(path.stem) for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        count, last = len(self.entries), max(files, default=-1)
        self._by_key = {entry.key: entry for entry in self.entries}
        if last > count or (self.identity == "" and files):
            raise self._index.damaged(f"it does not name {self._path(last).name}, which is here")
        self._acknowledged = min((number for number in files if number < count), default=count)
        missing = set(range(self._acknowledged, count)) - set(files)
        if missing:
            raise UplinkError(
                key="uplink.spool",
                value=str(self._path(min(missing))),
                rule="is missing, and the cloud has not acknowledged it",
                remedy="The folder is damaged; start the run anew",
            )
        for number in range(self._acknowledged, count):
            self.read(number)
        self._finish_line(last == count)

    def _finish_line(self, unnamed: bool) -> None:
        """Begin the index, or name a message whose line was cut short by a kill."""
        rest = self._index.rest
        if self.identity == "":
            if not self._index.first("0" * 32).startswith(rest[:20]) or len(rest) > 200:
                raise self._index.damaged("its first line is cut, or of an older version")
            folder = secrets.token_hex(16)
            line = self._index.first(folder)
            self._write(line)
            self._index.begin(line, folder)
            return
        if not unnamed:
            if rest:
                raise self._index.damaged("its last line has no end, and no message that it belongs to")
            return
        path = self._path(len(self.entries))
        try:
            entry = Entry.of(len(self.entries), path.read_bytes())
        except UplinkError as error:
            raise damaged(path, f"it is no whole message ({error.rule})") from error
        if not self._index.line(entry).startswith(rest):
            raise self._index.damaged("its last line is not that of the message it belongs to")
        self._note(entry)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            key="--out",
            value=str(self._folder),
            rule=f"the spool cannot be written: {error}",
            remedy="Free space and go on with --resume; nothing of this batch has left",
        )
