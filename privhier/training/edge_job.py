"""The edge's half of a run in a process of its own: the same schedule, over an uplink that remembers.

A killed edge goes on from its last finished epoch. What it had spooled is never drawn again: under seeded
noise the same bytes come out and are compared, under system noise the second draw stays on the edge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from privhier.config import RunConfig
from privhier.config.phases import phases_of
from privhier.config.shared import shared_part
from privhier.errors import CheckpointError
from privhier.models.weights import weights_bytes
from privhier.privacy.agreement import check_agreement
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData
from privhier.training.checkpoint import load_checkpoint, save_checkpoint
from privhier.training.edge_side import EdgeSide, Metrics, Progress
from privhier.training.folder import RunFolder
from privhier.training.trained import build_model
from privhier.uplink.base import Uplink
from privhier.uplink.frames import Hello
from privhier.uplink.spool import Spool


class RememberingUplink(Uplink, Protocol):
    """An uplink that keeps what it is given until the cloud has it, across restarts."""

    waited: float

    def close(self) -> None:
        """Return when the cloud has everything."""
        ...


class EdgeJob:
    """One edge of a run.

    Args:
        config: The run.
        data: What this edge owns.
        mechanism: The release mechanism, before a clip bound is drawn.
        folder: The edge's folder.
        device: Where to compute.
        number: Which edge of the run this is.
        edges: How many there are.
        progress: Called with a description, steps done and steps in all.
        report: Called with a line of text after every epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData,
        mechanism: ReleaseMechanism,
        folder: RunFolder,
        *,
        device: torch.device,
        number: int = 0,
        edges: int = 1,
        progress: Progress | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.config, self.data, self.folder = config, data, folder
        self._report = report or (lambda text: None)
        self._progress = progress
        edge, _ = build_model(config, data)
        self.side = EdgeSide(
            config, data, mechanism, folder, edge, device=device, progress=progress, number=number, once=True
        )
        self.spool = Spool(folder.spool)
        shared = shared_part(config)
        self.hello = Hello(
            config=shared.hash(),
            run_id=shared.run_id,
            edge=number,
            edges=edges,
            shape=tuple(edge.release_shape),
            wire=mechanism.wire,
            task_classes=dict(data.task_classes),
            records={name: len(getattr(data.splits, name)) for name in ("train", "val", "test")},
            folder=self.spool.identity,
        )
        self.history: list[dict[str, Any]] = []
        self.link: list[dict[str, Any]] = []

    def run(self, uplink: RememberingUplink) -> None:
        """Run what is left of the edge's schedule, then wait until the cloud has everything.

        Raises:
            UplinkError: The cloud refused this edge.
            GuaranteeError: Ledger and uplink disagree.
            OutputError: The disk is full.
        """
        phases = self._phases()
        done = self._restore()
        self._write_edge()
        for number, (phase, epoch) in enumerate(phases):
            if number < done:
                continue
            if self._progress is not None:
                self._progress("edge: epochs", number, len(phases))
            metrics = self._step(phase, epoch, uplink)
            if metrics:
                self.history.append({"phase": phase, "epoch": epoch, **metrics})
                self._report(f"{phase} epoch {epoch + 1}: {_shown(metrics)}")
            self._save(number + 1)
        uplink.close()
        self._finish()

    def _step(self, phase: str, epoch: int, uplink: RememberingUplink) -> Metrics:
        side, before = self.side, (self.side.compute_seconds, uplink.waited, self.spool.totals())
        started = time.perf_counter()
        metrics: Metrics = {}
        if phase == "pretrain":
            metrics = side.pretrain(epoch)
        elif phase == "joint":
            loss = side.joint(epoch, uplink)
            self._note(phase, epoch, started, before, uplink)
            side.release(uplink, "val", "joint", epoch)
            return {"edge_loss": loss, **side.metrics(phase, epoch)}
        elif phase == "release":
            side.release(uplink, "train", "cloud", epoch)
            self._note(phase, epoch, started, before, uplink)
            side.release(uplink, "val", "cloud", epoch)
            return {}
        else:
            side.release_tests(lambda name, joint: side.release(uplink, "test", name, joint))
        self._note(phase, epoch, started, before, uplink)
        return metrics

    def _note(
        self,
        phase: str,
        epoch: int,
        started: float,
        before: tuple[float, float, dict[str, int]],
        uplink: RememberingUplink,
    ) -> None:
        """Enter what an epoch took; of a joint epoch the training alone, without its validation."""
        sent = {name: value - before[2][name] for name, value in self.spool.totals().items()}
        self.link.append(
            {
                "phase": phase,
                "epoch": epoch,
                "seconds": time.perf_counter() - started,
                "compute_seconds": self.side.compute_seconds - before[0],
                "wait_seconds": uplink.waited - before[1],
                **sent,
            }
        )

    def _restore(self) -> int:
        state = load_checkpoint(self.folder, config_hash=self.config.hash())
        done = 0 if state is None else int(state["done"])
        self.side.check_charges(self._phases()[:done])
        if state is None:
            return 0
        self.side.restore(state)
        self.history, self.link = state["history"], state["link"]
        sent = sum(int(row["messages"]) for row in self.link)
        if sent > len(self.spool.entries):
            raise CheckpointError(
                key="checkpoint",
                value=str(self.folder.spool),
                rule=f"names {len(self.spool.entries)} messages, but the checkpoint had spooled {sent}",
                remedy="Restore the folder from a copy, or start the run anew on both sides",
            )
        return done

    def _phases(self) -> list[tuple[str, int]]:
        """The edge's part of the schedule."""
        return [step for step in phases_of(self.config.schedule) if step[0] != "cloud"]

    def _save(self, done: int) -> None:
        """The edge can answer from here on, whatever becomes of the line; the checkpoint comes last."""
        self._write_edge()
        self.folder.sealed.write_json(self.folder.history, self.history)
        self.folder.sealed.write_json(self.folder.link, self.link)
        save_checkpoint(
            self.folder,
            {"done": done, **self.side.state(), "history": self.history, "link": self.link},
            config_hash=self.config.hash(),
        )

    def _write_edge(self) -> None:
        self.folder.sealed.write(self.folder.edge, weights_bytes(self.side.edge))
        self.folder.sealed.write_json(self.folder.edge_facts, self._facts(finished=False))

    def _facts(self, *, finished: bool) -> dict[str, Any]:
        return {
            "finished": finished,
            "edge": self.hello.edge,
            "edges": self.hello.edges,
            "uplink": self.spool.totals(),
            "ledger": self.side.ledger.head,
            "chain": self.spool.chain(len(self.spool.entries)).hex(),
            **self.side.facts(),
            **(self.side.final_facts() if finished else {}),
        }

    def _finish(self) -> None:
        self.side.ledger.verify()
        check_agreement(self.side.ledger, self.spool.releases())
        self.side.verify()
        self.folder.sealed.write_json(self.folder.edge_facts, self._facts(finished=True))


def _shown(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
