"""What a load test is made of: its plan, and edges that have their messages already and train nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig, parse_config
from privhier.config.shared import SharedConfig, shared_part
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import numpy_stream
from privhier.training.batches import ordered_batches
from privhier.uplink.frames import Hello
from privhier.uplink.grid import rounded
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.outgoing import OutgoingMessage, outgoing
from privhier.uplink.spool import Spool
from privhier.uplink.spool_index import Entry
from privhier.uplink.tls import channel_credentials

PAYLOADS: dict[str, tuple[tuple[int, ...], dict[str, Any], int]] = {
    "narrow": ((64,), {"cut": "stage3", "bottleneck": {"kind": "dimension", "size": 64}}, 32),
    "wide": ((4, 16, 16), {"cut": "stage2", "bottleneck": {"kind": "channels", "size": 4}}, 64),
}
"""Shape of a release, the model that has it, and its image size; int8 on the wire."""
BATCH, ROWS = 32, 256
"""Records of a message of joint training, and of any other message."""
STARTED = 120.0
"""Seconds within which all edges must be there and connected."""
HELD_OUT = 1 / 8
"""Validation and test records, each, per training record."""

Times = npt.NDArray[np.float64]
"""``(n, 5)``, a row a message: spooled and acknowledged (monotonic seconds), records, bytes, 1 if joint."""


@dataclass(frozen=True)
class Plan:
    """One cell.

    Attributes:
        edges: Edges of every run.
        runs: Runs served at once.
        payload: One of ``PAYLOADS``.
        sync: Whether the cloud flushes its journal.
        messages: About how many messages of joint training all edges send in all.
        joint: Joint epochs, at least 1; one release-once epoch follows.
        queue: Messages that may wait for the cloud's training.
        ahead: Messages that an edge may be ahead of the cloud.
        training: Whether the cloud trains, or takes messages only.
        slow_sync: Seconds added to every fsync of the cloud.
        pause: Seconds between two messages of an edge.
        tls: Mutual TLS instead of plain text.
        pin: Cloud on the first core, edges on the others.
        processes: Processes that the simulated edges are spread over.
        spools: Folder for the edges' spools; None: beside the cloud's journal, on its disk.
    """

    edges: int
    runs: int
    payload: str = "narrow"
    sync: bool = True
    messages: int = 1920
    joint: int = 2
    queue: int = 4
    ahead: int = 4
    training: bool = True
    slow_sync: float = 0.0
    pause: float = 0.0
    tls: bool = False
    pin: bool = False
    processes: int = 2
    spools: Path | None = None

    def records(self) -> dict[str, int]:
        """Records of each split that one edge owns."""
        batches = max(1, round(self.messages / (self.edges * self.runs * self.joint)))
        held_out = max(2, round(HELD_OUT * BATCH * batches))
        return {"train": BATCH * batches, "val": held_out, "test": held_out}

    def config(self, run: int) -> RunConfig:
        """Configuration of one run; runs differ in their names."""
        _, model, size = PAYLOADS[self.payload]
        return parse_config(
            {
                "name": f"load{run}",
                "dataset": {
                    "name": "synthetic",
                    "image_size": size,
                    "task": ["smiling"],
                    "sensitive": ["male"],
                },
                "model": model,
                "schedule": {"pretrain_epochs": 0, "joint_epochs": self.joint, "cloud_epochs": 1},
                "release": {"mechanism": "gaussian", "sigma": 0.3, "quantize": "int8"},
                "training": {"batch_size": BATCH},
            }
        )

    def spool(self, root: Path, run: int, number: int) -> Path:
        """Where an edge's spool lies."""
        base = root if self.spools is None else self.spools / root.name
        return base / "spools" / f"{run}-{number}"


class TimedSpool(Spool):
    """A spool that notes when each message was on disk and when it was acknowledged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spooled: list[float] = []
        self.answered: list[float] = []

    def append(self, message: OutgoingMessage) -> Entry:
        """As ``Spool.append``."""
        entry = super().append(message)
        self.spooled.append(time.monotonic())
        return entry

    def acknowledge(self, following: int) -> None:
        """As ``Spool.acknowledge``."""
        super().acknowledge(following)
        self.answered += [time.monotonic()] * (following - len(self.answered))


class SimulatedEdge:
    """One edge: the product's greeting, spool and uplink, and messages made beforehand.

    Args:
        plan: The cell.
        run: Which of its runs.
        number: Which edge of the run.
        root: The cell's folder.
    """

    def __init__(self, plan: Plan, run: int, number: int, root: Path) -> None:
        self.name, self._plan = (run, number), plan
        shared = shared_part(plan.config(run))
        self.hello = Hello(
            config=shared.hash(),
            run_id=shared.run_id,
            edge=number,
            edges=plan.edges,
            shape=PAYLOADS[plan.payload][0],
            wire=shared.release.quantize,
            task_classes=dict.fromkeys(shared.task, 2),
            records=plan.records(),
        )
        self.spool = TimedSpool(plan.spool(root, run, number))
        self.messages = list(schedule(shared, self.hello))
        self.error: BaseException | None = None
        self._certificates = root / "certs" / (f"edge-{number}" if number else "edge")

    def run(self, port: int) -> None:
        """Send everything; an error is kept."""
        up = threading.Event()  # before the line is up an edge may be ahead by all that its spool holds

        def report(text: str) -> None:
            if " is up" in text:
                up.set()

        uplink = GrpcUplink(
            f"127.0.0.1:{port}",
            self.hello,
            self.spool,
            credentials=channel_credentials(self._certificates) if self._plan.tls else None,
            queue=self._plan.ahead,
            retry_seconds=0.5,
            report=report,
        )
        try:
            if not up.wait(STARTED):
                raise TimeoutError("no line to the cloud")
            for message in self.messages:
                uplink.send(message)
                if self._plan.pause:
                    time.sleep(self._plan.pause)
            uplink.close()
        except BaseException as error:
            self.error = error
        finally:
            uplink.abandon()

    def times(self) -> Times:
        """A row a message, in order."""
        columns = zip(self.spool.entries, self.spool.spooled, self.spool.answered, strict=True)
        return np.array(
            [(s, a, e.records, e.size, e.key[:2] == ("train", "joint")) for e, s, a in columns], dtype=float
        )


def schedule(config: SharedConfig, hello: Hello) -> Iterator[OutgoingMessage]:
    """The messages of one edge in the order in which a run sends them; made-up values, released as such."""
    joint = range(config.schedule.joint_epochs)
    steps = [(split, "joint", epoch) for epoch in joint for split in ("train", "val")]
    steps += [("train", "cloud", 0), ("val", "cloud", 0)]
    steps += [*(("test", "joint", epoch) for epoch in joint), ("test", "cloud", 0)]
    random = numpy_stream(config.seed, "load", hello.edge)
    values = rounded(random.normal(size=(ROWS, *hello.shape)).astype(np.float32), "int8")
    raw, ledger, noise = ReleaseMechanism("none", quantize="int8"), Ledger(None), SeededNoise(0, "none")
    for split, phase, epoch in steps:
        own = hello.edge + hello.edges * np.arange(hello.records[split])  # no record of another edge
        size = config.batch_size if (split, phase) == ("train", "joint") else ROWS
        ledger.charge(split, len(own), phase, epoch, raw, noise.kind)
        for batch, records in enumerate(ordered_batches(own, size)):
            labels = random.integers(0, 2, (len(records), len(config.task)))
            yield outgoing(
                ledger,
                raw.sanitize(torch.from_numpy(values[: len(records)]), noise),
                run_id=hello.run_id,
                split=split,
                phase=phase,
                epoch=epoch,
                batch=batch,
                records=records,
                task_labels=labels if split == "train" else None,
                edge=hello.edge,
            )
