"""The verb ``privhier config``: what a configuration's keys mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from privhier.cli.console import say
from privhier.errors import ConfigError
from privhier.registry import nearest

if TYPE_CHECKING:
    from privhier.config.reference import Key


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
    from privhier.cli.catalog import key_lines
    from privhier.config import reference

    if defaults:
        say(reference.defaults(key or "").rstrip())
        return
    if key and (lines := option_lines(key)):
        say(*lines)
        return
    keys = reference.find(key) if key else [one for one in reference.reference() if "." not in one.path]
    if len(keys) == 1:
        say(*key_lines(keys[0]))
        return
    say(*(line for one in keys for line in (*key_lines(one), "")))
    if not key:
        say("A section's keys: privhier config SECTION. All defaults: privhier config --defaults")


def option_lines(path: str) -> list[str]:
    """Lines on an option of what is chosen by name, e.g. ``dataset.options.csv``; none: it is no such path.

    Raises:
        ConfigError: Nothing that can be chosen there has an option of that name.
    """
    from privhier.cli.catalog import key_lines

    above, _, option = path.partition(".options")
    option = option.removeprefix(".")
    kind = _kind(above)
    if ".options" not in path or kind is None:
        return []
    where = f"Options belong to a name; all of one: privhier list {kind} NAME"
    if not option:
        return [f"{path}: mapping; default {{}}", f"    {where}"]
    names: dict[str, list[str]] = {}
    known = set()
    for name, found in _of_kind(kind, above):
        known.add(found.path)
        if found.path == option:
            names.setdefault("\n".join(key_lines(replace(found, path=path))), []).append(name)
    if not names:
        raise ConfigError(
            key="KEY",
            value=path,
            rule=f"none of the {kind} has an option {option!r}",
            remedy=f"{nearest(option, known, otherwise='')} {where}".strip(),
        )
    lines = [f"{text}\n    An option of: {', '.join(of)}." for text, of in names.items()]
    return [*lines, where]


def _kind(above: str) -> str | None:
    """What is chosen by name at a key, as ``privhier list`` calls it."""
    from privhier.config import reference

    if above in ("dataset", "attacks"):
        return {"dataset": "datasets", "attacks": "attacks"}[above]
    chosen = {key.path for key in reference.reference() if "name, or name and options" in key.type}
    path = above.rstrip("0123456789").removesuffix(".")  # one of a list: attacks.attribute.0
    if path not in chosen:
        return None
    return {"defense": "defenses", "attacks.embedders": "embedders"}.get(path, "attacks")


def _of_kind(kind: str, above: str) -> Iterator[tuple[str, Key]]:
    """Name and option of all that can be chosen at ``above``."""
    from privhier.cli.catalog import entries
    from privhier.config.reference import options_of

    group = above.removeprefix("attacks.").split(".")[0]
    for name, entry in entries(kind):
        of = getattr(entry, "kind", "membership")
        if isinstance(entry, type) and (kind != "attacks" or group in ("attacks", of)):
            yield from ((name, key) for key in options_of(entry, ("target",)))
