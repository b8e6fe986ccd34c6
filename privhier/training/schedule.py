"""The three-number schedule in one loop: edge alone, both at once, edge frozen and released once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.defenses.base import build_defense
from privhier.metrics.classification import balanced_accuracy, macro_auc
from privhier.models.features import edge_features
from privhier.models.weights import load_weights, save_weights
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import NoiseSource, SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.batches import TrainingData, batch_count
from privhier.training.checkpoint import load_checkpoint, save_checkpoint
from privhier.training.clip import settle_clip
from privhier.training.cloud import CloudTrainer, ReleaseCache, cloud_logits
from privhier.training.edge import EdgeTrainer, edge_exit_logits
from privhier.training.folder import RunFolder, write_array, write_json
from privhier.training.labels import flips, labels_to_send
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.release import Collector, Releaser
from privhier.training.trained import Trained, build_model, load_trained
from privhier.uplink.local import LocalUplink

Metrics = dict[str, float]
OnEpoch = Callable[[str, int, Metrics], None]
Progress = Callable[[str, int, int], None]


class Trainer:
    """Runs the schedule, phase by phase, with a checkpoint after every epoch.

    Args:
        config: The run.
        data: What the edge owns.
        mechanism: The release mechanism; where its clip bound is to be drawn, as it is before that.
        folder: The run folder.
        device: Where to compute.
        keep: Training records whose releases the curious cloud keeps for the attack bench.
        on_epoch: Called with phase, epoch and metrics after every epoch.
        progress: Called with a description, steps done and steps in all.
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
    ) -> None:
        self.config, self.data, self.folder, self.device, self.keep = config, data, folder, device, keep
        self.on_epoch, self.progress = on_epoch, progress
        edge, tail = build_model(config, data)
        schedule = config.schedule
        steps = batch_count(len(data.splits.train), config.training.batch_size)
        with isolated_rng(config.seed, "init", "defense"):
            defense = build_defense(config.defense)
        self.ledger = Ledger(folder.ledger)
        self.mechanism = mechanism = settle_clip(
            config, data, edge.to(device), mechanism, folder, self.ledger, device=device
        )
        own = (config, edge.to(device), defense.to(device), mechanism)
        if config.edge.dp_sgd is None:
            total = steps * (schedule.pretrain_epochs + schedule.joint_epochs)
            self.edge = EdgeTrainer(*own, total_steps=total, device=device)
        else:
            self.edge = PrivateEdgeTrainer(*own, n_train=len(data.splits.train), device=device)
        self.cloud = CloudTrainer(
            config,
            tail.to(device),
            total_steps=steps * (schedule.joint_epochs + schedule.cloud_epochs),
            device=device,
            keep=keep,
            flips=flips(config, data),
        )
        labels = labels_to_send(config, data, folder, self.ledger)
        self.releaser = Releaser(config, mechanism, self.ledger, run_id=config.hash()[:16], labels=labels)
        self.cache = ReleaseCache(folder.cloud_cache)
        self.history: list[dict[str, Any]] = []
        self.uplink = {"messages": 0, "records": 0, "bytes": 0}
        self._carried: Counter[tuple[str, int]] = Counter()
        self._steps: dict[str, Callable[[int], Metrics]] = {
            "pretrain": self._pretrain,
            "joint": self._joint,
            "release": self._release_once,
            "cloud": self._cloud,
            "test": self._test,
        }

    def run(self) -> Trained:
        """Run what is left of the schedule, release the test split, write the weights."""
        phases = self._phases()
        done = self._restore()
        for number, (phase, epoch) in enumerate(phases):
            if number < done:
                continue
            self._report_progress(phases, number)
            metrics = self._steps[phase](epoch)
            if metrics:
                self.history.append({"phase": phase, "epoch": epoch, **metrics})
                if self.on_epoch is not None:
                    self.on_epoch(phase, epoch, metrics)
            self._save(number + 1)
        self._report_progress(phases, len(phases))
        self._finish()
        return load_trained(self.config, self.data, self.folder)

    def _phases(self) -> list[tuple[str, int]]:
        schedule = self.config.schedule
        phases = [("pretrain", epoch) for epoch in range(schedule.pretrain_epochs)]
        phases += [("joint", epoch) for epoch in range(schedule.joint_epochs)]
        if schedule.cloud_epochs:
            phases += [("release", 0)]
            phases += [("cloud", epoch) for epoch in range(schedule.cloud_epochs)]
        return [*phases, ("test", 0)]

    def _pretrain(self, epoch: int) -> Metrics:
        return {
            "edge_loss": self._edge_epoch("pretrain", epoch, uplink=None),
            **self._edge_metrics("pretrain", epoch),
        }

    def _joint(self, epoch: int) -> Metrics:
        self.releaser.charge("train", "joint", epoch, len(self.data.splits.train))
        uplink = LocalUplink(self.cloud.receive_and_train)
        loss = self._edge_epoch("joint", epoch, uplink=uplink)
        self._count(uplink)
        snapshot = self.folder.snapshot(epoch)
        snapshot.parent.mkdir(exist_ok=True)
        save_weights(self.edge.edge, snapshot)
        releases = self._release("val", "joint", epoch)
        return {
            "edge_loss": loss,
            "cloud_loss": float(self.cloud.last_loss),
            **self._edge_metrics("joint", epoch),
            **self._cloud_metrics(releases),
        }

    def _release(self, split: str, phase: str, epoch: int) -> FloatArray:
        """Release a split that the cloud does not train on; returns what the cloud received."""
        collector = Collector()
        uplink = LocalUplink(collector.receive)
        edge = self.edge.edge
        self.releaser.release_split(
            uplink, edge, self.data, split, phase, epoch, device=self.device, with_labels=False
        )
        self._count(uplink)
        return collector.payload()

    def _edge_epoch(self, phase: str, epoch: int, *, uplink: LocalUplink | None) -> float:
        seed, losses = self.config.seed, []
        augmentation = torch_stream(seed, "augment", phase, epoch)
        self.edge.edge.train()
        train = self.data.splits.train
        total = batch_count(len(train), self.config.training.batch_size)
        if isinstance(self.edge, PrivateEdgeTrainer):
            self.ledger.charge_steps(self.edge.event(phase, epoch))
        waiting: list[tuple[IntArray, torch.Tensor]] = []
        with isolated_rng(seed, "dropout", phase, epoch):
            for number, records in enumerate(self.edge.batches(train, phase, epoch)):
                if uplink is None:
                    # This noise stays on the edge: it is not a release and costs nothing.
                    noise: NoiseSource = SeededNoise(seed, "edge", phase, epoch, number)
                    _, loss = self.edge.step(self.data, records, noise, augmentation=augmentation)
                else:
                    noise = self.releaser.noise("train", phase, epoch, number)
                    z, loss = self.edge.step(self.data, records, noise, augmentation=augmentation)
                    waiting.append((records, z))
                    if self.edge.stepped:  # one message for each step, however the batch was split
                        whole = np.concatenate([part for part, _ in waiting])
                        released = torch.cat([part for _, part in waiting])
                        labels = self.releaser.labels(self.data, whole)
                        self.releaser.send(uplink, "train", phase, epoch, whole, released, labels)
                        waiting = []
                losses.append(loss)
                if self.progress is not None and number % 10 == 0:
                    self.progress(f"{phase} epoch {epoch + 1}: batches", number, total)
        return float(torch.stack(losses).mean())

    def _release_once(self, epoch: int) -> Metrics:
        """Release every training and validation record once; what is on disk is never redrawn."""
        edge, val = self.edge.edge, self.folder.releases("val")

        def send_train() -> None:
            uplink = LocalUplink(self.cloud.receive_and_cache)
            self.releaser.release_split(
                uplink, edge, self.data, "train", "cloud", epoch, device=self.device, with_labels=True
            )
            self._count(uplink)

        self._once(self.cache.complete, "train", send_train, lambda: self.cloud.store(self.cache))
        drawn: list[FloatArray] = []
        self._once(
            val.exists(),
            "val",
            lambda: drawn.append(self._release("val", "cloud", epoch)),
            lambda: write_array(val, drawn[0]),
        )
        return {}

    def _once(self, done: bool, name: str, send: Callable[[], None], store: Callable[[], None]) -> None:
        """Send and store unless stored already; the uplink's counts survive a kill in between."""
        counts = self.folder.releases(name).with_suffix(".json")
        if done:
            for key, value in json.loads(counts.read_text()).items():
                self.uplink[key] += value
            return
        before = dict(self.uplink)
        send()
        write_json(counts, {key: value - before[key] for key, value in self.uplink.items()})
        store()

    def _cloud(self, epoch: int) -> Metrics:
        with isolated_rng(self.config.seed, "dropout", "cloud", epoch):
            loss = self.cloud.train_cached_epoch(self.cache, self.config.seed, epoch)
        return {"cloud_loss": loss, **self._cloud_metrics(np.load(self.folder.releases("val")))}

    def _edge_metrics(self, phase: str, epoch: int) -> Metrics:
        val = self.data.splits.val
        z = edge_features(self.edge.edge, self.data.images, val, device=self.device)
        z = self.mechanism.sanitize(z, SeededNoise(self.config.seed, "edge", "val", phase, epoch))
        return self._task_metrics("edge_exit", edge_exit_logits(self.edge.edge, z, device=self.device))

    def _cloud_metrics(self, releases: FloatArray) -> Metrics:
        return self._task_metrics("cloud", cloud_logits(self.cloud.tail, releases, device=self.device))

    def _task_metrics(self, place: str, logits: list[torch.Tensor]) -> Metrics:
        metrics = {}
        for column, (name, z) in enumerate(zip(self.data.task_classes, logits, strict=True)):
            truth = self.data.task[self.data.splits.val, column].numpy()
            probabilities = torch.softmax(z.float(), 1).numpy()
            predictions = probabilities.argmax(1)
            metrics[f"val/{name}/{place}_auc"] = macro_auc(probabilities, truth)
            metrics[f"val/{name}/{place}_balanced_accuracy"] = balanced_accuracy(
                predictions, truth, probabilities.shape[1]
            )
        return metrics

    def _count(self, uplink: LocalUplink) -> None:
        for name in self.uplink:
            self.uplink[name] += int(getattr(uplink.stats, name))
        self._carried.update(uplink.stats.by_epoch)

    def _report_progress(self, phases: list[tuple[str, int]], number: int) -> None:
        if self.progress is not None:
            self.progress("train: epochs", number, len(phases))

    def _save(self, done: int) -> None:
        write_json(self.folder.history, self.history)
        save_checkpoint(
            self.folder,
            {
                "done": done,
                "edge": self.edge.edge.state_dict(),
                "defense": self.edge.defense.state_dict(),
                "tail": self.cloud.tail.state_dict(),
                "edge_optimizer": self.edge.optimizer.state_dict(),
                "adversary_optimizer": (
                    self.edge.adversary_optimizer.state_dict() if self.edge.adversary_optimizer else None
                ),
                "cloud_optimizer": self.cloud.optimizer.state_dict(),
                "edge_steps": self.edge.steps,
                "cloud_steps": self.cloud.steps,
                "kept": {epoch: torch.from_numpy(array) for epoch, array in self.cloud.kept.items()},
                "history": self.history,
                "uplink": self.uplink,
                "dp_sgd": self.edge.state() if isinstance(self.edge, PrivateEdgeTrainer) else None,
            },
            config_hash=self.config.hash(),
        )

    def _restore(self) -> int:
        state = load_checkpoint(self.folder, config_hash=self.config.hash())
        if state is None:
            return 0
        self.edge.edge.load_state_dict(state["edge"])
        self.edge.defense.load_state_dict(state["defense"])
        self.cloud.tail.load_state_dict(state["tail"])
        self.edge.optimizer.load_state_dict(state["edge_optimizer"])
        if self.edge.adversary_optimizer is not None:
            self.edge.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        self.cloud.optimizer.load_state_dict(state["cloud_optimizer"])
        self.edge.steps, self.cloud.steps = state["edge_steps"], state["cloud_steps"]
        self.cloud.kept = {epoch: kept.numpy() for epoch, kept in state["kept"].items()}
        self.history, self.uplink = state["history"], state["uplink"]
        if isinstance(self.edge, PrivateEdgeTrainer):
            self.edge.restore(state["dp_sgd"])
        return int(state["done"])

    def _test(self, epoch: int) -> Metrics:
        """Release the test split as often, and by the same edge states, as a training record was."""
        schedule, target, drawn = self.config.schedule, self.folder.releases("test"), list[FloatArray]()

        def send() -> None:
            final = {name: value.clone() for name, value in self.edge.edge.state_dict().items()}
            for joint in range(schedule.joint_epochs):
                load_weights(self.edge.edge, self.folder.snapshot(joint))
                drawn.append(self._release("test", "joint", joint))
            self.edge.edge.load_state_dict(final)
            if schedule.cloud_epochs:
                drawn.append(self._release("test", "cloud", epoch))

        self._once(target.exists(), "test", send, lambda: write_array(target, np.stack(drawn, axis=1)))
        return {}

    def _finish(self) -> None:
        """Write the training victims' releases, the weights, and last the marker of a finished training."""
        kept = [self.cloud.kept[epoch] for epoch in range(self.config.schedule.joint_epochs)]
        if self.config.schedule.cloud_epochs:
            payload, records, _ = self.cache.load()
            order = np.argsort(records)
            rows = order[np.searchsorted(records[order], self.keep)]
            kept.append(np.asarray(payload[rows], dtype=np.float32))
        write_array(self.folder.releases("training_victims"), np.stack(kept, axis=1))
        self.ledger.verify(self._carried)
        if (chosen := self.config.release.quantile) is not None:
            self.ledger.verify_clip(chosen.quantile, chosen.epsilon)
        if isinstance(self.edge, PrivateEdgeTrainer):
            self.ledger.verify_steps(self.edge.executed)
        save_weights(self.edge.edge, self.folder.edge)
        save_weights(self.cloud.tail, self.folder.tail)
        write_json(
            self.folder.training,
            {
                "uplink": self.uplink,
                "release_shape": list(self.edge.edge.release_shape),
                "image_size": self.data.image_size,
                "n_train": len(self.data.splits.train),
                "task_classes": dict(self.data.task_classes),
                "sensitive_classes": dict(self.data.sensitive_classes),
                "network": self.edge.edge.describe(),
            },
        )
