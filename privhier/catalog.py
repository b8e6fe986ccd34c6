"""What can be chosen by name, with the first line of its documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from privhier.errors import ConfigError
from privhier.registry import Registry

KINDS = ("backbones", "datasets", "defenses", "attacks")


def describe(kind: str) -> Iterator[tuple[str, str]]:
    """Name and one line for everything registered of ``kind``.

    Raises:
        ConfigError: ``kind`` is none of the four.
    """
    if kind not in KINDS:
        raise ConfigError(
            key="list",
            value=kind,
            rule=f"must be one of {', '.join(KINDS)}",
            remedy="Try: privhier list defenses",
        )
    registry = _registry(kind)
    for name in registry.names():
        text = inspect.getdoc(registry.get(name)) or ""
        yield name, text.split("\n", 1)[0]


def _registry(kind: str) -> Registry[Any]:
    if kind == "backbones":
        from privhier.models.backbones import backbones

        return backbones
    if kind == "datasets":
        from privhier.datasets.registry import datasets

        return datasets
    if kind == "defenses":
        from privhier.defenses.base import defenses

        return defenses
    from privhier.attacks.build import registry

    return registry
