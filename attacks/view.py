"""What a threat model hands the attacker, and nothing else. No victim truth lives here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from privhier.models.edge import EdgeSegment
from privhier.privacy.release import Mechanism, Release, ReleaseMechanism

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ImageArray = npt.NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Alphabet:
    """What letters are releases: every group a block of columns, one-hot.

    Attributes:
        letters: K.
        groups: M, letters of one release.
    """

    letters: int
    groups: int = 1

    @classmethod
    def of(cls, mechanism: Mechanism) -> Alphabet | None:
        """Of what a mechanism releases; None where it releases values."""
        return cls(mechanism.letters, mechanism.groups) if mechanism.letters else None

    def one_hot(self, letters: IntArray | FloatArray) -> FloatArray:
        """Letters ``(..., M)`` from 0 to K - 1 as attackers see them: float32 ``(..., M * K)``."""
        hot: FloatArray = np.equal(letters[..., None], np.arange(self.letters)).astype(np.float32)
        return hot.reshape(*letters.shape[:-1], self.groups * self.letters)

    def letters_of(self, releases: FloatArray) -> IntArray:
        """Inverse of ``one_hot``: int64 ``(..., M)``."""
        blocks = releases.reshape(*releases.shape[:-1], self.groups, self.letters)
        return np.asarray(blocks.argmax(axis=-1), dtype=np.int64)


@dataclass(frozen=True)
class AuxiliarySet:
    """Labelled images the attacker owns.

    Attributes:
        images: uint8 ``(n, 3, H, W)``.
        labels: Attribute name to int64 ``(n,)`` class numbers. ``identity`` is there where known.
        n_classes: Attribute name to its number of classes.
        groups: int64 ``(n,)``; the attacker's own train/validation split never cuts a group.
        draws: K, how many fresh releases of every record there are (1 where the release is
            deterministic).
        releases: ``releases(k)`` gives draw ``k < draws`` as float32 ``(n, T, *shape)``; the same k
            gives the same array again.
        task_labels: int64 ``(n, tasks)``, where the threat model reads task labels off the uplink;
            made as the victims' are (randomized where theirs are).
    """

    images: ImageArray
    labels: Mapping[str, IntArray]
    n_classes: Mapping[str, int]
    groups: IntArray
    draws: int
    releases: Callable[[int], FloatArray]
    task_labels: IntArray | None = None


@dataclass(frozen=True)
class WhiteBox:
    """The edge's weights and its mechanism. The noise's scale is known, its draws are not.

    Attributes:
        edges: The T edge states that made a record's releases, in order; evaluation mode, frozen, on
            the view's device. Copy before training one.
        mechanism: Clip, noise, quantization.
    """

    edges: tuple[EdgeSegment, ...]
    mechanism: ReleaseMechanism


@dataclass(frozen=True)
class View:
    """One threat model's knowledge.

    Attributes:
        threat_model: ``"curious_cloud"``, ``"raw_image"``, ...
        releases: The victims' releases, float32 ``(n, T, *shape)``; T releases of each record.
        image_shape: ``(3, H, W)`` of the images behind them.
        aux: The auxiliary set.
        seed: The attacker's seed; every attacker draws from its own named stream of it.
        device: Where an attacker that needs torch may compute.
        tail: The cloud tail, where the threat model has it.
        white_box: The edge's weights, where the threat model has them.
        task_labels: int64 ``(n, tasks)``, the victims' task labels as the uplink carried them; None where
            the threat model sees none.
        task_classes: Number of classes of every task; empty without ``task_labels``.
        populations: Rows of ``releases``, int64 each: sets of records whose make-up is asked for
            (property inference).
        alphabet: Where releases are letters, which; they are then one-hot ``(n, T, M * K)``.
        scratch: What attacks on this very view compute once and share (projections). Nothing in it
            depends on which attack came first; a changed copy of the view begins with none.
    """

    threat_model: str
    releases: FloatArray
    image_shape: tuple[int, int, int]
    aux: AuxiliarySet
    seed: int
    device: str = "cpu"
    tail: nn.Module | None = field(default=None, repr=False)
    white_box: WhiteBox | None = field(default=None, repr=False)
    task_labels: IntArray | None = None
    task_classes: tuple[int, ...] = ()
    populations: tuple[IntArray, ...] = ()
    alphabet: Alphabet | None = None
    scratch: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


def seen(release: Release) -> FloatArray:
    """A release as attackers see it: float32 values ``(B, *shape)``, or one-hot letters ``(B, M * K)``."""
    alphabet = Alphabet.of(release.mechanism)
    if alphabet is None or release.letters is None:
        return np.asarray(release.values.detach().cpu().numpy(), dtype=np.float32)
    return alphabet.one_hot(release.letters.cpu().numpy())


def frozen(array: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """A copy that cannot be written to: what a view hands out stays what it was."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
