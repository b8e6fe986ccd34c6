"""Residual blocks whose addition is not in place: per-sample gradient hooks refuse writing into a view.

Torchvision's blocks end in ``out += identity``. The classes below compute the same numbers from the same
parameters under the same names.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.efficientnet import MBConv
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck


class _BasicBlock(BasicBlock):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class _Bottleneck(Bottleneck):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class _InvertedResidual(InvertedResidual):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return out + x if self.use_res_connect else out  # type: ignore[no-any-return]


class _MBConv(MBConv):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return self.stochastic_depth(out) + x if self.use_res_connect else out  # type: ignore[no-any-return]


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: _BasicBlock,
    Bottleneck: _Bottleneck,
    InvertedResidual: _InvertedResidual,
    MBConv: _MBConv,
}


def forbid_inplace_addition(module: nn.Module) -> None:
    """Give every torchvision residual block below ``module`` a forward pass without in-place addition."""
    for child in module.modules():
        replacement = _REPLACEMENTS.get(type(child))
        if replacement is not None:
            child.__class__ = replacement
