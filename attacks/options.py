"""Bounds of an attack's hyper-parameters, kept on the dataclass field, and the check of configured ones."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from privhier.errors import ConfigError

V = TypeVar("V")


def option(default: V, *, low: float, high: float = float("inf")) -> V:
    """A dataclass field whose value (each value, for a tuple) must lie in ``[low, high]``.

    ``from_options`` reads the bounds from the field's metadata.
    """
    made: V = field(default=default, metadata={"low": low, "high": high})
    return made


def from_options(kind: Any, options: Mapping[str, Any], *, key: str, remedy: str, **fixed: Any) -> Any:
    """An instance of the frozen dataclass ``kind`` with a configuration's options, each of them checked.

    Args:
        kind: A dataclass; fields named in ``fixed`` are no options.
        options: Name to value, as read from YAML.
        key: Where they stand in the configuration.
        remedy: What to do where the values are refused together.
        fixed: Fields that are not configured.

    Raises:
        ConfigError: An option that does not exist, of the wrong type or out of its range.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.name not in fixed}
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(known)}"
            raise ConfigError(key=f"{key}.{name}", value=value, rule="is not a known option", remedy=hint)
        values[name] = checked_option(f"{key}.{name}", value, hints[name], known[name])
    try:
        return kind(**fixed, **values)
    except ValueError as error:
        raise ConfigError(key=key, value=dict(options), rule=str(error), remedy=remedy) from error


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
