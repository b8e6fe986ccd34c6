"""The cloud's inbox on disk: a message is in it before it is acknowledged, and is read from it in order.

Segments of entries (``journal_format.py``). Opening a journal reads and checks it and changes nothing. A torn
end (a kill in the middle of a write: it was never acknowledged) is cut off when the next message is written;
anything else that does not fit is damage, and an error.
"""

from __future__ import annotations

import errno
import io
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from privhier.errors import OutputError, UplinkError
from privhier.storage.files import sync_folder
from privhier.uplink.chain import START, digest, extend
from privhier.uplink.codec import ReleaseMessage, decode
from privhier.uplink.frames import Ack
from privhier.uplink.journal_format import CHECK_BYTES, FIRST, HEAD_BYTES, MARK, Found, Head, Segment, damaged
from privhier.uplink.spool_index import Key

SEGMENT_BYTES = 64 * 2**20
"""A segment that is at least this long is followed by a new one."""
_NAME = re.compile(r"[0-9]{6,}\.log")


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
        digest: SHA-256 of its bytes, hexadecimal.
    """

    segment: int
    start: int
    size: int
    edge: int
    key: Key
    records: int
    digest: str


class Journal:
    """What one run's edges sent, in order of arrival; thread-safe.

    Exactly once: an edge's messages are taken in the order of their numbers, without gaps, and a place
    in the run (edge, split, phase, epoch, batch) is taken once.

    Args:
        folder: Made with the first message. One process at a time may write; any may read.
        sync: Flush every message to the disk before it counts; without, a power cut can lose
            acknowledged messages (a killed process cannot).

    Raises:
        UplinkError: It is damaged, or of another version.
    """

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self._folder, self._sync = folder, sync
        self.places: list[Place] = []
        self.records = 0
        """Releases in all messages together."""
        self._numbers: dict[int, list[int]] = {}
        self._chains: dict[int, list[bytes]] = {}
        self._keys: set[tuple[int, Key]] = set()
        self._check = FIRST
        self._segment, self._end, self._torn = 0, 0, False
        self.changed = threading.Condition()
        self._stream: io.FileIO | None = None
        self._read()

    def __len__(self) -> int:
        return len(self.places)

    def following(self, edge: int) -> int:
        """The sequence number this edge has to send next."""
        return len(self._numbers.get(edge, ()))

    def chain(self, edge: int, following: int | None = None) -> bytes:
        """Running digest of this edge's messages below ``following``; default: of all that are here."""
        chains = self._chains.get(edge, [START])
        return chains[-1 if following is None else following]

    def ack(self, edge: int) -> Ack:
        """What is here of an edge."""
        with self.changed:
            return Ack(self.following(edge), self.chain(edge))

    def last(self, edge: int) -> Place | None:
        """The last message of an edge."""
        with self.changed:
            numbers = self._numbers.get(edge)
            return self.places[numbers[-1]] if numbers else None

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
            own = digest(data)
            try:
                stream = self._open()
                start = stream.tell()
                head = Head(len(data), edge, sequence, bytes.fromhex(own))
                text = head.encode(self._check, self._segment, start)
                if stream.write(text + data) != len(text) + len(data):
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
            self._check = text[-CHECK_BYTES:]
            place = Place(
                self._segment, start + HEAD_BYTES, len(data), edge, message.key, len(message.records), own
            )
            self._enter(place)
            if stream.tell() >= SEGMENT_BYTES:
                self.close()
                self._segment, self._end = self._segment + 1, 0
            self.changed.notify_all()
            return True

    def read(self, number: int) -> bytes:
        """The bytes of message ``number``, in order of arrival over all edges.

        Raises:
            UplinkError: They are not what was written.
        """
        place, path = self.places[number], self._path(self.places[number].segment)
        try:
            with path.open("rb") as stream:
                stream.seek(place.start)
                data = stream.read(place.size)
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from error
        if digest(data) != place.digest:
            raise damaged(path, f"the message at byte {place.start} does not fit its digest")
        return data

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

    def _enter(self, place: Place) -> None:
        edge = place.edge
        self._numbers.setdefault(edge, []).append(len(self.places))
        chains = self._chains.setdefault(edge, [START])
        chains.append(extend(chains[-1], place.digest))
        self.places.append(place)
        self.records += place.records
        self._keys.add((edge, place.key))

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:06d}.log"

    def _open(self) -> io.FileIO:
        """The file to write to, without the torn end that an interrupted write left."""
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            stream = io.FileIO(self._path(self._segment), "ab")
            try:
                if self._torn:
                    stream.truncate(self._end)
                    self._torn = False
                if stream.seek(0, os.SEEK_END) < len(MARK):
                    stream.truncate(0)
                    if stream.write(MARK) != len(MARK):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._sync:
                    sync_folder(self._folder)
            except OSError:
                stream.close()
                raise
            self._stream = stream
        return self._stream

    def _read(self) -> None:
        names = self._folder.iterdir() if self._folder.is_dir() else ()
        segments = sorted(int(path.stem) for path in names if _NAME.fullmatch(path.name))
        if segments != list(range(len(segments))):
            missing = min(set(range(segments[-1])) - set(segments))
            raise damaged(self._path(missing), "it is missing, and later ones are here")
        for number in segments:
            segment = Segment(self._path(number), number, self._check, last=number == segments[-1])
            for found in segment.entries():
                self._check = found.check
                self._take(segment, number, found)
            self._segment, self._end, self._torn = number, segment.end, segment.torn
        if segments and not self._torn and self._end >= SEGMENT_BYTES:
            self._segment, self._end = self._segment + 1, 0

    def _take(self, segment: Segment, number: int, found: Found) -> None:
        """Enter a message that was read; the checks are those of ``append``."""
        head = found.head
        try:
            message = decode(found.data)
        except UplinkError as error:
            raise damaged(segment.path, f"at byte {found.start} stands no message ({error.rule})") from error
        if head.sequence != self.following(head.edge) or (head.edge, message.key) in self._keys:
            raise damaged(segment.path, f"the message at byte {found.start} is not the one that comes next")
        key, count = message.key, len(message.records)
        self._enter(Place(number, found.start, head.size, head.edge, key, count, head.digest.hex()))


def _refused(field: str, value: object, rule: str) -> UplinkError:
    return UplinkError(
        key=f"uplink.{field}", value=value, rule=rule, remedy="Send every message once, in order"
    )
