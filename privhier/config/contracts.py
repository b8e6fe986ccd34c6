"""What a class must be before it may be registered; each rule that is broken, in words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def faults_of_class(entry: Any, base: type[Any]) -> Iterator[str]:
    """Yield why ``entry`` is no subclass of ``base`` with everything in it that ``base`` leaves open."""
    if not isinstance(entry, type):
        yield f"it is a {type(entry).__name__}, not a class"
    elif not issubclass(entry, base):
        yield f"it must be a subclass of {base.__name__} ({base.__module__})"
    elif missing := sorted(getattr(entry, "__abstractmethods__", ())):
        yield f"it lacks {', '.join(missing)}, which every {base.__name__} has"


def faults_of_options(entry: type[Any]) -> Iterator[str]:
    """Yield why a class is no frozen set of options: its fields are the options, its repr its identity."""
    parameters = vars(entry).get("__dataclass_params__")
    if not is_dataclass(entry) or parameters is None or not parameters.frozen:
        yield "it must be a frozen dataclass: write @dataclass(frozen=True) under the registration"
        return
    for one in fields(entry):
        low, high = one.metadata.get("low"), one.metadata.get("high")
        values = one.default if isinstance(one.default, tuple) else (one.default,)
        if any((low is not None and v < low) or (high is not None and v > high) for v in values):
            yield f"the default {one.default!r} of {one.name} lies outside its own bounds [{low}, {high}]"


def faults_of_constant(entry: type[Any], name: str) -> Iterator[str]:
    """Yield why ``name`` would be an option, where every object of the class must have the same."""
    if is_dataclass(entry) and name in {one.name for one in fields(entry)}:
        yield f"{name} must be no option: annotate it {name}: ClassVar[...]"


def faults_of_flag(entry: type[Any], name: str, meaning: str) -> Iterator[str]:
    """Yield why the class has no constant ``name`` that is True or False."""
    if not isinstance(getattr(entry, name, None), bool):
        yield f"it lacks {name}: ClassVar[bool] ({meaning})"
    yield from faults_of_constant(entry, name)


def faults_of_call(entry: Any, shown: str, *arguments: str, **named: str) -> Iterator[str]:
    """Yield why ``entry`` cannot be called with these arguments; ``shown`` names it in the message."""
    if not callable(entry):
        yield f"it lacks {shown}"
        return
    try:
        inspect.signature(entry).bind(*arguments, **named)
    except TypeError as error:
        yield f"it must be callable as {shown} ({error})"
    except ValueError:  # a builtin without a signature: it is seen when it is called
        return
