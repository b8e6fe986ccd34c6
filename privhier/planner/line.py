"""What a line and two machines take for a sequence of messages: bytes on the line, and who waits for whom.

A pure model: numbers in, times out. It plays the real protocol event by event: the edge computes the next
batch while the last message is on the line and the cloud trains on the one before; ``send`` holds the edge
back while more than ``queue`` messages are unacknowledged (``grpc_link.py``); the cloud acknowledges what
is journaled, a joint training message only while at most ``queue`` messages wait for training
(``inbox.py``).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from privhier.errors import ConfigError

SEGMENT_PAYLOAD = 1448
"""Bytes of TCP in one Ethernet frame: 1,500 less 20 (IPv4), 20 (TCP) and 12 (its timestamps)."""
SEGMENT_HEADERS = 66
"""Of each such segment: the 52 bytes above and 14 of Ethernet, which shapers and lines count too."""
HTTP2_FRAME, HTTP2_HEADER, GRPC_PREFIX = 16_384, 9, 5
"""gRPC prefixes a message with 5 bytes; HTTP/2 cuts it into frames of at most 16 KiB, 9 bytes each."""
TLS_RECORD, TLS_HEADERS = 16_384, 22
"""TLS 1.3: 5 bytes of header, 1 of content type, 16 of authentication tag for each record of 16 KiB."""
FRAME_HEADER = 40
"""The sequence number and the running digest before each message (``frames.py``)."""
WINDOW = 256 * 2**10
"""Bytes of one stream that may be on the way unread: gRPC's ``lookahead_bytes`` as ``server.py`` sets it."""
SEND_SECONDS, SEND_SECONDS_PER_BYTE = 1.2e-4, 4e-10
"""Processor time of gRPC's Python and core for one message, on either side, and for each of its bytes:
measured on loopback with messages of 2 kB to 2 MB on one core of an x86 server of 2024."""


@dataclass(frozen=True)
class Link:
    """A full-duplex line between edge and cloud.

    Attributes:
        bits_per_second: In either direction, above 0; infinity: no line at all.
        latency: Seconds one way.
        tls: Whether TLS wraps the stream.
        segment_headers: Bytes the line counts for every TCP segment; 0 where only payload is paced (a
            token bucket inside a client).
        processor: Whether sending costs the two processors something (not between functions).
    """

    bits_per_second: float
    latency: float = 0.0
    tls: bool = False
    segment_headers: int = SEGMENT_HEADERS
    processor: bool = True

    def __post_init__(self) -> None:
        if not self.bits_per_second > 0:
            raise ConfigError(
                key="--bitrate",
                value=self.bits_per_second,
                rule="must be above 0",
                remedy="For instance: 5Mbit",
            )
        if not 0 <= self.latency < math.inf:
            raise ConfigError(
                key="--latency",
                value=self.latency,
                rule="must be a finite time of at least 0",
                remedy="For instance: 20ms",
            )

    @property
    def bytes_per_second(self) -> float:
        """What one stream can use: the bit rate, or one window per round trip where that is less."""
        rate = self.bits_per_second / 8
        return min(rate, WINDOW / (2 * self.latency)) if self.latency else rate

    def wire_bytes(self, size: int) -> int:
        """Bytes on the line of one message of ``size`` bytes: framing, TLS and segment headers included."""
        if size == 0:
            return 0
        total = size + FRAME_HEADER + GRPC_PREFIX
        total += HTTP2_HEADER * math.ceil(total / HTTP2_FRAME)
        if self.tls:
            total += TLS_HEADERS * math.ceil(total / TLS_RECORD)
        return total + self.segment_headers * math.ceil(total / SEGMENT_PAYLOAD)

    def seconds(self, size: int) -> float:
        """How long one message of ``size`` bytes occupies the line."""
        return self.wire_bytes(size) / self.bytes_per_second

    def processor_seconds(self, size: int) -> float:
        """Processor time that sending, or receiving, one message takes on its side."""
        return SEND_SECONDS + SEND_SECONDS_PER_BYTE * size if self.processor and size else 0.0


@dataclass(frozen=True)
class Message:
    """One message and the work around it, in seconds at full speed.

    Attributes:
        edge: Of the edge before it can be sent, since the message before.
        size: Its bytes.
        receive: Of the cloud before it can be acknowledged.
        cloud: Of the cloud afterwards: training on it.
        queued: Whether its acknowledgement waits while training is too far behind.
    """

    edge: float
    size: int
    receive: float = 0.0
    cloud: float = 0.0
    queued: bool = True


@dataclass(frozen=True)
class Slowdown:
    """By how much each machine is slower while the other one works too (one computer: shared caches)."""

    edge: float = 1.0
    cloud: float = 1.0


FULL_SPEED = Slowdown()
"""Two machines, or one that does not mind."""


@dataclass(frozen=True)
class Timeline:
    """When what happened, in seconds from the start; one entry per message in every list.

    Attributes:
        sent: The edge was allowed to go on after this message.
        arrived: Its last byte was at the cloud.
        trained: The cloud was through with it.
        edge_busy: Seconds in which the edge worked.
        line_busy: Seconds in which the line carried bytes.
        cloud_busy: Seconds in which the cloud worked.
    """

    sent: list[float]
    arrived: list[float]
    trained: list[float]
    edge_busy: float
    line_busy: float
    cloud_busy: float

    @property
    def seconds(self) -> float:
        """From the start to the end of the last work."""
        return max(self.sent[-1], self.trained[-1]) if self.sent else 0.0


def simulate(
    messages: Sequence[Message], link: Link, *, queue: int = 4, slowdown: Slowdown = FULL_SPEED
) -> Timeline:
    """Send ``messages`` in order and say when each was where.

    Args:
        messages: In the order in which the edge makes them.
        link: The line.
        queue: Messages the edge may be ahead of the cloud's acknowledgements, and messages that may wait
            for training before acknowledgements are held back; at least 1.
        slowdown: Of either side while the other works.
    """
    if queue < 1:
        raise ConfigError(key="link.queue", value=queue, rule="must be at least 1", remedy="Set link.queue=4")
    return _Play(messages, link, queue, slowdown).run()


class _Play:
    """The state of a simulation: two machines whose speeds depend on each other, and timed events."""

    def __init__(self, messages: Sequence[Message], link: Link, queue: int, slowdown: Slowdown) -> None:
        self.messages, self.link, self.queue, self.slowdown = messages, link, queue, slowdown
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.ticket = 0
        self.edge_left: float | None = None
        self.cloud_left: float | None = None
        # Numbers of messages that got so far.
        self.made = self.returned = self.boarded = self.landed = self.taken = self.received = self.read = 0
        self.acknowledged = 0
        self.line_free = self.reader_free = True
        self.stalled: float | None = None  # seconds on the line that a full window still holds back
        self.sent = [math.nan] * len(messages)
        self.arrived = [math.nan] * len(messages)
        self.trained: list[float] = []
        self.edge_busy = self.line_busy = self.cloud_busy = 0.0

    def run(self) -> Timeline:
        """Play until every message is trained on and acknowledged."""
        count = len(self.messages)
        while min(len(self.trained), self.acknowledged) < count:
            self._begin()
            self._advance()
        self._begin()  # the last send returns
        return Timeline(
            self.sent, self.arrived, self.trained, self.edge_busy, self.line_busy, self.cloud_busy
        )

    def _begin(self) -> None:
        """Start everything that can start now."""
        if self.returned < self.made and self.made - self.acknowledged <= self.queue:
            self.returned = self.made
            self.sent[self.made - 1] = self.now
        if self.edge_left is None and self.returned == self.made < len(self.messages):
            self.edge_left = self.messages[self.made].edge
        if self.line_free and self.boarded < self.made:
            self._board()
        if self.stalled is not None and self.read >= self.boarded - 1:
            self._after(self.stalled, self._land)
            self.stalled = None
        if self.reader_free and self.received < self.landed:
            self.reader_free = False
            self.taken += 1
            self._after(self.messages[self.received].receive, self._receive)
        if not self.reader_free and self.read < self.received and not self._held():
            self.read, self.reader_free = self.received, True
            self._after(self.link.latency, self._acknowledge)
            self._begin()
        if self.cloud_left is None and len(self.trained) < self.received:
            self.cloud_left = self.messages[len(self.trained)].cloud

    def _board(self) -> None:
        """Put the next message on the line; what exceeds the window waits until the cloud reads on."""
        size, link = self.messages[self.boarded].size, self.link
        asked = self.taken + self.reader_free  # what the cloud waits for may come whole
        unread = sum(message.size for message in self.messages[asked : self.boarded])
        beyond = max(0, size - max(0, WINDOW - unread)) if self.boarded >= asked else 0
        whole = link.seconds(size)
        last = whole * beyond / size if size else 0.0
        self.boarded += 1
        self.line_free = False
        self.line_busy += whole
        self._after(whole - last, partial(self._fill, last))

    def _fill(self, last: float) -> None:
        if last:
            self.stalled = last
        else:
            self._land()

    def _land(self) -> None:
        self.line_free = True
        self._after(self.link.latency, self._arrive)

    def _arrive(self) -> None:
        self.arrived[self.landed] = self.now
        self.landed += 1

    def _receive(self) -> None:
        self.received += 1

    def _held(self) -> bool:
        """Whether training is too far behind for the last received message to be acknowledged."""
        return self.messages[self.received - 1].queued and self.received - len(self.trained) > self.queue

    def _acknowledge(self) -> None:
        self.acknowledged += 1

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        self.ticket += 1
        heapq.heappush(self.events, (self.now + seconds, self.ticket, happens))

    def _advance(self) -> None:
        """Go on to the next thing that happens."""
        both = self.edge_left is not None and self.cloud_left is not None
        edge_pace = self.slowdown.edge if both else 1.0
        cloud_pace = self.slowdown.cloud if both else 1.0
        edge = math.inf if self.edge_left is None else self.edge_left * edge_pace
        cloud = math.inf if self.cloud_left is None else self.cloud_left * cloud_pace
        timed = self.events[0][0] - self.now if self.events else math.inf
        step = max(0.0, min(edge, cloud, timed))
        self.now += step
        if self.edge_left is not None:
            self.edge_left -= step / edge_pace
            self.edge_busy += step
        if self.cloud_left is not None:
            self.cloud_left -= step / cloud_pace
            self.cloud_busy += step
        if timed <= step:
            heapq.heappop(self.events)[2]()
        elif edge <= step:
            self.edge_left = None
            self.made += 1
        else:
            self.cloud_left = None
            self.trained.append(self.now)
