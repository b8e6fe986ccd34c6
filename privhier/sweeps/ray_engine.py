"""The ray engine: points as tasks on a Ray cluster; Ray schedules, retries lost workers, finds nodes.

Every node has privhier installed. Where a node sees the head's sweep folder, it works in it; else it
works in a folder of its own, kept on the node for a retry, and sends the finished point to the head.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from privhier.errors import ConfigError, PrivhierError
from privhier.storage.files import write_atomic
from privhier.sweeps.assignment import Assignment, Ending, Reporter, keep_error, work_on
from privhier.sweeps.device_share import Share, limit_memory, share_of
from privhier.sweeps.local import BUSY_PAUSE
from privhier.sweeps.spec import Resources
from privhier.sweeps.state import SweepFolder
from privhier.training.commons import RESUME_ONLY

RETRIES = 2
PROBE_SECONDS = 30
_LOOK = 0.2


class EngineError(PrivhierError):
    """A cluster that does not answer, or has no room for a point."""


@dataclass
class RayEngine:
    """Points as Ray tasks.

    Attributes:
        workers: Points at a time where a local Ray is started; on a cluster Ray decides.
        folder: The sweep's.
        resources: Address of the cluster and what a point needs.
        threads: Of the hungriest point.
        cuda: Whether points ask for a GPU.
        share: The part of a GPU that a point needs; ``auto``: the cluster's GPUs in equal parts for
            ``workers`` points at a time. None: a whole one, or what ``ray.num_gpus`` says.
    """

    workers: int
    folder: SweepFolder
    resources: Resources
    threads: int
    cuda: bool
    share: Share | None = None
    _ray: Any = field(default=None, repr=False)
    _token: Path | None = None
    _parts: float | None = None

    def run(self, assignments: Iterable[Assignment], report: Reporter) -> None:
        """See ``Engine``."""
        self.prepare()
        ray = self._ray
        if self._token is None:
            self._token = self.folder.root / f".head-{uuid.uuid4().hex}"
            self._token.touch()
        needs = {"num_cpus": self._cpus(), "num_gpus": self._gpus()}
        remote = ray.remote(max_retries=RETRIES, **needs)(_run_on_node)
        told = (str(self._token), str(self._apart()), self._gpus())
        references = {remote.remote(assignment, *told): assignment for assignment in assignments}
        later: list[tuple[float, Assignment]] = []
        begun: set[str] = set()
        try:
            while references or later:
                now = time.monotonic()
                for assignment in [assignment for due, assignment in later if due <= now]:
                    references[remote.remote(assignment, *told)] = assignment
                later = [(due, assignment) for due, assignment in later if due > now]
                if not references:
                    time.sleep(_LOOK)
                    continue
                _tell(report, list(references.values())[: self._slots(ray, needs)], begun)
                for reference in ray.wait(list(references), timeout=1.0)[0]:
                    assignment = references.pop(reference)
                    ending = self._collect(ray, reference, assignment)
                    if ending.status == "busy":  # a lost node's worker may outlive it by a moment
                        begun.discard(assignment.id)
                        report.put_back(assignment.id)
                        later.append((time.monotonic() + BUSY_PAUSE, assignment))
                    else:
                        begun.discard(assignment.id)
                        report.ended(ending)
        except BaseException:
            for reference in references:
                ray.cancel(reference, force=True)
            self.close()
            raise

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self._token is not None:
            self._token.unlink(missing_ok=True)
            self._token = None
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def prepare(self) -> None:
        """Join the cluster, or start a local one, and see that a point fits.

        Raises:
            ConfigError: Ray is not installed.
            EngineError: The address does not answer, or no node is large enough.
        """
        if self._ray is not None:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without this a task that asks for no GPU would lose sight of those a `device: auto` may use.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                key="--engine",
                value="ray",
                rule="needs Ray, which is not installed",
                remedy="pip install 'privhier[ray]', or use --engine local",
            ) from error
        address = self.resources.address or os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        if address:
            _probe(address)
        else:
            quiet |= {"num_cpus": self.workers * max(1, round(self._cpus())), "include_dashboard": False}
        heard = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, **quiet)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray's own way to end knows nothing of what is half-done
        self._ray = ray
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if self.share == "auto" and self.resources.num_gpus is None and (gpus or self.cuda):
            self._parts = share_of(self.workers, gpus, "auto")
        self._check_room(ray)

    def _apart(self) -> Path:
        """Where a node that does not see this sweep folder works: below its own temporary folder.

        The same for every start on this sweep folder, so that a node goes on with what it has; another for
        any other folder of that name, whose points are another's.
        """
        path = self.folder.root / ".origin"
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex.encode())
        return Path(f"privhier-sweeps-{path.read_text()[:16]}")

    def _check_room(self, ray: Any) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for key, name, need in (("CPU", "num_cpus", self._cpus()), ("GPU", "num_gpus", self._gpus())):
            most = max((node.get(key, 0) for node in nodes), default=0)
            if need > most:
                self.close()
                raise EngineError(
                    key=f"SWEEP ray.{name}",
                    value=need,
                    rule=f"no node has as many: the largest has {most:g}",
                    remedy=f"Lower runtime.threads or ray.{name}, or add a larger node",
                )

    def _collect(self, ray: Any, reference: Any, assignment: Assignment) -> Ending:
        try:
            ending, archive = ray.get(reference)
        except (ray.exceptions.RayError, OSError) as error:
            lines = str(error).strip().splitlines()
            text = lines[0] if lines else type(error).__name__
            failure = {"type": type(error).__name__, "message": text, "traceback": str(error), "seconds": 0.0}
            return keep_error(self.folder, assignment.id, failure)
        if archive is not None:
            try:
                unpack(archive, self.folder.point(assignment.id).root)
            except OSError as error:
                failure = {"type": "OSError", "message": str(error), "traceback": "", "seconds": 0.0}
                return keep_error(self.folder, assignment.id, failure)
        assert isinstance(ending, Ending)
        return ending

    def _cpus(self) -> float:
        return float(self.resources.num_cpus or self.threads)

    def _gpus(self) -> float:
        """Of one GPU or more, a point: what the command line says, else the sweep file, else one on cuda."""
        if isinstance(self.share, float):
            return self.share
        if self.resources.num_gpus is not None:
            return float(self.resources.num_gpus)
        return self._parts if self._parts is not None else float(self.cuda)

    def _slots(self, ray: Any, needs: dict[str, float]) -> int:
        has = ray.cluster_resources()
        slots = [has.get("CPU", 0) // needs["num_cpus"]]
        if needs["num_gpus"]:
            slots.append(has.get("GPU", 0) // needs["num_gpus"])
        return max(1, int(min(slots)))


def _tell(report: Reporter, working: list[Assignment], begun: set[str]) -> None:
    """Say who is at work: Ray begins tasks in the order they were given, as many as the nodes have room for.

    Where a node was lost there is less room than before: who had begun there waits again.
    """
    names = {assignment.id for assignment in working}
    for name in sorted(begun - names):
        begun.discard(name)
        report.put_back(name)
    for assignment in working:
        if assignment.id not in begun:
            begun.add(assignment.id)
            report.started(assignment.id)


def _run_on_node(
    assignment: Assignment, token: str, apart: str, gpus: float = 0.0
) -> tuple[Ending, bytes | None]:
    """Work in the head's folder where this node sees it, else in ``apart``, a folder of its own.

    ``gpus`` below 1 is a part of the one GPU that Ray shows this process, and bounds its memory there.
    """
    if 0 < gpus < 1:
        import torch

        limit_memory(gpus, torch.cuda)
    if Path(token).exists():
        return work_on(assignment), None
    return run_apart(assignment, Path(tempfile.gettempdir()) / apart)


def run_apart(assignment: Assignment, place: Path) -> tuple[Ending, bytes]:
    """Work on a point in a folder of this node; returns the point's folder as an archive too.

    An MLflow store in a file of the head's cannot be reached from here: such a point is not tracked.
    """
    root = place / Path(assignment.sweep).name
    nesting = (
        assignment.nesting if assignment.nesting and assignment.nesting.store.startswith("http") else None
    )
    config = assignment.config
    if nesting is None:
        config = config | {"tracking": {**config["tracking"], "enabled": False}}
    ending = work_on(replace(assignment, sweep=str(root), nesting=nesting, config=config), wait=True)
    return ending, pack(SweepFolder(root).point(assignment.id).root)


def pack(folder: Path) -> bytes:
    """A finished run folder as a tar archive: links followed, what only a resume needs left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if name.parts[0] not in RESUME_ONLY and path.is_file():
                archive.add(path, str(name))
        for link in [p for p in sorted(folder.rglob("*")) if p.is_symlink() and p.is_dir()]:
            archive.add(link.resolve(), str(link.relative_to(folder)))
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Write an archived run folder, ``result.json`` and ``report.html`` last: they say that it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as stream:
        members = sorted(stream.getmembers(), key=lambda m: m.name in ("result.json", "report.html"))
        for member in members:
            stream.extract(member, folder, filter="data")


def _probe(address: str) -> None:
    """Join the cluster from a process of its own: Ray waits for minutes, or ends the process."""
    refusal = _knock(address)
    if refusal is not None:
        raise _no_answer(address, refusal)
    code = "import sys, ray; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False)"
    environment = {**os.environ, "RAY_gcs_server_request_timeout_seconds": "10"}
    reason = f"did not answer within {PROBE_SECONDS} seconds"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, address],
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
            env=environment,
        )
        if done.returncode == 0:
            return
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = f"cannot be joined: {lines[-1][:200] if lines else f'exit code {done.returncode}'}"
    except subprocess.TimeoutExpired:
        pass
    raise _no_answer(address, reason)


def _knock(address: str) -> str | None:
    """Why the address' port cannot be reached at all; None if it can, or has none."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        return f"cannot be reached: {error}"
    return None


def _no_answer(address: str, rule: str) -> EngineError:
    return EngineError(
        key="Ray address",
        value=address,
        rule=rule,
        remedy="Start the cluster (`ray start --head`), mend RAY_ADDRESS or ray.address, or unset both "
        "for a Ray on this machine",
    )
