"""The edge's training under DP-SGD: Poisson sampling alone, disjoint batches where the cloud sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor
from torch.utils.data import DataLoader

from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.defenses.base import Defense, DefenseBatch
from privhier.models.edge import EdgeSegment
from privhier.privacy.dpsgd import FASTEST, DpSgd, broken, no_draws
from privhier.privacy.events import StepEvent
from privhier.privacy.noise import NoiseSource, SeededNoise, SystemNoise
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.seeding import torch_stream
from privhier.training.batches import TrainingData, batch_count, shuffled_batches
from privhier.training.begun import Begun
from privhier.training.draws import EdgeDraws
from privhier.training.edge import EdgeTrainer
from privhier.training.private_plan import check_private, noise_multiplier, sampling_plan

_ALARM = 6.5
"""Standard errors of the participation test; by the normal law a false alarm has probability 1e-10."""


class PrivateEdgeTrainer(EdgeTrainer):
    """Trains the edge through Opacus and keeps the history of what was really executed.

    Args:
        config: The run, with ``edge.dp_sgd``.
        edge: The edge segment, on ``device``.
        defense: The defense; it may own no parameters and take no steps of its own.
        mechanism: How features are sanitized.
        n_train: Training records.
        device: Where to compute.
        dp_sgd: The mechanism; an audit puts its canaries in through a class of its own.
        begun: Where every epoch is entered before its first step; by default kept in memory only.

    Raises:
        ConfigError: The defense or the batch size cannot live under DP-SGD.
    """

    def __init__(
        self,
        config: RunConfig,
        edge: EdgeSegment,
        defense: Defense,
        mechanism: ReleaseMechanism,
        *,
        n_train: int,
        device: torch.device,
        dp_sgd: type[DpSgd] = DpSgd,
        begun: Begun | None = None,
    ) -> None:
        check_private(config, n_train, defense)
        rate, steps = sampling_plan(config, n_train)
        schedule, chosen = config.schedule, config.edge.dp_sgd
        assert chosen is not None
        joint_steps = batch_count(n_train, config.training.batch_size)
        total = steps * schedule.pretrain_epochs + joint_steps * schedule.joint_epochs
        super().__init__(config, edge, defense, mechanism, total_steps=total, device=device)
        check_private(config, n_train, defense)  # again: it has been attached since
        self._source, self._noise_seed = config.privacy.noise_source, config.noise_seed
        self._draws = EdgeDraws(config)
        self._rate, self._poisson_steps, self._joint_steps = rate, steps, joint_steps
        self._physical, self._n_train = chosen.physical_batch_size, n_train
        self.dp = dp_sgd(
            edge,
            self.optimizer,
            noise_multiplier=noise_multiplier(config, n_train),
            max_grad_norm=chosen.max_grad_norm,
            expected_batch_size=config.training.batch_size,
            mode=FASTEST.get(config.model.backbone, "hooks") if chosen.mode == "auto" else chosen.mode,
            source=SystemNoise() if config.privacy.noise_source == "system" else None,
        )
        self.optimizer = self.dp.optimizer
        self.taken = np.zeros(0, dtype=np.int64)
        """How often each record was drawn in pre-training, by position in the split."""
        self.executed: list[StepEvent] = []
        self.begun = begun or Begun(None)
        self._now = ("", 0)
        self._checked = False

    def event(self, phase: str, epoch: int) -> StepEvent:
        """What the ledger is charged for an epoch, before it begins."""
        steps = self._joint_steps if phase == "joint" else self._poisson_steps
        return self._event(phase, epoch, self._n_train, steps)

    def batches(self, records: IntArray, phase: str, epoch: int) -> Iterator[IntArray]:
        """Physical batches of one epoch; Opacus' batch memory manager joins them into logical ones.

        Pre-training: every record enters every step with probability batch size / n. Joint epochs:
        disjoint, every record once, as the cloud sees who shares a batch.
        """
        if phase == "joint":
            size = self._training.batch_size
            order = shuffled_batches(np.arange(len(records)), size, self._seed, phase, epoch)
            sampler: Any = [batch.tolist() for batch in order]
        else:
            sampler = self.poisson(records, phase, epoch)
        loader: DataLoader[Any] = DataLoader(
            range(len(records)),  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=lambda drawn: np.asarray(drawn, dtype=np.int64),
            generator=torch.Generator(),  # or torch would draw from the global one
        )
        self.begun.enter(phase, epoch)
        self.dp.begin()
        self._now = (phase, epoch)
        counts = np.zeros(len(records), dtype=np.int64)
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=self._physical, optimizer=self.dp.optimizer
        ) as physical:
            for drawn in physical:
                np.add.at(counts, drawn, 1)
                yield records[drawn]
        self._close(phase, epoch, counts)

    def loaded(self, data: TrainingData, records: IntArray, phase: str, epoch: int) -> Iterator[IntArray]:
        """``batches``, one at a time: the next one is told to the optimizer as it is drawn."""
        return self.batches(records, phase, epoch)

    def poisson(self, records: IntArray, phase: str, epoch: int) -> Iterator[list[int]]:
        """The logical batches of a pre-training epoch over ``records``, by position.

        Args:
            records: Record numbers of those that may be drawn.
            phase: Names the stream.
            epoch: Epoch of the phase.
        """
        if self._source == "system":
            return _secret_batches(len(records), self._rate, self._poisson_steps)
        return _keyed_batches(
            lambda step: self._draws.sampling(phase, epoch, step, records).uniform((len(records),)),
            self._rate,
            self._poisson_steps,
        )

    def turn(self, phase: str) -> int:
        """The logical step: in pre-training a record may enter several of an epoch."""
        return 0 if phase == "joint" else self.dp.steps

    def step(
        self,
        data: TrainingData,
        records: IntArray,
        noise: NoiseSource,
        *,
        augmentation: torch.Generator | NoiseSource,
    ) -> tuple[Release, Tensor]:
        """One physical batch, see ``EdgeTrainer.step``; the last of a logical batch takes the step."""
        if not self._checked:
            self._check(data)
        with no_draws(self.device):
            images = self.images(data, records, augmentation)
            z = self.features(images)
            release = self.sanitized(z, noise)
            _, losses = self._losses(data, records, images, z, release)
        self.set_rate()
        before = self.dp.steps
        stream = ("dp_sgd", *self._now, before)
        self.dp.descend(losses, torch_stream(self._noise_seed, *stream, device=self.device))
        self.steps += self.dp.steps - before
        self.stepped = self.dp.steps > before
        return release, losses.detach().sum() / max(len(losses), 1)

    def losses(
        self,
        data: TrainingData,
        records: IntArray,
        noise: NoiseSource,
        *,
        augmentation: torch.Generator | NoiseSource,
    ) -> tuple[DefenseBatch, Tensor]:
        """One forward: the batch, and the one loss of each of its records, ``(B,)``."""
        images = self.images(data, records, augmentation)
        z = self.features(images)
        return self._losses(data, records, images, z, self.sanitized(z, noise))

    def _losses(
        self, data: TrainingData, records: IntArray, images: Tensor, z: Tensor, release: Release
    ) -> tuple[DefenseBatch, Tensor]:
        batch = self.batch(data, records, images, z, release)
        return batch, self.defense_loss(batch) + self.code_loss(z)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside weights and optimizer: the executed history."""
        return {
            "taken": torch.from_numpy(self.taken),
            "executed": [vars(event) for event in self.executed],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put ``state`` back."""
        self.taken = state["taken"].numpy()
        self.executed = [StepEvent(**event) for event in state["executed"]]

    def _close(self, phase: str, epoch: int, counts: IntArray) -> None:
        """Enter the finished epoch into the executed history, as the optimizer counted it."""
        if phase == "joint" and not (counts == 1).all():
            raise broken(
                "batches",
                f"{int((counts != 1).sum())} records not drawn exactly once",
                "joint epochs must use disjoint batches that hold every record once",
            )
        done = self._event(phase, epoch, len(counts), self.dp.steps)
        if phase != "joint":
            self.taken = counts if not len(self.taken) else self.taken + counts
            # The rate that is charged, whatever the sampler was told.
            check_participation(self.taken, done.sample_rate, (epoch + 1) * self._poisson_steps)
        self.executed.append(done)

    def _event(self, phase: str, epoch: int, records: int, steps: int) -> StepEvent:
        """An epoch with the noise and the norm bound that the optimizer really uses."""
        joint, optimizer = phase == "joint", self.dp.optimizer
        return StepEvent(
            records=records,
            phase=phase,
            epoch=epoch,
            steps=steps,
            sampling="disjoint" if joint else "poisson",
            sample_rate=1.0 if joint else self._rate,
            noise_multiplier=optimizer.noise_multiplier,
            max_grad_norm=optimizer.max_grad_norm,
            noise_source=self._source,
        )

    def _check(self, data: TrainingData) -> None:
        """Per-record gradients against autograd, on three records, at the defense's full weight."""
        few = data.splits.train[:3]
        warm, self.share = self.share, 1.0
        low, self._bfloat16 = self._bfloat16, False  # what is looked for does not hide in last digits
        with no_draws(self.device):
            batch, losses = self._made_up(data, few)
            self._check_alone(batch, losses)
            with torch.no_grad():
                _, before = self._made_up(data, few)
                _, after = self._made_up(_others_changed(data, few), few)
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-5):
            raise broken(
                "loss",
                f"{before.tolist()}, with other labels on other records {after.tolist()}",
                "a record's loss must not depend on the labels of other records, in its batch or not",
            )
        self.dp.check(losses)
        self._checked, self.share, self._bfloat16 = True, warm, low

    def _made_up(self, data: TrainingData, records: IntArray) -> tuple[DefenseBatch, Tensor]:
        """The same noise and augmentation every time; nothing of it is trained on or released."""
        noise = SeededNoise(self._seed, "edge", "check")
        return self.losses(data, records, noise, augmentation=torch_stream(self._seed, "augment", "check"))

    def _check_alone(self, batch: DefenseBatch, losses: Tensor) -> None:
        with torch.no_grad():
            code = losses - self.defense_loss(batch)  # a learned code's part: of each record's features alone
            alone = (
                torch.cat([self.defense.loss(batch.part(slice(row, row + 1))) for row in range(len(losses))])
                + code
            )
        if not torch.allclose(alone, losses.detach(), rtol=1e-3, atol=1e-5):
            raise broken(
                "loss",
                f"{losses.tolist()} together, {alone.tolist()} alone",
                "a record's loss must not depend on the other records of its batch",
            )


def _keyed_batches(uniforms: Callable[[int], Tensor], rate: float, steps: int) -> Iterator[list[int]]:
    """Poisson sampling where each record has a stream of its own: nobody's turn depends on who else is there.

    Args:
        uniforms: The step's number to a uniform value for each record.
        rate: Probability of entering a step.
        steps: How many.
    """
    for step in range(steps):
        yield (uniforms(step) < rate).nonzero()[:, 0].tolist()


def _others_changed(data: TrainingData, kept: IntArray) -> TrainingData:
    """The same data with every known label moved on by one class, but for the records ``kept``."""

    def moved(labels: Tensor, classes: Iterable[int]) -> Tensor:
        after = torch.where(labels < 0, labels, (labels + 1) % torch.tensor(list(classes)))
        after[kept] = labels[kept]
        return after

    return replace(
        data,
        task=moved(data.task, data.task_classes.values()),
        sensitive=moved(data.sensitive, data.sensitive_classes.values()),
    )


def _secret_batches(n: int, rate: float, steps: int) -> Iterator[list[int]]:
    """Poisson sampling on the operating system's entropy: torch's generator holds 32 bits of a seed."""
    source = SystemNoise()
    for _ in range(steps):
        yield (source.uniform((n,)) < rate).nonzero()[:, 0].tolist()


def check_participation(taken: IntArray, rate: float, steps: int) -> None:
    """Raise unless the records were drawn as Poisson sampling draws: all alike, at the rate charged.

    Pearson's statistic of the counts, and their total, against Binomial(steps, rate).
    """
    n, mean, variance = len(taken), steps * rate, steps * rate * (1 - rate)
    spread = float(((taken - mean) ** 2).sum() / variance)
    deviation = (spread - n) / np.sqrt(n * (2 + (1 - 6 * rate * (1 - rate)) / variance))
    drift = float(taken.sum() - n * mean) / np.sqrt(n * variance)
    if max(abs(deviation), abs(drift)) > _ALARM:
        raise broken(
            "sampling",
            f"counts {deviation:+.1f}, total {drift:+.1f} standard errors off",
            "every record must enter every pre-training step with the one probability that was charged",
        )
