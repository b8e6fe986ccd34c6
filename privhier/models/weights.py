"""Save and load a module's weights as safetensors; never pickled, never half-written."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from privhier.errors import CheckpointError
from privhier.storage.files import whole_file


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write ``module.state_dict()`` to ``path``; a crash leaves the old file or the new one."""
    with whole_file(Path(path)) as stream:
        stream.write(weights_bytes(module))


def weights_bytes(module: nn.Module) -> bytes:
    """``module.state_dict()`` as the content of a safetensors file."""
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    return save(state)


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load ``path`` into ``module`` (on whatever device it is); every key and shape must fit.

    Raises:
        CheckpointError: Missing or damaged file, or weights of another network. ``module`` is unchanged.
    """
    path = Path(path)
    try:
        state = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            key="weights", value=path.name, rule=f"cannot be read: {error}", remedy="Train this run again"
        ) from error
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if own != given:
        at_fault = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
        raise CheckpointError(
            key="weights",
            value=path.name,
            rule=f"must fit the configured network; {len(at_fault)} tensors do not, e.g. {at_fault[0]}",
            remedy="Use the configuration saved beside these weights",
        )
    module.load_state_dict(state)
