"""What a defense is given: a batch at a time, and the training records as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from privhier.models.edge import EdgeSegment

UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class DefenseBatch:
    """What a defense sees of one batch of B records; it never leaves the edge.

    Attributes:
        z: float32 ``(B, *feature_shape)``, what the exits see: clipped and noised by the training loop,
            still in the graph of the edge. Of letters, the values of the answers.
        task_labels: int64 ``(B,)`` per task attribute in order; -1 where not known.
        sensitive_labels: int64 ``(B,)`` per sensitive attribute in order; -1 where not known.
        edge: The edge segment whose exits are used.
        strength: Share of the defense's weight that applies, in [0, 1]: below 1 while it is warmed up
            (``edge.warmup_epochs``). A term against the secret is multiplied by it.
        clipped: float32 ``(B, *feature_shape)``, the features after the clip, before noise and letters, in
            the graph of the edge; None unless ``Defense.needs`` names it.
        images: float32 ``(B, 3, S, S)``, augmented and normalized, as the edge saw them; None unless needed.
        persons: int64 ``(B,)``, one number a person; -1 where not known; None unless needed.
        sigma: Standard deviation of the release's Gaussian noise in feature units, at its whole strength; 0
            where there is none, or noise of another kind.
    """

    z: Tensor
    task_labels: Sequence[Tensor]
    sensitive_labels: Sequence[Tensor]
    edge: EdgeSegment
    strength: float = 1.0
    clipped: Tensor | None = None
    images: Tensor | None = None
    persons: Tensor | None = None
    sigma: float = 0.0

    def part(self, rows: slice | Tensor) -> DefenseBatch:
        """The same of these records alone."""
        return replace(
            self,
            z=self.z[rows],
            task_labels=[labels[rows] for labels in self.task_labels],
            sensitive_labels=[labels[rows] for labels in self.sensitive_labels],
            clipped=None if self.clipped is None else self.clipped[rows],
            images=None if self.images is None else self.images[rows],
            persons=None if self.persons is None else self.persons[rows],
        )


@dataclass(frozen=True)
class DefenseData:
    """The training records as a whole, for a defense whose ``reads_data`` says that it reads them.

    Attributes:
        task_labels: int64 ``(n,)`` per task attribute in order; -1 where not known.
        sensitive_labels: int64 ``(n,)`` per sensitive attribute in order; -1 where not known.
        task_classes: Number of classes per task attribute.
        sensitive_classes: Number of classes per sensitive attribute.
        persons: int64 ``(n,)``, one number a person; -1 where not known.
        mean_image: Computes the mean training image, float32 ``(3, S, S)``, normalized as the edge's input.
        seed: Of everything that is drawn at random, beside the names of a stream.
        features: Computes the features of all records as the edge makes them now, float32
            ``(n, *feature_shape)`` on the CPU, before the outlet (``Defense.outlet``), clip and noise.
    """

    task_labels: Sequence[Tensor]
    sensitive_labels: Sequence[Tensor]
    task_classes: Sequence[int]
    sensitive_classes: Sequence[int]
    persons: Tensor
    mean_image: Callable[[], Tensor]
    seed: int
    features: Callable[[], Tensor]
