"""The run's own training on records an attacker holds, and a network's parts as an attacker asks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, ImageArray, IntArray, Splits
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.tail import CloudTail
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData
from privhier.training.cloud import cloud_logits
from privhier.training.edge import edge_exit_logits
from privhier.training.folder import RunFolder
from privhier.training.trainer import Trainer

Part = Literal["edge_weights", "task_exit", "tail"]
PARTS: tuple[Part, ...] = get_args(Part)
_BLOCK = 512
"""Records whose features are in memory at once."""


@dataclass(frozen=True)
class NetworkPart:
    """One part of a trained network, asked for its task logits.

    Attributes:
        part: ``edge_weights``: the task exits on clipped, noiseless features; ``task_exit``: the task
            exits on a fresh release; ``tail``: the cloud tail on a fresh release.
        edge: In evaluation mode, on ``device``.
        tail: In evaluation mode, on ``device``.
        mechanism: What makes a release.
        seed: Of the noise, which belongs to the attacker: one stream for every part and query.
        device: Where to compute.
    """

    part: Part
    edge: EdgeSegment
    tail: CloudTail
    mechanism: ReleaseMechanism
    seed: int
    device: str

    def __call__(self, images: ImageArray, query: int) -> tuple[FloatArray, ...]:
        """Logits float32 ``(m, K)`` for each task, of images uint8 ``(m, 3, H, W)``."""
        return Network({self.part: self}).together(images, query)[self.part]

    def logits(self, z: Tensor, start: int, query: int) -> list[FloatArray]:
        """Logits float32 ``(b, K)`` for each task, from features ``z`` of the images from ``start`` on."""
        device, code = torch.device(self.device), self.edge.codebook
        if self.part == "edge_weights":
            z = self.mechanism.clip_features(z) if code is None else code.values_of(code.letters_of(z))
        else:
            noise = SeededNoise(self.seed, "membership", self.part, query, start)
            release = self.mechanism.sanitize(z, noise, code)
            z = release.letters if self.part == "tail" and release.letters is not None else release.values
        if self.part == "tail":
            logits = cloud_logits(self.tail, z.numpy(), device=device)
        else:
            logits = edge_exit_logits(self.edge, z, device=device)
        return [task.float().numpy() for task in logits]


class Network(dict[str, NetworkPart]):
    """Parts of one network by name; asked together, they share one pass through its edge."""

    def together(self, images: ImageArray, query: int) -> dict[str, tuple[FloatArray, ...]]:
        """What each part says of images uint8 ``(m, 3, H, W)``: what it says alone; see ``NetworkPart``."""
        blocks: dict[str, list[list[FloatArray]]] = {name: [] for name in self}
        one = next(iter(self.values()))
        for start in range(0, len(images), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(images)))
            z = edge_features(one.edge, images, rows, device=torch.device(one.device))
            for name, part in self.items():
                blocks[name].append(part.logits(z, start, query))
        return {
            name: tuple(np.concatenate(task) for task in zip(*said, strict=True))
            for name, said in blocks.items()
        }


def network_parts(
    edge: EdgeSegment, tail: CloudTail, mechanism: ReleaseMechanism, *, seed: int, device: str
) -> Network:
    """Every part of a network by name."""
    return Network({part: NetworkPart(part, edge, tail, mechanism, seed, device) for part in PARTS})


@dataclass(frozen=True)
class ShadowTrainer:
    """Trains the run's network anew on rows of a pool, by the run's own trainer, in a temporary folder.

    Initialization, order, augmentation and noise are fresh for every seed; DP-SGD, defense, release
    mechanism and schedule are the run's. It holds nothing that depends on who was trained on, and can
    be pickled.

    Attributes:
        config: The run.
        images: uint8 ``(N, 3, H, W)``, the pool.
        task: int64 ``(N, tasks)``.
        sensitive: int64 ``(N, attributes)``, of everyone.
        task_classes: Task attribute to its number of classes, in column order.
        sensitive_classes: Sensitive attribute to its number of classes, in column order.
        mechanism: The run's; where its clip bound was drawn as a quantile, a shadow model draws its own.
        device: Where to compute.
        persons: int64 ``(N,)``, one number a person, -1 where not known; None where nobody is.
    """

    config: RunConfig
    images: ImageArray
    task: IntArray
    sensitive: IntArray
    task_classes: Mapping[str, int]
    sensitive_classes: Mapping[str, int]
    mechanism: ReleaseMechanism
    device: str
    persons: IntArray | None = None

    def __call__(self, rows: IntArray, seed: int) -> Network:
        """The parts of a network trained on ``rows`` of the pool.

        Raises:
            ConfigError: Too few rows for the run's batch size under DP-SGD.
        """
        # Noise from a seed has the same distribution, and the attacker's models need not be secret.
        privacy = self.config.privacy.model_copy(update={"noise_source": "seeded"})
        config = self.config.model_copy(update={"seed": seed, "privacy": privacy})
        with TemporaryDirectory() as folder:
            trained = Trainer(
                config,
                self._data(rows),
                self.mechanism,
                RunFolder(Path(folder)),
                device=torch.device(self.device),
                keep=rows[:1],
            ).run(resumable=False)  # what is kept of it is what it says, once it is trained
            edge, tail = trained.edge.to(self.device), trained.tail.to(self.device)
            return network_parts(edge, tail, trained.mechanism, seed=seed, device=self.device)

    def _data(self, rows: IntArray) -> TrainingData:
        sensitive, classes = self.sensitive.copy(), dict(self.sensitive_classes)
        if "identity" in classes and self.config.dataset.identity_protocol == "unknown_people":
            # The run's identity exit knows its own training people, so a shadow model's knows its own.
            column = list(classes).index("identity")
            people, code = np.unique(sensitive[rows, column], return_inverse=True)
            sensitive[:, column] = -1
            sensitive[rows, column] = code
            classes["identity"] = max(2, len(people))
        # The trainer scores and releases validation and test records; for nobody here, so a few will do.
        few = [np.unique(column, return_index=True)[1] for column in self.task.T]
        val = np.unique(np.concatenate(few)).astype(np.int64)
        none = np.zeros(0, dtype=np.int64)
        return TrainingData(
            images=self.images,
            task=torch.from_numpy(self.task),
            sensitive=torch.from_numpy(sensitive),
            task_classes=self.task_classes,
            sensitive_classes=classes,
            splits=Splits(train=rows, val=val, aux=none, test=rows[:1]),
            persons=None if self.persons is None else torch.from_numpy(self.persons),
        )
