"""A sweep as a typed YAML file: a base configuration and the axes along which its points differ."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator
from yaml import YAMLError, safe_dump

from privhier.config import RunConfig, Section, parse_config
from privhier.errors import ConfigError
from privhier.sweeps.axis import Axis
from privhier.sweeps.keys import check_key, known_keys, look_up, put

_SAYS_NOTHING = ("name", "kind", "options")
"""Last words of keys that do not say of what they are the name."""


class Search(Section):
    """A multi-objective search over the axes instead of their full grid (extra ``optuna``)."""

    n_trials: int = Field(ge=1)
    """Points that are tried, each with every seed."""
    seed: int = Field(0, ge=0)
    """Of the search itself."""
    generation: int = Field(8, ge=1)
    """Trials suggested at a time: what is suggested next does not depend on who finishes first."""


class Resources(Section):
    """Where the ray engine finds its cluster, and what a point needs there."""

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; default ``$RAY_ADDRESS``, else a local Ray."""
    num_cpus: float | None = Field(None, gt=0)
    """Per point; default: the configuration's threads."""
    num_gpus: float | None = Field(None, ge=0)
    """Per point; default: 1 where the configuration asks for cuda."""


class SweepFile(Section):
    """The file as it is written."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    """Of the sweep: letters, digits, ``_``, ``.`` and ``-``."""
    base: str | None = None
    """A run's configuration, as a path relative to this file; this or ``config``."""
    config: dict[str, Any] | None = None
    """The same, written out here."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """What every point has otherwise than the base, as ``key.path: value``."""
    axes: list[Axis] = Field(default_factory=list)
    """What the points differ in: every step of one axis with every step of the others."""
    seeds: list[int] | None = Field(None, min_length=1)
    """Every setting runs with each of them; null: the base's own."""
    family: str = "defense.name"
    """What groups points on the page: a configuration key, or an axis by its name."""
    search: Search | None = None
    """Look for the front instead of running the whole grid."""
    ray: Resources = Resources()
    """For ``--engine ray``."""
    sweep_hash: str | None = None
    """Written into a sweep folder's own ``sweep.yaml``; not read."""

    @model_validator(mode="after")
    def _one_base(self) -> SweepFile:
        if (self.base is None) == (self.config is None):
            raise ValueError("a sweep has a base (path of a configuration) or a config (mapping), not both")
        return self


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        config: Its resolved configuration.
        config_hash: ``config.hash()``.
        settings: Axis keys to values, without the seed.
        family: What groups it with others on the page.
        label: Its steps in a line: ``sigma=0.3 defense=none seed=0``.
        name: Those of them that differ between points; what it is called in MLflow.
    """

    config: RunConfig
    config_hash: str
    settings: Mapping[str, Any]
    family: str
    label: str
    name: str

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.config_hash[:16]


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file with its base merged in."""

    file: SweepFile
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.file.name

    def identity(self) -> dict[str, Any]:
        """What makes it this sweep: name and base, without what changes no number. Axes may grow."""
        try:
            data = parse_config(self.data).model_dump(mode="json")
        except ConfigError:  # a base may need its axes to be whole
            data = copy.deepcopy(dict(self.data))
        for key in ("tracking", "seed"):
            data.pop(key, None)
        if isinstance(data.get("dataset"), dict):
            data["dataset"] = {k: v for k, v in data["dataset"].items() if k not in ("root", "cache")}
        return {"name": self.name, "base": data}

    def hash(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def seeds(self) -> list[int]:
        """The seeds of every setting."""
        return self.file.seeds if self.file.seeds is not None else [int(self.data.get("seed", 0))]

    def points(self) -> list[Point]:
        """The full grid, seeds innermost.

        Raises:
            ConfigError: A point whose configuration is not allowed, or that another point equals.
        """
        grid = itertools.product(*(axis.steps() for axis in self.file.axes))
        points = [point for steps in grid for point in self.setting(steps)]
        seen: dict[str, Point] = {}
        for point in points:
            other = seen.setdefault(point.config_hash, point)
            if other is not point:
                raise ConfigError(
                    key="axes",
                    value=point.label,
                    rule=f"is the same configuration as {other.label}",
                    remedy="Give each axis different values, or put what belongs together into variants",
                )
        return points

    def setting(self, steps: tuple[tuple[Any, dict[str, Any]], ...]) -> Iterator[Point]:
        """The points of one step on every axis, one a seed."""
        settings: dict[str, Any] = {}
        for _, keys in steps:
            settings |= keys
        labels = {axis.label: label for axis, (label, _) in zip(self.file.axes, steps, strict=True)}
        short = _short_names(labels)
        parts = {name: f"{short[name]}={label}" for name, label in labels.items()}
        varied = [parts[axis.label] for axis in self.file.axes if len(axis.steps()) > 1]
        several = len(self.seeds()) > 1
        for seed in self.seeds():
            text = " ".join([*parts.values(), f"seed={seed}"])
            name = " ".join([*varied, *([f"seed={seed}"] if several else [])]) or text
            data = copy.deepcopy(dict(self.data))
            for key, value in settings.items():
                put(data, key, copy.deepcopy(value))
            data["seed"] = seed
            try:
                config = self._attacked_alike(parse_config(data))
            except ConfigError as error:
                raise ConfigError(
                    key=f"point ({text}): {error.key}",
                    value=error.value,
                    rule=error.rule,
                    remedy=f"{error.remedy}, or change the axes",
                ) from error
            family = self.file.family
            named = labels[family] if family in labels else look_up(config, family)
            yield Point(config, config.hash(), settings, str(named), text, name)

    def _attacked_alike(self, config: RunConfig) -> RunConfig:
        """An undefended point meets the attackers who adapt to the defense of another one (``auto``).

        They stand on one front: what is held against what must have been attacked by the same.
        """
        attacks = config.attacks
        if attacks.adaptive != "auto" or not attacks.adapts(defended=True):
            return config
        axes = [[_defense_of(keys) for _, keys in axis.steps()] for axis in self.file.axes]
        names = [name for axis in axes for name in axis]
        if not any(all(axis) for axis in axes):  # else the base's own defense is no point's
            names.append(_defense_of(self.data))
        if all(name in (None, "none") for name in names):
            return config
        return config.model_copy(update={"attacks": attacks.model_copy(update={"adaptive": True})})

    def to_yaml(self) -> str:
        """The resolved sweep, which ``load_sweep`` reads back."""
        data = self.file.model_dump(mode="json", exclude={"base", "config", "overrides"})
        head = {"name": data.pop("name"), "sweep_hash": self.hash()}
        data.pop("sweep_hash")
        return str(safe_dump(head | {"config": dict(self.data)} | data, sort_keys=False))


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Axes by their last word, or by as many as tell them apart and say of what they are the name."""
    short = {name: name.rpartition(".")[2] for name in names}
    taken = list(short.values())
    return {
        name: name if taken.count(word) > 1 or word in _SAYS_NOTHING else word for name, word in short.items()
    }


def _defense_of(keys: Mapping[str, Any]) -> str | None:
    """The name of the defense that these keys set; None where they set none."""
    chosen = keys.get("defense.name", keys.get("defense"))
    return chosen.get("name") if isinstance(chosen, Mapping) else chosen


def load_sweep(path: str | Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        ConfigError: Unreadable file, unknown or duplicate or empty axis, a base that is not there.
    """
    path = Path(path)
    try:
        file = SweepFile.model_validate(_read(path, "SWEEP"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            key=f"SWEEP {where}".strip(),
            value=first["input"],
            rule=rule[:1].lower() + rule[1:],
            remedy="Mend the sweep file; configs/sweeps/debug.yaml is one that works",
        ) from error
    data = file.config if file.config is not None else _read(path.parent / str(file.base), "SWEEP base")
    data = copy.deepcopy(data)
    for key, value in file.overrides.items():
        if key not in ("seed", "name") and not key.startswith(("tracking", "dataset.root", "dataset.cache")):
            check_key(key, "SWEEP overrides")
        put(data, key, value)
    _check_axes(file)
    return Sweep(file, data)


def _check_axes(file: SweepFile) -> None:
    taken: dict[str, str] = {}
    for number, axis in enumerate(file.axes):
        where = f"SWEEP axes.{number}"
        for label, keys in axis.steps():
            if not keys:
                raise ConfigError(
                    key=where, value=label, rule="is a variant that sets nothing", remedy="Name its keys"
                )
        for key in axis.keys:
            check_key(key, where)
            if key in taken:
                raise ConfigError(
                    key=where,
                    value=key,
                    rule=f"is set by the axis {taken[key]} already",
                    remedy="Keep one of the two axes",
                )
            taken[key] = axis.label
        _different(where, [label for label, _ in axis.steps()])
    _different("SWEEP seeds", file.seeds or [])
    labels = [axis.label for axis in file.axes]
    _different("SWEEP axes", labels)
    if file.family not in labels and file.family not in known_keys():
        check_key(file.family, "SWEEP family")


def _different(where: str, values: list[Any]) -> None:
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    for number, text in enumerate(texts):
        if text in texts[:number]:
            raise ConfigError(
                key=where, value=values[number], rule="appears twice", remedy="Keep each value once"
            )


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        loaded = OmegaConf.load(path)
        data = OmegaConf.to_container(loaded, resolve=True) if isinstance(loaded, DictConfig) else None
    except FileNotFoundError as error:
        raise ConfigError(
            key=key, value=str(path), rule="must be a readable YAML file", remedy="Check the path"
        ) from error
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(
            key=key, value=str(path), rule=f"is not valid YAML: {error}", remedy="Mend the file"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            key=key,
            value=str(path),
            rule="must be a mapping of keys",
            remedy="See configs/sweeps/debug.yaml",
        )
    return {str(name): value for name, value in data.items()}
