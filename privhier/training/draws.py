"""Where the edge's own training draws come from: augmentation, noise that stays on it, who is in a step.

A guarantee for adding or removing a record rests on this: what the *other* records draw must not depend on
whether that record is there. Under ``system`` every draw is fresh entropy that nobody else holds, so that
positions say nothing. Under ``seeded`` it is keyed by record number. Drawn by position from a public stream,
one record less would move the clipped gradients of all records after it.
"""

from __future__ import annotations

import os

from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.privacy.noise import NoiseSource, RecordNoise, SystemNoise


class EdgeDraws:
    """The sources of one edge's draws, a row a record.

    Args:
        config: The run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._secret = config.privacy.noise_source == "system"
        self._seed, self._noise_seed = config.seed, config.noise_seed

    def augmentation(self, phase: str, epoch: int, turn: int, records: IntArray) -> NoiseSource:
        """How each image of a batch is moved.

        Args:
            phase: Phase of the schedule.
            epoch: Epoch of the phase.
            turn: What sets apart the times a record is met in one epoch (``EdgeTrainer.turn``).
            records: Record numbers ``(B,)``.
        """
        return self._source(self._seed, "augment", phase, epoch, turn, records=records)

    def noise(self, phase: str, epoch: int, turn: int, records: IntArray) -> NoiseSource:
        """The noise of features that stay on the edge; arguments as for ``augmentation``."""
        return self._source(self._noise_seed, "edge", phase, epoch, turn, records=records)

    def sampling(self, phase: str, epoch: int, step: int, records: IntArray) -> NoiseSource:
        """Who enters a step of Poisson sampling, of all training records."""
        return self._source(self._noise_seed, "poisson", phase, epoch, step, records=records)

    def layers_seed(self) -> int:
        """Seed of what layers draw by themselves (dropout), by position: under DP-SGD none may."""
        return int.from_bytes(os.urandom(8)) if self._secret else self._seed

    def _source(self, seed: int, *stream: str | int, records: IntArray) -> NoiseSource:
        return SystemNoise() if self._secret else RecordNoise(seed, *stream, records=records)
