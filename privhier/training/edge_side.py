"""The edge's half of the schedule: what it trains, releases and remembers, wherever the cloud is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.datasets.base import IntArray
from privhier.defenses.base import build_defense
from privhier.errors import NonFiniteError, TrainingError
from privhier.metrics.classification import balanced_accuracy, macro_auc
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.span import span
from privhier.models.weights import load_weights, weights_bytes
from privhier.privacy.agreement import check_begun
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.process.progress import BATCHES
from privhier.seeding import isolated_rng
from privhier.training.batches import TrainingData, batch_count
from privhier.training.begun import Begun
from privhier.training.charges import check_charges
from privhier.training.clip import settle_clip
from privhier.training.code import LOOKED_AT, code_usage, settle_code
from privhier.training.commons import training_key
from privhier.training.draws import EdgeDraws
from privhier.training.edge import EdgeTrainer, edge_exit_logits, sanitized
from privhier.training.finish import begin_defense, finish_defense, report_of
from privhier.training.finite import LossWatch, exploded, logits_text, weights_text
from privhier.training.folder import RunFolder
from privhier.training.labels import labels_to_send
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.release import Releaser
from privhier.uplink.base import Uplink

_BLOCK = 1024
"""Validation records whose features are held at once; a multiple of the batches that they are computed in."""
Metrics = dict[str, float]
Progress = Callable[[str, int, int], None]


class EdgeSide:
    """Edge segment, defense, release mechanism and ledger of one run.

    Args:
        config: The run.
        data: What this edge owns.
        mechanism: The release mechanism; where its clip bound is to be drawn, as it is before that.
        folder: The run folder.
        edge: The edge segment as initialized.
        device: Where to compute.
        progress: Called with a description, steps done and steps in all.
        number: Which edge of the run this is.
        once: Whether the uplink takes nothing twice (see ``Releaser``).
    """

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData,
        mechanism: ReleaseMechanism,
        folder: RunFolder,
        edge: EdgeSegment,
        *,
        device: torch.device,
        progress: Progress | None = None,
        number: int = 0,
        once: bool = False,
    ) -> None:
        self.config, self.data, self.folder, self.device = config, data, folder, device
        self.progress = progress
        self.draws = EdgeDraws(config)
        schedule = config.schedule
        with isolated_rng(config.seed, "init", "defense"):
            defense = build_defense(config.defense)
        self.ledger = Ledger(folder.ledger)
        self.mechanism = mechanism = settle_clip(
            config, data, edge.to(device), mechanism, folder, self.ledger, device=device
        )
        own = (config, edge.to(device), defense.to(device), mechanism)
        train = len(data.splits.train)
        if config.edge.dp_sgd is None:
            epochs = schedule.pretrain_epochs + schedule.joint_epochs
            total = batch_count(train, config.training.batch_size) * epochs
            self.trainer = EdgeTrainer(*own, total_steps=total, device=device)
        else:
            self.trainer = PrivateEdgeTrainer(*own, n_train=train, device=device, begun=Begun(folder.begun))
        begin_defense(config, data, self.edge, defense, device=device)
        self.releaser = Releaser(
            config,
            mechanism,
            self.ledger,
            run_id=shared_part(config).run_id,
            labels=labels_to_send(config, data, folder, self.ledger),
            edge=number,
            once=once,
        )
        self.compute_seconds = 0.0
        """Spent in the edge's own steps, so far."""

    @property
    def edge(self) -> EdgeSegment:
        """The edge segment."""
        return self.trainer.edge

    def pretrain(self, epoch: int) -> Metrics:
        """One epoch alone: its noise stays on the edge, is no release and costs nothing.

        After the last one a defense's closed forms are fitted, and letters found, where there are any.
        """
        with span("loop"):
            loss = self._epoch("pretrain", epoch, uplink=None)
        if epoch + 1 == self.config.schedule.pretrain_epochs:
            own, rest = (self.config, self.data, self.edge), (self.mechanism, self.draws)
            finish_defense(*own, self.trainer.defense, *rest, device=self.device)
            settle_code(*own, *rest, device=self.device)
        return {"edge_loss": loss, **self.metrics("pretrain", epoch)}

    def joint(self, epoch: int, uplink: Uplink) -> float:
        """Charge and run one joint epoch, keep a snapshot of the edge; returns the mean loss."""
        self.releaser.charge("train", "joint", epoch, len(self.data.splits.train))
        with span("loop"):
            loss = self._epoch("joint", epoch, uplink=uplink)
        self.folder.sealed.write(self.folder.snapshot(epoch), weights_bytes(self.edge))
        return loss

    def release(self, uplink: Uplink, split: str, phase: str, epoch: int) -> None:
        """Release every record of a split once; training records carry their task labels."""
        with self._finite(phase, epoch):
            self.releaser.release_split(
                uplink,
                self.edge,
                self.data,
                split,
                phase,
                epoch,
                device=self.device,
                with_labels=split == "train",
            )

    def release_tests(self, release: Callable[[str, int], None]) -> None:
        """Release the test split as often, and by the same edge states, as a training record was.

        Args:
            release: Called with phase and epoch while the edge is in that state.
        """
        final = {name: value.clone() for name, value in self.edge.state_dict().items()}
        for joint in range(self.config.schedule.joint_epochs):
            load_weights(self.edge, self.folder.sealed.checked(self.folder.snapshot(joint)))
            release("joint", joint)
        self.edge.load_state_dict(final)
        if self.config.schedule.cloud_epochs:
            release("cloud", 0)

    def metrics(self, phase: str, epoch: int) -> Metrics:
        """The task exit on validation records, through noise that stays on the edge."""
        val, parts = self.data.splits.val, []
        with span("metrics"):
            for start in range(0, len(val), _BLOCK):  # of many records, maps are gigabytes
                rows = val[start : start + _BLOCK]
                z = edge_features(self.edge, self.data.images, rows, device=self.device)
                noise = self.draws.noise(f"{phase} val", epoch, 0, rows)
                with self._finite(phase, epoch), torch.no_grad():
                    z = sanitized(self.edge, self.mechanism, z, noise).values
                parts.append(edge_exit_logits(self.edge, z, device=self.device))
            logits = [torch.cat(task) for task in zip(*parts, strict=True)]
            self._check(logits_text(logits), phase, epoch)
            return self.task_metrics("edge_exit", logits)

    def task_metrics(self, place: str, logits: list[torch.Tensor]) -> Metrics:
        """AUC and balanced accuracy of every task on the validation records, from their logits."""
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

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the edge."""
        trainer = self.trainer
        return {
            "edge": trainer.edge.state_dict(),
            "defense": trainer.defense.state_dict(),
            "edge_optimizer": trainer.optimizer.state_dict(),
            "adversary_optimizer": (
                trainer.adversary_optimizer.state_dict() if trainer.adversary_optimizer else None
            ),
            "edge_steps": trainer.steps,
            "dp_sgd": trainer.state() if isinstance(trainer, PrivateEdgeTrainer) else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put ``state`` back."""
        trainer = self.trainer
        trainer.edge.load_state_dict(state["edge"])
        trainer.defense.load_state_dict(state["defense"])
        trainer.optimizer.load_state_dict(state["edge_optimizer"])
        if trainer.adversary_optimizer is not None:
            trainer.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        trainer.steps = state["edge_steps"]
        if isinstance(trainer, PrivateEdgeTrainer):
            trainer.restore(state["dp_sgd"])

    def verify(self) -> None:
        """Compare what was drawn from private records beside releases with what was charged for it."""
        if (chosen := self.config.release.quantile) is not None:
            self.ledger.verify_clip(chosen.quantile, chosen.epsilon)
        if isinstance(self.trainer, PrivateEdgeTrainer):
            self.ledger.verify_steps(self.trainer.executed)
            check_begun(self.ledger, self.trainer.begun.counts)

    @property
    def records(self) -> dict[str, int]:
        """Split to number of records that this edge releases."""
        return {name: len(getattr(self.data.splits, name)) for name in ("train", "val", "test")}

    def check_charges(self, finished: Sequence[tuple[str, int]]) -> None:
        """Refuse, on resume, a ledger that does not hold what the finished epochs were charged."""
        check_charges(
            self.ledger,
            self.config,
            self.mechanism,
            records=self.records,
            task_classes=self.data.task_classes,
            finished=finished,
        )

    def facts(self) -> dict[str, Any]:
        """Shapes, classes and origin of the edge, as plain data."""
        return {
            "release_shape": list(self.edge.release_shape),
            "image_size": self.data.image_size,
            "n_train": len(self.data.splits.train),
            "records": self.records,
            "training": training_key(self.config),
            "task_classes": dict(self.data.task_classes),
            "sensitive_classes": dict(self.data.sensitive_classes),
            "task_class_names": {name: list(names) for name, names in self.data.task_class_names.items()},
            "network": self.edge.describe(),
        }

    def final_facts(self) -> dict[str, Any]:
        """For the facts of a finished training: how letters are used, and what the defense has to say."""
        # Under DP-SGD nothing is told of private records that no epsilon covers and nobody asked for.
        private = self.config.edge.dp_sgd is not None
        said = {} if private else report_of(self.data, self.trainer, device=self.device)
        return {**self._code_facts(), **({"defense": said} if said else {})}

    def _code_facts(self) -> dict[str, Any]:
        usage = code_usage(self.data, self.edge, device=self.device)
        records = min(len(self.data.splits.val), LOOKED_AT)
        return {"code": [{**asdict(group), "records": records} for group in usage]} if usage else {}

    def _epoch(self, phase: str, epoch: int, *, uplink: Uplink | None) -> float:
        seed, losses = self.draws.layers_seed(), []
        self.edge.train()
        self.trainer.warm_up(phase, epoch)
        train = self.data.splits.train
        total = batch_count(len(train), self.config.training.batch_size)
        if isinstance(self.trainer, PrivateEdgeTrainer):
            self.ledger.charge_steps(self.trainer.event(phase, epoch))
        watch = LossWatch(self.device)
        waiting: list[tuple[IntArray, Release]] = []
        sent = 0
        for number, records in enumerate(self.trainer.loaded(self.data, train, phase, epoch)):
            turn = self.trainer.turn(phase)
            augmentation = self.draws.augmentation(phase, epoch, turn, records)
            if uplink is None:
                noise = self.draws.noise(phase, epoch, turn, records)
            else:
                noise = self.releaser.noise("train", phase, epoch, number)
            started = time.perf_counter()
            with isolated_rng(seed, "dropout", phase, epoch, number), self._finite(phase, epoch):
                release, loss = self.trainer.step(self.data, records, noise, augmentation=augmentation)
            self._check(watch.see(loss), phase, epoch)
            self.compute_seconds += time.perf_counter() - started
            losses.append(loss)
            if uplink is not None:
                waiting.append((records, release))
                if self.trainer.stepped:  # one message for each step, however the batch was split
                    self._send(uplink, epoch, sent, waiting)
                    sent, waiting = sent + 1, []
            if self.progress is not None and number % 10 == 0:
                self.progress(f"{phase} epoch {epoch + 1}{BATCHES}", number, total)
        self._check(watch.look(), phase, epoch)
        self._check(weights_text((self.edge, self.trainer.defense)), phase, epoch)
        return float(torch.stack(losses).mean())

    def _check(self, problem: str | None, phase: str, epoch: int) -> None:
        if problem is not None:
            raise self._exploded(problem, phase, epoch)

    def _exploded(self, what: str, phase: str, epoch: int) -> TrainingError:
        where = f"{phase} epoch {epoch + 1} of run {self.config.name}"
        return exploded("edge", self.config.training.edge.lr, what, where)

    @contextmanager
    def _finite(self, phase: str, epoch: int) -> Iterator[None]:
        """Say of features that are not finite where they come from: the edge was trained on good images."""
        try:
            yield
        except NonFiniteError as error:
            what = f"features of {error.value} are not finite"
            raise self._exploded(what, phase, epoch) from error

    def _send(self, uplink: Uplink, epoch: int, batch: int, parts: list[tuple[IntArray, Release]]) -> None:
        records = np.concatenate([part for part, _ in parts])
        released = [part for _, part in parts]
        with span("uplink"):
            self.releaser.send(uplink, "train", "joint", epoch, batch, records, released, self.data)
