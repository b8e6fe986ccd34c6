"""Initial weights from a file: the state dict of torchvision's own model, loaded strictly."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from privhier.errors import ConfigError
from privhier.models.staged import Blueprint, Norm, Provenance, Stem

_KEY = "model.weights"
_SUFFIXES = (".pth", ".pt", ".safetensors")


def load_pretrained(blueprint: Blueprint, path: str, *, norm: Norm, stem: Stem) -> Provenance:
    """Load ``path`` into ``blueprint`` and say where the weights came from.

    Everything but the classifier must fit exactly; the classifier is loaded if it fits, else dropped
    and named in the result. Files are never unpickled beyond tensors.

    Raises:
        ConfigError: Missing or unreadable file, wrong norm or stem, or keys and shapes that do not fit.
    """
    if blueprint.source is None:
        raise _error(
            path,
            "torchvision has no model of this backbone, so no weights fit",
            "Set model.weights to none, or choose a torchvision backbone",
        )
    if norm != "batch" or stem != "torchvision":
        raise _error(
            path,
            f"torchvision's weights need model.norm=batch and model.stem=torchvision; here they are "
            f"norm={norm} and stem={stem}",
            "Set both, or model.weights to none",
        )
    file = Path(path).expanduser()
    state = _read(file, path)
    own = blueprint.source.state_dict()
    loaded: dict[str, Tensor] = {}
    dropped: list[str] = []
    unknown: list[str] = []
    misfits: list[str] = []
    for key, value in state.items():
        fits = key in own and own[key].shape == value.shape
        if fits:
            loaded[key] = value
        elif key.startswith(blueprint.head_prefixes):
            dropped.append(key)
        elif key in own:
            misfits.append(f"{key} is {tuple(value.shape)}, needed {tuple(own[key].shape)}")
        else:
            unknown.append(key)
    # Files older than torch 0.4.1 hold no counter of batches; BatchNorm fills it in when loading.
    optional = (*blueprint.head_prefixes, *(key for key in own if key.endswith("num_batches_tracked")))
    missing = [key for key in own if key not in state and not key.startswith(optional)]
    if unknown or misfits or missing:
        parts = [
            f"{len(group)} {label} (e.g. {group[0]})"
            for label, group in (("keys missing", missing), ("keys unknown", unknown), ("misfits", misfits))
            if group
        ]
        raise _error(
            path,
            f"is not the state dict of torchvision's model of this name: {', '.join(parts)}",
            "Give the same architecture; for VGG that is the variant with BatchNorm, e.g. vgg11_bn",
        )
    bad = [key for key, value in loaded.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise _error(path, f"holds non-finite values in {bad[0]}", "Give an undamaged file")
    blueprint.source.load_state_dict(loaded, strict=False)
    return Provenance(path=path, sha256=file_sha256(file), dropped=tuple(dropped))


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path, shown: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise _error(shown, "is not a file", "Give the path of a .pth or .safetensors state dict, or none")
    if file.suffix not in _SUFFIXES:
        raise _error(
            shown, f"must end in {', '.join(_SUFFIXES)}", "Save the state dict in one of these forms"
        )
    try:
        if file.suffix == ".safetensors":
            state: object = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _error(
            shown, f"cannot be read as tensors: {first_line}", "Save model.state_dict() and give that file"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _error(
            shown,
            "must be a flat mapping of names to tensors",
            "Save model.state_dict() itself, not a checkpoint around it",
        )
    return {str(key): value for key, value in state.items()}


def _error(path: str, rule: str, remedy: str) -> ConfigError:
    return ConfigError(key=_KEY, value=path, rule=rule, remedy=remedy)
