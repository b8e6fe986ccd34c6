"""The cloud's end of the line: one gRPC method, a stream up, acknowledgements of 41 bytes down."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, NoReturn

import grpc

from privhier.errors import ConfigError, OutputError, PrivhierError, UplinkError
from privhier.uplink.certificates import edges_named
from privhier.uplink.codec import MAX_BYTES
from privhier.uplink.door import Door, Line
from privhier.uplink.frames import FAREWELL, FRAME_HEADER, METHOD, Hello, decode_frame, encode_ack
from privhier.uplink.inbox import Inbox

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_BYTES + FRAME_HEADER),
    ("grpc.max_send_message_length", MAX_BYTES + FRAME_HEADER),
    # Little data on the way: a slow line must not hide minutes of messages in buffers.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 2**10),
    # A line that is cut without a word is noticed within a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 40_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]
"""Of both ends."""
_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 15_000),
    ("grpc.max_connection_idle_ms", 60_000),
]
GREETING_SECONDS = 10.0
"""A line that has not greeted by then is closed."""
_SILENT_LINES = 16
_SILENT_BYTES = 256 * 2**20
"""What all lines that have not greeted may hold, each a message of the largest size."""
_SPARE = 8
_LONG_WAIT = 10.0


class Peer(NamedTuple):
    """Who is on a line.

    Attributes:
        name: Its certificate's fingerprint, or in plain text its host.
        edges: The edges its certificate names; None in plain text, which binds nobody.
    """

    name: str
    edges: frozenset[int] | None


class StrangerError(UplinkError):
    """A client whose certificate is not that of the edge it greets as: it is told nothing."""


class StoppedError(UplinkError):
    """A run that has stopped here; its edges may come again when it goes on."""


class UplinkServer:
    """Serves any number of runs, each with any number of edges.

    With certificates, a client may greet only as an edge that its certificate names; whoever greets as
    another one is refused without a reason. In plain text nobody can be told from anybody else.

    Args:
        inboxes: Run id to its inbox.
        address: ``HOST:PORT``; port 0 takes a free one.
        credentials: Mutual TLS (see ``privhier.uplink.tls``); None: plain text.
        streams: Edges served at the same time.
        max_bytes: Largest message that any of the runs can hold.
        patience: Seconds within which a connection has to greet.
        report: Called with a line of text when a client is turned away, has to wait, or the disk is full.

    Attributes:
        port: The port it listens on.
        refusals: What was refused and how often, by the field that was wrong.

    Raises:
        ConfigError: The address cannot be listened on.
    """

    def __init__(
        self,
        inboxes: Mapping[str, Inbox],
        address: str,
        *,
        credentials: grpc.ServerCredentials | None,
        streams: int = 128,
        max_bytes: int = MAX_BYTES,
        patience: float = GREETING_SECONDS,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._report = report or (lambda text: None)
        self._inboxes, self._max_bytes, self._secure = inboxes, max_bytes, credentials is not None
        self.refusals: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._stopping = False
        silent = min(max(_SILENT_LINES, 2 * streams), max(4, _SILENT_BYTES // max_bytes), 256)
        each = 4 if self._secure else silent
        self._door = Door(waiting=silent, each=each, patience=patience, report=self._report)
        threads = streams + silent + _SPARE
        self._server = grpc.server(
            ThreadPoolExecutor(threads),
            options=[
                *(option for option in OPTIONS if option[0] != "grpc.max_receive_message_length"),
                ("grpc.max_receive_message_length", max_bytes + FRAME_HEADER),
                *_SERVER_OPTIONS,
            ],
            maximum_concurrent_rpcs=threads + 64,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        service, method = METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            if credentials is None:
                self.port = int(self._server.add_insecure_port(address))
            else:
                self.port = int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise ConfigError(
                key="--listen",
                value=address,
                rule=f"cannot be listened on: {error}",
                remedy="Give a HOST:PORT of this machine that is free",
            ) from error

    def start(self) -> None:
        """Begin to serve."""
        self._server.start()

    def stop(self, grace: float = 0.5) -> None:
        """Cut all connections after ``grace`` seconds and free the port."""
        self._stopping = True
        self._server.stop(grace).wait()

    def _serve(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        peer = self._peer(context)
        line = Line(peer.name, context.cancel)
        if not context.add_callback(lambda: self._door.leave(line)):
            return
        try:
            if peer.edges is not None and not peer.edges:
                raise _stranger(peer, "its certificate names no edge (`privhier certs --edges N` makes such)")
            self._door.enter(line)
            first = self._door.greeting(line, requests)
            if first is None:
                return
            hello = Hello.decode(first)
            if peer.edges is not None and hello.edge not in peer.edges:
                raise _stranger(peer, f"its certificate names {sorted(peer.edges)}, not edge {hello.edge}")
            inbox = self._inbox(hello)
            welcome = inbox.greet(hello, line)
            if not context.add_callback(lambda: inbox.leave(hello, line)):
                inbox.leave(hello, line)
                return
            self._door.seat(line, (hello.run_id, hello.edge))
        except (UplinkError, OutputError) as error:
            self._refuse(context, error, grpc.StatusCode.FAILED_PRECONDITION, peer)
        yield encode_ack(welcome, welcome=True)
        try:
            yield from self._acknowledgements(inbox, hello, line, requests, context)
        except (UplinkError, OutputError) as error:
            self._refuse(context, error, grpc.StatusCode.INVALID_ARGUMENT, peer)

    def _acknowledgements(
        self,
        inbox: Inbox,
        hello: Hello,
        line: Line,
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
    ) -> Iterator[bytes]:
        def stopped() -> bool:
            return self._stopping or not context.is_active()

        for data in requests:
            frame = decode_frame(data, max_bytes=MAX_BYTES)
            del data  # two copies of a large message less while its sender has to wait
            if frame.message == FAREWELL:
                yield encode_ack(inbox.farewell(hello, frame, line=line))
                continue
            if inbox.failed is not None:
                raise _stopped(hello)
            ack = inbox.take(hello, frame, line=line)
            del frame
            if inbox.paced(hello.edge):
                self._hold(inbox, hello, stopped)
            yield encode_ack(ack)

    def _hold(self, inbox: Inbox, hello: Hello, stopped: Callable[[], bool]) -> None:
        """Keep an edge waiting for training, and say so if it takes long."""
        warn = time.monotonic() + _LONG_WAIT

        def over() -> bool:
            nonlocal warn
            if time.monotonic() > warn:
                warn += 6 * _LONG_WAIT
                self._report(f"edge {hello.edge} of run {hello.run_id} waits for training (--queue)")
            return stopped()

        inbox.hold(over)

    def _peer(self, context: grpc.ServicerContext) -> Peer:
        if not self._secure:
            return Peer(str(context.peer()).rpartition(":")[0], None)
        pem = b"".join(context.auth_context().get("x509_pem_cert", ()))
        return Peer(f"certificate {hashlib.sha256(pem).hexdigest()[:16]}", edges_named(pem))

    def _inbox(self, hello: Hello) -> Inbox:
        inbox = self._inboxes.get(hello.run_id)
        if inbox is None:
            raise UplinkError(
                key="uplink.run_id",
                value=hello.run_id,
                rule=f"the cloud serves {', '.join(sorted(self._inboxes)) or 'no run'}",
                remedy="Start both sides with the same configuration",
            )
        if inbox.failed is not None:
            raise _stopped(hello)
        return inbox

    def _refuse(
        self, context: grpc.ServicerContext, error: PrivhierError, code: grpc.StatusCode, peer: Peer
    ) -> NoReturn:
        """End a stream with a status; a stranger learns only that it is refused, the log learns why."""
        with self._counting:
            self.refusals[error.key] += 1
            count = self.refusals[error.key]
        if isinstance(error, OutputError) or count & (count - 1) == 0:
            self._report(f"refused {peer.name} (no. {count} for {error.key}): {error}")
        text = str(error)
        if isinstance(error, StrangerError):
            code, text = grpc.StatusCode.PERMISSION_DENIED, "refused"
        elif isinstance(error, StoppedError):
            code = grpc.StatusCode.UNAVAILABLE
        elif isinstance(error, OutputError) or error.key == "uplink.greeting":
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
        # A status is UTF-8; what a client sent may hold what is not (a lone surrogate in a field's name).
        context.abort(code, text.encode("ascii", "backslashreplace").decode()[:1000])
        raise AssertionError("abort does not return")


def _stranger(peer: Peer, rule: str) -> StrangerError:
    return StrangerError(
        key="uplink.stranger", value=peer.name, rule=rule, remedy="Give every edge its own certificate"
    )


def _stopped(hello: Hello) -> StoppedError:
    return StoppedError(
        key="uplink.run_id",
        value=hello.run_id,
        rule="this run has stopped on the cloud, whose log says why",
        remedy="Mend what it names and start the cloud with --resume",
    )
