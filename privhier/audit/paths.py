"""A run's own ways of releasing, as functions of features: what the release audit calls.

No restatement: charge, clip, noise, quantization, encoding and decoding are the run's own code, with its
noise streams; only the edge's features are replaced by the auditor's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from privhier.config import RunConfig
from privhier.datasets.base import IntArray, Splits
from privhier.models.edge import EdgeSegment
from privhier.models.letter_code import LetterCode
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import NoiseSource
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData, ordered_batches
from privhier.training.release import Collector, Releaser, rows_of
from privhier.uplink.local import LocalUplink

_CPU = torch.device("cpu")
_STRIDE = 32
"""Batches of a split's release that one call may take up: 32 times 256 records."""


class AuditedReleases:
    """The training path and the evaluation path of a run.

    Args:
        config: The run.
        mechanism: As the run loads it.
        code: The edge's letters, where it releases any.
        ledger: Makes the account that every call is charged to; in memory by default.

    Example:
        >>> from privhier.config import load_config
        >>> config = load_config("configs/debug.yaml")  # doctest: +SKIP
        >>> paths = AuditedReleases(config, ReleaseMechanism("gaussian", 1.0, 0.3))  # doctest: +SKIP
        >>> paths.evaluation(torch.zeros(4, 8), epoch=0, batch=0).shape  # doctest: +SKIP
        torch.Size([4, 8])
    """

    def __init__(
        self,
        config: RunConfig,
        mechanism: ReleaseMechanism,
        code: LetterCode | None = None,
        *,
        ledger: Callable[[], Ledger] = lambda: Ledger(None),
    ) -> None:
        self.config, self.mechanism, self.code, self._ledger = config, mechanism, code, ledger

    def training(self, features: Tensor, *, epoch: int, batch: int) -> Tensor:
        """Releases of training records: joint epochs first, then the one release of the cloud epochs."""
        phase, number = self._phase(epoch)
        if phase == "joint":
            return self._joint(features, number, batch)
        return self._split(features, "train", phase, number, batch)

    def evaluation(self, features: Tensor, *, epoch: int, batch: int) -> Tensor:
        """Releases of test records, in the same phases."""
        return self._split(features, "test", *self._phase(epoch), batch)

    def batches(self, path: str, records: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """The batches that the run releases: an epoch of each phase, and the sizes that occur in it.

        Args:
            path: ``training`` or ``evaluation``.
            records: In the split.
            shape: Shape of one record's release.

        Returns:
            ``(epoch, size)`` as ``training`` and ``evaluation`` take them, each once, large sizes first.
        """
        schedule, found = self.config.schedule, []
        for epoch in (0, schedule.joint_epochs):
            phase, _ = self._phase(epoch)
            if not getattr(schedule, f"{phase}_epochs"):
                continue
            stepped = phase == "joint" and path == "training"
            sizes = self._steps(records) if stepped else batch_sizes(records, rows_of(shape))
            found += [(epoch, size) for size in sorted(sizes, reverse=True)]
        return list(dict.fromkeys(found))

    def _steps(self, records: int) -> set[int]:
        """Sizes of the batches that a joint epoch sanitizes; under DP-SGD a step may take several."""
        sizes = batch_sizes(records, self.config.training.batch_size)
        if (chosen := self.config.edge.dp_sgd) is None:
            return sizes
        most = chosen.physical_batch_size
        parts = [np.array_split(np.arange(size), math.ceil(size / most)) for size in sizes]
        return {len(part) for split in parts for part in split}

    def _phase(self, epoch: int) -> tuple[str, int]:
        joint = self.config.schedule.joint_epochs
        return ("joint", epoch) if epoch < joint else ("cloud", epoch - joint)

    def _joint(self, features: Tensor, epoch: int, batch: int) -> Tensor:
        """What a joint training step releases (``EdgeTrainer.step``, then ``Releaser.send``)."""
        releaser = Releaser(self.config, self.mechanism, self._ledger(), run_id="audit")
        records = np.arange(len(features), dtype=np.int64)
        releaser.charge("train", "joint", epoch, len(records))
        noise = releaser.noise("train", "joint", epoch, batch)
        release = self.mechanism.sanitize(features.float(), noise, self.code)
        collector = Collector()
        uplink = LocalUplink(collector.receive)
        releaser.send(uplink, "train", "joint", epoch, batch, records, release, stand_in(len(records)))
        return torch.from_numpy(collector.payload())

    def _split(self, features: Tensor, split: str, phase: str, epoch: int, batch: int) -> Tensor:
        """What ``Releaser.release_split`` releases, batches numbered from ``batch`` times 32."""
        releaser = _Later(self.config, self.mechanism, self._ledger(), run_id="audit")
        releaser.first = batch * _STRIDE
        collector = Collector()
        releaser.release_split(
            LocalUplink(collector.receive),
            cast(EdgeSegment, GivenFeatures(features, self.code)),
            stand_in(len(features)),
            split,
            phase,
            epoch,
            device=_CPU,
            with_labels=split == "train",
        )
        order = np.argsort(np.concatenate(collector.records))  # training records go in a shuffled order
        return torch.from_numpy(collector.payload()[order])


def batch_sizes(records: int, most: int) -> set[int]:
    """The sizes that occur among the batches of a split."""
    return {len(batch) for batch in ordered_batches(np.arange(records), most)} if records else set()


class _Later(Releaser):
    """The run's releaser, with batches numbered from ``first``: every call draws its own noise."""

    first = 0

    def noise(self, split: str, phase: str, epoch: int, batch: int) -> NoiseSource:
        return super().noise(split, phase, epoch, self.first + batch)


class GivenFeatures(nn.Module):
    """An edge whose features of image k are row k; the images spell k in their three bytes.

    Args:
        features: ``(n, *shape)``.
        code: The edge's letters, where it releases any.
    """

    def __init__(self, features: Tensor, code: LetterCode | None) -> None:
        super().__init__()
        self._rows, self.codebook = features, code
        self.release_shape = tuple(features.shape[1:]) if code is None else (code.groups,)

    def features(self, x: Tensor) -> Tensor:
        """The rows that images name, ``(B, *shape)``."""
        digits = ((x[:, :, 0, 0] + 1) * 127.5).round().long()
        return self._rows[digits @ torch.tensor([1, 256, 65536])]


def stand_in(count: int) -> TrainingData:
    """``count`` images that spell their own numbers."""
    numbers: IntArray = np.arange(count, dtype=np.int64)
    digits = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=1)
    labels = torch.zeros(count, 1, dtype=torch.int64)
    return TrainingData(
        images=digits.astype(np.uint8)[:, :, None, None],
        task=labels,
        sensitive=labels,
        task_classes={"task": 2},
        sensitive_classes={"sensitive": 2},
        splits=Splits(train=numbers, val=numbers, aux=numbers, test=numbers),
    )
