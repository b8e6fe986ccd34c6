"""From a name and options in the configuration to a membership attack. Importing this fills the registry."""

from __future__ import annotations

import types
from collections.abc import Sequence

from privhier.attacks.membership import lira, rmia
from privhier.attacks.membership.base import MembershipAttack, membership_attacks
from privhier.attacks.options import from_options
from privhier.config import Choice

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
    made: MembershipAttack = from_options(
        membership_attacks.get(choice.name),
        choice.options,
        key=f"attacks.membership.{choice.name}.options",
        remedy="Change that option, or leave it out for the default",
    )
    return made
