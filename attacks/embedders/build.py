"""From a name and options in the configuration to a face embedder."""

from __future__ import annotations

from privhier.attacks.embedders.base import KEY, FaceEmbedder, embedders, weights_file
from privhier.config import Choice
from privhier.config.choices import build


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
    made = build(embedders, choice, key=key)
    if made.needs_file:
        weights_file(made.path, choice.name, key=key)
    return made
