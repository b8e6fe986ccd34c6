"""From a name and options in the configuration to a membership attack. Importing this fills the registry."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from privhier.attacks import lira, rmia
from privhier.attacks.build import checked_option
from privhier.attacks.membership import MembershipAttack, membership_attacks
from privhier.config import Choice
from privhier.errors import ConfigError

FAMILIES: tuple[types.ModuleType, ...] = (lira, rmia)
"""Modules that register the built-in membership attacks on import."""

registry = membership_attacks
"""The registry with every built-in membership attack in it."""


def build_membership_attacks(choices: Sequence[Choice]) -> list[tuple[str, MembershipAttack]]:
    """The attacks a configuration names, with their options checked; a name met again gets a number.

    Raises:
        UnknownNameError: No membership attack has this name (key ``attacks.membership``).
        ConfigError: An option that does not exist, of the wrong type or out of its range.

    Example:
        >>> build_membership_attacks([Choice(name="lira", options={"shadows": 8})])[0][1].shadows
        8
    """
    built: list[tuple[str, MembershipAttack]] = []
    for choice in choices:
        seen = sum(name.split("#")[0] == choice.name for name, _ in built)
        built.append((f"{choice.name}#{seen + 1}" if seen else choice.name, _build(choice)))
    return built


def _build(choice: Choice) -> MembershipAttack:
    attack: Any = membership_attacks.get(choice.name)
    hints, options = get_type_hints(attack), {field.name: field for field in fields(attack)}
    values: dict[str, Any] = {}
    for name, value in choice.options.items():
        key = f"attacks.membership.{choice.name}.options.{name}"
        if name not in options:
            near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
            remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(options)}"
            raise ConfigError(key=key, value=value, rule="is not a known option", remedy=remedy)
        values[name] = checked_option(key, value, hints[name], options[name])
    try:
        made: MembershipAttack = attack(**values)
    except ValueError as error:
        raise ConfigError(
            key=f"attacks.membership.{choice.name}.options",
            value=choice.options,
            rule=str(error),
            remedy="Change that option, or leave it out for the default",
        ) from error
    return made
