"""What a cloud accepts for one run: a fitting greeting, then every message once, in order, in shape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from privhier.errors import UplinkError
from privhier.uplink.codec import MAX_BYTES, ReleaseMessage, decode
from privhier.uplink.frames import Hello, frame_error
from privhier.uplink.journal import Journal

Agree = Callable[[Hello], None]


class Inbox:
    """One run's way in; thread-safe, one thread per connected edge.

    Args:
        config: Hash of the shared configuration.
        run_id: Which run.
        shape: One record's release.
        wire: Type of its values on the wire.
        edges: How many edges the run has.
        epochs: Phase to its number of epochs in which releases go up.
        journal: Where messages are kept.
        queue: Messages of a joint epoch that may wait for training before their sender has to wait.
        agree: Called with every fitting greeting; keeps what it says, or refuses.
    """

    def __init__(
        self,
        *,
        config: str,
        run_id: str,
        shape: tuple[int, ...],
        wire: str,
        edges: int,
        epochs: Mapping[str, int],
        journal: Journal,
        queue: int,
        agree: Agree,
    ) -> None:
        self._expected = {"config": config, "run_id": run_id, "edges": edges, "shape": shape, "wire": wire}
        self._epochs, self._queue, self._agree = epochs, queue, agree
        self.journal = journal
        self.trained = 0
        """Messages, in order of arrival, that training is through with."""
        self.hellos: dict[int, Hello] = {}
        self.farewells: set[int] = set()
        self._count: Counter[tuple[int, str, str, int]] = Counter()
        self._batches: Counter[tuple[int, str, str, int]] = Counter()
        self._lock = threading.Lock()
        for place in journal.places:
            self._enter(place.edge, place.key[:3], place.records)

    def greet(self, hello: Hello) -> int:
        """Accept an edge and return the sequence number it has to send next.

        Raises:
            UplinkError: The two sides disagree; the text names both values.
        """
        for name, wanted in self._expected.items():
            given = getattr(hello, name)
            if given != wanted:
                raise frame_error(name, given, f"the cloud has {wanted!r}")
        with self._lock:
            before = self.hellos.get(hello.edge)
            if before is not None and before != hello:
                raise frame_error("hello", hello.edge, "this edge introduced itself differently before")
            self._agree(hello)
            self.hellos[hello.edge] = hello
        return self.journal.following(hello.edge)

    def take(self, hello: Hello, sequence: int, data: bytes, *, stopped: Callable[[], bool]) -> int:
        """Take one message, wait while training is too far behind, and return the next number wanted.

        Raises:
            UplinkError: Nothing was taken: the message is not the one that has to come next, or does
                not fit what the edge said of itself.
            OutputError: The disk is full; nothing was taken.
        """
        message = decode(data, max_bytes=MAX_BYTES)
        with self._lock:
            if sequence >= self.journal.following(hello.edge):
                self._check(hello, message)
            if self.journal.append(hello.edge, sequence, data, message):
                self._enter(hello.edge, message.key[:3], len(message.records))
        if message.split == "train" and message.phase == "joint":
            self._hold(stopped)
        return self.journal.following(hello.edge)

    def farewell(self, hello: Hello) -> None:
        """The edge closed its stream; it has parted once everything it has to send is here."""
        records = sum(hello.records.values())
        wanted = records * (self._epochs.get("joint", 0) + self._epochs.get("cloud", 0))
        with self._lock:  # other edges' threads enter their messages
            if sum(count for key, count in self._count.items() if key[0] == hello.edge) < wanted:
                return
            self.farewells.add(hello.edge)
        with self.journal.changed:
            self.journal.changed.notify_all()

    def progress(self, trained: int) -> None:
        """Training is through with the first ``trained`` messages."""
        with self.journal.changed:
            self.trained = trained
            self.journal.changed.notify_all()

    def _enter(self, edge: int, where: tuple[str, str, int], records: int) -> None:
        self._count[(edge, *where)] += records
        self._batches[(edge, *where)] += 1

    def _hold(self, stopped: Callable[[], bool]) -> None:
        changed = self.journal.changed
        with changed:
            while len(self.journal) - self.trained > self._queue and not stopped():
                changed.wait(0.2)

    def _check(self, hello: Hello, message: ReleaseMessage) -> None:
        expected = {
            "run_id": hello.run_id,
            "edge": hello.edge,
            "wire": hello.wire,
        }
        for name, wanted in expected.items():
            if getattr(message, name) != wanted:
                raise frame_error(name, getattr(message, name), f"the greeting said {wanted!r}")
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
