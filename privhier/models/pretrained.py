"""Initial weights from a file: the state dict of torchvision's own model, loaded strictly."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from privhier.errors import ConfigError
from privhier.models.staged import Blueprint, Norm, Provenance, Stem
from privhier.models.state_file import read_state, unwrapped
from privhier.storage.sealed import file_digest

_KEY = "model.weights"


def load_pretrained(blueprint: Blueprint, path: str, *, norm: Norm, stem: Stem) -> Provenance:
    """Load ``path`` into ``blueprint`` and say where the weights came from.

    Everything but the classifier must fit exactly; the classifier is loaded if it fits, else dropped
    and named in the result. Files are never unpickled beyond tensors. What DataParallel and ``torch.compile``
    add to the keys is taken off.

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

    def refuse(rule: str, remedy: str) -> ConfigError:
        return _error(path, rule, remedy)

    own = blueprint.source.state_dict()
    state = unwrapped(read_state(file, refuse), own, refuse)
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
    return Provenance(path=path, sha256=file_digest(file), dropped=tuple(dropped))


def _error(path: str, rule: str, remedy: str) -> ConfigError:
    return ConfigError(key=_KEY, value=path, rule=rule, remedy=remedy)
