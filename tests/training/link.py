"""What tests of the two processes share: both halves in one process, over a real loopback connection."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.datasets.load import load_dataset
from privhier.distributed.remote import Cloud, open_cloud, open_edge
from privhier.training.edge_job import EdgeJob
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import Trained
from privhier.training.trainer import Trainer
from privhier.uplink.frames import METHOD, Ack, decode_ack
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.inbox import Capacity as Capacity

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def make_config(pretrain: int = 1, joint: int = 2, cloud: int = 2, **more: Any) -> RunConfig:
    release = {"mechanism": "gaussian", "sigma": 0.3}
    config: RunConfig = small_config(
        "link", epochs=(pretrain, joint, cloud), batch=24, **{"release": release, **more}
    )
    return config


def in_process(config: RunConfig, folder: Path) -> Trained:
    torch.set_num_threads(int(config.runtime.threads))  # sums over threads differ in their last digits
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    mechanism = build_mechanism(config, len(train))
    return Trainer(config, prepared.data, mechanism, run, device=CPU, keep=train[:20]).run()


@contextmanager
def cloud_at(
    *configs: RunConfig | Path,
    listen: str = "127.0.0.1:0",
    linger: float = 30.0,
    errors: list[Exception] | None = None,
    **options: Any,
) -> Iterator[tuple[Cloud, threading.Thread]]:
    """A cloud that serves and trains in threads until it is done; stopped on leaving.

    Args:
        configs: Of one run and its folder, or of several, each followed by its folder.
        listen: Where.
        linger: How long it waits for farewells.
        errors: Takes what the cloud ended with; None: it is raised on leaving.
        options: Of ``open_cloud``.
    """
    ended: list[Exception] = []
    pairs = [(shared_part(one), at) for one, at in zip(configs[::2], configs[1::2], strict=True)]
    with ExitStack() as stack:
        cloud = open_cloud(
            pairs,
            listen,
            credentials=None,
            device=CPU,
            resume=True,
            stack=stack,
            **options,
        )

        def work() -> None:
            try:
                cloud.run(linger=linger)
            except Exception as error:
                (ended if errors is None else errors).append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield cloud, thread
        finally:
            for job in cloud.jobs:
                job.stop()
            thread.join(60)
            assert not thread.is_alive()
    if ended:
        raise ended[0]


def edge_at(config: RunConfig, folder: Path, **options: Any) -> EdgeJob:
    with ExitStack() as stack:  # the lock goes with it: tests open a folder several times
        return open_edge(config, folder, resume=True, stack=stack, **options)


def uplink_of(job: EdgeJob, port: int, **options: Any) -> GrpcUplink:
    settings: dict[str, Any] = {
        "credentials": None,
        "queue": job.config.link.queue,
        "retry_seconds": 0.3,
        "redraws": job.config.privacy.noise_source == "seeded",
    }
    return GrpcUplink(f"127.0.0.1:{port}", job.hello, job.spool, **{**settings, **options})


def spooled(config: RunConfig, folder: Path, **options: Any) -> EdgeJob:
    """An edge that has trained to its end while no cloud was there."""
    job = edge_at(config, folder, **options)
    uplink = uplink_of(job, 9)  # nobody listens there
    uplink.close = uplink.abandon
    job.run(uplink)
    return job


def knock(port: int, *parts: bytes) -> tuple[list[Ack], str]:
    """Send parts on one stream in plain text; returns the acknowledgements and the refusal, if any."""
    acks: list[Ack] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            for answer in channel.stream_stream(METHOD)(iter(parts), timeout=20):
                acks.append(decode_ack(answer))
        except grpc.RpcError as error:
            return acks, str(error.details())
    return acks, ""


def run_both(config: RunConfig, root: Path, **options: Any) -> EdgeJob:
    """Both halves, over loopback; leaves ``root/edge`` and ``root/cloud``."""
    with cloud_at(config, root / "cloud", **options) as (cloud, thread):
        job = edge_at(config, root / "edge")
        job.run(uplink_of(job, cloud.server.port))
        thread.join(60)
    return job


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
