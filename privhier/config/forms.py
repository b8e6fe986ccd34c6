"""Which forms a key's value may have, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from privhier.config.base import Choice

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}


def annotation_at(model: type[BaseModel], location: Sequence[str | int]) -> Any:
    """The type of what stands at ``location`` of a configuration; None where nothing is said of it."""
    annotation: Any = model
    for part in location:
        annotation = next(_inside(annotation, part), None)
    return annotation


def forms(annotation: Any) -> list[str]:
    """Each form that a value of this type may have: ``["true", "false", "'auto'"]``."""
    found = [word for one in _alternatives(annotation) for word in _words(one)]
    return list(dict.fromkeys(found))


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """Types of what stands under ``part`` in each alternative that may hold it."""
    for one in _alternatives(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            if part in one.model_fields:
                yield one.model_fields[str(part)].annotation
        elif isinstance(part, int) and get_origin(one) in (list, tuple):
            yield get_args(one)[0]
        elif get_origin(one) is dict:
            yield get_args(one)[1]


def _alternatives(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "__metadata__"):
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation


def _words(kind: Any) -> Iterator[str]:
    if kind is bool:
        yield from ("true", "false")
    elif get_origin(kind) is Literal:
        yield from (repr(value) for value in get_args(kind))
    elif kind in _WORDS:
        yield _WORDS[kind]
    elif get_origin(kind) in (list, tuple):
        yield "a list"
    elif isinstance(kind, type) and issubclass(kind, Choice):
        yield from ("a name", "a section of name, options")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield f"a section of {', '.join(kind.model_fields)}"
    else:
        yield "a section"
