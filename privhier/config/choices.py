"""From a name and options in the configuration to a checked object: one builder for every registry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

from privhier.config.base import Choice
from privhier.errors import ConfigError, ContractError
from privhier.registry import Registry, nearest

T = TypeVar("T")
V = TypeVar("V")
M = TypeVar("M", bound=BaseModel)
_TYPES = {int: "integers", float: "numbers", bool: "true or false", str: "strings"}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def option(default: V, *, low: float, high: float = float("inf")) -> V:
    """A dataclass field whose value (each value, for a tuple) must lie in ``[low, high]``.

    ``build`` reads the bounds from the field's metadata.
    """
    made: V = field(default=default, metadata={"low": low, "high": high})
    return made


def check_bounds(made: Any) -> None:
    """Hold a dataclass's values against the bounds of its options.

    Raises:
        ConfigError: A value (one of a tuple's) out of its range, no number, or no tuple where there is one.
    """
    for one in fields(made):
        if "low" not in one.metadata:
            continue
        low, high = float(one.metadata["low"]), float(one.metadata["high"])
        value = getattr(made, one.name)
        several = isinstance(one.default, tuple)
        each = value if several and isinstance(value, tuple | list) else (value,)
        right = isinstance(value, tuple | list) == several
        if not right or not all(isinstance(x, int | float) and low <= x <= high for x in each):
            most = "" if math.isinf(high) else f" and at most {high:g}"
            raise ConfigError(
                key=f"{type(made).__name__}.{one.name}",
                value=value,
                rule=f"must be {'a tuple of numbers, each ' if several else ''}at least {low:g}{most}",
                remedy=f"The default is {one.default!r}",
            )


def build(
    registry: Registry[type[T]],
    choice: Choice,
    *,
    key: str | None = None,
    among: Iterable[str] | None = None,
    **fixed: Any,
) -> T:
    """The object that ``choice`` names, made of its options, each of them checked.

    What is registered says itself what its options are: a frozen dataclass by its fields (with bounds:
    ``option``), a pydantic model by its own, any other class by a pydantic model ``Options``, which it is
    called with.

    Args:
        registry: Where the name is looked up.
        choice: Name and options.
        key: The configuration key of the choice; None: the registry's own. ``x.name`` has its options under
            ``x.options``, any other key, under which several choices stand, under ``key.NAME.options``.
        among: The names that may stand there; None: all.
        fixed: Fields of a dataclass that are not configured.

    Raises:
        UnknownNameError: No such name; the message names the nearest.
        ContractError: A plugin of that name that cannot be used, or options of types nobody can configure.
        ConfigError: An option that does not exist, of the wrong type or out of its range (key: the
            options' and its name), or options that do not go together (key: the options').

    Example:
        >>> from dataclasses import dataclass
        >>> pens: Registry[type] = Registry("pens", key="draw.pen.name")
        >>> @pens.register("pencil")
        ... @dataclass(frozen=True)
        ... class Pencil:
        ...     width: int = option(2, low=1)
        >>> build(pens, Choice(name="pencil", options={"width": 3}))
        Pencil(width=3)
    """
    key = key or registry.key
    kind: Any = registry.get(choice.name, key=key, among=among)
    section = key.removesuffix(".name")
    where = f"{section}.options" if section != key else f"{key}.{choice.name}.options"
    made: T
    plain = is_dataclass(kind)  # asked here: the checker would take what passes for an instance
    if plain:
        given = _validated(dataclass_options(kind, tuple(fixed)), choice, where)
        try:
            made = kind(**fixed, **{name: getattr(given, name) for name in choice.options})
        except ValueError as error:
            raise ConfigError(
                key=where,
                value=dict(choice.options),
                rule=str(error),
                remedy="Change these options, or leave them out for their defaults",
            ) from error
    elif issubclass(kind, BaseModel):
        made = _validated(kind, choice, where)
    else:
        made = kind(_validated(kind.Options, choice, where))
    return made


def check_options(model: type[M], options: Mapping[str, Any], where: str, *, of: str) -> M:
    """Options that stand inside those of something else, checked and named like any others.

    Args:
        model: What they may be.
        options: As they were given.
        where: The configuration key they stand under.
        of: Whose they are, for the messages.

    Raises:
        ConfigError: As ``build``.
    """
    made: M = _validated(model, Choice(name=of, options=dict(options)), where)
    return made


@cache
def dataclass_options(kind: type[Any], fixed: tuple[str, ...] = ()) -> type[BaseModel]:
    """The options of a dataclass as a model: strictly typed, bounded as ``option`` says.

    Args:
        kind: The dataclass.
        fixed: Fields that are not configured.

    Raises:
        ContractError: Options of types nobody can configure.
    """
    made: dict[str, Any] = {}
    try:
        hints = get_type_hints(kind)
        options = [one for one in fields(kind) if one.init and one.name not in fixed]
        for one in options:
            annotation = _strict(hints[one.name], one.metadata.get("low"), one.metadata.get("high"))
            default = ... if one.default is MISSING else one.default
            if one.default_factory is not MISSING:
                default = Field(default_factory=one.default_factory)
            made[one.name] = (annotation, default)
        config = ConfigDict(extra="forbid", protected_namespaces=())
        return create_model(kind.__name__, __config__=config, **made)
    except (NameError, TypeError, PydanticUserError) as error:
        raise ContractError(
            key=f"{kind.__module__}.{kind.__qualname__}",
            value=sorted(one.name for one in fields(kind)),
            rule=f"has options whose types cannot be read: {str(error).splitlines()[0]}",
            remedy="Give options plain types (int, float, bool, str, tuples of one of them), and import at "
            "the top of the file what annotations name",
        ) from error


def _strict(hint: Any, low: float | None, high: float | None) -> Any:
    if get_origin(hint) is tuple:  # a list in YAML; what is in it is as strict as anything
        items: Any = GenericAlias(tuple, (_strict(get_args(hint)[0], low, high), Ellipsis))
        return Annotated[items, Field(min_length=1)]
    if get_origin(hint) is Literal:  # one of a few words, none of which is anything else
        return hint
    rules: dict[str, Any] = {"allow_inf_nan": False} if hint is float else {}
    if low is not None:
        rules["ge"] = math.ceil(low) if hint is int else low
    if high is not None and math.isfinite(high):
        rules["le"] = math.floor(high) if hint is int else high
    return Annotated[hint, Field(strict=True, **rules)]


def _validated(model: type[Any], choice: Choice, where: str) -> Any:
    try:
        return model.model_validate(dict(choice.options))
    except ValidationError as error:
        raise _explained(model, choice, error.errors()[0], where) from error


def _explained(model: type[BaseModel], choice: Choice, first: Any, where: str) -> ConfigError:
    if not first["loc"]:  # several options together
        rule = first["msg"].removeprefix("Value error, ")
        remedy = "Change these options, or leave them out for their defaults"
        return ConfigError(key=where, value=dict(choice.options), rule=_lower(rule), remedy=remedy)
    name, known = str(first["loc"][0]), model.model_fields
    value = choice.options.get(name)
    if first["type"] == "extra_forbidden":
        rule = f"is not an option of {choice.name}"
        remedy = nearest(name, known) if known else "It takes no options"
    else:
        rule = _rule(first, known[name].annotation)
        remedy = f"Mend it; options of {choice.name}: {', '.join(known)}"
        if not known[name].is_required():
            remedy = f"Leave it out for the default, {known[name].get_default(call_default_factory=True)!r}"
    return ConfigError(key=f"{where}.{name}", value=value, rule=rule, remedy=remedy)


def _rule(first: Any, annotation: Any) -> str:
    """Pydantic's verdict on one option in the words of our other errors."""
    kind, text = str(first["type"]), _lower(first["msg"].removeprefix("Value error, "))
    if kind in _BOUNDS:
        name, word = _BOUNDS[kind]
        return f"must be {word} {first['ctx'][name]:g}"
    if kind in ("tuple_type", "list_type", "too_short"):
        items = [_TYPES[item] for item in _TYPES if item in _parts(annotation)]
        if any(get_origin(part) is dict for part in get_args(annotation)):
            items = ["mappings"]
        return f"must be a list of {items[0] if items else 'values'}, at least one"
    wanted = {"finite": "float", "string": "str"}.get(kind.partition("_")[0], kind.partition("_")[0])
    return f"must be of type {wanted}: {text}" if wanted in {one.__name__ for one in _TYPES} else text


def _parts(annotation: Any) -> list[Any]:
    """A type and all that it is made of."""
    return [annotation, *(part for one in get_args(annotation) for part in _parts(one))]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
