"""Operations and memory of a training step, counted: the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from privhier.config import OptimizerConfig, RunConfig
from privhier.defenses.base import build_defense
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.models.tail import CloudTail
from privhier.planner.timing import TimingJob, made_up_data
from privhier.privacy.dpsgd import FASTEST
from privhier.privacy.noise import SeededNoise
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.cloud import mean_task_loss
from privhier.training.edge import EdgeTrainer
from privhier.training.prepare import build_mechanism

_RECORDS = 8
"""Counted at a time: everything counted grows with the batch."""
_BYTES = 4
"""Of a float32 value."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Memory:
    """What training keeps in memory, in bytes; passing buffers of single layers are not counted.

    Attributes:
        parameters: Weights and buffers.
        gradients: One value a weight; under DP-SGD with hooks one more for every record at a time.
        optimizer: Its state: two values a weight (Adam), one (SGD with momentum) or none.
        activations: Kept from the forward pass for the backward pass of one batch.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Count:
    """Of one network.

    Attributes:
        forward: Floating-point operations of the forward pass of one image (a multiply-accumulate is two).
        step: The same of a whole training step, its share for one image; optimizers are not counted.
        memory: While training on batches of the configured size.
    """

    forward: float
    step: float
    memory: Memory


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in ``work()``."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def saved_bytes(work: Callable[[], object], *modules: nn.Module) -> int:
    """Bytes that autograd keeps of ``work()`` for its backward pass: each storage once, and not the weights
    and buffers of ``modules``.
    """
    held = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    known = {tensor.untyped_storage().data_ptr() for tensor in held}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()  # its graph must live until the storages are summed up
    total = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in known)
    del result
    return total


def count_edge(job: TimingJob, edge: EdgeSegment) -> Count:
    """The edge segment, trained as ``EdgeTrainer`` does: exits, defense and adversary steps included."""
    config = job.for_timing
    data = made_up_data(job, _RECORDS, 1)
    with isolated_rng(config.seed, "init", "defense"):
        defense = build_defense(config.defense)
    trainer = EdgeTrainer(
        config, edge, defense, build_mechanism(config, _RECORDS), total_steps=1, device=_CPU
    )
    records, generator = data.splits.train, torch_stream(config.seed, "timing", "count")
    images = normalize(data.pixels(records))

    def noise() -> SeededNoise:
        return SeededNoise(config.seed, "timing", "count")

    with torch.no_grad():
        forward = count_operations(lambda: edge.features(images))
    kept = saved_bytes(
        lambda: defense.loss(trainer.look(data, records, noise(), augmentation=generator)), edge, defense
    )
    step = count_operations(lambda: trainer.step(data, records, noise(), augmentation=generator))
    at_a_time = _records_at_a_time(config)
    memory = _memory((edge, defense), config.training.edge, kept, config.training.batch_size, at_a_time)
    return Count(forward / _RECORDS, step / _RECORDS, memory)


def count_cloud(job: TimingJob, tail: CloudTail, shape: tuple[int, ...]) -> Count:
    """The cloud tail on releases of ``shape``."""
    config, data = job.for_timing, made_up_data(job, _RECORDS, 1)
    payload, labels = torch.zeros(_RECORDS, *shape), data.task[data.splits.train]

    def loss() -> Tensor:
        return mean_task_loss(tail(payload), labels)

    return _count((tail,), lambda: tail(payload), loss, config.training.cloud, config.training.batch_size)


def count_whole(job: TimingJob, edge: EdgeSegment, tail: CloudTail) -> Count:
    """The undivided network: ``edge`` without exits and ``tail`` as one (see ``whole_network``)."""
    config, data = job.for_timing, made_up_data(job, _RECORDS, 1)
    images, labels = normalize(data.pixels(data.splits.train)), data.task[data.splits.train]

    def forward() -> list[Tensor]:
        logits: list[Tensor] = tail(edge.features(images))
        return logits

    halves = (edge.trunk, edge.bottleneck, tail)
    return _count(
        halves,
        forward,
        lambda: mean_task_loss(forward(), labels),
        config.training.cloud,
        config.training.batch_size,
    )


def _count(
    modules: tuple[nn.Module, ...],
    forward: Callable[[], object],
    loss: Callable[[], Tensor],
    optimizer: OptimizerConfig,
    batch_size: int,
) -> Count:
    with torch.no_grad():
        once = count_operations(forward)
    kept = saved_bytes(loss, *modules)
    step = count_operations(lambda: loss().backward())  # type: ignore[no-untyped-call]
    return Count(once / _RECORDS, step / _RECORDS, _memory(modules, optimizer, kept, batch_size, 0))


def _memory(
    modules: Iterable[nn.Module], optimizer: OptimizerConfig, kept: int, batch_size: int, at_a_time: int
) -> Memory:
    """Of training ``modules`` in batches, where ``_RECORDS`` records keep ``kept`` bytes.

    Args:
        at_a_time: Records whose gradients are apart in memory at a time (DP-SGD with hooks), else 0.
    """
    weights = buffers = 0
    for module in modules:
        weights += sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)
        buffers += sum(tensor.numel() for tensor in module.buffers())
    states = 2 if optimizer.name == "adam" else int(optimizer.momentum > 0)
    return Memory(
        parameters=_BYTES * (weights + buffers),
        gradients=_BYTES * weights * (1 + at_a_time),
        optimizer=_BYTES * weights * states,
        activations=round(kept * (at_a_time or batch_size) / _RECORDS),
    )


def _records_at_a_time(config: RunConfig) -> int:
    private = config.edge.dp_sgd
    if private is None:
        return 0
    mode = FASTEST.get(config.model.backbone, "hooks") if private.mode == "auto" else private.mode
    return min(config.training.batch_size, private.physical_batch_size) if mode == "hooks" else 0
