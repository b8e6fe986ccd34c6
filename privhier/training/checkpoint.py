"""State after each finished epoch, written whole; resuming from it gives the undisturbed run's numbers."""

from __future__ import annotations

import io
from typing import Any

import torch

from privhier.errors import CheckpointError
from privhier.training.folder import RunFolder, write_atomic


def save_checkpoint(folder: RunFolder, state: dict[str, Any], *, config_hash: str) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) atomically."""
    buffer = io.BytesIO()
    torch.save({"config_hash": config_hash, **state}, buffer)
    write_atomic(folder.checkpoint, buffer.getvalue())


def load_checkpoint(folder: RunFolder, *, config_hash: str) -> dict[str, Any] | None:
    """The last saved state, or None. Nothing is unpickled beyond tensors and plain containers.

    Raises:
        CheckpointError: The checkpoint is unreadable or belongs to another configuration.
    """
    if not folder.checkpoint.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whatever it is, the file is unusable
        raise CheckpointError(
            key="checkpoint",
            value=str(folder.checkpoint),
            rule=f"cannot be read: {error}",
            remedy="Delete the run folder and start again",
        ) from error
    if state["config_hash"] != config_hash:
        raise CheckpointError(
            key="checkpoint",
            value=str(folder.checkpoint),
            rule="belongs to another configuration",
            remedy="Resume with the run's own config.yaml, or choose another --out",
        )
    return state
