"""Kill either side, or cut the line, at a random moment; the run must end as if nothing had happened.

Run as a script: ``python tests/training/faults.py --kills 50 --cuts 50`` (``make faults``). The sides are
real processes (forked, so that a hundred runs do not import torch two hundred times), the line is TCP over
loopback, cut by a proxy between them that drops connections or swallows bytes. Every run is compared with
an undisturbed one: the tail's weights bit for bit, and every release once in ledger, spool and journal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.distributed.remote import open_cloud, open_edge, run_edge
from privhier.privacy.agreement import check_agreement
from privhier.privacy.events import ReleaseEvent
from privhier.privacy.ledger import Ledger
from privhier.training.folder import RunFolder
from privhier.uplink.codec import decode
from privhier.uplink.journal import Journal

free_port = runpy.run_path(str(Path(__file__).parents[1] / "process" / "ports.py"))["free_port"]
PATIENCE = 90.0
CONFIG: RunConfig = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"](
    "faults",
    images=800,
    epochs=(1, 3, 2),
    batch=16,
    dataset={"options": {"identities": 100}},
    model={"bottleneck": {"size": 16}},
    release={"mechanism": "gaussian", "sigma": 0.3, "quantize": "int8"},
    privacy={"noise_source": "seeded", "noise_seed": 17},
    link={"queue": 4, "retry_seconds": 0.5},
)


def fork(work: Callable[[], None], log: Path) -> int:
    """Run ``work`` in a child; its exit status says whether it ended well."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            work()
        status = 0
    except BaseException as error:
        with log.open("a") as stream:
            stream.write(f"{type(error).__name__}: {error}\n")
    os._exit(status)


class Pair:
    """Both sides of one run as child processes.

    Args:
        config: The run.
        root: Its folder: ``edge`` and ``cloud`` in it.
        through: A port that the edge calls instead of the cloud's.
    """

    def __init__(self, config: RunConfig, root: Path, *, port: int, through: int | None = None) -> None:
        self.config, self.root, self.port, self.through = config, root, port, through
        root.mkdir(parents=True)
        self.children: dict[str, int] = {}

    def start(self, side: str) -> None:
        log = self.root / f"{side}.log"
        self.children[side] = fork(self._cloud if side == "cloud" else self._edge, log)

    def kill(self, side: str) -> bool:
        """SIGKILL; returns False if it had ended by itself."""
        child = self.children[side]
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True

    def wait(self) -> dict[str, int]:
        """Exit statuses; what does not end in time is killed and counts as -1."""
        end, found = time.monotonic() + PATIENCE, dict[str, int]()
        while len(found) < len(self.children):
            for side, child in self.children.items():
                if side not in found and os.waitpid(child, os.WNOHANG)[0]:
                    found[side] = 0
            if time.monotonic() > end:
                for side, child in self.children.items():
                    if side not in found:
                        os.kill(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                        found[side] = -1
            time.sleep(0.01)
        return found

    def spooled(self) -> int:
        """Messages the edge has put into its spool."""
        index = self.root / "edge" / "spool" / "index.jsonl"
        return max(0, index.read_bytes().count(b"\n") - 1) if index.exists() else 0

    def _cloud(self) -> None:
        torch.set_num_threads(1)
        with ExitStack() as stack:
            cloud = open_cloud(
                [(shared_part(self.config), self.root / "cloud")],
                f"127.0.0.1:{self.port}",
                credentials=None,
                device=torch.device("cpu"),
                resume=True,
                stack=stack,
                report=lambda text: print(text, flush=True),
            )
            cloud.run(linger=6.0)

    def _edge(self) -> None:
        def say(text: str) -> None:
            print(text, flush=True)

        with ExitStack() as stack:
            job = open_edge(self.config, self.root / "edge", resume=True, stack=stack, report=say)
            run_edge(job, f"127.0.0.1:{self.through or self.port}", credentials=None, report=say)


class Proxy:
    """A line between two ports that can be cut: ``drop`` closes connections, ``hold`` swallows time."""

    def __init__(self, target: int) -> None:
        self._target, self.port = target, free_port()
        self._state = "up"
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, state: str) -> None:
        self._state = state
        if state == "drop":
            for one in self._open:
                one.close()
            self._open = []

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            if self._state == "drop":
                here.close()
                continue
            try:
                there = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                here.close()
                continue
            self._open += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(2**16):
                while self._state == "hold":
                    time.sleep(0.01)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def check(pair: Pair, reference: Path, statuses: dict[str, int]) -> list[str]:
    """What is wrong with a run that has ended; nothing, if all is well."""
    wrong = [f"{side} ended with {status}" for side, status in statuses.items() if status]
    if wrong:
        return wrong
    for name in ("cloud/tail.safetensors", "edge/edge.safetensors"):
        if not (pair.root / name).exists():
            wrong.append(f"{name} is missing")
        elif (pair.root / name).read_bytes() != (reference / name).read_bytes():
            wrong.append(f"{name} differs")
    if wrong:
        return wrong
    journal = Journal(pair.root / "cloud" / "journal")
    carried: Counter[tuple[str, str, int]] = Counter()
    times: Counter[tuple[str, str, int, int]] = Counter()
    for number, place in enumerate(journal.places):
        carried[place.key[:3]] += place.records
        for record in decode(journal.read(number)).records.tolist():
            times[(*place.key[:3], record)] += 1
    ledger = Ledger.load(RunFolder(pair.root / "edge").ledger)
    try:
        check_agreement(ledger, carried)
    except Exception as error:
        wrong.append(str(error))
    events = Counter((e.split, e.phase, e.epoch) for e in ledger.events if isinstance(e, ReleaseEvent))
    if set(events.values()) != {1} or len(events) != 3 * 4:
        wrong.append(f"ledger entries: {dict(events)}")
    if set(times.values()) != {1}:
        wrong.append("a record was released twice in one epoch")
    return wrong


def undisturbed(config: RunConfig, root: Path) -> tuple[Path, int]:
    """The reference run and how many messages it sends."""
    pair = Pair(config, root, port=free_port())
    for side in ("cloud", "edge"):
        pair.start(side)
    statuses = pair.wait()
    if any(statuses.values()):
        raise SystemExit(f"the undisturbed run failed: {statuses}; see {root}")
    return root, pair.spooled()


def until(pair: Pair, messages: int) -> None:
    """Wait until the edge has spooled so many messages, or nothing moves any more."""
    end = time.monotonic() + PATIENCE
    while pair.spooled() < messages and time.monotonic() < end:
        time.sleep(0.002)


def with_kill(
    config: RunConfig, root: Path, reference: Path, total: int, rng: random.Random
) -> dict[str, Any]:
    """One run with a kill -9 of a random side at a random moment."""
    pair = Pair(config, root, port=free_port())
    for side in ("cloud", "edge"):
        pair.start(side)
    side, moment = rng.choice(("cloud", "edge")), rng.randint(0, total)
    until(pair, moment)
    time.sleep(rng.uniform(0, 0.1))
    killed = pair.kill(side)
    time.sleep(rng.uniform(0, 0.5))
    pair.start(side)
    return {"side": side, "at": moment, "killed": killed, "wrong": check(pair, reference, pair.wait())}


def with_cut(
    config: RunConfig, root: Path, reference: Path, total: int, rng: random.Random
) -> dict[str, Any]:
    """One run with the line cut for a random time."""
    port = free_port()
    proxy = Proxy(port)
    pair = Pair(config, root, port=port, through=proxy.port)
    for side in ("cloud", "edge"):
        pair.start(side)
    kind, moment, seconds = rng.choice(("drop", "hold")), rng.randint(0, total - 1), rng.uniform(0.05, 3)
    until(pair, moment)
    proxy.set(kind)
    time.sleep(seconds)
    proxy.set("up")
    return {"kind": kind, "at": moment, "seconds": seconds, "wrong": check(pair, reference, pair.wait())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config, rng = CONFIG, random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="privhier-faults-"))
    failed = 0
    try:
        reference, total = undisturbed(config, root / "undisturbed")
        print(f"undisturbed: {total} messages", flush=True)
        for kind, count, work in (("kill", options.kills, with_kill), ("cut", options.cuts, with_cut)):
            for number in range(count):
                here = root / f"{kind}{number}"
                found = work(config, here, reference, total, rng)
                print(kind, number, json.dumps(found), flush=True)
                failed += bool(found["wrong"])
                if found["wrong"]:
                    for log in here.glob("*.log"):
                        print(f"--- {log.name}\n{log.read_text()[-2000:]}", flush=True)
                else:
                    shutil.rmtree(here)
            print(f"{kind}s: {count} runs, {failed} failures so far", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
