"""Silent lines cost their sender a turn: an honest edge is served while as many as you like stay open."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from privhier.uplink import grpc_link
from privhier.uplink import server as server_room
from privhier.uplink.certificates import make_certificates
from privhier.uplink.door import READERS
from privhier.uplink.frames import METHOD
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.server import OPTIONS, UplinkServer
from privhier.uplink.spool import Spool
from privhier.uplink.tls import channel_credentials, server_credentials

ALONE = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def cloud(fuzzing, folder: Path, lines: list[str], *, secure: bool = False, **options) -> Iterator[tuple]:
    """A cloud of one edge; yields server, inbox and a maker of channels."""
    made = make_certificates(folder / "certs", hosts=["127.0.0.1"], edges=2) if secure else None
    inbox = fuzzing.inbox(folder / "journal")
    credentials = None if made is None else server_credentials(made.cloud)
    server = UplinkServer(
        {fuzzing.RUN: inbox},
        "127.0.0.1:0",
        credentials=credentials,
        streams=1,
        report=lines.append,
        **options,
    )
    server.start()

    def channel(edge: int = 1) -> grpc.Channel:
        target = f"127.0.0.1:{server.port}"
        if made is None:
            return grpc.insecure_channel(target, options=ALONE)
        return grpc.secure_channel(target, channel_credentials(made.edges[edge]), options=ALONE)

    yield server, inbox, channel
    server.stop(0)
    inbox.journal.close()


class Silent:
    """Streams that are opened and say nothing, or only their first parts."""

    def __init__(self, channel: grpc.Channel, count: int, *parts: bytes) -> None:
        self._queues: list[SimpleQueue[bytes | None]] = [SimpleQueue() for _ in range(count)]
        for queue in self._queues:
            for part in parts:
                queue.put(part)
        self.calls = [channel.stream_stream(METHOD)(iter(queue.get, None)) for queue in self._queues]

    def end(self) -> None:
        for queue, call in zip(self._queues, self.calls, strict=True):
            call.cancel()
            queue.put(None)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("nonsense", [False, True])
def test_an_honest_edge_ends_while_silent_streams_are_open(fuzzing, tmp_path, secure, nonsense):
    """Sixteen of them once took all turns there were; here it is forty, and they are there first."""
    lines: list[str] = []
    with cloud(fuzzing, tmp_path, lines, secure=secure, patience=60) as (server, inbox, channel):
        parts = (b"no greeting",) if nonsense else ()
        channels = [channel() for _ in range(4)]
        silent = [Silent(one, 10, *parts) for one in channels]
        time.sleep(0.3)
        own = channel_credentials(tmp_path / "certs" / "edge") if secure else None
        uplink = GrpcUplink(
            f"127.0.0.1:{server.port}",
            fuzzing.HELLO,
            Spool(tmp_path / "spool"),
            credentials=own,
            retry_seconds=0.1,
        )
        started = time.monotonic()
        for data in fuzzing.honest():
            uplink.send(fuzzing.upward(data))
        uplink.close()
        assert time.monotonic() - started < 20
        assert len(inbox.journal) == 24
        assert inbox.farewells == {0}
        assert len(server._door._waiting) <= 16
        if not nonsense:
            assert any("silent lines dropped" in line for line in lines)
        for one, line in zip(silent, channels, strict=True):
            one.end()
            line.close()


def test_a_line_that_does_not_greet_in_time_is_closed_with_a_reason(fuzzing, tmp_path):
    lines: list[str] = []
    with cloud(fuzzing, tmp_path, lines, patience=0.3) as (server, _, channel), channel() as one:
        silent = Silent(one, 3)
        for call in silent.calls:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "a line has to greet within 0.3 s" in caught.value.details()
        silent.end()
        assert server.refusals["uplink.greeting"] == 3
        assert any("did not greet within 0.3 s" in line for line in lines)
        end = time.monotonic() + 10  # a client may hear of its end before the cloud has cleaned up
        while server._door._waiting and time.monotonic() < end:
            time.sleep(0.01)
        assert not server._door._waiting


def test_a_flood_of_silent_streams_is_bounded(fuzzing, tmp_path):
    with cloud(fuzzing, tmp_path, [], secure=True, patience=60) as (server, _, channel), channel() as one:
        before = set(threading.enumerate())
        silent = Silent(one, 600)
        refused = [call for call in silent.calls[:500] if "RESOURCE_EXHAUSTED" in str(ended(call))]
        assert len(refused) == 500
        assert len(server._door._waiting) <= 4  # of one certificate
        new = [thread for thread in threading.enumerate() if thread not in before]
        assert sum("ThreadPoolExecutor" in thread.name for thread in new) <= 1 + 16 + 8
        assert sum(thread.name == "greeting" for thread in new) <= READERS * 16
        silent.end()


def ended(call) -> grpc.StatusCode:
    try:
        list(call)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_message_that_no_run_needs_is_refused_before_it_is_here(fuzzing, tmp_path):
    with cloud(fuzzing, tmp_path, [], max_bytes=2**20) as (_, inbox, channel), channel() as one:
        for parts in ((bytes(2 * 2**20),), (fuzzing.HELLO.encode(), bytes(2 * 2**20))):
            assert fuzzing.knock(one, parts).code == "RESOURCE_EXHAUSTED"
        assert len(inbox.journal) == 0


def test_one_line_a_place_and_the_newest_counts(fuzzing, tmp_path):
    """A line that broke without a word must not keep its own edge out."""
    with cloud(fuzzing, tmp_path, []) as (server, _, channel), channel() as one, channel() as two:
        stale = Silent(one, 1, fuzzing.HELLO.encode())
        next(stale.calls[0])
        parts = (fuzzing.HELLO.encode(), fuzzing.frame(0, fuzzing.honest()[0]))
        assert fuzzing.knock(two, parts) == fuzzing.Answer("OK", "", (0, 1))
        assert ended(stale.calls[0]) == grpc.StatusCode.CANCELLED
        stale.end()
        assert len(server._door._seated) <= 1


def test_both_sides_say_when_an_edge_waits(fuzzing, tmp_path, monkeypatch):
    monkeypatch.setattr(grpc_link, "_LONG_WAIT", 0.2)
    monkeypatch.setattr(grpc_link, "_UNANSWERED", 0.1)
    monkeypatch.setattr(server_room, "_LONG_WAIT", 0.2)
    lines: list[str] = []
    said: list[str] = []
    with cloud(fuzzing, tmp_path, lines) as (server, inbox, _):
        inbox._queue = 0
        agree = inbox._agree
        inbox._agree = lambda hello: (time.sleep(0.5), agree(hello))  # slow to answer a greeting
        uplink = GrpcUplink(
            f"127.0.0.1:{server.port}", fuzzing.HELLO, Spool(tmp_path / "spool"),
            credentials=None, queue=1, report=said.append,
        )  # fmt: skip
        release = threading.Timer(1.5, lambda: inbox.progress(10**6))
        release.start()
        uplink.send(fuzzing.upward(fuzzing.honest()[0]))
        with uplink._changed:  # before the line is up an edge may be ahead by all that its spool holds
            assert uplink._changed.wait_for(lambda: uplink._connected, 20)
        for data in fuzzing.honest()[1:3]:
            uplink.send(fuzzing.upward(data))
        uplink.close(patience=1)
        release.join()
    assert any("has not answered this edge's greeting" in line for line in said)
    assert any("messages ahead of it" in line for line in said)
    assert any("edge 0 of run" in line and "waits for training" in line for line in lines)


def test_places_of_other_edges_are_untouched(fuzzing, tmp_path):
    made = make_certificates(tmp_path / "c", hosts=["127.0.0.1"], edges=2)
    hello = replace(fuzzing.HELLO, edges=2)
    inbox = fuzzing.inbox(tmp_path / "j")
    inbox._expected["edges"] = 2
    server = UplinkServer(
        {fuzzing.RUN: inbox}, "127.0.0.1:0", credentials=server_credentials(made.cloud), streams=2
    )
    server.start()
    target = f"127.0.0.1:{server.port}"
    lines = [grpc.secure_channel(target, channel_credentials(folder), options=ALONE) for folder in made.edges]
    open_streams = [
        Silent(line, 1, replace(hello, edge=edge, folder=f"{edge}" * 32).encode())
        for edge, line in enumerate(lines)
    ]
    for stream in open_streams:
        next(stream.calls[0])
    assert set(server._door._seated) == {(fuzzing.RUN, 0), (fuzzing.RUN, 1)}
    for stream, line in zip(open_streams, lines, strict=True):
        assert stream.calls[0].is_active()
        stream.end()
        line.close()
    server.stop(0)
    inbox.journal.close()
