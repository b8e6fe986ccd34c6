"""Edge and cloud as two processes: opening a half, and running it to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import torch

from privhier.config import RunConfig
from privhier.config.shared import SharedConfig
from privhier.datasets.load import build_source, load_dataset
from privhier.defenses.base import build_defense
from privhier.errors import ConfigError, OutputError
from privhier.seeding import stream_seed
from privhier.storage.locks import exclusive
from privhier.training.cloud_folder import CloudFolder, check_folder
from privhier.training.cloud_job import CloudJob
from privhier.training.edge_job import EdgeJob
from privhier.training.edge_side import Progress
from privhier.training.finish import check_training_records
from privhier.training.folder import RunFolder
from privhier.training.occupancy import check_output, occupy, with_absolute_paths, worked_in
from privhier.training.prepare import Prepared, build_mechanism, pick_device, prepare
from privhier.training.private_plan import check_private
from privhier.training.trained import build_model
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.inbox import ONE_EDGE, Capacity
from privhier.uplink.server import UplinkServer

Report = Callable[[str], None]


@dataclass(frozen=True)
class Shard:
    """One edge's part of the people: every ``of``-th group, from ``number``."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``; raises ``ConfigError``."""
        first, _, second = text.partition("/")
        if first.isdigit() and second.isdigit() and int(first) < int(second) <= 65536:
            return cls(int(first), int(second))
        raise ConfigError(
            key="--shard",
            value=text,
            rule="must read I/N with I from 0 to N - 1",
            remedy="For the second of four edges: --shard 1/4",
        )

    def config(self, config: RunConfig) -> RunConfig:
        """The run as this edge sees it: private draws of its own under seeded noise."""
        if self.of == 1 or config.privacy.noise_source == "system":
            return config
        own = stream_seed(config.noise_seed, "shard", self.number)
        return config.model_copy(update={"privacy": config.privacy.model_copy(update={"noise_seed": own})})

    def take(self, prepared: Prepared) -> Prepared:
        """The records of this edge's people; the cloud learns of no other edge's."""
        if self.of == 1:
            return prepared
        splits = prepared.data.splits
        _, rank = np.unique(prepared.dataset.group, return_inverse=True)
        parts = {name: getattr(splits, name) for name in ("train", "val", "aux", "test")}
        own = {name: rows[rank[rows] % self.of == self.number] for name, rows in parts.items()}
        if min(len(own[name]) for name in ("train", "val", "test")) < 2:
            raise ConfigError(
                key="--shard",
                value=f"{self.number}/{self.of}",
                rule="leaves a split with fewer than two records",
                remedy="Use fewer edges or more images",
            )
        return replace(prepared, data=replace(prepared.data, splits=replace(splits, **own)))


def open_edge(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    shard: Shard = Shard(),
    stack: ExitStack,
    progress: Progress | None = None,
    report: Report | None = None,
) -> EdgeJob:
    """Check everything that can be wrong on the edge, occupy its folder, then open what is in it.

    Args:
        config: The run.
        out: The edge's folder.
        resume: Go on with what is in ``out``.
        shard: This edge's part of the people.
        stack: Closed by the caller when the edge is done: it holds the folder.
        progress: Called with a description, steps done and steps in all.
        report: Called with lines of text.

    Raises:
        PrivhierError: Any bad input. Nothing has been written to ``out`` then.
    """
    config = shard.config(config)
    folder = RunFolder(out)
    check_output(folder, config, resume=resume)
    device = pick_device(config)
    if config.runtime.precision != "float32":
        raise ConfigError(
            key="runtime.precision",
            value=config.runtime.precision,
            rule="two processes compute in float32, so that they end in the weights of one",
            remedy="Set runtime.precision=float32",
        )
    defense = build_defense(config.defense)
    build_source(config.dataset)
    dataset = load_dataset(config.dataset, seed=config.seed, progress=progress)
    data = shard.take(prepare(config, dataset)).data
    check_private(config, len(data.splits.train), defense)
    check_training_records(config, data, build_model(config, data)[0], defense)
    mechanism = build_mechanism(config, len(data.splits.train))
    torch.set_num_threads(int(config.runtime.threads))
    _check_held(stack.enter_context(exclusive(out / ".lock", wait=False)), out)
    if folder.config.exists():
        check_output(folder, config, resume=resume)  # again, now that nobody else can write there
        _same_shard(folder, shard)
    folder.sealed.write_json(folder.shard, asdict(shard))
    occupy(folder, with_absolute_paths(config), dataset.fingerprint)
    return EdgeJob(
        config,
        data,
        mechanism,
        folder,
        device=device,
        number=shard.number,
        edges=shard.of,
        progress=progress,
        report=report,
    )


def run_edge(
    job: EdgeJob, target: str, *, credentials: grpc.ChannelCredentials | None, report: Report | None = None
) -> None:
    """Run an edge's half against the cloud at ``target`` until the cloud has everything.

    Raises:
        UplinkError: The cloud refused this edge.
        OutputError: The disk is full.
    """
    link = job.config.link
    uplink = GrpcUplink(
        target,
        job.hello,
        job.spool,
        credentials=credentials,
        queue=link.queue,
        spool_bytes=link.spool_mib * 2**20,
        retry_seconds=link.retry_seconds,
        redraws=job.config.privacy.noise_source == "seeded",
        report=report,
    )
    try:
        job.run(uplink)
    finally:
        uplink.abandon()


@dataclass
class Cloud:
    """A server and the runs it trains.

    Attributes:
        server: Where the edges come in.
        jobs: One per run.
    """

    server: UplinkServer
    jobs: Sequence[CloudJob]

    def run(self, *, linger: float = 60.0) -> None:
        """Serve and train until every run is done and every edge has said farewell, or long enough.

        Runs take turns at training, step by step, with all the threads there are. An error of one run ends
        that run; its edges are told that it has stopped, and the others go on.

        Args:
            linger: Longest wait for farewells once every run is trained, in seconds. An edge that has
                everything acknowledged ends without one, too.

        Raises:
            PrivhierError: What the first run that failed raised, when the others are through.
        """
        errors: list[BaseException] = []

        def work(job: CloudJob) -> None:
            try:
                job.run()
            except BaseException as error:
                errors.append(error)
                job.fail(error)

        threads = [threading.Thread(target=work, args=(job,), daemon=True) for job in self.jobs]
        self.server.start()
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.05)
            end = time.monotonic() + linger
            while time.monotonic() < end and any(
                job.done and not job.parted and not job.inbox.failed for job in self.jobs
            ):
                time.sleep(0.05)
            errors += [job.inbox.failed for job in self.jobs if job.inbox.failed]
        finally:
            for job in self.jobs:
                job.stop()
            self.server.stop()
            for thread in threads:
                thread.join()
            for job in self.jobs:
                job.close()
        if errors:
            raise errors[0]


def open_cloud(
    runs: Sequence[tuple[SharedConfig, Path]],
    listen: str,
    *,
    credentials: grpc.ServerCredentials | None,
    device: torch.device,
    capacity: Capacity = ONE_EDGE,
    resume: bool = False,
    sync: bool = True,
    stack: ExitStack,
    report: Report | None = None,
) -> Cloud:
    """Claim the folders and the port; what is in a folder already is gone on with.

    Args:
        runs: What the cloud knows of each run, and the run's folder.
        listen: ``HOST:PORT``.
        credentials: Mutual TLS; None: plain text.
        device: Where to compute.
        capacity: Edges of every run, and what of each may wait for training.
        resume: Go on in folders that are not empty.
        sync: Flush every message to the disk before it is acknowledged.
        stack: Closed by the caller when the cloud is done: it holds the folders.
        report: Called with lines of text.

    Raises:
        PrivhierError: Any bad input.
    """
    ids = [config.run_id for config, _ in runs]
    if len(set(ids)) < len(ids):
        raise ConfigError(
            key="CONFIG",
            value=ids,
            rule="names one run twice",
            remedy="Give every run a name of its own",
        )
    jobs = []
    for config, out in runs:
        folder = CloudFolder(out)
        check_folder(folder, config)
        if not resume and out.exists() and any(out.iterdir()):
            raise OutputError(
                key="--out",
                value=str(out),
                rule="exists already and is not an empty folder",
                remedy="Choose another --out, or add --resume to go on with the run in it",
            )
        _check_held(stack.enter_context(exclusive(out / ".lock", wait=False)), out)
        folder.sealed.write(folder.config, config.to_yaml())
        jobs.append(
            CloudJob(
                config,
                folder,
                device=device,
                capacity=capacity,
                sync=sync,
                report=None if report is None else _prefixed(report, config.name, many=len(runs) > 1),
            )
        )
    inboxes = {job.config.run_id: job.inbox for job in jobs}
    server = UplinkServer(
        inboxes,
        listen,
        credentials=credentials,
        streams=capacity.edges * len(jobs),
        max_bytes=max(job.largest for job in jobs),
        report=report,
    )
    return Cloud(server, jobs)


def _same_shard(folder: RunFolder, shard: Shard) -> None:
    """Other people under one ledger would be released without a charge."""
    if not folder.sealed.knows(folder.shard):
        return
    before = Shard(**folder.sealed.read_json(folder.shard))
    if before != shard:
        raise ConfigError(
            key="--shard",
            value=f"{shard.number}/{shard.of}",
            rule=f"the folder belongs to {before.number}/{before.of}",
            remedy=f"Give --shard {before.number}/{before.of}, or another --out",
        )


def _prefixed(report: Report, name: str, *, many: bool) -> Report:
    return (lambda text: report(f"{name}: {text}")) if many else report


def _check_held(held: bool, folder: Path) -> None:
    if not held:
        raise worked_in(folder)
