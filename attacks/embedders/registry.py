"""From a name and options in the configuration to a face embedder. Importing this fills the registry."""

from __future__ import annotations

import difflib
import types

from pydantic import ValidationError

from privhier.attacks.embedders import facenet as embedder_facenet
from privhier.attacks.embedders import onnx as embedder_onnx
from privhier.attacks.embedders.base import KEY, FaceEmbedder, embedders, weights_file
from privhier.config import Choice
from privhier.errors import ConfigError

FAMILIES: tuple[types.ModuleType, ...] = (embedder_onnx, embedder_facenet)
"""Modules that register the built-in embedders; importing them loads no runtime."""

registry = embedders
"""The registry with every built-in embedder in it."""


def build_embedder(choice: Choice, *, key: str = KEY) -> FaceEmbedder:
    """The embedder a configuration names, its options checked and its file there, but not yet read.

    Args:
        choice: Name and options, e.g. ``Choice(name="onnx", options={"path": "weights/arcface.onnx"})``.
        key: Where in the configuration it stands, for errors in names and options.

    Raises:
        UnknownNameError: No embedder has this name.
        ConfigError: An option that does not exist, of the wrong type or out of its range, or a file
            that is not there.

    Example:
        >>> build_embedder(Choice(name="inception_resnet_v1", options={"weights": "random"})).path
        ''
    """
    kind = embedders.get(choice.name)
    try:
        made = kind.model_validate(choice.options)
    except ValidationError as error:
        raise _explained(choice.name, kind, error, key) from error
    if made.needs_file:
        weights_file(made.path, choice.name, key=key)
    return made


def _explained(name: str, kind: type[FaceEmbedder], error: ValidationError, key: str) -> ConfigError:
    first = error.errors()[0]
    option = str(first["loc"][0]) if first["loc"] else ""
    known = list(kind.model_fields)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(option, known, n=3, cutoff=0.5)
        rule = f"is not an option of {name}"
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(known)}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        rule, remedy = message[:1].lower() + message[1:], f"Mend it; options of {name}: {', '.join(known)}"
    where = f"{key}.{name}.options{f'.{option}' if option else ''}"
    return ConfigError(key=where, value=first["input"], rule=rule, remedy=remedy)
