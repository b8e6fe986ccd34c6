"""From a name and options in the configuration to an attack. Importing this fills the registry."""

from __future__ import annotations

import difflib
import math
import types
from dataclasses import Field, fields
from typing import Any, get_args, get_origin, get_type_hints

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
from privhier.config import Choice
from privhier.errors import ConfigError, UnknownNameError

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
    attack: Any = attacks.get(choice.name)
    hints = get_type_hints(attack)
    options = {field.name: field for field in fields(attack) if field.name != "target"}
    values: dict[str, Any] = {}
    for name, value in choice.options.items():
        key = f"attacks.{kind}.{choice.name}.options.{name}"
        if name not in options:
            near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
            remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(options)}"
            raise ConfigError(key=key, value=value, rule="is not a known option", remedy=remedy)
        values[name] = checked_option(key, value, hints[name], options[name])
    try:
        made: Attack = attack(target=target, **values)
    except ValueError as error:
        raise ConfigError(
            key=f"attacks.{kind}.{choice.name}.options",
            value=choice.options,
            rule=str(error),
            remedy="Give all of them, or none",
        ) from error
    return made


def checked_option(key: str, value: Any, hint: Any, field: Field[Any]) -> Any:
    """The value in the field's type; a list where a tuple is wanted, an integer where a float is."""
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        if not isinstance(value, list | tuple) or not value:
            raise _wrong(key, value, f"must be a list of {_NAMES[item]}", field)
        return tuple(_scalar(key, value, entry, item, field) for entry in value)
    return _scalar(key, value, value, hint, field)


_NAMES = {int: "integers", float: "numbers", bool: "true or false", str: "strings"}


def _scalar(key: str, value: Any, entry: Any, wanted: type, field: Field[Any]) -> Any:
    if wanted is float and isinstance(entry, int) and not isinstance(entry, bool):
        entry = float(entry)
    if type(entry) is not wanted or (isinstance(entry, float) and not math.isfinite(entry)):
        raise _wrong(key, value, f"must be of type {wanted.__name__}", field)
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and entry < low:
        raise _wrong(key, value, f"must be at least {low:g}", field)
    if high is not None and entry > high:
        raise _wrong(key, value, f"must be at most {high:g}", field)
    return entry


def _wrong(key: str, value: Any, rule: str, field: Field[Any]) -> ConfigError:
    return ConfigError(
        key=key, value=value, rule=rule, remedy=f"Leave it out for the default, {field.default!r}"
    )
