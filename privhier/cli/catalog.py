"""What can be chosen by name, with the first line of its documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from privhier.errors import ConfigError
from privhier.registry import Registry, nearest

KINDS = ("backbones", "datasets", "defenses", "attacks", "embedders")


def describe(kind: str) -> Iterator[tuple[str, str]]:
    """Name and one line for everything registered of ``kind``; a plugin that is broken says so.

    Raises:
        ConfigError: ``kind`` is none of ``KINDS``.
    """
    if kind not in KINDS:
        raise ConfigError(
            key="list",
            value=kind,
            rule=f"must be one of {', '.join(KINDS)}",
            remedy=nearest(kind, KINDS, otherwise="Try: privhier list defenses"),
        )
    for registry in _registries(kind):
        for name in registry.names():
            text = inspect.getdoc(registry.get(name)) or ""
            yield name, text.split("\n", 1)[0]
        for name, error in registry.broken().items():
            yield name, f"{error.rule} ({error.value}). {error.remedy}"


def _registries(kind: str) -> list[Registry[Any]]:
    if kind == "backbones":
        from privhier.models.staged import backbones

        return [backbones]
    if kind == "datasets":
        from privhier.datasets.registry import datasets

        return [datasets]
    if kind == "defenses":
        from privhier.defenses.base import defenses

        return [defenses]
    if kind == "embedders":
        from privhier.attacks.embedders.base import embedders

        return [embedders]
    from privhier.attacks.base import attacks
    from privhier.attacks.membership.base import membership_attacks

    return [attacks, membership_attacks]
