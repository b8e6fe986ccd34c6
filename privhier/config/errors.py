"""Plain data into a section; the first thing wrong becomes a typed error that says how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from privhier.config.forms import annotation_at, forms
from privhier.errors import ConfigError
from privhier.registry import nearest

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Any) -> Model:
    """Validate plain data as ``model``.

    Raises:
        ConfigError: No mapping, an unknown key, a wrong type or a broken rule; it counts the others.
    """
    if not isinstance(data, dict):
        raise ConfigError(
            key="CONFIG", value=data, rule="must be a mapping of keys", remedy="See configs/quickstart.yaml"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, data, error) from error


def _explain(model: type[BaseModel], data: Any, error: ValidationError) -> ConfigError:
    # An error for each form that a value might have had is one fault of one key.
    faults: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for detail in error.errors():
        faults.setdefault(_location(data, detail), []).append(detail)
    location, details = next(iter(faults.items()))
    first = next((one for one in details if not _of_form(one)), details[0])
    key = ".".join(str(part) for part in location) or "CONFIG"
    more = f" ({len(faults) - 1} more such errors)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        elsewhere = [] if len(location) > 1 else _below(model, str(location[-1]))
        hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else nearest(str(location[-1]), known)
        return ConfigError(key=key, value=first["input"], rule=f"is not a known key{more}", remedy=hint)
    if first["type"] == "missing":
        return ConfigError(
            key=key, value=None, rule=f"is required{more}", remedy=f"Set {key} in the configuration"
        )
    rule = first["msg"].removeprefix("Value error, ")
    several = forms(annotation_at(model, location)) if _of_form(first) else []
    if len(several) > 1:
        rule = f"must be {', '.join(several[:-1])} or {several[-1]}"
    return ConfigError(
        key=key,
        value=first["input"],
        rule=f"{rule[:1].lower()}{rule[1:]}{more}",
        remedy=f"Mend {key} and start again",
    )


def _location(data: Any, detail: ErrorDetails) -> tuple[str | int, ...]:
    """Names and numbers that lead to the fault in ``data``.

    Pydantic puts the form that it tried between them (``bool``, ``literal['auto']``); that is no key.
    """
    parts, last = [], len(detail["loc"]) - 1
    for place, part in enumerate(detail["loc"]):
        if _holds(data, part):
            data = data[part]
        elif detail["type"] != "missing" or place < last:
            continue
        parts.append(part)
    return tuple(parts)


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _of_form(detail: ErrorDetails) -> bool:
    """Whether a value is of the wrong form, and not out of bounds or against a rule."""
    return detail["type"].endswith(("_type", "_parsing", "_from_float")) or detail["type"] == "literal_error"


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        model = next(_sections(field.annotation), model)
    return list(model.model_fields)


def _below(model: type[BaseModel], name: str, prefix: str = "") -> list[str]:
    """Keys of that name inside the sections of a file: what was put at its top by mistake."""
    found = []
    for key, field in model.model_fields.items():
        for section in _sections(field.annotation):
            found += [f"{prefix}{key}.{name}"] if name in section.model_fields else []
            found += _below(section, name, f"{prefix}{key}.")
    return list(dict.fromkeys(found))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among the alternatives of a key's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
