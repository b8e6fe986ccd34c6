"""A line of a given bit rate between an edge and a cloud on one machine.

As root: two network namespaces joined by a veth pair, each end behind a token bucket (``tc ... tbf``). Its
self-check sends bulk data both ways and prints what arrives:

    python experiments/hierarchical_training/shaped_link.py 1 5 20 100

Without root, or with ``--relay``: loopback, through a relay that paces bytes with a token bucket of its own
(``token_relay.py``). It says so; counted bytes then lack the TCP and IP headers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

HOSTS = {"cloud": "10.77.0.1", "edge": "10.77.0.2"}
SIDES = ("edge", "cloud")
QUEUE = "400ms"
"""What the shaper holds back before it drops: enough that a window of TCP fits."""
SEGMENT_BYTES = 1500 + 14

_NAME = re.compile(r"privhier-(\d+)-\d+-(edge|cloud)")
_numbers = itertools.count()


class Link(Protocol):
    """A shaped line with a process at either end."""

    host: str
    """Where the cloud listens."""
    shaped_by: str

    def dial(self, port: int) -> str:
        """``HOST:PORT`` for the edge to connect to a cloud that listens on ``port``."""
        ...

    def popen(self, side: str, command: Sequence[str], *, core: int, **options: Any) -> subprocess.Popen[Any]:
        """Start ``command`` on ``side``, pinned to one core and one thread."""
        ...

    def wire_bytes(self) -> dict[str, int]:
        """Bytes that crossed the line so far: ``up`` and ``down``."""
        ...


@contextmanager
def shaped_link(rate_mbit: float, *, relay: bool = False) -> Iterator[Link]:
    """A line of ``rate_mbit`` Mbit/s each way; torn down on exit, its processes ended, whatever happens."""
    if not relay and not can_shape():
        print("no root or no iproute2: loopback through a token bucket instead of tc tbf", file=sys.stderr)
        relay = True
    link = RelayLink(rate_mbit) if relay else NamespaceLink(rate_mbit)
    try:
        link.up()
        yield link
    finally:
        link.down()


def can_shape() -> bool:
    """Whether namespaces can be made here: root, and iproute2's ``ip`` and ``tc``."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "tc", "taskset"))


def burst_bytes(rate_mbit: float) -> int:
    """The bucket's size: five milliseconds of the rate, at least two segments.

    Small, since a bucket that filled while nothing was sent is bytes for free.
    """
    return max(2 * SEGMENT_BYTES, int(rate_mbit * 1e6 / 8 * 0.005))


class _Processes:
    """Children, each the leader of a process group of its own, and all ended together."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[Any]] = []

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        child = subprocess.Popen(list(command), env=single_thread(), start_new_session=True, **options)
        self._children.append(child)
        return child

    def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self._children:
                if child.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, number)
            for child in self._children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=3)
        self._children = []


class NamespaceLink:
    """Two network namespaces, a veth pair, and tbf on both ends."""

    shaped_by = "tc tbf"

    def __init__(self, rate_mbit: float) -> None:
        self.rate_mbit = rate_mbit
        self.host = HOSTS["cloud"]
        number = next(_numbers)
        self.names = {side: f"privhier-{os.getpid()}-{number}-{side}" for side in SIDES}
        # Interface names have at most 15 characters.
        self.devices = {side: f"ph{os.getpid()}n{number}{side[0]}" for side in SIDES}
        self._processes = _Processes()

    def up(self) -> None:
        """Make namespaces and line; leftovers of dead processes go first."""
        remove_leftovers()
        for name in self.names.values():
            _ip("netns", "add", name)
        edge, cloud = (self.devices[side] for side in SIDES)
        _ip("link", "add", edge, "type", "veth", "peer", "name", cloud)
        for side in SIDES:
            name, device = self.names[side], self.devices[side]
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "link", "set", "lo", "up")
            # Packets as on a real line, so that the counters hold every header; no IPv6 chatter.
            _ip("-n", name, "link", "set", device, "gso_max_segs", "1", "addrgenmode", "none")
            _ip("-n", name, "addr", "add", f"{HOSTS[side]}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
            shape = ("rate", f"{self.rate_mbit:g}mbit", "burst", f"{burst_bytes(self.rate_mbit)}")
            _run("tc", "-n", name, "qdisc", "add", "dev", device, "root", "tbf", *shape, "latency", QUEUE)

    def down(self) -> None:
        """End the processes and take everything away; deleting one end of a veth deletes both."""
        self._processes.end()
        for name in self.names.values():
            _run("ip", "netns", "delete", name, check=False)

    def dial(self, port: int) -> str:
        """See ``Link``."""
        return f"{self.host}:{port}"

    def popen(self, side: str, command: Sequence[str], *, core: int, **options: Any) -> subprocess.Popen[Any]:
        """See ``Link``."""
        inside = ("ip", "netns", "exec", self.names[side], "taskset", "-c", str(core))
        return self._processes.start([*inside, *command], **options)

    def wire_bytes(self) -> dict[str, int]:
        """See ``Link``; Ethernet frames, without preamble and checksum."""
        sent = {}
        for side, way in (("edge", "up"), ("cloud", "down")):
            text = _ip("-n", self.names[side], "-s", "-j", "link", "show", "dev", self.devices[side])
            sent[way] = int(json.loads(text)[0]["stats64"]["tx"]["bytes"])
        return sent


class RelayLink:
    """Loopback through ``token_relay.py``; the relay runs on the edge's core."""

    shaped_by = "token bucket in a relay over loopback"

    def __init__(self, rate_mbit: float) -> None:
        self.rate_mbit = rate_mbit
        self.host = "127.0.0.1"
        self._processes = _Processes()
        self._wire = {"up": 0, "down": 0}
        self._relay: subprocess.Popen[str] | None = None

    def up(self) -> None:
        """Nothing to make: the relay starts with ``dial``."""

    def down(self) -> None:
        """End relay and processes."""
        self._processes.end()

    def dial(self, port: int) -> str:
        """See ``Link``."""
        script = Path(__file__).with_name("token_relay.py")
        command = [sys.executable, str(script), str(self.rate_mbit), str(port)]
        self._relay = self._processes.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._relay.stdout is not None
        return f"127.0.0.1:{int(self._relay.stdout.readline())}"

    def popen(self, side: str, command: Sequence[str], *, core: int, **options: Any) -> subprocess.Popen[Any]:
        """See ``Link``."""
        pin = ["taskset", "-c", str(core)] if shutil.which("taskset") else []
        return self._processes.start([*pin, *command], **options)

    def wire_bytes(self) -> dict[str, int]:
        """See ``Link``; TCP payload only."""
        if self._relay is not None:
            assert self._relay.stdin is not None
            assert self._relay.stdout is not None
            self._relay.stdin.write("count\n")
            self._wire = json.loads(self._relay.stdout.readline())
        return dict(self._wire)


def single_thread() -> dict[str, str]:
    """Our environment with one thread a process and without proxies."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return env | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def remove_leftovers() -> None:
    """Delete namespaces of processes that are no more."""
    for line in _ip("netns", "list").splitlines():
        match = _NAME.fullmatch(line.split(" ")[0])
        if match and not Path(f"/proc/{match[1]}").exists():
            _run("ip", "netns", "delete", match[0], check=False)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def check_rate(rate_mbit: float, *, seconds: float, relay: bool) -> Mapping[str, float]:
    """Bulk data one way and then the other; Mbit/s of payload that arrived, and of the wire."""
    total = int(rate_mbit * 1e6 / 8 * seconds)
    measured: dict[str, float] = {}
    with shaped_link(rate_mbit, relay=relay) as link:
        for way in ("up", "down"):
            command = [sys.executable, __file__, "--bulk", way, str(total)]
            cloud = link.popen(
                "cloud", [*command, "--listen", link.host], core=1, stdout=subprocess.PIPE, text=True
            )
            assert cloud.stdout is not None
            target = link.dial(int(cloud.stdout.readline()))
            before = link.wire_bytes()[way]
            edge = link.popen("edge", [*command, "--connect", target], core=0, stdout=subprocess.PIPE)
            reports = [json.loads(child.communicate(timeout=60 + 4 * seconds)[0]) for child in (cloud, edge)]
            elapsed = reports[0 if way == "up" else 1]
            measured[way] = total * 8 / elapsed / 1e6
            measured[f"{way}_wire"] = (link.wire_bytes()[way] - before) * 8 / elapsed / 1e6
    return measured


def bulk(way: str, total: int, *, listen: str | None, connect: str | None) -> None:
    """One end of the self-check; prints the seconds from connection to the last byte."""
    if listen is not None:
        with socket.create_server((listen, 0)) as server:
            print(server.getsockname()[1], flush=True)
            stream = server.accept()[0]
    else:
        host, _, port = (connect or "").rpartition(":")
        stream = socket.create_connection((host, int(port)))
    started = time.perf_counter()
    with stream:
        if (way == "up") == (connect is not None):
            stream.sendall(bytes(total))
            stream.shutdown(socket.SHUT_WR)
            stream.recv(1)  # the other end closes when it has everything
        else:
            while stream.recv(2**16):
                pass
    print(json.dumps(time.perf_counter() - started), flush=True)


def main() -> None:
    """Self-check: nominal against measured bit rate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rates", nargs="*", help="Mbit/s")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--relay", action="store_true", help="token bucket over loopback, as without root")
    parser.add_argument("--bulk", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    parser.add_argument("--connect", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bulk:
        bulk(options.bulk[0], int(options.bulk[1]), listen=options.listen, connect=options.connect)
        return
    print("nominal Mbit/s | up: payload, wire | down: payload, wire")
    for rate in map(float, options.rates or ("1", "5", "20", "100")):
        found = check_rate(rate, seconds=options.seconds, relay=options.relay)
        ways = [f"{found[way]:8.3f} {found[f'{way}_wire']:8.3f}" for way in ("up", "down")]
        print(f"{rate:14g} | {ways[0]} | {ways[1]}")


if __name__ == "__main__":
    main()
