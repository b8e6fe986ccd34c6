"""The three-number schedule in one loop: edge alone, both at once, edge frozen and released once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privhier.config import RunConfig
from privhier.config.phases import phases_of
from privhier.config.shared import shared_part
from privhier.datasets.base import FloatArray, IntArray
from privhier.models.span import span
from privhier.models.weights import weights_bytes
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData, batch_count
from privhier.training.cache import ReleaseCache
from privhier.training.checkpoint import load_checkpoint, save_checkpoint
from privhier.training.cloud import CloudTrainer, cloud_logits
from privhier.training.edge import EdgeTrainer
from privhier.training.edge_side import EdgeSide, Metrics, Progress
from privhier.training.folder import RunFolder
from privhier.training.labels import flips
from privhier.training.profiling import Profiling
from privhier.training.release import Collector, Releaser, write_side_by_side
from privhier.training.trained import Trained, build_model, load_trained
from privhier.uplink.local import LocalUplink

OnEpoch = Callable[[str, int, Metrics], None]


class Trainer:
    """Runs the schedule in one process, phase by phase, with a checkpoint after every epoch.

    The edge's half (``EdgeSide``) and the cloud's (``CloudTrainer``) are the ones that run as two
    processes over a link; here the uplink hands the same bytes over by a call.

    Args:
        config: The run.
        data: What the edge owns.
        mechanism: The release mechanism; where its clip bound is to be drawn, as it is before that.
        folder: The run folder.
        device: Where to compute.
        keep: Training records whose releases the curious cloud keeps for the attack bench.
        on_epoch: Called with phase, epoch and metrics after every epoch.
        progress: Called with a description, steps done and steps in all.
        profile: Where to write where the time of one epoch of each phase goes; None: nowhere.
    """

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData,
        mechanism: ReleaseMechanism,
        folder: RunFolder,
        *,
        device: torch.device,
        keep: IntArray,
        on_epoch: OnEpoch | None = None,
        progress: Progress | None = None,
        profile: Path | None = None,
    ) -> None:
        self.config, self.data, self.folder, self.device, self.keep = config, data, folder, device, keep
        self.on_epoch, self.progress, self._profile = on_epoch, progress, profile
        edge, tail = build_model(config, data)
        self.side = EdgeSide(config, data, mechanism, folder, edge, device=device, progress=progress)
        schedule = config.schedule
        steps = batch_count(len(data.splits.train), config.training.batch_size)
        self.cloud = CloudTrainer(
            shared_part(config),
            tail.to(device),
            total_steps=steps * (schedule.joint_epochs + schedule.cloud_epochs),
            device=device,
            keep=keep,
            flips=flips(config.privacy.label_epsilon, data.task_classes),
            bfloat16=config.runtime.precision == "bfloat16",
        )
        self.cache = ReleaseCache(folder.cloud_cache, folder.sealed)
        self.history: list[dict[str, Any]] = []
        self.uplink = {"messages": 0, "records": 0, "bytes": 0}
        self._carried: Counter[tuple[str, int]] = Counter()
        self._steps: dict[str, Callable[[int], Metrics]] = {
            "pretrain": self.side.pretrain,
            "joint": self._joint,
            "release": self._release_once,
            "cloud": self._cloud,
            "test": self._test,
        }

    @property
    def edge(self) -> EdgeTrainer:
        """What trains the edge."""
        return self.side.trainer

    @property
    def ledger(self) -> Ledger:
        """The account."""
        return self.side.ledger

    @property
    def mechanism(self) -> ReleaseMechanism:
        """The release mechanism with its final clip bound."""
        return self.side.mechanism

    @property
    def releaser(self) -> Releaser:
        """The one way out of the edge."""
        return self.side.releaser

    def run(self, *, resumable: bool = True) -> Trained:
        """Run what is left of the schedule, release the test split, write the weights.

        Args:
            resumable: Whether there are checkpoints; without, the numbers are the same, and there is nothing
                to go on from before the end.
        """
        phases = phases_of(self.config.schedule)
        done = self._restore()
        profiling = Profiling(self._profile, phases[done:], self.device) if self._profile else None
        for number, (phase, epoch) in enumerate(phases):
            if number < done:
                continue
            self._report_progress(phases, number)
            with profiling.epoch(phase, epoch) if profiling else nullcontext():
                metrics = self._steps[phase](epoch)
                if metrics:
                    self.history.append({"phase": phase, "epoch": epoch, **metrics})
                    if self.on_epoch is not None:
                        with span("MLflow"):
                            self.on_epoch(phase, epoch, metrics)
                if resumable:
                    with span("checkpoint"):
                        self._save(number + 1)
        self._report_progress(phases, len(phases))
        if not resumable:
            self._write_history()
        self._finish()
        return load_trained(self.config, self.data, self.folder)

    def _joint(self, epoch: int) -> Metrics:
        uplink = LocalUplink(self.cloud.receive_and_train)
        loss = self.side.joint(epoch, uplink)
        self._count(uplink)
        releases = self._release("val", "joint", epoch)
        return {
            "edge_loss": loss,
            "cloud_loss": float(self.cloud.last_loss),
            **self.side.metrics("joint", epoch),
            **self._cloud_metrics(releases),
        }

    def _release(self, split: str, phase: str, epoch: int) -> FloatArray:
        """Release a split that the cloud does not train on; returns what the cloud received."""
        collector = Collector(self.folder.releases(split).parent)
        uplink = LocalUplink(collector.receive)
        self.side.release(uplink, split, phase, epoch)
        self._count(uplink)
        return collector.payload()

    def _release_once(self, epoch: int) -> Metrics:
        """Release every training and validation record once; what is on disk is never redrawn."""
        val = self.folder.releases("val")

        def send_train() -> None:
            self.cloud.expect(self.cache, len(self.data.splits.train), self.side.edge.release_shape)
            uplink = LocalUplink(self.cloud.receive_and_cache)
            self.side.release(uplink, "train", "cloud", epoch)
            self._count(uplink)

        self._once(self.cache.complete, "train", send_train, self.cloud.store)
        drawn: list[FloatArray] = []
        self._once(
            self.folder.sealed.knows(val),
            "val",
            lambda: drawn.append(self._release("val", "cloud", epoch)),
            lambda: self.folder.sealed.write_array(val, drawn[0]),
        )
        return {}

    def _once(self, done: bool, name: str, send: Callable[[], None], store: Callable[[], None]) -> None:
        """Send and store unless stored already; the uplink's counts survive a kill in between."""
        counts = self.folder.releases(name).with_suffix(".json")
        if done:
            for key, value in self.folder.sealed.read_json(counts).items():
                self.uplink[key] += value
            return
        before = dict(self.uplink)
        send()
        self.folder.sealed.write_json(
            counts, {key: value - before[key] for key, value in self.uplink.items()}
        )
        store()

    def _cloud(self, epoch: int) -> Metrics:
        loss = self.cloud.train_cached_epoch(self.cache, epoch)
        val = self.folder.sealed.read_array(self.folder.releases("val"), mmap=True)
        return {"cloud_loss": loss, **self._cloud_metrics(val)}

    def _cloud_metrics(self, releases: FloatArray) -> Metrics:
        logits = cloud_logits(self.cloud.tail, releases, device=self.device)
        self.cloud.check(logits)
        return self.side.task_metrics("cloud", logits)

    def _count(self, uplink: LocalUplink) -> None:
        for name in self.uplink:
            self.uplink[name] += int(getattr(uplink.stats, name))
        self._carried.update(uplink.stats.by_epoch)

    def _report_progress(self, phases: list[tuple[str, int]], number: int) -> None:
        if self.progress is not None:
            self.progress("train: epochs", number, len(phases))

    def _save(self, done: int) -> None:
        self._write_history()
        save_checkpoint(
            self.folder,
            {
                "done": done,
                **self.side.state(),
                **self.cloud.state(),
                "history": self.history,
                "uplink": self.uplink,
            },
            config_hash=self.config.hash(),
        )

    def _write_history(self) -> None:
        self.folder.sealed.write_json(self.folder.history, self.history)

    def _restore(self) -> int:
        state = load_checkpoint(self.folder, config_hash=self.config.hash())
        done = 0 if state is None else int(state["done"])
        self.side.check_charges(phases_of(self.config.schedule)[:done])
        if state is None:
            return 0
        self.side.restore(state)
        self.cloud.restore(state)
        self.history, self.uplink = state["history"], state["uplink"]
        return done

    def _test(self, epoch: int) -> Metrics:
        target, drawn = self.folder.releases("test"), list[FloatArray]()

        def send() -> None:
            self.side.release_tests(lambda phase, number: drawn.append(self._release("test", phase, number)))

        self._once(
            self.folder.sealed.knows(target),
            "test",
            send,
            lambda: write_side_by_side(self.folder.sealed, target, drawn),
        )
        return {}

    def _finish(self) -> None:
        """Write the training victims' releases, the weights, and last the marker of a finished training."""
        kept = [self.cloud.kept[epoch] for epoch in range(self.config.schedule.joint_epochs)]
        if self.config.schedule.cloud_epochs:
            payload, records, _ = self.cache.load()
            order = np.argsort(records)
            rows = order[np.searchsorted(records[order], self.keep)]
            kept.append(np.asarray(payload[rows], dtype=np.float32))
        sealed = self.folder.sealed
        sealed.write_array(self.folder.releases("training_victims"), np.stack(kept, axis=1))
        self.ledger.verify(self._carried)
        self.side.verify()
        sealed.write(self.folder.edge, weights_bytes(self.edge.edge))
        sealed.write(self.folder.tail, weights_bytes(self.cloud.tail))
        facts = {"uplink": self.uplink, "ledger": self.ledger.head, **self.side.facts()}
        facts |= self.side.final_facts()
        sealed.write_json(self.folder.training, facts)
