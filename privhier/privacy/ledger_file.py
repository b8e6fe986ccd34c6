"""A ledger on disk: one JSON line an event, chained by hashes, bound by its folder's digests."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from privhier.errors import CheckpointError
from privhier.privacy.events import CHAIN_START, Event, chained, ledger_error, parse_line
from privhier.storage.sealed import Sealed


class LedgerFile:
    """Reads what was charged and appends what is charged next.

    Args:
        path: The file; its folder's ``digests.json`` says what it must hold.

    Attributes:
        head: Hash over all events in order, 64 hexadecimal digits.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._sealed = path, Sealed(path.parent)
        self._content = hashlib.sha256()
        self.head = CHAIN_START

    def read(self, *, repair: bool) -> list[Event]:
        """All events, in order; nothing if the file was never written.

        Args:
            repair: Whether a last line torn by a crash is cut off on disk: for whoever goes on writing.

        Raises:
            GuaranteeError: The file is not what was written here.
        """
        path = self._path
        if not self._sealed.knows(path):
            return []
        try:
            data = path.read_bytes()
            whole = self._whole_lines(data)
        except (OSError, CheckpointError) as error:
            rule = error.rule if isinstance(error, CheckpointError) else f"is missing: {error.strerror}"
            raise ledger_error(path.name, str(path), rule) from error
        events = [self._event(number, line) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
        self._content.update(whole)
        if repair and whole != data:
            with path.open("r+b") as stream:
                stream.write(whole)
                stream.truncate()
                stream.flush()
                os.fsync(stream.fileno())
        return events

    def append(self, event: Event) -> None:
        """Write one event; it is on disk and synced when this returns."""
        self.head = chained(self.head, event)
        line = (json.dumps({**asdict(event), "chain": self.head}) + "\n").encode()
        if not self._path.exists():
            self._sealed.write(self._path, b"")
        self._content.update(line)
        self._sealed.expect(self._path, self._content.hexdigest())
        with self._path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._sealed.settle(self._path)

    def _event(self, number: int, line: bytes) -> Event:
        where = f"{self._path.name}:{number}"
        found = parse_line(line)
        if found is None:
            raise ledger_error(where, line[:80], "is not an event; the account is incomplete")
        event, chain = found
        self.head = chained(self.head, event)
        if chain != self.head:
            raise ledger_error(where, line[:80], "does not follow from the lines before it: edited")
        return event

    def _whole_lines(self, data: bytes) -> bytes:
        """What was written and finished; raises ``CheckpointError`` if ``data`` is something else.

        A crash may have left the last line without its end, or a part of it: what the digests then expect
        is the one or the other.
        """
        torn = data.rpartition(b"\n")[2]
        for candidate in (data, data + b"\n", data[: len(data) - len(torn)]) if torn else (data,):
            if self._sealed.allows(self._path, hashlib.sha256(candidate).hexdigest()):
                return candidate
        self._sealed.check_digest(self._path, hashlib.sha256(data).hexdigest())
        return data
