"""Bytes between edge and cloud over one gRPC stream: what the baselines talk through.

Every message is answered by exactly one reply, and an edge may be a window of messages ahead of its replies.
An empty reply is an acknowledgement; split learning answers with gradients. Plain text: the baselines are
spared the TLS that the product pays for.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

METHOD = "/study.Baseline/Run"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]

_HEAD = struct.Struct("<IHB?")


def pack(epoch: int, last: bool, labels: npt.NDArray[np.int64], body: bytes) -> bytes:
    """One batch: epoch, whether it is the epoch's last, labels int64 ``(B, n_tasks)``, and its data."""
    head = _HEAD.pack(epoch, *labels.shape, last)
    return head + labels.astype("<i2").tobytes() + body


def unpack(data: bytes) -> tuple[int, bool, npt.NDArray[np.int64], memoryview]:
    """The inverse of ``pack``."""
    epoch, rows, tasks, last = _HEAD.unpack_from(data)
    labels = np.frombuffer(data, "<i2", rows * tasks, _HEAD.size).reshape(rows, tasks)
    return epoch, last, labels.astype(np.int64), memoryview(data)[_HEAD.size + 2 * rows * tasks :]


class CloudPort:
    """The cloud's end: messages wait in a bounded queue until they are taken.

    Args:
        host: Where to listen; the port is chosen and kept in ``port``.
        window: Most messages waiting.
    """

    def __init__(self, host: str, *, window: int) -> None:
        self._inbox: queue.Queue[bytes | None] = queue.Queue(maxsize=window)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        _, service, method = METHOD.split("/")
        self._server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.port = self._server.add_insecure_port(f"{host}:0")
        self._server.start()

    def receive(self) -> bytes | None:
        """The next message; None when the edge has no more."""
        return self._inbox.get()

    def reply(self, data: bytes = b"") -> None:
        """Answer the oldest message that has no answer yet."""
        self._outbox.put(data)

    def close(self) -> None:
        """End the stream once all replies are sent."""
        self._outbox.put(None)
        self._server.stop(grace=10).wait()

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        # A thread of its own reads on while the cloud computes: else the line would idle.
        def read() -> None:
            try:
                for message in requests:
                    self._inbox.put(message)
            finally:
                self._inbox.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (answer := self._outbox.get()) is not None:
            yield answer


class EdgePort:
    """The edge's end.

    Args:
        target: ``HOST:PORT`` of the cloud.
        window: Messages that may be without a reply.
    """

    def __init__(self, target: str, *, window: int) -> None:
        self._window, self._open = window, 0
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        grpc.channel_ready_future(self._channel).result(timeout=60)
        stream = self._channel.stream_stream(METHOD)
        self._replies: Iterator[bytes] = stream(iter(self._outgoing.get, None))

    def send(self, data: bytes) -> None:
        """Send; blocks while a window of messages is without a reply."""
        while self._open >= self._window:
            self._take()
        self._outgoing.put(data)
        self._open += 1

    def exchange(self, data: bytes) -> bytes:
        """Send, and wait for the answer."""
        self.flush()
        self.send(data)
        return self._take()

    def flush(self) -> None:
        """Wait for all replies."""
        while self._open:
            self._take()

    def close(self) -> None:
        """Say that there is no more, and wait for the cloud to end the stream."""
        self.flush()
        self._outgoing.put(None)
        for _ in self._replies:
            pass
        self._channel.close()

    def _take(self) -> bytes:
        self._open -= 1
        return next(self._replies)
