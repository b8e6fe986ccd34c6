"""A DP-SGD step of the edge against Opacus' minimal loop, by hooks and by ghost clipping, and JAX Privacy's.

The same edge (small_cnn or ResNet-18, eight values, two exits), the same batches in the same order, the same
loss of a record: both exits' cross-entropy on clipped and noised features. What ours does beyond a step is in
its time: the release that only a mechanism can make, noise from a named stream, and the checks that nothing
else moved the edge's parameters. Ends are compared without noise on the batches trained on. DP-SGD's noise is
drawn by everybody, but small, so that everybody ends at the same loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Contender, Outcome, Report, Row, Rule, compare, digest
from pages import versions_of
from scene import CPU, digest_of, drawn_faces
from torch import Tensor, nn
from torch.nn import functional

from privhier.config import RunConfig, parse_config
from privhier.datasets.base import Splits
from privhier.defenses.base import build_defense
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.privacy.noise import SeededNoise
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.batches import TrainingData
from privhier.training.prepare import build_mechanism
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trained import build_model

SIZE, BATCH, RECORDS, STEPS = 32, 32, 128, 5
LR, NOISE, SIGMA, CLIP = 0.05, 1e-3, 0.05, 1.0
NETWORKS = (("small_cnn", "stage2"), ("resnet18", "layer1"))
WITHIN = 0.02
WANTED = 1 / 1.05
"""A step of ours at most 1.05 of the minimal loop's."""


def config_for(backbone: str, cut: str, mode: str) -> RunConfig:
    return parse_config(
        {
            "name": "peers",
            "dataset": {"name": "synthetic", "image_size": SIZE, "task": ["smiling"], "sensitive": ["male"]},
            "model": {"backbone": backbone, "cut": cut, "bottleneck": {"kind": "dimension", "size": 8}},
            "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
            "release": {"mechanism": "gaussian", "sigma": SIGMA, "clip": CLIP},
            "defense": {"name": "none"},
            "edge": {"dp_sgd": {"noise_multiplier": NOISE, "mode": mode, "max_grad_norm": 1.0}},
            "training": {
                "batch_size": BATCH,
                "edge": {"name": "sgd", "lr": LR, "schedule": "constant", "weight_decay": 0.0},
                "augment": {"flip": False, "shift": 0},
            },
        }
    )


def training_data() -> TrainingData:
    """Drawn faces with labels that can be learned: bright or not, reddish or not."""
    images = drawn_faces(RECORDS, SIZE)
    bright = images.mean(axis=(1, 2, 3))
    red = images[:, 0].mean(axis=(1, 2)) - images[:, 2].mean(axis=(1, 2))
    everyone = np.arange(RECORDS)

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy((values > np.median(values)).astype(np.int64))[:, None]

    return TrainingData(
        images=images,
        task=column(bright),
        sensitive=column(red),
        task_classes={"smiling": 2},
        sensitive_classes={"male": 2},
        splits=Splits(everyone, everyone[:0], everyone[:0], everyone[:0]),
    )


def batches() -> list[np.ndarray]:
    """Rows of every step, the first of them untimed."""
    return [np.arange(step * BATCH, (step + 1) * BATCH) % RECORDS for step in range(STEPS + 1)]


class Whole(nn.Module):
    """The edge as one network: uint8 images to both exits' logits side by side ``(B, 4)``."""

    def __init__(self, edge: EdgeSegment, sigma: float) -> None:
        super().__init__()
        self.edge, self.sigma = edge, sigma

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        z = self.edge.features(normalize(images))
        z = z * (CLIP / z.norm(dim=1, keepdim=True).clamp_min(CLIP))
        z = z + self.sigma * torch.randn_like(z)
        return torch.cat([*self.edge.task_logits(z), *self.edge.adversary_logits(z.detach())], dim=1)


class Both(nn.Module):
    """Both exits' cross-entropy against labels ``(B, 2)``; ``reduction`` as torch's losses have it."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        task = functional.cross_entropy(logits[:, :2], labels[:, 0], reduction="none")
        losses = task + functional.cross_entropy(logits[:, 2:], labels[:, 1], reduction="none")
        return losses.mean() if self.reduction == "mean" else losses


@torch.no_grad()
def loss_of(edge: EdgeSegment, data: TrainingData) -> float:
    """Of all records, without noise."""
    labels = torch.cat([data.task, data.sensitive], dim=1)
    return float(Both()(Whole(edge, 0.0)(torch.from_numpy(data.images)), labels))


def _fresh(config: RunConfig, data: TrainingData) -> EdgeSegment:
    edge, _ = build_model(config, data)
    edge.train()
    return edge


def _outcome(edge: EdgeSegment, data: TrainingData, network: str) -> Outcome:
    return Outcome(network, digest([data.images, *batches()]), loss_of(edge, data), STEPS)


def ours(config: RunConfig, data: TrainingData) -> Contender:
    """Our trainer's steps."""

    def start() -> Callable[[], Report]:
        edge = _fresh(config, data)
        network, mechanism = digest_of(edge), build_mechanism(config, RECORDS)
        trainer = PrivateEdgeTrainer(
            config, edge, build_defense(config.defense), mechanism, n_train=RECORDS, device=CPU
        )
        augmentation = torch_stream(0, "augment")

        def step(number: int, rows: np.ndarray) -> None:
            trainer.step(data, rows, SeededNoise(0, "peers", number), augmentation=augmentation)

        first, *rest = batches()
        step(0, first)

        def work() -> Report:
            for number, rows in enumerate(rest, start=1):
                step(number, rows)
            return lambda: _outcome(edge, data, network)

        return work

    return Contender("ours", start)


def opacus_loop(config: RunConfig, data: TrainingData, mode: str) -> Contender:
    """Opacus' engine around the same edge, and the shortest loop that its users write."""

    def start() -> Callable[[], Report]:
        edge = _fresh(config, data)
        network = digest_of(edge)
        with isolated_rng(0, "peers", "opacus"):
            step = _opacus_step(edge, data, mode)
            first, *rest = [_batch(data, rows) for rows in batches()]
            step(*first)

        def work() -> Report:
            for images, labels in rest:
                step(images, labels)
            return lambda: _outcome(edge, data, network)

        return work

    return Contender(f"Opacus, minimal loop, {mode}", start)


def _batch(data: TrainingData, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    return data.pixels(rows), torch.cat([data.task[rows], data.sensitive[rows]], dim=1)


def _opacus_step(edge: EdgeSegment, data: TrainingData, mode: str) -> Callable[[Tensor, Tensor], None]:
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    whole = Whole(edge, SIGMA)
    optimizer: Any = torch.optim.SGD(whole.parameters(), lr=LR, momentum=0.9)
    loader: DataLoader[Any] = DataLoader(TensorDataset(data.task), batch_size=BATCH)  # for its length
    criterion: Any = Both()
    made = PrivacyEngine().make_private(
        module=whole,
        optimizer=optimizer,
        criterion=criterion,
        data_loader=loader,
        noise_multiplier=NOISE,
        max_grad_norm=1.0,
        poisson_sampling=False,
        grad_sample_mode=mode,
    )
    module, optimizer = made[0], made[1]
    if mode == "ghost":
        criterion = made[2]

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        criterion(module(images), labels).backward()
        optimizer.step()

    return step


@contextmanager
def one_core() -> Iterator[None]:
    """XLA counts cores, not ``OMP_NUM_THREADS``: everybody gets one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Row]:
    """Every network, every peer; ours by the mode that it is held against, by hooks against JAX Privacy."""
    data = training_data()
    with one_core():
        for backbone, cut in NETWORKS:
            what = f"DP-SGD step, {backbone} cut after {cut}, {BATCH} images of {SIZE}x{SIZE}"
            rule = Rule(within=WITHIN)
            for mode in ("hooks", "ghost"):
                config = config_for(backbone, cut, mode)
                yield compare(
                    f"{what}, by {mode}",
                    ours(config, data),
                    opacus_loop(config, data, mode),
                    versions=versions_of("opacus"),
                    unit="seconds a step",
                    pairs=pairs,
                    rule=rule,
                    wanted=WANTED,
                )
            if backbone != "small_cnn":
                skip(f"{what}: JAX Privacy: the network is written out in JAX for small_cnn alone")
                continue
            try:
                from in_jax import jax_loop
            except ModuleNotFoundError as error:
                skip(f"{what}: JAX Privacy: {error.name} is not installed (make peers)")
                continue
            config = config_for(backbone, cut, "hooks")
            yield compare(
                f"{what}, ours by hooks",
                ours(config, data),
                jax_loop(config, data),
                versions=versions_of("jax-privacy", "jax", "jaxlib", "optax"),
                unit="seconds a step",
                pairs=pairs,
                rule=rule,
            )
