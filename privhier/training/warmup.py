"""Warm-up: the edge learns its task before noise and penalties stand at full strength."""

from __future__ import annotations


def warmup(phase: str, epoch: int, epochs: int) -> float:
    """The share of noise and penalty at which an epoch trains: a public function of the schedule.

    Only pre-training is warmed up, where nothing leaves the edge: what is released is made under the noise
    that the ledger holds, by an edge that was trained against the whole penalty.

    Args:
        phase: Of the schedule.
        epoch: Of the phase, from 0.
        epochs: How many pre-training epochs warm up; 0: none.

    Returns:
        ``epoch / epochs`` in pre-training, from 0 up to 1; 1 in every other phase.

    Example:
        >>> [warmup("pretrain", epoch, 4) for epoch in range(6)], warmup("joint", 0, 4)
        ([0.0, 0.25, 0.5, 0.75, 1.0, 1.0], 1.0)
    """
    if phase != "pretrain" or epoch >= epochs:
        return 1.0
    return epoch / epochs
