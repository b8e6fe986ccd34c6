"""Folders to be damaged: finished and half-finished runs, edges, clouds and sweeps, as small as they get."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml

from privhier import session as job
from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.distributed.remote import open_cloud, open_edge
from privhier.errors import PrivhierError
from privhier.sweeps.job import SweepSummary, run_sweep
from privhier.training.edge_job import EdgeJob
from privhier.training.trainer import Trainer
from privhier.uplink.grpc_link import GrpcUplink

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
tiny = SMALL["second"]
"""A run of about a second."""


class StoppedError(KeyboardInterrupt):
    """Stands for Ctrl-C at a chosen epoch."""


def stopped_after(kind: type[Trainer] | type[EdgeJob], epochs: int, work: Callable[[], object]) -> None:
    """Do ``work``, stopped when so many epochs are saved."""
    save = kind._save

    def stop(self: Any, done: int) -> None:
        save(self, done)
        if done == epochs:
            raise StoppedError

    kind._save = stop  # type: ignore[assignment,method-assign]  # put back below
    try:
        work()
    except StoppedError:
        pass
    finally:
        kind._save = save  # type: ignore[method-assign]


def run(config: RunConfig, out: Path) -> None:
    """A run, or what is left of it."""
    job.run(job.open_session(config, out, resume=out.exists()), command="privhier run")


def pair(config: RunConfig, root: Path, *, stop: int | None = None) -> None:
    """Edge and cloud in one process, over loopback; raises what either side raises, once both have ended.

    Args:
        config: The run.
        root: ``edge`` and ``cloud`` in it are made, or gone on with.
        stop: Stop the edge after so many epochs.
    """
    errors: list[BaseException] = []
    with ExitStack() as stack:
        cloud = open_cloud(
            [(shared_part(config), root / "cloud")],
            "127.0.0.1:0",
            credentials=None,
            device=torch.device("cpu"),
            resume=True,
            stack=stack,
        )

        edge = open_edge(config, root / "edge", resume=True, stack=stack)
        uplink = GrpcUplink(
            f"127.0.0.1:{cloud.server.port}",
            edge.hello,
            edge.spool,
            credentials=None,
            queue=config.link.queue,
            spool_bytes=config.link.spool_mib * 2**20,
            retry_seconds=0.5,
            redraws=True,
        )
        ended = threading.Event()

        def serve() -> None:
            try:
                cloud.run(linger=5.0)
            except PrivhierError as error:
                errors.append(error)
            if not ended.wait(5.0):
                uplink.abandon()  # an edge would knock until the cloud is back

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            if stop is None:
                edge.run(uplink)
                ended.set()
                thread.join(60)
            else:
                stopped_after(EdgeJob, stop, lambda: edge.run(uplink))
        except PrivhierError as error:
            errors.append(error)
        finally:
            ended.set()
            uplink.abandon()
            for one in cloud.jobs:
                one.stop()
            thread.join(60)
    if errors:
        raise errors[0]


def sweep_file(repository: Path, path: Path) -> Path:
    """A sweep of two points over the tiny run."""
    data = {
        "name": "tiny",
        "base": str(repository / "configs" / "debug.yaml"),
        "overrides": dict(item.split("=", 1) for item in SMALL["SECOND"] if "[]" not in item)
        | {"attacks.reconstruction": []},
        "axes": [{"key": "release.sigma", "values": [0.1, 0.3]}],
        "seeds": [0],
    }
    data["overrides"] = {key: yaml.safe_load(str(value)) for key, value in data["overrides"].items()}
    path.write_text(yaml.safe_dump(data))
    return path


def sweep(file: Path, out: Path) -> SweepSummary:
    """The sweep, or what is left of it."""
    return run_sweep(file, out=out, workers=1)
