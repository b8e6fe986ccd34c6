"""What a face embedder is: pictures in, unit vectors out whose cosine says "same person"."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from privhier.attacks.view import FloatArray
from privhier.config.contracts import faults_of_class
from privhier.errors import ConfigError
from privhier.registry import Registry

KEY = "attacks.embedders"
_BLOCK = 64
"""Pictures resized and embedded at a time."""
_TOLERANCE = 1e-3
"""How far a pixel may lie outside [0, 1] before the picture is taken to be on another scale."""


class FaceEmbedder(BaseModel, ABC):
    """A frozen set of options; its network is loaded at the first use and never trained.

    Public networks were trained on other people's faces, so an attacker has one at no cost; it is
    no part of a threat model's auxiliary knowledge. Everything runs on the CPU and is deterministic.

    Attributes:
        path: File of weights; relative ones are looked up in the current folder, then under
            ``$PRIVHIER_DATA``. Nothing is ever downloaded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    path: str = ""

    @property
    def needs_file(self) -> bool:
        """Whether these options ask for a file of weights."""
        return True

    def embed(self, images: FloatArray) -> FloatArray:
        """Embeddings float32 ``(n, E)``, rows of length one.

        Args:
            images: float ``(n, 3, H, W)`` RGB in [0, 1], of any size; resized bilinearly.

        Raises:
            ValueError: Another shape, or values that are not finite or not in [0, 1].
            ConfigError: Weights that cannot be read or are not those of such a network.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (n, 3, H, W), got {images.shape}")
        # One picture too many for none at all: it is the network that knows E.
        some = images if len(images) else np.zeros((1, *images.shape[1:]), dtype=np.float32)
        blocks = [self._block(some[start : start + _BLOCK]) for start in range(0, len(some), _BLOCK)]
        rows = np.concatenate(blocks)[: len(images)].astype(np.float64)
        length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return np.asarray(rows / length, dtype=np.float32)

    def _block(self, images: FloatArray) -> FloatArray:
        if not (np.isfinite(images).all() and abs(images - 0.5).max() <= 0.5 + _TOLERANCE):
            raise ValueError("images must be finite and lie in [0, 1]")
        return self._vectors(np.clip(images, 0, 1).astype(np.float32))

    def prepare(self) -> None:
        """Read the file of weights now instead of at the first use.

        Raises:
            ConfigError: It cannot be read, or holds another network.
        """

    @abstractmethod
    def _vectors(self, images: FloatArray) -> FloatArray:
        """Rows ``(b, E)`` of any length from float32 ``(b, 3, H, W)`` in [0, 1]; b is at least 1."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its scores should know of how they came about; grows with use."""
        return ()


embedders: Registry[type[FaceEmbedder]] = Registry(
    "embedders",
    key=KEY,
    builtin="privhier.attacks.embedders.builtin",
    check=lambda entry: faults_of_class(entry, FaceEmbedder),
)


def resized(images: FloatArray, height: int, width: int) -> FloatArray:
    """Images ``(b, 3, H, W)`` at another size: bilinear, averaged over the pixels that shrink into one."""
    if images.shape[2:] == (height, width):
        return images
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    made = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return np.asarray(made.clamp(0, 1).numpy(), dtype=np.float32)


def weights_file(path: str, name: str, *, key: str = KEY) -> Path:
    """The file a ``path`` option of the embedder ``name`` means.

    Raises:
        ConfigError: No such file (key ``<key>.<name>.options.path``).
    """
    given = Path(path).expanduser()
    data = os.environ.get("PRIVHIER_DATA")
    candidates = [given] if given.is_absolute() or not data else [given, Path(data).expanduser() / given]
    for candidate in candidates:
        if path and candidate.is_file():
            return candidate
    places = f" (looked at {' and '.join(str(candidate) for candidate in candidates)})" if path else ""
    raise embedder_error(
        name,
        "path",
        path,
        f"is not a file{places}",
        "Give the embedder's file of weights, absolute or below the current folder or PRIVHIER_DATA",
        key=key,
    )


def embedder_error(
    name: str, option: str, value: object, rule: str, remedy: str, *, key: str = KEY
) -> ConfigError:
    """An error in one option of the embedder ``name``."""
    return ConfigError(key=f"{key}.{name}.options.{option}", value=value, rule=rule, remedy=remedy)
