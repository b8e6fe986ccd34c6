"""GroupNorm in place of BatchNorm, and no in-place activations: what DP-SGD needs of a network."""

from __future__ import annotations

from torch import nn

MAX_GROUPS = 32
MIN_CHANNELS_PER_GROUP = 4


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the largest number of groups that divides ``channels`` evenly.

    At most 32 groups (Wu and He, 2018), at least four channels a group where ``channels`` allows:
    late maps of small images hold few pixels, and a group must still hold several values.

    Example:
        >>> [group_norm(channels).num_groups for channels in (24, 64, 88, 512, 7)]
        [6, 16, 22, 32, 1]
    """
    most = max(1, min(MAX_GROUPS, channels // MIN_CHANNELS_PER_GROUP))
    groups = next(count for count in range(most, 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


def batch_norm_to_group_norm(module: nn.Module) -> None:
    """Replace every ``BatchNorm2d`` below ``module`` where it stands."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        else:
            batch_norm_to_group_norm(child)


def forbid_inplace(module: nn.Module) -> None:
    """Switch in-place activations off: per-sample gradient hooks refuse them."""
    for child in module.modules():
        if getattr(child, "inplace", False) is True:
            child.inplace = False  # type: ignore[assignment]
