"""The verb ``privhier list``: what can be chosen by name, with the first line of its documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from privhier.cli.console import say
from privhier.errors import ConfigError
from privhier.registry import Registry, nearest

KINDS = ("backbones", "datasets", "defenses", "attacks", "embedders")


def list_names(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS))],
) -> None:
    """What can be chosen by name in a configuration."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "what it is", box=None, pad_edge=False)
    for name, text in describe(kind):
        table.add_row(name, escape(text))  # a plugin's text may hold brackets
    say(table)


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
