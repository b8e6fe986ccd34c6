"""From names and options in the configuration to membership attacks."""

from __future__ import annotations

from collections.abc import Sequence

from privhier.attacks.membership.base import MembershipAttack, membership_attacks
from privhier.config import Choice
from privhier.config.choices import build


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
        name = f"{choice.name}#{seen + 1}" if seen else choice.name
        built.append((name, build(membership_attacks, choice)))
    return built
