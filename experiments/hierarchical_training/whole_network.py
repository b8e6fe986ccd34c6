"""The same network as a run's, uncut: trunk, bottleneck, expander and tail, trained end to end on images.

Cloud training on images, training on the edge alone and (cut in two again) split learning all train this
network, with the run's own batches, augmentation, loss and optimizer. The early exits have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from torch import Tensor, nn

from privhier.config import RunConfig, load_config
from privhier.datasets.load import load_dataset
from privhier.models.inputs import augment, normalize
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.privacy.noise import NoiseSource
from privhier.seeding import torch_stream
from privhier.training.batches import TrainingData
from privhier.training.cloud import mean_task_loss
from privhier.training.optimize import build_optimizer, learning_rate, set_learning_rate
from privhier.training.prepare import prepare

WIDE = ("model.bottleneck.kind=none", "model.bottleneck.size=null")
"""Overrides that take the bottleneck away: the whole feature map is released."""


@dataclass(frozen=True)
class Facts:
    """What a cloud that holds no data has to be told before it can build the network."""

    image_size: int
    task_classes: Mapping[str, int]
    n_train: int


def halves(config: RunConfig, facts: Facts) -> tuple[nn.Sequential, CloudTail]:
    """``(trunk + bottleneck, expander + tail)`` with the very weights a run of ``config`` starts from."""
    edge, tail = build_network(
        config.model,
        image_size=facts.image_size,
        task_classes=facts.task_classes,
        sensitive_classes={},
        seed=config.seed,
    )
    return nn.Sequential(edge.trunk, edge.bottleneck), tail


class WholeNetwork(nn.Module):
    """Normalized images ``(B, 3, S, S)`` to one ``(B, K)`` of logits per task."""

    def __init__(self, config: RunConfig, facts: Facts) -> None:
        super().__init__()
        self.front, self.tail = halves(config, facts)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        logits: list[Tensor] = self.tail(self.front(images))
        return logits


class WholeTrainer:
    """Trains a whole network as the cloud's half of a run is trained.

    Args:
        config: The run; its ``training.cloud`` optimizer trains everything.
        facts: Image size, classes and number of training records.
        total_steps: Optimizer steps of the whole schedule.
        device: Where to compute.
    """

    def __init__(self, config: RunConfig, facts: Facts, *, total_steps: int, device: torch.device) -> None:
        self.network = WholeNetwork(config, facts).to(device)
        self.device, self.total_steps, self.steps = device, total_steps, 0
        self._training, self._bfloat16 = config.training, config.runtime.precision == "bfloat16"
        self._optimizer = build_optimizer(self.network.parameters(), config.training.cloud)

    def step(self, pixels: Tensor, labels: Tensor, augmentation: torch.Generator | NoiseSource) -> Tensor:
        """One step on uint8 ``(B, 3, S, S)`` with labels int64 ``(B, n_tasks)``; returns the loss."""
        options = self._training.augment
        moved = augment(pixels, options.flip, options.shift, augmentation)
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits = self.network(normalize(moved.to(self.device)))
        loss = mean_task_loss(logits, labels.to(self.device))
        set_learning_rate(self._optimizer, learning_rate(self._training.cloud, self.steps, self.total_steps))
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.steps += 1
        return loss.detach()


def augmentation_stream(config: RunConfig, epoch: int) -> torch.Generator:
    """A stream for the augmentation of one epoch of images that come without record numbers."""
    return torch_stream(config.seed, "augment", "joint", epoch)


def load_data(config: RunConfig) -> tuple[TrainingData, Facts]:
    """Images, labels and splits as the run sees them, and what may be told of them."""
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    return data, Facts(data.image_size, dict(data.task_classes), len(data.splits.train))


def study_config(path: str, overrides: list[str], *, wide: bool) -> RunConfig:
    """A configuration of this study; ``wide`` without its bottleneck."""
    return load_config(path, [*overrides, *(WIDE if wide else ())])
