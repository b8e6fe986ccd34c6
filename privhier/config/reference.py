"""Every configuration key with its type, default, rule and meaning, read off the sections themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from yaml import safe_dump

from privhier.config.base import Choice
from privhier.config.choices import dataclass_options
from privhier.config.run import RunConfig
from privhier.errors import ConfigError
from privhier.registry import near_names

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_REQUIRED = "(required)"
_OPTION = re.compile(r" {4}(?P<name>\w+): (?P<text>.*)")
"""A line of an ``Args:`` or ``Attributes:`` block."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration file."""

    path: str
    """Names of sections and key, joined by dots."""
    type: str
    """What it takes, e.g. ``whole number, or null``; ``section`` for one that holds keys."""
    rule: str
    """Its bounds in words; empty: none."""
    default: str
    """As YAML would have it; ``(required)`` where there is none."""
    meaning: str
    """Its docstring, as one paragraph."""

    @property
    def is_section(self) -> bool:
        """Whether it holds keys, and nothing else."""
        return self.type == "section"


def reference(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Key]:
    """All keys below ``model``, sections before their keys, in the order of the file."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = [one for one in sections(field.annotation) if not issubclass(one, Choice)]
        yield _key(path, field, inner)
        for section in inner:
            yield from reference(section, f"{path}.")


def find(path: str) -> list[Key]:
    """The key or section ``path`` and, of a section, all that it holds.

    Raises:
        ConfigError: There is no such key; says which ones end alike.
    """
    keys = list(reference())
    found = [key for key in keys if key.path == path or key.path.startswith(f"{path}.")]
    if not found:
        raise ConfigError(
            key="KEY",
            value=path,
            rule="is not a known key",
            remedy=nearest_keys(path, [k.path for k in keys]),
        )
    return found


def options_of(kind: type[Any], fixed: tuple[str, ...] = ()) -> list[Key]:
    """The options of something registered, whatever kind of class it is (see ``choices.build``).

    Args:
        kind: What the registry holds.
        fixed: Fields of a dataclass that are not configured.

    Raises:
        ContractError: Options of types nobody can configure.
    """
    options: type[BaseModel] | None
    if is_dataclass(kind):
        options = dataclass_options(kind, fixed)
    else:
        options = kind if issubclass(kind, BaseModel) else getattr(kind, "Options", None)
    said = _said_of(kind)
    keys = [] if options is None else reference(options)
    return [replace(key, meaning=key.meaning or said.get(key.path, "")) for key in keys]


def _said_of(kind: type[Any]) -> dict[str, str]:
    """What the docstrings of a class and of those it inherits from say of its options, by name."""
    said: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        lines, name = inspect.cleandoc(one.__doc__ or "").splitlines(), ""
        inside = False
        for line in lines:
            if line.strip() in ("Args:", "Attributes:"):
                inside = True
            elif inside and (found := _OPTION.match(line)):
                name = found["name"]
                said[name] = found["text"].strip()
            elif inside and name and line.startswith(" " * 8):
                said[name] += f" {line.strip()}"
            elif line.strip():
                inside = inside and line.startswith(" " * 4)
    return said


def nearest_keys(path: str, known: list[str]) -> str:
    """What to do about a key nobody knows: the keys of the same last name, else those that read alike."""
    leaves: dict[str, list[str]] = {}
    for key in known:
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    last = path.rpartition(".")[2]
    close = [last] if last in leaves else near_names(last, leaves)
    near = [key for leaf in close for key in leaves[leaf]][:4]
    return f"Did you mean {' or '.join(near)}?" if near else "See privhier config"


def defaults(path: str = "") -> str:
    """YAML of a section's keys that have defaults, or of the one key; of all where ``path`` is empty.

    Raises:
        ConfigError: As ``find``.
    """
    keys = [key for key in (find(path) if path else reference()) if not key.is_section]
    tree: dict[str, Any] = {}
    for key in keys:
        field = _field(key.path)
        if field is None or field.is_required() or _inside_optional(key.path):
            continue
        *sections_, leaf = key.path.split(".")
        level = tree
        for name in sections_:
            level = level.setdefault(name, {})
        level[leaf] = _plain(field.get_default(call_default_factory=True))
    return str(safe_dump(tree, sort_keys=False, default_flow_style=None, width=100))


def inline(value: Any) -> str:
    """A value as YAML on one line, quoted where it could be read as anything else."""
    return str(safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("...\n").strip()


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among the alternatives of a key's type; not those in lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (list, dict, tuple):
        for part in get_args(annotation):
            yield from sections(part)


def _key(path: str, field: FieldInfo, inner: list[type[BaseModel]]) -> Key:
    only = bool(inner) and inner == [field.annotation]
    default = _REQUIRED
    if not field.is_required() and not only:
        default = inline(_plain(field.get_default(call_default_factory=True)))
    elif only:
        default = ""
    return Key(
        path=path,
        type="section" if only else _type(field.annotation),
        rule=_rule(field),
        default=default,
        meaning=" ".join((field.description or "").split()),
    )


def _type(annotation: Any) -> str:
    """A type in words."""
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}
    if annotation in plain:
        return plain[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(part) for part in parts) if len(parts) > 1 else str(parts[0])
    if origin in (list, tuple):
        return f"list of: {_type(parts[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Choice):
        return "name, or name and options"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if hasattr(annotation, "__metadata__"):
        return _type(parts[0])
    return ", or ".join(dict.fromkeys(_type(part) for part in parts))


def _rule(field: FieldInfo) -> str:
    words = []
    for rule in field.metadata:
        for name, word in _BOUNDS.items():
            bound = getattr(rule, name, None)
            if bound is not None:
                words.append(f"{word} {bound:g}")
        if getattr(rule, "min_length", None):
            words.append("not empty")
    return ", ".join(words)


def _field(path: str) -> FieldInfo | None:
    model: type[BaseModel] = RunConfig
    *above, leaf = path.split(".")
    for name in above:
        model = next(sections(model.model_fields[name].annotation))
    return model.model_fields.get(leaf)


def _inside_optional(path: str) -> bool:
    """Whether a section above the key is left out by default, or is one of several things a key takes."""
    names = path.split(".")[:-1]
    for count in range(1, len(names) + 1):
        field = _field(".".join(names[:count]))
        if field is None or len(list(sections(field.annotation))) != 1 or get_args(field.annotation):
            return True
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.name if not value.options else value.model_dump(mode="json")
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if value is PydanticUndefined else value
