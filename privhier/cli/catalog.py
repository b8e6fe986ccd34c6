"""The verb ``privhier list``: what can be chosen by name; of one, its documentation and options."""

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
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, in full")] = None,
) -> None:
    """What can be chosen by name in a configuration; of one name, its options, what it needs, its source."""
    from rich.table import Table
    from rich.text import Text

    if name is not None:
        say("\n".join(in_full(kind, name)))
        return

    table = Table("name", "what it is", box=None, pad_edge=False)
    for one, text in describe(kind):
        table.add_row(Text(one), Text(text))  # a plugin's text may hold brackets
    say(table)


def describe(kind: str) -> Iterator[tuple[str, str]]:
    """Name and one line for everything registered of ``kind``; a plugin that is broken says so.

    Raises:
        ConfigError: ``kind`` is none of ``KINDS``.
    """
    for registry in _registries(kind):
        for name in registry.names():
            text = inspect.getdoc(registry.get(name)) or ""
            yield name, text.split("\n", 1)[0]
        for name, error in registry.broken().items():
            yield name, f"{error.rule} ({error.value}). {error.remedy}"


def in_full(kind: str, name: str) -> list[str]:
    """Lines on one thing that is registered: its documentation, what it needs, its options.

    Raises:
        ConfigError: ``kind`` is none of ``KINDS``.
        UnknownNameError: No such name; the message names the nearest.
    """
    from privhier.config.reference import options_of

    registries = _registries(kind)
    found = next((one for one in registries if name in one.names()), registries[0])
    entry = found.get(name)
    lines = [f"{kind} / {name}", "", inspect.getdoc(entry) or "It has no documentation."]
    lines += [text for line in knowledge(entry) for text in ("", line)]
    keys = options_of(entry, ("target",)) if isinstance(entry, type) else []
    lines += ["", "Options:" if keys else "It takes no options."]
    for key in keys:
        lines += [f"  {line}" for line in key_lines(key)]
    return lines


def key_lines(key: object) -> list[str]:
    """Lines on one key: name, type and default; its meaning, indented."""
    from textwrap import wrap

    from privhier.config.reference import Key

    assert isinstance(key, Key)
    head = [f"{key.path}: {key.type}"]
    head += [key.rule] if key.rule else []
    head += [f"default {key.default}" if key.default != "(required)" else "required"] if key.default else []
    return ["; ".join(head), *wrap(key.meaning, 100, initial_indent="    ", subsequent_indent="    ")]


def knowledge(entry: Any) -> list[str]:
    """Under which threat models an attack runs; what a defense needs of a batch or a run."""
    lines = []
    if isinstance(getattr(entry, "white_box", None), bool):
        holds = (
            "needs the edge's weights: threat model white_box" if entry.white_box else "needs releases only"
        )
        lines.append(f"Knowledge: {holds}.")
    needs = getattr(entry, "needs", None)
    if isinstance(needs, tuple | frozenset | set) and needs:
        lines.append(f"Needs: {', '.join(sorted(needs))}.")
    return lines


def entries(kind: str) -> Iterator[tuple[str, Any]]:
    """Name and entry of everything registered of ``kind``, by registry; broken plugins are left out.

    Raises:
        ConfigError: ``kind`` is none of ``KINDS``.
    """
    for registry in _registries(kind):
        for name in registry.names():
            yield name, registry.get(name)


def _registries(kind: str) -> list[Registry[Any]]:
    if kind not in KINDS:
        raise ConfigError(
            key="list",
            value=kind,
            rule=f"must be one of {', '.join(KINDS)}",
            remedy=nearest(kind, KINDS, otherwise="Try: privhier list defenses"),
        )
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
