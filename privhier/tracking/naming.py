"""What runs are called in MLflow, and how they are told apart at a glance: names, kinds and colors."""

from __future__ import annotations

import colorsys
import zlib
from pathlib import Path
from typing import Literal

from privhier.config import RunConfig

Kind = Literal["sweep", "point", "run", "attack", "reconstruction"]
KIND = "kind"
"""The tag that says what a run is."""
COLOR = "mlflow.runColor"
"""The tag that MLflow's page colors a run by, in its table and its charts."""
_UNDEFENDED = "#767676"
_SALT = b"privhier"
_LIGHT = (0.34, 0.46, 0.60)


def run_name(config: RunConfig, folder: Path) -> str:
    """A single run's name: what it is, and what such runs mostly differ in.

    The folder's name is added where somebody chose it.

    Example:
        >>> from privhier.config import RunConfig
        >>> data = {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]}
        >>> config = RunConfig.model_validate({"name": "a", "dataset": data, "schedule": {"joint_epochs": 1}})
        >>> run_name(config, Path("runs/first"))
        'a (first): no defense, no noise, seed=0'
    """
    chosen = folder.name not in (config.name, config.folder_name)
    defense = config.defense.name if config.defense.name != "none" else "no defense"
    head = f"{config.name} ({folder.name})" if chosen else config.name
    return f"{head}: {defense}, {_release(config)}, seed={config.seed}"


def _release(config: RunConfig) -> str:
    release, bottleneck = config.release, config.model.bottleneck
    letters = ""
    if bottleneck.kind == "letters":
        many = "" if bottleneck.groups == 1 else f"{bottleneck.groups} x "
        letters = f"{many}{bottleneck.letters} letters, "
    if release.mechanism == "none":
        return f"{letters}no noise"
    if release.target_epsilon is not None:
        return f"{letters}{release.mechanism} epsilon={release.target_epsilon:g}"
    return f"{letters}{release.mechanism} sigma={release.sigma:g}"


def defense_color(name: str) -> str:
    """One color a defense, the same in every store: ``#rrggbb``; gray where there is none.

    It depends on the name alone, so that runs which know nothing of each other agree. Of many defenses
    two may look alike: the runs' names tell them apart.
    """
    if name == "none":
        return _UNDEFENDED
    number = zlib.crc32(_SALT + name.encode())
    red, green, blue = colorsys.hls_to_rgb((number >> 8) / 2**24, _LIGHT[number % 3], 0.7)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
