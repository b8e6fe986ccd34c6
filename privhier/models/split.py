"""The cut: everything up to a named stage stays on the edge, the rest goes to the cloud."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from privhier.errors import UnknownNameError
from privhier.models.staged import StagedBackbone
from privhier.registry import nearest


def split_backbone(backbone: StagedBackbone, cut: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Split after the stage ``cut`` into ``(trunk, tail)``; the tail ends in the backbone's head.

    Both share their parameters with ``backbone``: ``tail(trunk(x))`` equals ``backbone(x)``. A cut at
    the last stage leaves the tail with the head alone.

    Raises:
        UnknownNameError: ``cut`` is not one of ``backbone.stage_names``.
    """
    names = backbone.stage_names
    if cut not in names:
        raise UnknownNameError(
            key="model.cut",
            value=cut,
            rule="must be one of the backbone's stages",
            remedy=nearest(cut, names),
        )
    last = names.index(cut)
    trunk = nn.Sequential(OrderedDict((name, backbone.stages[name]) for name in names[: last + 1]))
    tail = nn.Sequential(OrderedDict((name, backbone.stages[name]) for name in names[last + 1 :]))
    tail.add_module("head", backbone.head)
    return trunk, tail
