"""The bytes of a journal's segments: heads under chained checksums, so that no bit changes unnoticed.

A segment begins with a mark. An entry is a head and a message. The head holds the message's size, edge,
number and SHA-256, and a checksum over these, its place, and the head before it. A head is judged without its
message, so a wrong size is seen as what it is, and only what ends too early is torn.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from privhier.errors import UplinkError

FORMAT = "privhier.journal/2"
MARK = FORMAT.encode() + b"\n" + bytes(13)
_FIELDS = struct.Struct("<IHQ32s")
CHECK_BYTES = 16
HEAD_BYTES = _FIELDS.size + CHECK_BYTES
FIRST = bytes(CHECK_BYTES)
"""Stands for the head before the first one."""


class Head(NamedTuple):
    """What stands before a message."""

    size: int
    edge: int
    sequence: int
    digest: bytes

    def encode(self, previous: bytes, segment: int, start: int) -> bytes:
        """The bytes of this head at offset ``start`` of a segment; its last 16 are its checksum."""
        fields = _FIELDS.pack(*self)
        place = struct.pack("<QQ", segment, start)
        return fields + hashlib.blake2b(previous + place + fields, digest_size=CHECK_BYTES).digest()


class Found(NamedTuple):
    """One whole entry: its head, the checksum in it, the offset of its message, and the message."""

    head: Head
    check: bytes
    start: int
    data: bytes


class Segment:
    """Reads one segment; it changes nothing.

    Args:
        path: The file.
        number: Which segment it is.
        previous: Checksum of the last head before it.
        last: Whether it is the last one: only that may be torn.

    Attributes:
        end: Offset after the last whole entry; 0 where not even the mark is whole.
        torn: Whether anything stands after it.
    """

    def __init__(self, path: Path, number: int, previous: bytes, *, last: bool) -> None:
        self.path, self._number, self._previous, self._last = path, number, previous, last
        self.end, self.torn = 0, False

    def entries(self) -> Iterator[Found]:
        """Every whole entry in order.

        Raises:
            UplinkError: The file is damaged.
        """
        try:
            with self.path.open("rb") as stream:
                yield from self._entries(stream)
        except OSError as error:
            raise damaged(self.path, f"it cannot be read ({error.strerror})") from error

    def _entries(self, stream: BinaryIO) -> Iterator[Found]:
        mark = stream.read(len(MARK))
        if not MARK.startswith(mark):
            raise damaged(self.path, f"it does not begin as format {FORMAT} does; is it of an older version?")
        if len(mark) < len(MARK):
            self._cut()
            return
        self.end = len(MARK)
        while text := stream.read(HEAD_BYTES):
            if len(text) < HEAD_BYTES:
                self._cut()
                return
            head = Head(*_FIELDS.unpack_from(text))
            if head.encode(self._previous, self._number, self.end) != text:
                raise damaged(self.path, f"the head at byte {self.end} does not fit its checksum")
            start = self.end + HEAD_BYTES
            data = stream.read(head.size)
            if len(data) < head.size:
                self._cut()
                return
            if hashlib.sha256(data).digest() != head.digest:
                raise damaged(self.path, f"the message at byte {start} does not fit its digest")
            self._previous, self.end = text[-CHECK_BYTES:], start + head.size
            yield Found(head, self._previous, start, data)

    def _cut(self) -> None:
        if not self._last:
            raise damaged(self.path, f"it ends in the middle of the entry at byte {self.end}")
        self.torn = True


def damaged(path: Path, what: str) -> UplinkError:
    """The error of a journal that is not what was written; nothing of it is changed."""
    return UplinkError(
        key="uplink.journal",
        value=str(path),
        rule=f"is damaged: {what}",
        remedy="Restore the folder from a copy, or start the run anew on both sides; nothing was changed",
    )
