"""The edge's end of the line: spool first, send, resend after a broken line, and never draw again."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc

from privhier.errors import OutputError, PrivhierError, UplinkError
from privhier.uplink.chain import digest
from privhier.uplink.codec import decode
from privhier.uplink.frames import FAREWELL, METHOD, Ack, Hello, decode_ack, encode_frame
from privhier.uplink.outgoing import OutgoingMessage, bytes_of
from privhier.uplink.server import OPTIONS
from privhier.uplink.spool import Spool

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
_UNANSWERED, _LONGEST_UNANSWERED = 5.0, 60.0
"""Seconds without an answer to a greeting after which the edge says so, and comes again."""
_LONG_WAIT = 10.0
_NEVER_HEARD = (
    ". No cloud has answered yet: does one listen there, and do both sides show --certs, or both say --plain?"
)
_REFUSALS = 4
"""As many handshakes in a row that end over a certificate are no accident of the line."""
_OWN = re.compile(r"last error: UNAVAILABLE: [^ ]+: (Socket closed|recvmsg|Unwrap failed)")
_THEIRS = re.compile(r"Tls handshake failed|[Vv]erification [Cc]heck")


class GrpcUplink:
    """An ``Uplink`` over gRPC that survives lines and processes going down.

    ``send`` returns when the message is on disk; a thread of its own brings it up. While the line is up
    the edge may be ``queue`` messages ahead of the cloud; while it is down, ``spool_bytes`` ahead.

    Args:
        target: ``HOST:PORT`` of the cloud.
        hello: What this edge says of itself; the folder and how far it has come are the spool's.
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
        self._refusals = 0
        self._changed = threading.Condition()
        self._connected = self._heard = False
        self._closing = self._parted = False
        self._error: PrivhierError | None = None
        self.waited = 0.0
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._thread.start()

    def send(self, message: OutgoingMessage) -> None:
        """Spool one message, then wait while the edge is too far ahead.

        Raises:
            UplinkError: The cloud refused this edge or a message, or the message is not made of releases.
            OutputError: The spool cannot be written.
        """
        data = bytes_of(message)
        place = decode(data).key
        earlier = self.spool.find(place)
        if earlier is not None:
            if self._redraws and earlier.digest != digest(data):
                raise UplinkError(
                    key="uplink.spool",
                    value="/".join(map(str, place)),
                    rule="a release with the same seeded noise but other features was spooled before",
                    remedy="Resume on the same machine with the same number of threads, or start anew",
                )
            return
        with self._changed:
            self.spool.append(message)
            self._changed.notify_all()
            started = time.monotonic()
            warn = started + _LONG_WAIT
            while self._error is None and self._ahead():
                self._changed.wait(0.2)
                if time.monotonic() > warn:
                    warn += 6 * _LONG_WAIT
                    self._report(f"waiting for the cloud: {self.spool.waiting} messages ahead of it")
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
            hint = "" if self._heard else _NEVER_HEARD
            self._report(
                f"the line to {self._target} is down ({text}); next attempt in {seconds:.1f} s{hint}"
            )
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
            live.watch(self._unanswered, answers.cancel, _UNANSWERED, _LONGEST_UNANSWERED)
            for answer in answers:
                self._answered(decode_ack(answer), live)
            return "the cloud closed the stream"
        except grpc.RpcError as error:
            code, details = error.code(), str(error.details())
            if live.objection is None:
                self._refused(code, details, greeted=live.first is not None)
            return f"{code.name}: {details}"
        except PrivhierError as error:
            self._fail(error)
            return str(error)
        finally:
            if live.objection is not None:
                self._fail(live.objection)
            live.watched()
            with self._changed:
                self._connected, live.ended = False, True
                self._changed.notify_all()
            channel.close()

    def _unanswered(self) -> None:
        self._report(f"the cloud at {self._target} has not answered this edge's greeting; waiting")

    def _refused(self, code: grpc.StatusCode, details: str, *, greeted: bool) -> None:
        """Give up where another attempt would meet the same refusal."""
        remedy = "Mend what it names and go on with --resume"
        if code in _FINAL:
            if code == grpc.StatusCode.PERMISSION_DENIED:
                remedy = f"Does this certificate name edge {self._hello.edge}? The cloud's log says more"
            self._give_up(f"the cloud refused: {details}", remedy)
            return
        secure = self._credentials is not None and code == grpc.StatusCode.UNAVAILABLE
        own, theirs = _OWN.search(details), _THEIRS.search(details)
        self._refusals = self._refusals + 1 if secure and not greeted and (own or theirs) else 0
        if self._refusals < _REFUSALS:
            return
        if own:
            rule = "the cloud closes the line when it sees this edge's certificate"
            remedy = "Is it of the cloud's authority, and still valid? Go on with --resume and one that is"
        else:
            rule = f"the cloud's certificate is not accepted: {details}"
            remedy = "Is it the cloud of this authority, called by its own name? Go on with --resume"
        self._give_up(rule, remedy)

    def _give_up(self, rule: str, remedy: str) -> None:
        self._report(f"the line to {self._target} is given up: {rule}")
        self._fail(self._unwanted(rule, remedy))

    def _unwanted(self, rule: str, remedy: str) -> UplinkError:
        return UplinkError(key="--cloud", value=self._target, rule=rule, remedy=remedy)

    def _answered(self, ack: Ack, live: _Connection) -> None:
        with self._changed:
            if live.objection is not None:
                return
            live.objection = self._objection(ack, welcome=live.first is None)
            if live.first is None:
                live.first, self._refusals, self._heard = ack.following, 0, True
                self._connected = live.objection is None
            if live.objection is None:
                self.spool.acknowledge(ack.following)
                self._parted = live.farewell and ack.following == len(self.spool.entries)
            self._changed.notify_all()
        if live.announce() and live.objection is None:
            self._report(f"the line to {self._target} is up; {self.spool.waiting} messages wait")

    def _objection(self, ack: Ack, *, welcome: bool) -> UplinkError | None:
        """What is wrong with an acknowledgement: it must be of the very messages that were spooled here."""
        following, spooled = ack.following, len(self.spool.entries)
        if welcome and following < self.spool.acknowledged:
            rule = f"the cloud has only {following} of {self.spool.acknowledged} messages it acknowledged"
            return self._unwanted(rule, "Give the cloud its old folder, or start both anew")
        if following > spooled:
            rule = (
                f"the cloud has {following} messages of this edge, of which {spooled} were ever spooled here"
            )
            return self._unwanted(rule, "Give the edge its old folder, or start both anew")
        if ack.chain != self.spool.chain(following):
            rule = f"the {following} messages that the cloud has of this edge are not those spooled here"
            remedy = "Somebody else sent as this edge: use certificates (not --plain), and start both anew"
            return self._unwanted(rule, remedy)
        return None

    def _requests(self, live: _Connection) -> Iterator[bytes]:
        with self._changed:
            taken = self.spool.acknowledged
            chain = self.spool.chain(taken)
        hello = replace(self._hello, folder=self.spool.identity, taken=taken, chain=chain.hex())
        yield hello.encode()
        with self._changed:
            self._changed.wait_for(lambda: live.first is not None or live.ended or self._error is not None)
            number = live.first
        while number is not None:
            with self._changed:
                while not self._ready(number, live):
                    self._changed.wait()
                if live.ended or self._error is not None:
                    return
                count = len(self.spool.entries)
                # Closing, with nothing left to send; or what the cloud has is not what was sent: either
                # way the running digest tells the cloud.
                last = live.objection is not None or number >= count
                number = min(number, count) if last else max(number, self.spool.acknowledged)
                chain, data = self.spool.chain(number), FAREWELL if last else self._spooled(number)
                live.farewell = last and live.objection is None
            if data is None:
                return
            yield encode_frame(number, data, chain)
            if last:
                if live.objection is not None:
                    live.limit(_UNANSWERED)
                return
            number += 1

    def _spooled(self, number: int) -> bytes | None:
        try:
            return self.spool.read(number)
        except UplinkError as error:
            self._fail(error)
        except OSError as error:
            self._fail(
                OutputError(
                    key="--out",
                    value=str(error.filename),
                    rule=f"a spooled message cannot be read: {error.strerror}",
                    remedy="Mend the disk and go on with --resume",
                )
            )
        return None

    def _ready(self, number: int, live: _Connection) -> bool:
        done = self._closing and not self.spool.waiting
        stop = live.ended or live.objection is not None or self._error is not None
        return number < len(self.spool.entries) or done or stop

    def _fail(self, error: PrivhierError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class _Connection:
    """What is known of one connection.

    Attributes:
        first: The first number the cloud asked for; None: it has not answered the greeting.
        objection: Why its acknowledgements are not of what was sent.
        farewell: Whether this edge has said farewell.
        ended: Whether it is over.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.objection: UplinkError | None = None
        self.farewell = self.ended = False
        self._announced = False
        self._timers: list[threading.Timer] = []
        self._cancel: Callable[[], object] = lambda: None

    def announce(self) -> bool:
        """True the first time."""
        first, self._announced = not self._announced, True
        if first:
            self.watched()
        return first

    def watch(self, say: Callable[[], None], cancel: Callable[[], object], soon: float, late: float) -> None:
        """Say so if the greeting stays unanswered for ``soon`` seconds; after ``late`` cancel the line."""
        self._cancel = cancel
        self._time(soon, say)
        self._time(late, cancel)

    def limit(self, seconds: float) -> None:
        """Cancel the line if it is not over by then."""
        self._time(seconds, self._cancel)

    def _time(self, seconds: float, then: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, then)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def watched(self) -> None:
        """The greeting was answered, or the connection is over."""
        for timer in self._timers:
            timer.cancel()
