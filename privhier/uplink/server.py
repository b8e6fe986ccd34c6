"""The cloud's end of the line: one gRPC method, a stream up, nine-byte acknowledgements down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

from privhier.errors import ConfigError, OutputError, UplinkError
from privhier.uplink.codec import MAX_BYTES
from privhier.uplink.frames import FRAME_HEADER, METHOD, Hello, decode_frame, encode_ack
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


class UplinkServer:
    """Serves any number of runs, each with any number of edges.

    Args:
        inboxes: Run id to its inbox.
        address: ``HOST:PORT``; port 0 takes a free one.
        credentials: Mutual TLS (see ``privhier.uplink.tls``); None: plain text.
        streams: Connections served at the same time.
        report: Called with a line of text when the disk refuses a message.

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
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._report = report or (lambda text: None)
        self._inboxes = inboxes
        self.refusals: Counter[str] = Counter()
        self._stopping = False
        self._server = grpc.server(ThreadPoolExecutor(streams), options=[*OPTIONS, ("grpc.so_reuseport", 0)])
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
        def stopped() -> bool:
            return self._stopping or not context.is_active()

        try:
            first = next(requests, None)
            if first is None:
                return
            hello = Hello.decode(first)
            inbox = self._inbox(hello)
            yield encode_ack(inbox.greet(hello), welcome=True)
        except UplinkError as error:
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)
        except OutputError as error:
            self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
        try:
            for data in requests:
                sequence, message = decode_frame(data, max_bytes=MAX_BYTES)
                yield encode_ack(inbox.take(hello, sequence, message, stopped=stopped))
        except UplinkError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except OutputError as error:
            self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
        if not stopped():
            inbox.farewell(hello)

    def _inbox(self, hello: Hello) -> Inbox:
        inbox = self._inboxes.get(hello.run_id)
        if inbox is not None:
            return inbox
        raise UplinkError(
            key="uplink.run_id",
            value=hello.run_id,
            rule=f"the cloud serves {', '.join(sorted(self._inboxes)) or 'no run'}",
            remedy="Start both sides with the same configuration",
        )

    def _refuse(
        self, context: grpc.ServicerContext, code: grpc.StatusCode, error: UplinkError | OutputError
    ) -> NoReturn:
        self.refusals[error.key] += 1
        if isinstance(error, OutputError):
            self._report(str(error))
        # A status is UTF-8; what a client sent may hold what is not (a lone surrogate in a field's name).
        context.abort(code, str(error).encode("ascii", "backslashreplace").decode()[:1000])
        raise AssertionError("abort does not return")
