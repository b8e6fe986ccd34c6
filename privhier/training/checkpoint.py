"""State after each finished epoch, written whole; resuming from it gives the undisturbed run's numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from privhier.errors import CheckpointError
from privhier.storage.sealed import Sealed
from privhier.training.folder import RunFolder


def save_checkpoint(folder: RunFolder, state: dict[str, Any], *, config_hash: str) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically."""
    save_state(folder.checkpoint, state, key=config_hash)


def load_checkpoint(folder: RunFolder, *, config_hash: str) -> dict[str, Any] | None:
    """The last saved state, or None. Nothing is unpickled beyond tensors and plain containers.

    Raises:
        CheckpointError: The checkpoint was edited or damaged, or belongs to another configuration.
    """
    return load_state(folder.checkpoint, key=config_hash)


def save_state(path: Path, state: dict[str, Any], *, key: str) -> None:
    """Write ``state`` atomically to ``path``, under the hash of the configuration it belongs to."""
    buffer = io.BytesIO()
    torch.save({"config_hash": key, **state}, buffer)
    Sealed(path.parent).write(path, buffer.getvalue())


def load_state(path: Path, *, key: str) -> dict[str, Any] | None:
    """What ``save_state`` wrote to ``path``, or None; see ``load_checkpoint``."""
    sealed = Sealed(path.parent)
    if not sealed.knows(path):
        return None
    data = sealed.read(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whatever it is, the file is unusable
        raise CheckpointError(
            key="checkpoint",
            value=str(path),
            rule=f"cannot be read: {error}",
            remedy="Delete the run folder and start again",
        ) from error
    if state["config_hash"] != key:
        raise CheckpointError(
            key="checkpoint",
            value=str(path),
            rule="belongs to another configuration",
            remedy="Resume with the run's own config.yaml, or choose another --out",
        )
    return state
