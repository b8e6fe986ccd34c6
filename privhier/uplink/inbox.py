"""What a cloud accepts for one run: a fitting greeting, then every message once, in order, in shape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from privhier.errors import PrivhierError, UplinkError
from privhier.uplink.codec import MAX_BYTES, ReleaseMessage, decode
from privhier.uplink.frames import Ack, Frame, Hello, frame_error
from privhier.uplink.journal import Journal
from privhier.uplink.sizes import ReleaseFormat

MOST_RECORDS = 2**24
"""Records that one edge may own, unless a cloud is told otherwise."""
_HEAVY = 2**20
"""Messages from this size on are decoded one at a time, over all runs: memory."""
_scales = threading.Lock()

Agree = Callable[[Hello], None]


@dataclass(frozen=True)
class Capacity:
    """How much of one run a cloud takes at a time.

    Attributes:
        edges: How many edges the run has.
        queue: Messages of a joint epoch that may wait for training before their sender has to wait.
        most_records: Records that one edge may own in all its splits.
    """

    edges: int = 1
    queue: int = 4
    most_records: int = MOST_RECORDS


ONE_EDGE = Capacity()


class Inbox:
    """One run's way in; thread-safe, one thread per connected edge.

    A greeting binds its edge from the edge's first message on, or from the start of training; until then
    another one may take its place once its line is gone.

    Args:
        config: Hash of the shared configuration.
        run_id: Which run.
        form: What its messages look like.
        capacity: How many edges the run has, and what may wait.
        epochs: Phase to its number of epochs in which releases go up.
        journal: Where messages are kept.
        agree: Called with every fitting greeting; refuses by raising.
        bind: Called with a greeting before its edge is bound to it.

    Attributes:
        trained: Messages, in order of arrival, that training is through with.
        hellos: Edge to the greeting that stands.
        bound: The edges that cannot introduce themselves otherwise any more.
        failed: Why this run takes nothing any more; None: it does.
    """

    def __init__(
        self,
        *,
        config: str,
        run_id: str,
        form: ReleaseFormat,
        capacity: Capacity,
        epochs: Mapping[str, int],
        journal: Journal,
        agree: Agree,
        bind: Agree | None = None,
    ) -> None:
        self._expected = {
            "config": config,
            "run_id": run_id,
            "edges": capacity.edges,
            "shape": form.shape,
            "wire": form.wire,
        }
        self._epochs, self._agree, self._letters = epochs, agree, form.letters
        self._queue, self._most = capacity.queue, capacity.most_records
        self._bind = bind or (lambda hello: None)
        self.journal = journal
        self.trained = 0
        self.hellos: dict[int, Hello] = {}
        self.bound: set[int] = set()
        self.farewells: set[int] = set()
        self.failed: PrivhierError | None = None
        self._lines: dict[int, object] = {}
        self._count: Counter[tuple[int, str, str, int]] = Counter()
        self._batches: Counter[tuple[int, str, str, int]] = Counter()
        self._lock = threading.Lock()
        for place in journal.places:
            self._enter(place.edge, place.key[:3], place.records)

    def greet(self, hello: Hello, line: object = None) -> Ack:
        """Accept an edge and return what is here of it: the number it has to send next.

        Args:
            hello: The greeting.
            line: Stands for the connection; it takes the place of the edge's earlier one.

        Raises:
            UplinkError: The two sides disagree; the text names both values.
        """
        for name, wanted in self._expected.items():
            given = getattr(hello, name)
            if given != wanted:
                raise frame_error(name, given, f"the cloud has {wanted!r}")
        if (total := sum(hello.records.values())) > self._most:
            raise frame_error("records", total, f"the cloud takes at most {self._most} records of an edge")
        with self._lock:
            self._check_identity(hello.identity)
            self._agree(hello.identity)
            self._compare(hello.edge, hello.taken, bytes.fromhex(hello.chain))
            self.hellos[hello.edge] = hello.identity
            self._lines[hello.edge] = line
        with self.journal.changed:
            self.journal.changed.notify_all()
        return self.journal.ack(hello.edge)

    def leave(self, hello: Hello, line: object) -> None:
        """The connection is over."""
        with self._lock:
            if self._lines.get(hello.edge) is line:
                self._lines.pop(hello.edge, None)

    def bind_all(self) -> list[Hello]:
        """Bind every edge to the greeting that stands, and return them in order: training begins."""
        with self._lock:
            for edge in sorted(self.hellos):
                self._bind_one(self.hellos[edge])
            return [self.hellos[edge] for edge in sorted(self.hellos)]

    def restore(self, hello: Hello) -> None:
        """Take up a binding greeting of a process before."""
        self.hellos[hello.edge] = hello
        self.bound.add(hello.edge)

    def take(self, hello: Hello, frame: Frame, *, line: object = None) -> Ack:
        """Take one message and return what is here now.

        Raises:
            UplinkError: Nothing was taken: the message is not the one that has to come next, or does
                not fit what the edge said of itself or sent before.
            OutputError: The disk is full; nothing was taken.
        """
        data, edge = frame.message, hello.edge
        if len(data) < _HEAVY:
            message = decode(data, max_bytes=MAX_BYTES)
        else:
            with _scales:
                message = decode(data, max_bytes=MAX_BYTES)
        with self._lock:
            self._check_line(hello, line)
            following = self.journal.following(edge)
            if frame.sequence >= following:
                self._check(hello, message)
            if frame.sequence <= following and frame.chain != self.journal.chain(edge, frame.sequence):
                raise frame_error(
                    "chain", frame.sequence, "what was sent before is not what the cloud has of this edge"
                )
            if edge not in self.bound:
                self._bind_one(self.hellos[edge])
            if self.journal.append(edge, frame.sequence, data, message):
                self._enter(edge, message.key[:3], len(message.records))
        return self.journal.ack(edge)

    def hold(self, stopped: Callable[[], bool]) -> None:
        """Wait while training is too far behind with the messages of joint epochs."""
        changed = self.journal.changed
        with changed:
            while self.behind and not stopped():
                changed.wait(0.2)

    def paced(self, edge: int) -> bool:
        """Whether the last message of an edge is of a joint epoch, which has to wait for training."""
        last = self.journal.last(edge)
        return last is not None and last.key[:2] == ("train", "joint")

    @property
    def behind(self) -> bool:
        """Whether training is too far behind for another message of a joint epoch."""
        return len(self.journal) - self.trained > self._queue and self.failed is None

    def farewell(self, hello: Hello, frame: Frame, *, line: object = None) -> Ack:
        """The edge says what it sent in all; it has parted once everything it has to send is here.

        Raises:
            UplinkError: What it sent is not what is here.
        """
        records = sum(hello.records.values())
        wanted = records * (self._epochs.get("joint", 0) + self._epochs.get("cloud", 0))
        with self._lock:  # other edges' threads enter their messages
            self._check_line(hello, line)
            self._compare(hello.edge, frame.sequence, frame.chain)
            whole = sum(count for key, count in self._count.items() if key[0] == hello.edge) >= wanted
            if whole and frame.sequence == self.journal.following(hello.edge):
                self.farewells.add(hello.edge)
        with self.journal.changed:
            self.journal.changed.notify_all()
        return self.journal.ack(hello.edge)

    def fail(self, error: PrivhierError) -> None:
        """Take nothing any more: the run has ended with this error."""
        with self.journal.changed:
            self.failed = self.failed or error
            self.journal.changed.notify_all()

    def progress(self, trained: int) -> None:
        """Training is through with the first ``trained`` messages."""
        with self.journal.changed:
            self.trained = trained
            self.journal.changed.notify_all()

    def _enter(self, edge: int, where: tuple[str, str, int], records: int) -> None:
        self._count[(edge, *where)] += records
        self._batches[(edge, *where)] += 1

    def _bind_one(self, hello: Hello) -> None:
        if hello.edge not in self.bound:
            self._bind(hello)
            self.bound.add(hello.edge)

    def _check_identity(self, hello: Hello) -> None:
        """An edge that sent something, or is on the line, cannot be another one."""
        before = self.hellos.get(hello.edge)
        if before is None or before == hello:
            return
        if before.folder != hello.folder:
            if hello.edge in self.bound or hello.edge in self._lines:
                raise frame_error("edge", hello.edge, "another folder sends as this edge already")
        elif hello.edge in self.bound:
            raise frame_error("hello", hello.edge, "this edge introduced itself differently before")

    def _check_line(self, hello: Hello, line: object) -> None:
        if self.hellos.get(hello.edge) != hello.identity or self._lines.get(hello.edge) is not line:
            raise frame_error("edge", hello.edge, "another connection took the place of this one")

    def _compare(self, edge: int, count: int, chain: bytes) -> None:
        """What an edge says that the cloud acknowledged must be what is here."""
        following = self.journal.following(edge)
        if count > following:
            raise frame_error("taken", count, f"the cloud has only {following} messages of this edge")
        if self.journal.chain(edge, count) != chain:
            error = frame_error("chain", count, f"the cloud has other messages under the name of edge {edge}")
            if count and edge in self.bound:  # its folder is the one that sent them; else it is just nonsense
                self.fail(error)
            raise error

    def _check(self, hello: Hello, message: ReleaseMessage) -> None:
        expected = {
            "run_id": hello.run_id,
            "edge": hello.edge,
            "wire": hello.wire,
        }
        for name, wanted in expected.items():
            if getattr(message, name) != wanted:
                raise frame_error(name, getattr(message, name), f"the greeting said {wanted!r}")
        if message.letters != self._letters:
            raise frame_error("letters", message.letters, f"this run has {self._letters}")
        if message.payload.shape[1:] != tuple(hello.shape):
            raise frame_error("payload", message.payload.shape[1:], f"the greeting said {hello.shape!r}")
        if not message.epoch < self._epochs.get(message.phase, 0):
            raise frame_error("epoch", f"{message.phase}/{message.epoch}", "is not in the schedule")
        following = self._batches[(hello.edge, *message.key[:3])]
        if message.batch != following:
            raise frame_error("batch", message.batch, f"out of order: batch {following} comes next")
        self._check_labels(hello, message)
        total = hello.records[message.split]
        count = self._count[(hello.edge, *message.key[:3])] + len(message.records)
        if count > total:
            raise frame_error("records", count, f"the greeting said {total} {message.split} records")

    @staticmethod
    def _check_labels(hello: Hello, message: ReleaseMessage) -> None:
        labels, classes = message.task_labels, list(hello.task_classes.values())
        if message.split != "train":
            if labels is not None:
                raise frame_error("task_labels", message.split, "only training records carry labels")
            return
        if labels is None or labels.shape[1] != len(classes):
            given = None if labels is None else labels.shape
            raise frame_error("task_labels", given, f"must have {len(classes)} columns")
        if bool((labels.max(0) >= classes).any()) or int(labels.min()) < 0:
            raise UplinkError(
                key="uplink.task_labels",
                value=labels.max(0).tolist(),
                rule=f"must lie from 0 to below {classes}",
                remedy="Send class numbers",
            )
