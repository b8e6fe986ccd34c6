"""What the front door is given: configurations, overrides, a wish to see progress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NoReturn

from privhier.config import RunConfig, parse_config, read_config
from privhier.config import load_config as load_file
from privhier.errors import ConfigError
from privhier.process.progress import Report, shown_progress

Overrides = Sequence[str] | Mapping[str, Any]
Progress = bool | Report


def load_config(source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> RunConfig:
    """A run's configuration.

    Args:
        source: A YAML file, or plain data as such a file holds it.
        overrides: ``["release.sigma=0.3", ...]`` as on the command line, or ``{"release.sigma": 0.3}``.

    Raises:
        ConfigError: Key, value, rule and remedy of the first thing wrong.

    Example:
        >>> data = {
        ...     "name": "small",
        ...     "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
        ...     "schedule": {"joint_epochs": 1},
        ... }
        >>> load_config(data, {"release.mechanism": "gaussian", "release.sigma": 0.3}).release.sigma
        0.3
    """
    changes = texts(overrides)
    if not isinstance(source, Mapping | str | Path):
        raise ConfigError(
            key="config",
            value=source,
            rule="must be a file, or plain data as such a file holds it",
            remedy="For instance: privhier.load_config('configs/debug.yaml')",
        )
    if isinstance(source, Mapping):
        return parse_config(read_config(source, changes))
    return load_file(source, changes)


def texts(overrides: Overrides) -> list[str]:
    """Overrides as the command line takes them."""
    if isinstance(overrides, Mapping):
        return [f"{key}={_yaml(key, value)}" for key, value in overrides.items()]
    if isinstance(overrides, str):
        raise ConfigError(
            key="overrides",
            value=overrides,
            rule="must be a list of texts or a mapping",
            remedy=f"Write [{overrides!r}]",
        )
    return list(overrides)


def _yaml(key: str, value: Any) -> str:
    """One value as YAML reads it: JSON, with paths as text and numpy's scalars as numbers."""
    plain = value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value
    try:
        return json.dumps(plain, default=lambda path: str(path) if isinstance(path, PurePath) else _no(path))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            key=key,
            value=value,
            rule=f"cannot stand in a configuration: {error}",
            remedy="Give text, numbers, true or false, lists or mappings of them",
        ) from error


def _no(value: Any) -> NoReturn:
    raise TypeError(f"it is a {type(value).__name__}")


@contextmanager
def shown(progress: Progress) -> Iterator[Report | None]:
    """What to report to while the block runs."""
    if callable(progress):
        yield progress
    elif progress:
        with shown_progress() as report:
            yield report
    else:
        yield None
