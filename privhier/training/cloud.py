"""The cloud tail's side: it receives bytes, trains on releases, and has no way to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import UplinkError
from privhier.files import whole_file
from privhier.models.tail import CloudTail
from privhier.privacy.labels import corrected_cross_entropy
from privhier.seeding import torch_stream
from privhier.training.optimize import build_optimizer, learning_rate, set_learning_rate
from privhier.uplink.codec import decode


class ReleaseCache:
    """Releases that arrived once and are trained on many times, on disk, complete or absent.

    Rows are in order of arrival. The file appears under its name only when every record is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def complete(self) -> bool:
        """Whether every release has arrived."""
        return (self.folder / "records.npy").exists()

    def write(
        self, payloads: Sequence[FloatArray], records: Sequence[IntArray], labels: Sequence[IntArray]
    ) -> None:
        """Store all messages; ``records.npy`` comes last and makes the cache complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: Mapping[str, Sequence[FloatArray | IntArray]] = {
            "payload": payloads,
            "labels": labels,
            "records": records,
        }
        for name, parts in arrays.items():
            with whole_file(self.folder / f"{name}.npy") as stream:
                np.save(stream, np.concatenate(parts))

    def load(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Payload ``(n, *shape)`` as a memory map, record numbers ``(n,)``, labels ``(n, n_tasks)``."""
        payload = np.load(self.folder / "payload.npy", mmap_mode="r")
        return payload, np.load(self.folder / "records.npy"), np.load(self.folder / "labels.npy")


class CloudTrainer:
    """Trains the tail on releases.

    Args:
        config: The run.
        tail: The cloud tail, on ``device``.
        total_steps: Optimizer steps of the whole schedule.
        keep: Record numbers whose joint releases the curious cloud keeps for the attack bench.
        flips: The flip matrix of each task's randomized responses; None: labels are clear.
    """

    def __init__(
        self,
        config: RunConfig,
        tail: CloudTail,
        *,
        total_steps: int,
        device: torch.device,
        keep: IntArray,
        flips: Sequence[Tensor] | None = None,
    ) -> None:
        self._flips = flips
        self.tail, self.device, self.total_steps = tail, device, total_steps
        self.steps = 0
        self.optimizer = build_optimizer(tail.parameters(), config.training.cloud)
        self._config = config.training
        self._bfloat16 = config.runtime.precision == "bfloat16"
        self._keep = {int(record): row for row, record in enumerate(keep)}
        self.kept: dict[int, FloatArray] = {}
        self.last_loss = torch.zeros(())
        self._inbox: list[tuple[FloatArray, IntArray, IntArray]] = []

    def receive_and_train(self, data: bytes) -> None:
        """Joint epochs: decode one message and take one step on it."""
        message = decode(data)
        labels = _labels(message.task_labels)
        self._remember(message.epoch, message.records, message.payload)
        self.train_step(torch.from_numpy(np.asarray(message.payload)), torch.from_numpy(labels))

    def receive_and_cache(self, data: bytes) -> None:
        """Release-once: decode one message and keep it until ``store`` is called."""
        message = decode(data)
        self._inbox.append((np.asarray(message.payload), message.records, _labels(message.task_labels)))

    def store(self, cache: ReleaseCache) -> None:
        """Write everything received by ``receive_and_cache`` to the cache."""
        payloads, records, labels = zip(*self._inbox, strict=True)
        cache.write(payloads, records, labels)
        self._inbox = []

    def train_step(self, payload: Tensor, labels: Tensor) -> None:
        """One optimizer step on releases ``(B, *shape)`` with labels int64 ``(B, n_tasks)``."""
        self.tail.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits = self.tail(payload.to(self.device).float())
        loss = task_loss(logits, labels.to(self.device), self._flips)
        set_learning_rate(self.optimizer, learning_rate(self._config.cloud, self.steps, self.total_steps))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.steps += 1
        self.last_loss = loss.detach()

    def train_cached_epoch(self, cache: ReleaseCache, seed: int, epoch: int) -> float:
        """One epoch over the cached releases in a fresh order; returns the mean loss."""
        payload, _, labels = cache.load()
        order = torch.randperm(len(labels), generator=torch_stream(seed, "shuffle", "cloud", epoch)).numpy()
        size = self._config.batch_size
        losses = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            self.train_step(torch.from_numpy(payload[rows]), torch.from_numpy(labels[rows]))
            losses.append(self.last_loss)
        return float(torch.stack(losses).mean())

    def _remember(self, epoch: int, records: IntArray, payload: FloatArray) -> None:
        rows = [i for i, record in enumerate(records.tolist()) if record in self._keep]
        if not rows:
            return
        if epoch not in self.kept:
            self.kept[epoch] = np.zeros((len(self._keep), *payload.shape[1:]), dtype=np.float32)
        for i in rows:
            self.kept[epoch][self._keep[int(records[i])]] = payload[i]


def task_loss(logits: list[Tensor], labels: Tensor, flips: Sequence[Tensor] | None = None) -> Tensor:
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
        for start in range(0, len(releases), batch_size)
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
