"""From a name and options in the configuration to an attack. Importing this fills the registry."""

from __future__ import annotations

import difflib
import types

from privhier.attacks import (
    averaging,
    cnn,
    decensor,
    decoder,
    deep_prior,
    embed_reconstructions,
    fine_tune,
    generative,
    inversion,
    kernel,
    mlp,
    property,
    substitute,
    tabular,
    verification,
)
from privhier.attacks.base import Attack, Kind, attacks
from privhier.attacks.options import from_options
from privhier.config import Choice
from privhier.errors import UnknownNameError

FAMILIES: tuple[types.ModuleType, ...] = (
    tabular,
    mlp,
    cnn,
    verification,
    decoder,
    embed_reconstructions,
    kernel,
    averaging,
    fine_tune,
    decensor,
    property,
    inversion,
    deep_prior,
    generative,
    substitute,
)
"""Modules that register the built-in attacks on import."""


registry = attacks
"""The registry with every built-in attack in it."""


def names_of(kind: Kind) -> list[str]:
    """Registered names of one kind, sorted."""
    return [name for name in attacks.names() if attacks.get(name).kind == kind]


def build_attack(choice: Choice, *, kind: Kind, target: str) -> Attack:
    """The attack a configuration names, with its options checked.

    Args:
        choice: Name and options, e.g. ``Choice(name="mlp", options={"epochs": 10})``.
        kind: The section it stands in; an attack of another kind is refused.
        target: Attribute under attack; ``"identity"`` or ``""`` for other kinds.

    Raises:
        UnknownNameError: No attack of that kind has this name (key ``attacks.<kind>``).
        ConfigError: An option that does not exist, of the wrong type or out of its range
            (key ``attacks.<kind>.<name>.options.<option>``).

    Example:
        >>> build_attack(Choice(name="mlp", options={"epochs": 10}), kind="attribute", target="age").target
        'age'
    """
    known = names_of(kind)
    if choice.name not in known:
        near = difflib.get_close_matches(choice.name, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UnknownNameError(
            key=f"attacks.{kind}",
            value=choice.name,
            rule=f"must be one of the registered {kind} attacks",
            remedy=f"{hint}Known: {', '.join(known)}",
        )
    made: Attack = from_options(
        attacks.get(choice.name),
        choice.options,
        key=f"attacks.{kind}.{choice.name}.options",
        remedy="Give all of them, or none",
        target=target,
    )
    return made
