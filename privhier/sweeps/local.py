"""The local engine: worker processes on one machine, each lost one replaced, its point taken up again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from privhier.sweeps.assignment import Assignment, Ending, Reporter, keep_error
from privhier.sweeps.device_share import own_environment, seat_of
from privhier.sweeps.state import SweepFolder

ATTEMPTS = 3
BUSY_PAUSE = 2.0
"""Seconds before a point that another machine holds is looked at again."""
_TAIL = 2000


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[object, object]
    log: Path
    seat: int = 0
    assignment: Assignment | None = None
    since: float = 0.0


@dataclass
class LocalEngine:
    """``workers`` processes; each computes with the threads its point's configuration states.

    Attributes:
        workers: How many points at a time.
        folder: The sweep's; worker output goes to its ``logs/``.
        devices: CUDA devices that the workers share out between them; 0: points compute on the CPU.
        share: The part of a device's memory that each worker may fill, in (0, 1].
    """

    workers: int
    folder: SweepFolder
    devices: int = 0
    share: float = 1.0
    _crew: list[_Worker] = field(default_factory=list)
    _hired: int = 0

    def prepare(self) -> None:
        """Nothing to check: workers are hired as they are needed."""

    def run(self, assignments: Iterable[Assignment], report: Reporter) -> None:
        """See ``Engine``. The workers stay for the next call; ``close`` sends them home."""
        pending, later = list(assignments), dict[str, float]()
        lost: Counter[str] = Counter()
        computed: set[str] = set()
        try:
            while pending or any(worker.assignment for worker in self._crew):
                self._hire(len(pending))
                for worker in self._crew:
                    if (
                        worker.assignment is None
                        and (assignment := self._next(pending, later, computed)) is not None
                    ):
                        self._give(worker, assignment, report)
                for worker in self._listen(bool(pending)):
                    ending = self._ending(worker)
                    assignment, worker.assignment = worker.assignment, None
                    if assignment is None:
                        continue
                    if ending is None:
                        ending = self._lose(worker, assignment, lost)
                    if ending is None or ending.status == "busy":
                        pending.append(assignment)
                        if ending is not None:
                            later[assignment.id] = time.monotonic() + BUSY_PAUSE
                        report.put_back(assignment.id)
                    else:
                        computed |= assignment.shares if ending.status == "done" else set()
                        report.ended(ending)
        except BaseException:
            self.close(interrupt=True)
            raise

    def close(self, *, interrupt: bool = False) -> None:
        """End all workers; ``interrupt`` lets a running point note that it was stopped."""
        for worker in self._crew:
            if interrupt:
                with suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGTERM)
            else:
                worker.connection.close()
        for worker in self._crew:
            try:
                worker.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.connection.close()
        self._crew.clear()

    def _next(
        self, pending: list[Assignment], later: dict[str, float], computed: set[str]
    ) -> Assignment | None:
        """The first point that need not wait for what another one is computing, else the first."""
        now = time.monotonic()
        ready = [assignment for assignment in pending if later.get(assignment.id, 0.0) <= now]
        if not ready:
            return None
        in_work = set[str]().union(*(worker.assignment.shares for worker in self._crew if worker.assignment))
        free = (assignment for assignment in ready if not (assignment.shares - computed) & in_work)
        assignment = next(free, ready[0])
        pending.remove(assignment)
        return assignment

    def _hire(self, waiting: int) -> None:
        busy = sum(worker.assignment is not None for worker in self._crew)
        while len(self._crew) < min(self.workers, busy + waiting):
            ours, theirs = socket.socketpair()
            self._hired += 1
            log = self.folder.logs / f"worker-{os.getpid()}-{self._hired}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            taken = {worker.seat for worker in self._crew}
            number = next(number for number in range(self.workers) if number not in taken)
            seat = seat_of(number, self.devices, self.share)
            # Safe path: from the repository root, the folder datasets/ would shadow a library of that name.
            command = [sys.executable, "-P", "-m", "privhier.sweeps.worker", str(theirs.fileno())]
            command += [str(seat.share)] if seat.share < 1 else []
            with theirs, log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=own_environment(seat, self.devices),
                )
            self._crew.append(_Worker(process, Connection(ours.detach()), log, number))

    def _give(self, worker: _Worker, assignment: Assignment, report: Reporter) -> None:
        worker.assignment, worker.since = assignment, time.perf_counter()
        with suppress(OSError):  # a worker that died while idle is found by the next listen
            worker.connection.send(assignment)
        report.started(assignment.id)

    def _listen(self, impatient: bool) -> list[_Worker]:
        ready = wait([worker.connection for worker in self._crew], timeout=0.5 if impatient else None)
        return [worker for worker in self._crew if worker.connection in ready]

    def _ending(self, worker: _Worker) -> Ending | None:
        """What the worker says; None if it is gone."""
        try:
            ending = worker.connection.recv()
        except (EOFError, OSError):
            worker.connection.close()
            worker.process.wait()
            self._crew.remove(worker)
            return None
        assert isinstance(ending, Ending)
        return ending

    def _lose(self, worker: _Worker, assignment: Assignment, lost: Counter[str]) -> Ending | None:
        lost[assignment.id] += 1
        if lost[assignment.id] < ATTEMPTS:
            return None
        code = worker.process.returncode
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        error = {
            "type": "WorkerLost",
            "message": f"its worker was lost {ATTEMPTS} times, the last by {end}; see {worker.log.name}",
            "traceback": worker.log.read_bytes()[-_TAIL:].decode(errors="replace"),
            "seconds": round(time.perf_counter() - worker.since, 3),
        }
        return keep_error(self.folder, assignment.id, error)
