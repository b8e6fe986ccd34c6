"""One training loop for the neural attackers, its cost counted and its best epoch kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.view import FloatArray
from privhier.errors import TrainingError

_HUGE = 1e12
"""Size of a weight that no training on normalized features arrives at."""


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass of one record, convolutions and linear layers only.

    Costs are counted, not timed: a time budget would make results depend on the machine's load.
    """
    total = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        positions = output.numel() // output.shape[0] // output.shape[1]
        total += weight.numel() * positions

    handles = [
        m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    training = network.training
    network.eval()
    with torch.no_grad():
        network(example)
    network.train(training)
    for handle in handles:
        handle.remove()
    return total


def affordable_epochs(network: nn.Module, example: Tensor, records: int, epochs: int, max_gmacs: int) -> int:
    """Epochs that keep forward passes under ``max_gmacs`` billion multiply-accumulates; at least 3."""
    per_epoch = count_macs(network, example) * records / 1e9
    return max(min(epochs, 3), min(epochs, int(max_gmacs / max(per_epoch, 1e-9))))


@dataclass(frozen=True)
class FitPlan:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training records, each on a fresh draw.
        batch: Records a step.
        learning_rate: Peak of AdamW's rate: linear warm-up over a tenth, then cosine to zero.
        weight_decay: AdamW's decoupled decay.
        patience: Epochs without a better validation score before stopping.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    patience: int


def fit(
    network: nn.Module,
    plan: FitPlan,
    *,
    records: int,
    loss: Callable[[int, Tensor], Tensor],
    score: Callable[[], float],
    generator: torch.Generator,
) -> tuple[float, int]:
    """Train in place; keep the weights of the epoch with the best score on the attacker's own validation.

    Args:
        network: Trained and left in eval mode.
        plan: See ``FitPlan``.
        records: Number of training records.
        loss: ``loss(epoch, positions)`` of one batch; positions int64 on the CPU in ``0..records-1``.
        score: Higher is better; called after every epoch with the network in eval mode.
        generator: CPU generator that shuffles.

    Returns:
        The best score and its epoch, counted from 1.

    Raises:
        TrainingError: Loss or weights left what can be computed with before any epoch had a score: an
            untrained network must not stand for an attacker. Later, the best epoch counts.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    batch = min(plan.batch, records)
    steps = max(1, records // batch)
    total = steps * plan.epochs
    warm = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) + 1e-3),
    )
    best, best_epoch, state = -math.inf, 0, copy.deepcopy(network.state_dict())
    for epoch in range(plan.epochs):
        network.train()
        order = torch.randperm(records, generator=generator)
        for step in range(steps):
            optimizer.zero_grad()
            value = loss(epoch, order[step * batch : (step + 1) * batch])
            if not bool(value.detach().isfinite()):
                break
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        network.eval()
        if not (bool(value.detach().isfinite()) and _sane(network)):
            if best_epoch == 0:
                raise TrainingError(
                    key="learning_rate",
                    value=plan.learning_rate,
                    rule=f"an attacker's training exploded in its epoch {epoch + 1}",
                    remedy="Lower the learning rate of this attack, or leave its options out",
                )
            break
        reached = score()
        if reached > best:
            best, best_epoch, state = reached, epoch + 1, copy.deepcopy(network.state_dict())
        elif epoch + 1 - best_epoch >= plan.patience:
            break
    network.load_state_dict(state)
    network.eval()
    return best, best_epoch


def _sane(network: nn.Module) -> bool:
    """Whether every weight is a number that products of some layers stay finite with."""
    return all(
        float(weight.detach().abs().max()) < _HUGE for weight in network.parameters() if weight.numel()
    )


def take(rows: FloatArray, positions: Any, device: str) -> Tensor:
    """A batch of rows as a float32 tensor; a copy, so read-only arrays stay as they are."""
    return torch.from_numpy(np.ascontiguousarray(rows[np.asarray(positions)], dtype=np.float32)).to(device)


@torch.no_grad()
def apply_in_blocks(
    network: Callable[[Tensor], Tensor], rows: FloatArray, device: str, block: int = 256
) -> Tensor:
    """``network`` over rows in blocks, concatenated on the CPU."""
    outputs = [
        network(take(rows, np.arange(start, min(start + block, len(rows))), device)).cpu()
        for start in range(0, len(rows), block)
    ]
    return torch.cat(outputs)


def class_probabilities(network: Callable[[Tensor], Tensor], rows: FloatArray, device: str) -> FloatArray:
    """float32 (n, K) softmax of the network's logits over rows (n, ...)."""
    logits = apply_in_blocks(network, rows, device)
    return np.asarray(torch.softmax(logits.double(), dim=1).numpy(), dtype=np.float32)
