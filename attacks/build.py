"""From a name and options in the configuration to an attack."""

from __future__ import annotations

from privhier.attacks.base import Attack, Kind, attacks
from privhier.config import Choice
from privhier.config.choices import build


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
    return build(attacks, choice, key=f"attacks.{kind}", among=names_of(kind), target=target)
