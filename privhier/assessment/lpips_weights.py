"""AlexNet's weights for LPIPS, from a file that is checked before anything is trained."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from privhier.errors import ConfigError
from privhier.models.state_file import read_state, unwrapped

_CONVOLUTIONS = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}
"""Shapes of the weights of torchvision's AlexNet, by their number in its ``features``."""
_SHAPES = {f"features.{number}.weight": shape for number, shape in _CONVOLUTIONS.items()} | {
    f"features.{number}.bias": shape[:1] for number, shape in _CONVOLUTIONS.items()
}


def alexnet_state(path: str | None) -> dict[str, Tensor] | None:
    """The convolutions of torchvision's AlexNet in the state dict at ``path``; None without one.

    Raises:
        ConfigError: A file that cannot be read as tensors, or that holds another network.
    """
    if path is None:
        return None

    def refuse(rule: str, remedy: str) -> ConfigError:
        return ConfigError(key="evaluation.lpips_weights", value=path, rule=rule, remedy=remedy)

    state = unwrapped(read_state(Path(path), refuse), _SHAPES, refuse)
    wrong = [key for key, shape in _SHAPES.items() if key not in state or state[key].shape != shape]
    if wrong:
        raise refuse(
            f"is not the state dict of torchvision's AlexNet: {wrong[0]} is missing or of another shape",
            "Give that network's file",
        )
    bad = [key for key in _SHAPES if not state[key].float().isfinite().all()]
    if bad:
        raise refuse(f"holds values that are not finite in {bad[0]}", "Give an undamaged file")
    return {key: state[key] for key in _SHAPES}
