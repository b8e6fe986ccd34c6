"""Configuration keys as dotted paths: which there are, and how a value is put there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from privhier.config import Choice, RunConfig
from privhier.errors import ConfigError
from privhier.registry import nearest

_FIXED = {
    "seed": "List the seeds under `seeds:`",
    "name": "The sweep's points keep the base's name; their settings tell them apart",
    "tracking": "It changes no number; set it in the base",
    "dataset.root": "It changes no number; set it in the base",
    "dataset.cache": "It changes no number; set it in the base",
}


def known_keys() -> dict[str, bool]:
    """Every key of a run's configuration; whether any name may follow it (``dataset.options``)."""
    return dict(_walk(RunConfig, ""))


def check_key(key: str, where: str) -> None:
    """Refuse a key no configuration has, or one along which points would not differ.

    Args:
        key: Dotted, e.g. ``release.sigma``.
        where: Who names it, for the message.

    Raises:
        ConfigError: With the nearest keys.
    """
    known = known_keys()
    parent = key.rpartition(".")[0]
    for fixed, remedy in _FIXED.items():
        if key == fixed or key.startswith(fixed + "."):
            raise ConfigError(key=where, value=key, rule="cannot be an axis", remedy=remedy)
    if key in known or known.get(parent):
        return
    last = key.rpartition(".")[2]
    alike = [name for name in known if name.rpartition(".")[2] == last]
    remedy = nearest(key, alike or known, otherwise="See configs/ for the keys there are")
    raise ConfigError(key=where, value=key, rule="names no configuration key", remedy=remedy)


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``key`` in nested plain data; a choice written as a bare name becomes a mapping first."""
    *parents, last = key.split(".")
    for name in parents:
        inner = data.get(name)
        if isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            inner = {}
        data[name] = inner
        data = inner
    data[last] = value


def look_up(config: RunConfig, key: str) -> Any:
    """The value at ``key``; a choice's is its name, and None where there is nothing."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value.name if isinstance(value, Choice) else value


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, bool]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        annotation: Any = field.annotation
        section = [part for part in get_args(annotation) if part is not type(None)]
        if len(section) == 1:  # an optional section, such as edge.dp_sgd
            annotation = section[0]
        nested = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        yield key, not nested and name == "options"
        if nested:
            yield from _walk(annotation, f"{key}.")
