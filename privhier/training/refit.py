"""Exits trained anew on what an edge releases, when what it releases was changed under them."""

from __future__ import annotations

import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.defenses.base import classification_loss
from privhier.models.edge import EdgeSegment
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng
from privhier.training.batches import TrainingData, shuffled_batches
from privhier.training.draws import EdgeDraws
from privhier.training.edge import sanitized
from privhier.training.optimize import build_optimizer

_EPOCHS = 10
"""The exits are small, and what they are trained on stays what it is."""
_BATCH = 256


def fit_exits(
    config: RunConfig,
    data: TrainingData,
    edge: EdgeSegment,
    mechanism: ReleaseMechanism,
    draws: EdgeDraws,
    z: Tensor,
    *,
    name: str = "code",
) -> None:
    """Train all exits on releases of the training records that stay on the edge, its rest held as it is.

    Args:
        config: The run.
        data: What the edge owns.
        edge: On ``device``, its letters found where it releases any.
        mechanism: What sanitizes its features.
        draws: Of noise that stays on the edge.
        z: Features ``(n, *feature_shape)`` of the training records, in order, on the device.
        name: Of the streams that order and noise are drawn from.
    """
    train = data.splits.train
    row_of = torch.full((int(train.max()) + 1,), -1)
    row_of[torch.from_numpy(train)] = torch.arange(len(train))
    exits = [*edge.task_exits.parameters(), *edge.adversarial_exits.parameters()]
    optimizer = build_optimizer(exits, config.training.edge)
    was_training = edge.training
    edge.train()
    with isolated_rng(draws.layers_seed(), "dropout", name):
        for epoch in range(_EPOCHS):
            for records in shuffled_batches(train, _BATCH, config.seed, name, epoch):
                noise = draws.noise(name, epoch, 0, records)
                values = sanitized(edge, mechanism, z[row_of[torch.from_numpy(records)]], noise).values
                losses = classification_loss(
                    [*edge.task_logits(values), *edge.adversary_logits(values)],
                    [
                        *data.task[records].to(z.device).unbind(1),
                        *data.sensitive[records].to(z.device).unbind(1),
                    ],
                )
                optimizer.zero_grad(set_to_none=True)
                losses.mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    edge.train(was_training)
