"""One side's timer in a process of its own: ``python -m privhier.planner.timing_process FD``.

So that edge and cloud can be timed while the other one works, each on its own threads and cores.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from privhier.errors import PrivhierError
from privhier.planner.stages import CloudTimes, EdgeTimes, WholeTimes
from privhier.planner.timing import TimingJob
from privhier.planner.timing_cloud import CloudTimer
from privhier.planner.timing_edge import EdgeTimer
from privhier.planner.timing_whole import time_whole
from privhier.process.stopping import hear_sigterm
from privhier.training.prepare import pick_device
from privhier.uplink.sizes import ReleaseFormat

Name = Literal["edge", "cloud"]
Laps = tuple[float, float]


@dataclass(frozen=True)
class Side:
    """What one side may use of this machine.

    Attributes:
        threads: Of torch.
        cores: Numbers of the cores it is pinned to; empty: any.
    """

    threads: int
    cores: tuple[int, ...] = ()


class Worker:
    """One side in a process of its own; a context manager that ends it.

    Args:
        name: Which side.
        side: Its threads and cores.
        scratch: Where its folder is made.
    """

    def __init__(self, name: Name, side: Side, scratch: Path) -> None:
        self._name: Name = name
        ours, theirs = socket.socketpair()
        # Safe path: from the repository root, the folder datasets/ would shadow a library of that name.
        command = [sys.executable, "-P", "-m", "privhier.planner.timing_process", str(theirs.fileno())]
        threads = {"OMP_NUM_THREADS": str(side.threads), "MKL_NUM_THREADS": str(side.threads)}
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **threads}
        )
        theirs.close()
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._connection.send((name, side, str(scratch)))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def whole(self, job: TimingJob) -> WholeTimes:
        """Times of the undivided network."""
        times: WholeTimes = self._ask("whole", job)
        return times

    def prepare(self, job: TimingJob) -> None:
        """Build and warm up one cut."""
        self._ask("prepare", job)

    def edge_times(self, *, split: bool) -> tuple[EdgeTimes, ReleaseFormat]:
        """All stages of an edge."""
        found: tuple[EdgeTimes, ReleaseFormat] = self._ask("times", None, split)
        return found

    def cloud_times(self, form: ReleaseFormat, *, split: bool) -> CloudTimes:
        """All stages of a cloud."""
        times: CloudTimes = self._ask("times", form, split)
        return times

    def _ask(self, *request: object) -> Any:
        self.send(*request)
        return self.receive()

    def send(self, *request: object) -> None:
        """Ask for something."""
        self._connection.send(request)

    def receive(self) -> Any:
        """The answer; raises ``PrivhierError`` where the process failed."""
        try:
            kind, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            kind, answer = "error", f"its process ended: {error or type(error).__name__}"
        if kind == "error":
            raise PrivhierError(
                key="profile",
                value=self._name,
                rule=f"this side could not be timed: {answer}",
                remedy="Choose a smaller batch or network, or --apart",
            )
        return answer


def laps_together(sides: Sequence[Worker]) -> list[Laps]:
    """Every side's laps while all others work."""
    for worker in sides:
        worker.send("laps")
    for worker in sides:
        worker.receive()  # it has enough, and works on for the sake of the others
    for worker in sides:
        worker.send("stop")
    return [worker.receive() for worker in sides]


def main() -> None:
    """Answer until the parent closes the connection."""
    hear_sigterm()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        name, side, scratch = connection.recv()
        if side.cores:
            os.sched_setaffinity(0, side.cores)
        torch.set_num_threads(side.threads)
        with tempfile.TemporaryDirectory(dir=scratch, prefix=f"plan-{name}-") as folder:
            _serve(connection, name, Path(folder))
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # the parent is through, or gone


def _serve(connection: Connection[Any, Any], name: Name, folder: Path) -> None:
    timer: EdgeTimer | CloudTimer | None = None
    prepared, told = 0, False

    def enough() -> bool:
        nonlocal told
        if not told:
            connection.send(("enough", None))
            told = True
        return connection.poll()

    while True:
        kind, *rest = connection.recv()
        told = False
        try:
            if kind == "whole":
                answer: Any = time_whole(rest[0], pick_device(rest[0].config))
            elif kind == "prepare":
                prepared += 1
                build = EdgeTimer if name == "edge" else CloudTimer
                if isinstance(timer, CloudTimer):
                    timer.close()
                timer = answer = None
                timer = build(rest[0], folder / str(prepared), pick_device(rest[0].config))
            elif isinstance(timer, EdgeTimer) and kind == "times":
                answer = timer.times(split=rest[1])
            elif isinstance(timer, CloudTimer) and kind == "times":
                answer = timer.times(rest[0], split=rest[1])
            else:
                assert timer is not None, "prepare comes first"
                answer = timer.laps(enough)
                connection.recv()
            connection.send(("answer", answer))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # whatever it was, the parent must know and not wait
            text = str(error) if isinstance(error, PrivhierError) else traceback.format_exc(limit=-3)
            connection.send(("error", text))


if __name__ == "__main__":
    main()
