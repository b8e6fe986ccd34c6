"""What a membership attacker is handed. Who was trained on is not in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from privhier.attacks.view import FloatArray, ImageArray, IntArray

Model = Callable[[ImageArray, int], tuple[FloatArray, ...]]
"""``model(images, query)``: images uint8 ``(m, 3, H, W)`` to logits float32 ``(m, K)``, one array a task.

``query`` numbers the question put to a record (see ``shadows.QUERIES``): where noise lies
between image and logits it is fresh for every query, and the same again for the same query."""
Progress = Callable[[str, int, int], None]


@runtime_checkable
class Together(Protocol):
    """A mapping of parts that share work: asked all at once, each says what it would say alone."""

    def together(self, images: ImageArray, query: int) -> Mapping[str, tuple[FloatArray, ...]]:
        """Each part's answer; see ``Model``."""
        ...


@dataclass(frozen=True)
class Population:
    """Records the attacker knows were not trained on: its auxiliary set.

    Attributes:
        images: uint8 ``(m, 3, H, W)``.
        labels: int64 ``(m, tasks)``, task labels.
    """

    images: ImageArray
    labels: IntArray


@dataclass(frozen=True)
class Workshop:
    """How the attacker's own models are made and kept: means, not knowledge; no result depends on it.

    Attributes:
        store: Folder where what finished shadow models say is kept, so that a killed attack goes on.
        workers: Shadow models trained at the same time, in processes of their own.
        progress: Called with a description, shadow models done and in all.
    """

    store: Path | None = None
    workers: int = 1
    progress: Progress | None = None


@dataclass(frozen=True)
class MembershipView:
    """The attacker knows the candidates, the training procedure and its outcome, never who was in.

    The *pool* is the candidates followed by the population.

    Attributes:
        images: uint8 ``(n, 3, H, W)``, the candidates.
        labels: int64 ``(n, tasks)``, their task labels.
        groups: int64 ``(n,)``: candidates of one person (or one file) share a number.
        population: Records known not to be members.
        target: The trained network by what the attacker holds of it: ``"edge_weights"`` (task exits on
            noiseless features), ``"task_exit"`` (task exits on fresh releases), ``"tail"`` (the cloud
            tail on fresh releases).
        train: ``train(rows, seed)`` runs the target's training procedure on rows of the pool and gives
            the same parts of the network that comes out. Picklable where ``workshop.workers > 1``.
        records: Training records of the target (a public number).
        seed: The attacker's seed.
        pipeline: Names the training procedure (the configuration's hash), for the names of kept files.
        workshop: See ``Workshop``.
        scratch: What attacks on this very view compute once and share.
    """

    images: ImageArray
    labels: IntArray
    groups: IntArray
    population: Population
    target: Mapping[str, Model] = field(repr=False)
    train: Callable[[IntArray, int], Mapping[str, Model]] = field(repr=False)
    records: int
    seed: int
    pipeline: str = ""
    workshop: Workshop = field(default_factory=Workshop, repr=False, compare=False)
    scratch: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def pool_images(self) -> ImageArray:
        """uint8 ``(n + m, 3, H, W)``."""
        return np.concatenate([self.images, self.population.images])

    def pool_labels(self) -> IntArray:
        """int64 ``(n + m, tasks)``."""
        return np.concatenate([self.labels, self.population.labels])
