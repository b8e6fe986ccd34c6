"""The index of a spool: which messages an edge ever spooled, each line under a checksum over all before it.

The first line names the format and the folder. A line is a JSON list in one canonical form, whose last item
is its checksum, so every changed bit is noticed. A cut at the end is told from damage: only what begins like
the line that belongs there can be the rest of an interrupted write.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privhier.errors import UplinkError
from privhier.uplink.chain import START, digest, extend
from privhier.uplink.codec import decode

FORMAT = "privhier.spool/2"
INDEX = "index.jsonl"
_CHECK_BYTES = 16
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
        digest: SHA-256 of its bytes, hexadecimal.
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


class SpoolIndex:
    """The lines of one index, in memory; it writes nothing.

    Args:
        path: The file; need not be there.

    Attributes:
        folder: Drawn once for the folder, 32 hexadecimal digits; empty before the first line.
        entries: Every message ever spooled, in order.
        chains: Running digest before message ``n``; one more than there are entries.
        rest: Bytes after the last whole line.
        length: Bytes of the whole lines.

    Raises:
        UplinkError: The file is damaged, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, ""
        self.entries: list[Entry] = []
        self.chains = [START]
        self._last = b""
        data = _contents(path)
        lines = data.splitlines(keepends=True)
        self.rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
        self.length = len(data) - len(self.rest)
        for number, line in enumerate(lines):
            self._take(number, line)

    def first(self, folder: str) -> bytes:
        """The first line."""
        return self._line([FORMAT, folder])

    def line(self, entry: Entry) -> bytes:
        """The line of a message that comes next."""
        return self._line([entry.sequence, *entry.key, entry.records, entry.size, entry.digest])

    def add(self, line: bytes, entry: Entry) -> None:
        """Enter a line that was written."""
        self.entries.append(entry)
        self.chains.append(extend(self.chains[-1], entry.digest))
        self._last = line
        self.length += len(line)

    def begin(self, line: bytes, folder: str) -> None:
        """Enter the first line, which was written."""
        self.folder, self._last, self.length = folder, line, len(line)

    def damaged(self, what: str) -> UplinkError:
        """The error of an index that is not what was written."""
        return damaged(self.path, what)

    def _line(self, fields: list[Any]) -> bytes:
        text = json.dumps(fields).encode()
        check = hashlib.blake2b(self._last + text, digest_size=_CHECK_BYTES).hexdigest()
        return json.dumps([*fields, check]).encode() + b"\n"

    def _take(self, number: int, line: bytes) -> None:
        try:
            fields = json.loads(line.decode("ascii"))
            fields.pop()
            same = self._line(fields) == line
        except (ValueError, AttributeError, IndexError, RecursionError) as error:
            raise self.damaged(f"line {number + 1} cannot be read") from error
        if not same:
            old = number == 0 and fields[:1] == [0]
            what = f"line {number + 1} does not fit its checksum"
            raise self.damaged("it is of an older version, without checksums" if old else what)
        if number == 0:
            if len(fields) != 2 or fields[0] != FORMAT:
                raise self.damaged(f"it is not of the format {FORMAT}")
            self.folder, self._last = fields[1], line
            return
        try:
            sequence, split, phase, epoch, batch, records, size, found = fields
            chain = extend(self.chains[-1], found)
        except (ValueError, TypeError) as error:
            raise self.damaged(f"line {number + 1} names no message") from error
        if sequence != len(self.entries):
            raise self.damaged(f"it names message {sequence} where {len(self.entries)} should stand")
        self.entries.append(Entry(sequence, (split, phase, epoch, batch), records, size, found))
        self.chains.append(chain)
        self._last = line


def damaged(path: Path, what: str) -> UplinkError:
    """The error of a spool that is not what was written; nothing of it is changed."""
    return UplinkError(
        key="uplink.spool",
        value=str(path),
        rule=f"is damaged: {what}",
        remedy="Restore this folder from a copy, or start the run anew on both sides; nothing was changed",
    )


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error
