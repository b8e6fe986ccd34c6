"""Crowds at the cloud's door while an honest edge sends: strangers, silence, floods, weight and boasting.

The cloud is a process of its own, over mutual TLS, with two edges: number 0 is honest, number 1 is not. After
every crowd, and while it stands there, edge 0 sends its next message and it is timed.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import fuzzing
import grpc
import psutil
from rich.console import Console
from rich.table import Table

from privhier.uplink.certificates import Certificates, make_certificates
from privhier.uplink.codec import encode
from privhier.uplink.frames import METHOD, encode_frame
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.journal import Journal
from privhier.uplink.server import OPTIONS
from privhier.uplink.spool import Spool
from privhier.uplink.tls import channel_credentials

PEAK_MIB = 700
"""More than this above the start, at any moment, and the crowd has taken the cloud's memory."""
LONGEST = 20.0
"""Seconds an honest message may take while a crowd is there."""
MANY, FLOOD = 40, 300
HONEST = replace(fuzzing.HELLO, edges=2)
OTHER = replace(HONEST, edge=1, folder="6" * 32)


@dataclass
class Findings:
    """What went wrong, what was answered to which crowd, and how long the honest edge waited beside it."""

    wrong: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    title: str = ""

    def check(self, fine: bool, text: str) -> None:
        """Note ``text`` unless it is fine."""
        if not fine:
            self.wrong[text[:300]] += 1

    def show(self, out: Console) -> None:
        """A table of crowds."""
        table = Table(
            "crowd", "answered", "honest message, longest", "memory, peak", title=self.title, box=None
        )
        for kind, waits in sorted(self.waits.items()):
            said = ", ".join(f"{count} {key}" for (name, key), count in self.answers.items() if name == kind)
            table.add_row(kind, said or "-", f"{max(waits):.2f} s", f"{self.peaks[kind]:+.0f} MiB")
        out.print(table)


class Crowd:
    """Hostile clients, all with certificates of the cloud's authority."""

    def __init__(self, target: str, made: Certificates, seed: int, findings: Findings) -> None:
        self._target, self._made, self._findings = target, made, findings
        self._random = random.Random(seed)
        self.kinds: dict[str, Callable[[str], Any]] = {
            "strangers as the honest edge": self.strangers,
            "forged messages": self.forgers,
            "silent streams": lambda kind: self.silent(kind, MANY),
            "flood of ungreeted streams": lambda kind: self.silent(kind, FLOOD),
            "greeted and silent": lambda kind: self.silent(kind, 16, OTHER.encode()),
            "heavy greetings": lambda kind: self.heavy(kind),
            "heavy messages": lambda kind: self.heavy(kind, OTHER.encode()),
            "boasts of records": self.boasts,
        }

    def channel(self, edge: int = 1) -> grpc.Channel:
        """A connection of its own."""
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self._target, channel_credentials(self._made.edges[edge]), options=options)

    def knock(self, kind: str, *parts: bytes, allowed: tuple[str, ...]) -> fuzzing.Answer:
        """Send parts and insist on one of the allowed answers."""
        with self.channel() as channel:
            answer = fuzzing.knock(channel, parts)
        self._findings.answers[kind, answer.code] += 1
        self._findings.check(answer.code in allowed, f"{kind}: {answer}")
        return answer

    @contextmanager
    def strangers(self, kind: str) -> Iterator[None]:
        """Greet as edge 0 with another edge's certificate, and try to send."""
        counts = {split: self._random.randrange(1, 10**6) for split in fuzzing.RECORDS}
        for hello in (
            HONEST,
            replace(HONEST, records=counts),
            replace(HONEST, folder="7" * 32, records=counts),
        ):
            forged = fuzzing.frame(0, fuzzing.honest()[self._random.randrange(24)])
            answer = self.knock(kind, hello.encode(), forged, allowed=("PERMISSION_DENIED",))
            self._findings.check(answer.text == "refused", f"{kind} were told {answer.text}")
        yield

    @contextmanager
    def forgers(self, kind: str) -> Iterator[None]:
        """Greet as themselves and send in the honest edge's name, or past a digest that is not so."""
        data = fuzzing.honest()[self._random.randrange(24)]
        own = encode(fuzzing.message(7, edge=1))
        for frame in (
            fuzzing.frame(0, data),
            encode_frame(0, own, self._random.randbytes(32)),
            encode_frame(self._random.randrange(1, 2**40), own),
            encode_frame(0, b"farewell", self._random.randbytes(32)),
        ):
            self.knock(kind, OTHER.encode(), frame, allowed=("INVALID_ARGUMENT",))
        yield

    @contextmanager
    def silent(self, kind: str, count: int, *parts: bytes) -> Iterator[None]:
        """Open streams and say no more."""
        queue: SimpleQueue[None] = SimpleQueue()

        def requests() -> Iterator[bytes]:
            yield from parts
            queue.get()

        channels = [self.channel() for _ in range(4)]
        calls = [channels[n % 4].stream_stream(METHOD)(requests()) for n in range(count)]
        time.sleep(0.2)
        yield
        for call in calls:
            call.cancel()
            queue.put(None)
        for channel in channels:
            channel.close()

    @contextmanager
    def heavy(self, kind: str, *before: bytes) -> Iterator[None]:
        """Eight at a time send 33 MiB that are no message."""
        data = bytes(33 * 2**20)
        allowed = (
            "INVALID_ARGUMENT",
            "FAILED_PRECONDITION",
            "RESOURCE_EXHAUSTED",
            "CANCELLED",
            "UNAVAILABLE",
        )
        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(self.knock, kind, *before, data, allowed=allowed) for _ in range(8)]
            yield
            for one in done:
                one.result()

    @contextmanager
    def boasts(self, kind: str) -> Iterator[None]:
        """Claim more records than there are people."""
        for claim in (2**28, 2**31 - 1, 2**24):
            greedy = replace(OTHER, records={**fuzzing.RECORDS, "train": claim})
            self.knock(kind, greedy.encode(), allowed=("FAILED_PRECONDITION",))
        yield


def fuzz_crowd(count: int, seed: int, findings: Findings, folder: Path, serve: Callable[..., None]) -> None:
    """So many crowds, the kinds in turn, and all 24 messages of an honest edge beside them."""
    made = make_certificates(folder / "certs", hosts=["127.0.0.1"], edges=2)
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    arguments = (other, folder / "journal", made.cloud, 2)
    process = context.Process(target=serve, args=arguments, daemon=True)
    process.start()
    other.close()
    target, started = f"127.0.0.1:{pipe.recv()}", time.perf_counter()
    crowd = Crowd(target, made, seed, findings)
    own = channel_credentials(made.edges[0], edge=0)
    uplink = GrpcUplink(target, HONEST, Spool(folder / "spool"), credentials=own, retry_seconds=0.2)
    waiting = fuzzing.honest()
    every = max(1, count // len(waiting))
    with watched(process.pid) as memory:
        for number in range(count):
            kind = list(crowd.kinds)[number % len(crowd.kinds)]
            base, memory[:] = psutil.Process(process.pid).memory_info().rss, []
            with crowd.kinds[kind](kind):
                if waiting and number % every == 0:
                    findings.waits.setdefault(kind, []).append(timed(uplink, waiting.pop(0)))
            peak = (max(memory, default=base) - base) / 2**20
            findings.peaks[kind] = max(findings.peaks.get(kind, 0.0), peak)
        while waiting:
            timed(uplink, waiting.pop(0))
    uplink.close()
    for kind, waits in findings.waits.items():
        findings.check(max(waits) < LONGEST, f"{kind}: an honest message took {max(waits):.1f} s")
        findings.check(findings.peaks[kind] < PEAK_MIB, f"{kind}: {findings.peaks[kind]:.0f} MiB more")
    findings.check(process.is_alive(), f"the cloud ended with {process.exitcode}")
    pipe.close()
    process.join(30)
    findings.check(process.exitcode == 0, f"the cloud ended with {process.exitcode}")
    journal = Journal(folder / "journal")
    taken = [journal.read(number) for number in range(len(journal))]
    findings.check(taken == fuzzing.honest(), f"the journal holds {len(taken)} messages, or others")
    findings.title = (
        f"crowd: {count} crowds in {time.perf_counter() - started:.0f} s, "
        f"{len(taken)} honest messages taken beside them and nothing else"
    )


def timed(uplink: GrpcUplink, data: bytes) -> float:
    """Seconds until the cloud has a message."""
    started = time.perf_counter()
    uplink.send(fuzzing.upward(data))
    while uplink.spool.waiting and time.perf_counter() - started < 3 * LONGEST:
        time.sleep(0.002)
    return time.perf_counter() - started


@contextmanager
def watched(process: int) -> Iterator[list[int]]:
    """Resident bytes of a process, twenty times a second."""
    memory, end = list[int](), threading.Event()

    def look() -> None:
        while not end.wait(0.05):
            memory.append(psutil.Process(process).memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield memory
    end.set()
    thread.join()
