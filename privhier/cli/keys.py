"""The verb ``privhier config``: what a configuration's keys mean."""

from __future__ import annotations

from typing import Annotated

import typer

from privhier.cli.console import say


def config(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="A key or a section, e.g. release or release.clip"),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print YAML of the defaults instead, of KEY or of all")
    ] = False,
) -> None:
    """What a configuration's keys mean, which values they take and what they are by default."""
    from privhier.config import reference

    if defaults:
        say(reference.defaults(key or "").rstrip())
        return
    keys = reference.find(key) if key else [one for one in reference.reference() if "." not in one.path]
    if len(keys) == 1:
        say(*key_lines(keys[0]))
        return
    say(*(line for one in keys for line in (*key_lines(one), "")))
    if not key:
        say("A section's keys: privhier config SECTION. All defaults: privhier config --defaults")


def key_lines(key: object) -> list[str]:
    """Lines on one key: name, type and default; its meaning, indented."""
    from textwrap import wrap

    from privhier.config.reference import Key

    assert isinstance(key, Key)
    head = [f"{key.path}: {key.type}"]
    head += [key.rule] if key.rule else []
    head += [f"default {key.default}" if key.default != "(required)" else "required"] if key.default else []
    return ["; ".join(head), *wrap(key.meaning, 100, initial_indent="    ", subsequent_indent="    ")]
