"""The edge's end of the line: spool first, send, resend after a broken line, and never draw again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from privhier.errors import OutputError, PrivhierError, UplinkError
from privhier.uplink.codec import decode
from privhier.uplink.frames import METHOD, Hello, decode_ack, encode_frame
from privhier.uplink.server import OPTIONS
from privhier.uplink.spool import Spool, digest

Report = Callable[[str], None]
_FIRST_PAUSE = 0.2
_FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Refusals that another attempt would meet again."""


class GrpcUplink:
    """An ``Uplink`` over gRPC that survives lines and processes going down.

    ``send`` returns when the message is on disk; a thread of its own brings it up. While the line is up
    the edge may be ``queue`` messages ahead of the cloud; while it is down, ``spool_bytes`` ahead.

    Args:
        target: ``HOST:PORT`` of the cloud.
        hello: What this edge says of itself.
        spool: Its outbox.
        credentials: Mutual TLS; None: plain text.
        queue: Messages ahead while the line is up.
        spool_bytes: Bytes ahead while it is down.
        retry_seconds: Largest pause between two attempts to connect; the first is 0.2 s.
        redraws: Whether a resumed run draws the same release again (seeded noise): it must then be
            the same bytes. Otherwise a second draw of a spooled release is dropped.
        report: Called with a line of text when the line goes up or down.

    Attributes:
        waited: Seconds that ``send`` was held back in all.
    """

    def __init__(
        self,
        target: str,
        hello: Hello,
        spool: Spool,
        *,
        credentials: grpc.ChannelCredentials | None,
        queue: int = 4,
        spool_bytes: int = 2**30,
        retry_seconds: float = 30.0,
        redraws: bool = True,
        report: Report | None = None,
    ) -> None:
        self._target, self._hello, self.spool, self._credentials = target, hello, spool, credentials
        self._queue, self._limit, self._longest, self._redraws = queue, spool_bytes, retry_seconds, redraws
        self._report = report or (lambda text: None)
        self._jitter = random.Random(hello.edge)
        self._changed = threading.Condition()
        self._connected = False
        self._closing = self._parted = False
        self._error: PrivhierError | None = None
        self.waited = 0.0
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Spool one message, then wait while the edge is too far ahead.

        Raises:
            UplinkError: The cloud refused this edge or a message, or the message is not a valid one.
            OutputError: The spool cannot be written.
        """
        message = decode(data)
        earlier = self.spool.find(message.key)
        if earlier is not None:
            if self._redraws and earlier.digest != digest(data):
                raise UplinkError(
                    key="uplink.spool",
                    value="/".join(map(str, message.key)),
                    rule="a release with the same seeded noise but other features was spooled before",
                    remedy="Resume on the same machine with the same number of threads, or start anew",
                )
            return
        with self._changed:
            self.spool.append(data)
            self._changed.notify_all()
            started = time.monotonic()
            while self._error is None and self._ahead():
                self._changed.wait(0.2)
            self.waited += time.monotonic() - started
            if self._error is not None:
                raise self._error

    def close(self, *, patience: float = 10.0) -> None:
        """Wait until the cloud has everything, then say farewell.

        Args:
            patience: Seconds for the farewell alone, once everything is acknowledged.
        """
        with self._changed:
            while self._error is None and self.spool.waiting:
                self._changed.wait(0.2)
            self._closing = True
            self._changed.notify_all()
            end = time.monotonic() + patience
            while self._error is None and not self._parted and time.monotonic() < end:
                self._changed.wait(0.2)
            error = self._error
            self._fail(self._closed())
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Stop sending at once; what is spooled stays spooled."""
        self._fail(self._closed())
        self._thread.join(5)

    def _closed(self) -> UplinkError:
        return UplinkError(key="uplink", value=self._target, rule="was closed", remedy="Open it again")

    def _ahead(self) -> bool:
        if self._connected:
            return self.spool.waiting > self._queue
        return self.spool.waiting_bytes > self._limit

    def _run(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:
            self._fail(
                UplinkError(
                    key="uplink",
                    value=self._target,
                    rule=f"sending stopped: {type(error).__name__}: {error}",
                    remedy="Mend what it names and go on with --resume",
                )
            )

    def _keep_connected(self) -> None:
        pause = _FIRST_PAUSE / 2
        while not self._over():
            before, closing = self.spool.acknowledged, self._closing
            text = self._connect()
            if self._over():
                return
            moved = self.spool.acknowledged > before
            pause = _FIRST_PAUSE if moved else min(2 * pause, self._longest)
            seconds = min(pause * (0.75 + 0.5 * self._jitter.random()), self._longest)
            self._report(f"the line to {self._target} is down ({text}); next attempt in {seconds:.1f} s")
            with self._changed:  # a farewell that is due does not wait out a long pause
                end = time.monotonic() + seconds
                while self._error is None and self._closing == closing and time.monotonic() < end:
                    self._changed.wait(end - time.monotonic())

    def _over(self) -> bool:
        with self._changed:
            return self._error is not None or self._parted

    def _connect(self) -> str:
        """One connection, from greeting to its end; returns why it ended."""
        channel = (
            grpc.insecure_channel(self._target, options=[*OPTIONS, ("grpc.enable_http_proxy", 0)])
            if self._credentials is None
            else grpc.secure_channel(self._target, self._credentials, options=OPTIONS)
        )
        live = _Connection()
        try:
            answers = channel.stream_stream(METHOD)(self._requests(live))
            for answer in answers:
                self._answered(decode_ack(answer), live)
            with self._changed:
                self._parted = self._closing and not self.spool.waiting
            return "the cloud closed the stream"
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code in _FINAL:
                self._fail(
                    UplinkError(
                        key="--cloud",
                        value=self._target,
                        rule=f"the cloud refused: {details}",
                        remedy="Mend what it names and go on with --resume",
                    )
                )
            return f"{code.name}: {details}"
        except PrivhierError as error:
            self._fail(error)
            return str(error)
        finally:
            with self._changed:
                self._connected, live.ended = False, True
                self._changed.notify_all()
            channel.close()

    def _answered(self, following: int, live: _Connection) -> None:
        with self._changed:
            if live.first is None:
                if following < self.spool.acknowledged:
                    raise UplinkError(
                        key="--cloud",
                        value=following,
                        rule=f"the cloud wants a message that it acknowledged before "
                        f"(everything below {self.spool.acknowledged})",
                        remedy="Give the cloud its old folder, or start both anew",
                    )
                live.first = following
                self._connected = True
            self.spool.acknowledge(following)
            self._changed.notify_all()
        if live.announce():
            self._report(f"the line to {self._target} is up; {self.spool.waiting} messages wait")

    def _requests(self, live: _Connection) -> Iterator[bytes]:
        yield self._hello.encode()
        with self._changed:
            self._changed.wait_for(lambda: live.first is not None or live.ended or self._error is not None)
            number = live.first
        while number is not None:
            with self._changed:
                while not self._ready(number, live):
                    self._changed.wait()
                if live.ended or self._error is not None:
                    return
                if number >= len(self.spool.entries):
                    return  # closing, and nothing left to send
                if number < self.spool.acknowledged:
                    number = self.spool.acknowledged
                    continue
                try:
                    data = self.spool.read(number)
                except OSError as error:
                    self._fail(
                        OutputError(
                            key="--out",
                            value=str(error.filename),
                            rule=f"a spooled message cannot be read: {error.strerror}",
                            remedy="Mend the disk and go on with --resume",
                        )
                    )
                    return
            yield encode_frame(number, data)
            number += 1

    def _ready(self, number: int, live: _Connection) -> bool:
        done = self._closing and not self.spool.waiting
        return number < len(self.spool.entries) or live.ended or done or self._error is not None

    def _fail(self, error: PrivhierError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class _Connection:
    """What is known of one connection: the first number the cloud asked for, and whether it is over."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.ended = False
        self._announced = False

    def announce(self) -> bool:
        """True the first time."""
        first, self._announced = not self._announced, True
        return first
