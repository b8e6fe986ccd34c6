"""The cloud tail's side: it receives bytes, trains on releases, and has no way to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from privhier.config.shared import SharedConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import UplinkError
from privhier.models.span import span
from privhier.models.tail import CloudTail
from privhier.privacy.labels import corrected_cross_entropy
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.batches import ordered_batches
from privhier.training.cache import CacheWriter, ReleaseCache
from privhier.training.finite import LossWatch, exploded, logits_text, weights_text
from privhier.training.optimize import build_optimizer, learning_rate, set_learning_rate
from privhier.uplink.codec import decode


class CloudTrainer:
    """Trains the tail on releases; the same in the edge's process and in one of its own.

    Args:
        config: What edge and cloud both know of the run.
        tail: The cloud tail, on ``device``.
        total_steps: Optimizer steps of the whole schedule.
        keep: Record numbers whose joint releases the curious cloud keeps for the attack bench.
        flips: The flip matrix of each task's randomized responses; None: labels are clear.
        bfloat16: Whether to compute under autocast.
    """

    def __init__(
        self,
        config: SharedConfig,
        tail: CloudTail,
        *,
        total_steps: int,
        device: torch.device,
        keep: IntArray,
        flips: Sequence[Tensor] | None = None,
        bfloat16: bool = False,
    ) -> None:
        self._flips = flips
        self.tail, self.device, self.total_steps = tail, device, total_steps
        self.steps = 0
        self.optimizer = build_optimizer(tail.parameters(), config.cloud)
        self._config = config
        self._bfloat16 = bfloat16
        self._keep = {int(record): row for row, record in enumerate(keep)}
        self.kept: dict[int, FloatArray] = {}
        self.last_loss = torch.zeros(())
        self._now = ("joint", 0)
        self._writer: CacheWriter | None = None
        self._watch = LossWatch(device)

    def receive_and_train(self, data: bytes) -> None:
        """Joint epochs: decode one message and take one step on it."""
        message = decode(data)
        labels = _labels(message.task_labels)
        self._remember(message.epoch, message.records, message.payload)
        self._now = ("joint", message.epoch)
        self.train_step(torch.from_numpy(message.payload), torch.from_numpy(labels))

    def expect(self, cache: ReleaseCache, total: int, shape: Sequence[int]) -> None:
        """Release-once: begin to fill ``cache`` with ``total`` releases of ``shape``."""
        self._writer = cache.begin(total, shape, len(self.tail.task_classes))
        self._now = ("cloud", 0)

    def receive_and_cache(self, data: bytes) -> tuple[FloatArray, IntArray]:
        """Release-once: decode one message into the cache; returns releases and labels for streaming."""
        message = decode(data)
        labels = _labels(message.task_labels)
        assert self._writer is not None, "expect() comes first"
        self._writer.add(message.payload, message.records, labels)
        return message.payload, labels

    def store(self) -> None:
        """Everything has arrived: complete the cache."""
        assert self._writer is not None, "expect() comes first"
        self._writer.finish()
        self._writer = None

    def train_step(self, payload: Tensor, labels: Tensor) -> None:
        """One optimizer step on releases ``(B, *shape)`` with labels int64 ``(B, n_tasks)``.

        A loss that is not finite raises ``TrainingError``: on a CPU before the step; on a device, which is
        not waited for at every step, within ``LOOK_EVERY`` steps and before the epoch is over.

        Dropout has a stream of its own for every step, so it matters neither in whose process nor after
        which interruption a step is taken.
        """
        self.tail.train()
        with span("tail"), isolated_rng(self._config.seed, "dropout", "tail", self.steps):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
                logits = self.tail(payload.to(self.device).float())
            loss = mean_task_loss(logits, labels.to(self.device), self._flips)
            self._check(self._watch.see(loss.detach()))
            set_learning_rate(self.optimizer, learning_rate(self._config.cloud, self.steps, self.total_steps))
            self.optimizer.zero_grad(set_to_none=True)
            with span("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            with span("optimizer"):
                self.optimizer.step()
        self.steps += 1
        self.last_loss = loss.detach()

    def train_cached_epoch(self, cache: ReleaseCache, epoch: int) -> float:
        """One epoch over the cached releases; returns the mean loss.

        The first goes through them in order of arrival, as a cloud does that begins before the last one
        is there; later ones in a fresh order each.
        """
        self._now = ("cloud", epoch)
        payload, _, labels = cache.load()
        order = np.arange(len(labels))
        if epoch:
            generator = torch_stream(self._config.seed, "shuffle", "cloud", epoch)
            order = torch.randperm(len(labels), generator=generator).numpy()
        losses = []
        for rows in ordered_batches(order, self._config.batch_size):
            with span("loading"):
                batch = torch.from_numpy(payload[rows]), torch.from_numpy(labels[rows])
            self.train_step(*batch)
            losses.append(self.last_loss)
        self._check(self._watch.look())
        return float(torch.stack(losses).mean())

    def check(self, logits: Sequence[Tensor] = ()) -> None:
        """Refuse to go on, or to be saved, with losses, weights or ``logits`` that are not finite.

        Raises:
            TrainingError: Names the learning rate, the phase and the epoch.
        """
        self._check(self._watch.look())
        self._check(weights_text((self.tail,)))
        self._check(logits_text(logits))

    def _check(self, problem: str | None) -> None:
        if problem is not None:
            phase, epoch = self._now
            where = f"{phase} epoch {epoch + 1} of run {self._config.name}"
            raise exploded("cloud", self._config.cloud.lr, problem, where)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the cloud."""
        return {
            "tail": self.tail.state_dict(),
            "cloud_optimizer": self.optimizer.state_dict(),
            "cloud_steps": self.steps,
            "kept": {epoch: torch.from_numpy(array) for epoch, array in self.kept.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put ``state`` back."""
        self.tail.load_state_dict(state["tail"])
        self.optimizer.load_state_dict(state["cloud_optimizer"])
        self.steps = state["cloud_steps"]
        self.kept = {epoch: kept.numpy() for epoch, kept in state["kept"].items()}

    def _remember(self, epoch: int, records: IntArray, payload: FloatArray) -> None:
        rows = [i for i, record in enumerate(records.tolist()) if record in self._keep]
        if not rows:
            return
        if epoch not in self.kept:
            self.kept[epoch] = np.zeros((len(self._keep), *payload.shape[1:]), dtype=np.float32)
        for i in rows:
            self.kept[epoch][self._keep[int(records[i])]] = payload[i]


def mean_task_loss(logits: list[Tensor], labels: Tensor, flips: Sequence[Tensor] | None = None) -> Tensor:
    """Mean over the batch of the sum over tasks of the cross-entropy, forward-corrected for ``flips``."""
    if flips is None:
        terms = [functional.cross_entropy(z.float(), labels[:, t]) for t, z in enumerate(logits)]
    else:
        terms = [
            corrected_cross_entropy(z.float(), labels[:, t], flip)
            for t, (z, flip) in enumerate(zip(logits, flips, strict=True))
        ]
    return torch.stack(terms).sum()


@torch.no_grad()
def cloud_logits(
    tail: CloudTail, releases: FloatArray, *, device: torch.device, batch_size: int = 512
) -> list[Tensor]:
    """The tail's logits ``(n, K)`` for each task on releases ``(n, *shape)``, in evaluation mode."""
    was_training = tail.training
    tail.eval()
    parts = [
        tail(torch.from_numpy(np.array(releases[start : start + batch_size])).to(device).float())
        for start in range(0, max(len(releases), 1), batch_size)
    ]
    tail.train(was_training)
    return [torch.cat(columns).float().cpu() for columns in zip(*parts, strict=True)]


def _labels(labels: IntArray | None) -> IntArray:
    if labels is None:
        raise UplinkError(
            key="message.task_labels",
            value=None,
            rule="a training message must carry task labels",
            remedy="Send training records with their labels",
        )
    return labels
