"""The cloud's inbox on disk: a message is in it before it is acknowledged, and is read from it in order.

Segments of entries, each a length, an edge, a sequence number and the message. A torn end (a kill in the
middle of a write) is cut off on opening: it was never acknowledged.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from privhier.errors import OutputError, UplinkError
from privhier.files import sync_folder
from privhier.uplink.codec import ReleaseMessage, decode
from privhier.uplink.spool import Key

SEGMENT_BYTES = 64 * 2**20
"""A segment that is at least this long is followed by a new one."""
_HEAD = struct.Struct("<IHQ")


@dataclass(frozen=True)
class Place:
    """Where a message lies.

    Attributes:
        segment: Number of the segment.
        start: Offset of the message in it.
        size: Its bytes.
        edge: Who sent it.
        key: Split, phase, epoch, batch.
        records: Releases in it.
    """

    segment: int
    start: int
    size: int
    edge: int
    key: Key
    records: int


class Journal:
    """What one run's edges sent, in order of arrival; thread-safe.

    Exactly once: an edge's messages are taken in the order of their numbers, without gaps, and a place
    in the run (edge, split, phase, epoch, batch) is taken once.

    Args:
        folder: Made if missing. One process at a time.
        sync: Flush every message to the disk before it counts; without, a power cut can lose
            acknowledged messages (a killed process cannot).
    """

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self._folder, self._sync = folder, sync
        folder.mkdir(parents=True, exist_ok=True)
        self.places: list[Place] = []
        self.records = 0
        """Releases in all messages together."""
        self._numbers: dict[int, list[int]] = {}
        self._keys: set[tuple[int, Key]] = set()
        self.changed = threading.Condition()
        self._stream: io.FileIO | None = None
        self._read()

    def __len__(self) -> int:
        return len(self.places)

    def following(self, edge: int) -> int:
        """The sequence number this edge has to send next."""
        return len(self._numbers.get(edge, ()))

    def append(self, edge: int, sequence: int, data: bytes, message: ReleaseMessage) -> bool:
        """Take one message; returns False for one that is here already (its number is below the next).

        Raises:
            UplinkError: A gap in the numbers, or a place in the run that is taken.
            OutputError: The disk is full; nothing was taken.
        """
        with self.changed:
            wanted = self.following(edge)
            if sequence < wanted:
                if self.read(self._numbers[edge][sequence]) != data:
                    raise _refused("sequence", sequence, "was received before, with another message")
                return False
            if sequence > wanted:
                raise _refused("sequence", sequence, f"out of order: number {wanted} comes next")
            if (edge, message.key) in self._keys:
                raise _refused("batch", "/".join(map(str, message.key)), "was received before")
            stream, start = None, 0
            try:
                stream = self._open()
                start = stream.tell()
                entry = _HEAD.pack(len(data), edge, sequence) + data
                if stream.write(entry) != len(entry):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._sync:
                    os.fdatasync(stream.fileno())
            except OSError as error:
                if stream is not None:  # take back what the failed write left
                    stream.truncate(start)
                    stream.seek(start)
                raise OutputError(
                    key="--out",
                    value=str(self._folder),
                    rule=f"the journal cannot be written: {error}",
                    remedy="Free space; the edge keeps the message and sends it again",
                ) from error
            self._enter(edge, sequence, message, self._segment, start + _HEAD.size, len(data))
            if stream.tell() >= SEGMENT_BYTES:
                self.close()
                self._segment += 1
            self.changed.notify_all()
            return True

    def read(self, number: int) -> bytes:
        """The bytes of message ``number``, in order of arrival over all edges."""
        place = self.places[number]
        with self._path(place.segment).open("rb") as stream:
            stream.seek(place.start)
            return stream.read(place.size)

    def wait(self, number: int, *, stopped: Callable[[], bool]) -> bool:
        """Wait until message ``number`` is here; False if ``stopped()`` before that."""
        with self.changed:
            while len(self.places) <= number and not stopped():
                self.changed.wait(0.2)
            return len(self.places) > number

    def close(self) -> None:
        """Close the file; the next message opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _enter(
        self, edge: int, sequence: int, message: ReleaseMessage, segment: int, start: int, size: int
    ) -> None:
        self._numbers.setdefault(edge, []).append(len(self.places))
        self.places.append(Place(segment, start, size, edge, message.key, len(message.records)))
        self.records += len(message.records)
        self._keys.add((edge, message.key))

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:06d}.log"

    def _open(self) -> io.FileIO:
        if self._stream is None:
            self._stream = io.FileIO(self._path(self._segment), "ab")
            self._stream.seek(0, os.SEEK_END)
            if self._sync:
                sync_folder(self._folder)
        return self._stream

    def _read(self) -> None:
        segments = sorted(int(path.stem) for path in self._folder.glob("*.log"))
        self._segment = segments[-1] if segments else 0
        for segment in segments:
            path = self._path(segment)
            end = 0
            with path.open("rb") as stream:
                while head := stream.read(_HEAD.size):
                    if len(head) < _HEAD.size:
                        break
                    size, edge, sequence = _HEAD.unpack(head)
                    data = stream.read(size)
                    if len(data) < size or size == 0:
                        break
                    self._enter(edge, sequence, decode(data), segment, end + _HEAD.size, size)
                    end += _HEAD.size + size
            if end < path.stat().st_size:
                if segment != segments[-1]:
                    raise _refused("journal", str(path), "is damaged before its end")
                with path.open("r+b") as stream:
                    stream.truncate(end)


def _refused(field: str, value: object, rule: str) -> UplinkError:
    return UplinkError(
        key=f"uplink.{field}", value=value, rule=rule, remedy="Send every message once, in order"
    )
