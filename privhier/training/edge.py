"""The edge's training step: one forward, one per-sample loss, one backward, one release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.defenses.base import Defense, DefenseBatch
from privhier.errors import TrainingError
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import augment, normalize
from privhier.models.layout import pays, use_channels_last
from privhier.models.slices import in_slices, slice_size
from privhier.models.span import span
from privhier.privacy.noise import NoiseSource
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.seeding import isolated_rng
from privhier.training.batches import TrainingData, shuffled_batches
from privhier.training.compiled import compiled
from privhier.training.optimize import build_optimizer, learning_rate, set_learning_rate
from privhier.training.resident import Pixels
from privhier.training.warmup import warmup

REHEARSAL = ReleaseMechanism("none")
"""Stands in for letters until they are found: while the edge trains alone, nothing leaves it."""


class EdgeTrainer:
    """Owns the edge segment, its exits, the defense and their optimizer.

    The exits see sanitized features: they are trained through the very clip and noise a release gets.

    Args:
        config: The run.
        edge: The edge segment, on ``device``.
        defense: The defense, on ``device``; its parameters join the edge's optimizer.
        mechanism: How features are sanitized.
        total_steps: Optimizer steps of the whole schedule (learning-rate schedule).
    """

    def __init__(
        self,
        config: RunConfig,
        edge: EdgeSegment,
        defense: Defense,
        mechanism: ReleaseMechanism,
        *,
        total_steps: int,
        device: torch.device,
    ) -> None:
        self.edge, self.defense, self.mechanism, self.device = edge, defense, mechanism, device
        self.total_steps = total_steps
        self.steps = 0
        self.stepped = True
        """Whether the last batch ended in a step of the optimizer (under DP-SGD a batch may be split)."""
        self.share = 1.0
        """Of the noise that stays on the edge, and of the defense's weight; see ``warm_up``."""
        self._warmup_epochs = config.warmup_epochs
        self._seed = config.seed
        self._training = config.training
        self._bfloat16 = config.runtime.precision == "bfloat16"
        self._pixels: Pixels | None = None
        self._resident = config.runtime.resident
        self._slice: int | None = None
        self._forward: Callable[[Tensor], Tensor] = edge.features
        if config.edge.dp_sgd is None:  # Opacus wants one forward, and layers of its own
            self._lay_out(config)
        with isolated_rng(config.seed, "init", "defense", "attach"):
            defense.attach(edge)  # it may make parameters of the edge's shapes
        self.optimizer = build_optimizer([*edge.parameters(), *defense.parameters()], config.training.edge)
        self.adversary_optimizer = (
            build_optimizer(
                [*edge.adversarial_exits.parameters(), *defense.adversaries()], config.training.edge
            )
            if defense.adversary_steps
            else None
        )

    def warm_up(self, phase: str, epoch: int) -> None:
        """Called before every epoch: sets the share of noise and penalty at which it trains."""
        self.share = warmup(phase, epoch, self._warmup_epochs)

    def step(
        self,
        data: TrainingData,
        records: IntArray,
        noise: NoiseSource,
        *,
        augmentation: torch.Generator | NoiseSource,
    ) -> tuple[Release, Tensor]:
        """Train on one batch.

        Args:
            data: What the edge owns.
            records: Record numbers ``(B,)``.
            noise: Of the features, a row a record.
            augmentation: How images are moved, a row a record.

        Returns:
            The batch's release, the very one whose values the exits were trained on (a joint epoch sends
            it), and the mean loss.
        """
        images = self.images(data, records, augmentation)
        z = self.features(images)
        release = self.sanitized(z, noise)
        batch = self.batch(data, records, images, z, release)
        loss = (self.defense_loss(batch) + self.code_loss(z)).mean()
        rate = self.set_rate()
        self.optimizer.zero_grad(set_to_none=True)
        with span("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with span("optimizer"):
            self.optimizer.step()
        self._train_adversary(batch, rate)
        if self.defense.reads_data:
            with torch.no_grad(), isolated_rng(self._seed, "defense", "step", self.steps):
                self.defense.after_step(batch)
        self.steps += 1
        return release, loss.detach()

    def look(
        self,
        data: TrainingData,
        records: IntArray,
        noise: NoiseSource,
        *,
        augmentation: torch.Generator | NoiseSource,
    ) -> DefenseBatch:
        """What the defense sees of these records, still in the graph."""
        images = self.images(data, records, augmentation)
        z = self.features(images)
        return self.batch(data, records, images, z, self.sanitized(z, noise))

    def images(
        self, data: TrainingData, records: IntArray, augmentation: torch.Generator | NoiseSource
    ) -> Tensor:
        """These records' images as the edge sees them: float32 ``(B, 3, S, S)``, augmented and normalized."""
        options = self._training.augment
        if self._pixels is None:
            self._pixels = Pixels(data, self.device, self._resident)
        with span("indexing"):
            pixels = self._pixels.of(data, records)
        with span("augmentation"):
            pixels = augment(pixels, options.flip, options.shift, augmentation)
        with span("normalization"):
            return normalize(pixels)

    def features(self, images: Tensor) -> Tensor:
        """One forward through the edge: float32 ``(B, *feature_shape)``, in the graph, not sanitized."""
        with self._autocast(), span("forward"):
            z = in_slices(self._forward, images, self._slice)
        return z.float()

    def sanitized(self, z: Tensor, noise: NoiseSource) -> Release:
        """A release of features at this epoch's share of the noise; below 1 nobody takes it for the run's."""
        mechanism = self.mechanism
        if self.share < 1:  # pre-training: what it makes is sent nowhere
            mechanism = softened(mechanism, self.share)
        with span("release and noise"):
            return sanitized(self.edge, mechanism, z, noise)

    def batch(
        self, data: TrainingData, records: IntArray, images: Tensor, z: Tensor, release: Release
    ) -> DefenseBatch:
        """The release of these records, with their labels and what else the defense needs."""
        needs = self.defense.needs
        return DefenseBatch(
            z=release.values,
            task_labels=list(data.task[records].to(self.device).unbind(1)),
            sensitive_labels=list(data.sensitive[records].to(self.device).unbind(1)),
            edge=self.edge,
            strength=self.share,
            clipped=self.mechanism.clip_features(z) if "clipped" in needs else None,
            images=images if "images" in needs else None,
            persons=data.persons_of(records).to(self.device) if "persons" in needs else None,
            sigma=self.sigma,
        )

    @property
    def sigma(self) -> float:
        """Standard deviation of the release's Gaussian noise; 0 where there is none."""
        return self.mechanism.sigma if self.mechanism.mechanism == "gaussian" else 0.0

    def defense_loss(self, batch: DefenseBatch) -> Tensor:
        """One loss a record, ``(B,)``; raises ``TrainingError`` where the defense gives anything else."""
        with span("defense"):
            losses = self.defense.loss(batch)
        if not isinstance(losses, Tensor) or losses.shape != (len(batch.z),):
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise TrainingError(
                key="defense.name",
                value=type(self.defense).__name__,
                rule=f"must give one loss a record, ({len(batch.z)},), and gave {shape}",
                remedy="Return a tensor (B,) from its loss(); the training loop takes the mean",
            )
        return losses

    def code_loss(self, z: Tensor) -> Tensor | float:
        """What a learned code adds to the loss of each record, ``(B,)``, from its features; else 0."""
        code = self.edge.codebook
        return code.distortion(z) if code is not None and code.learned else 0.0

    def set_rate(self) -> float:
        """Write this step's learning rate into the optimizer and return it."""
        rate = learning_rate(self._training.edge, self.steps, self.total_steps)
        set_learning_rate(self.optimizer, rate)
        return rate

    def turn(self, phase: str) -> int:
        """Sets apart the times that a record is met in one epoch: here it is met once."""
        return 0

    def batches(self, records: IntArray, phase: str, epoch: int) -> Iterator[IntArray]:
        """The batches of one epoch: disjoint, and together all records."""
        return shuffled_batches(records, self._training.batch_size, self._seed, phase, epoch)

    def loaded(self, data: TrainingData, records: IntArray, phase: str, epoch: int) -> Iterator[IntArray]:
        """``batches``, whose pixels are read ahead of the training where they are not at hand."""
        if self._pixels is None:
            self._pixels = Pixels(data, self.device, self._resident)
        return self._pixels.batches(self.batches(records, phase, epoch))

    def _train_adversary(self, batch: DefenseBatch, rate: float) -> None:
        """Extra steps of the adversarial exits alone: the trunk gets no gradient from them."""
        if self.adversary_optimizer is None:
            return
        set_learning_rate(self.adversary_optimizer, rate)
        z = batch.z.detach()
        for _ in range(self.defense.adversary_steps):
            loss = self.defense.adversary_loss(z, batch).mean()
            self.adversary_optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.adversary_optimizer.step()

    def _lay_out(self, config: RunConfig) -> None:
        """Choose how the edge is computed: compiled, or in slices of maps laid out as is faster."""
        if config.runtime.compile:
            self._forward = compiled(self.edge.features)
            return
        if pays(config.runtime.channels_last, config.model.backbone, self.device):
            use_channels_last(self.edge.trunk)
        size = config.dataset.image_size
        self._slice = slice_size(self.edge.trunk, torch.zeros(1, 3, size, size, device=self.device))

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            yield


def sanitized(edge: EdgeSegment, mechanism: ReleaseMechanism, z: Tensor, noise: NoiseSource) -> Release:
    """A release of features ``(B, *feature_shape)`` of this edge.

    Before letters are found there are none to release: then what comes out are the bare features, as a
    release that no uplink and no ledger takes for one of the run's.
    """
    code = edge.codebook
    if mechanism.letters and code is None:
        return REHEARSAL.sanitize(z, noise)
    return mechanism.sanitize(z, noise, code)


def softened(mechanism: ReleaseMechanism, share: float) -> ReleaseMechanism:
    """The mechanism with this share of its noise, in [0, 1); letters are answered truly until it is whole."""
    if mechanism.letters:
        return replace(mechanism, mechanism="none", epsilon=0.0)
    return replace(mechanism, sigma=share * mechanism.sigma)


@torch.no_grad()
def edge_exit_logits(
    edge: EdgeSegment, z: Tensor, *, device: torch.device, batch_size: int = 1024
) -> list[Tensor]:
    """Task-exit logits ``(n, K)`` for each task, from sanitized features on the CPU."""
    was_training = edge.training
    edge.eval()
    parts = [edge.task_logits(chunk.to(device)) for chunk in torch.split(z, batch_size)]
    edge.train(was_training)
    return [torch.cat(columns).cpu() for columns in zip(*parts, strict=True)]
