"""A batch through layers slice by slice, each small enough that a core keeps its maps in its own cache.

Between two layers of a small network a batch's maps are written and read again; past a core's cache that
takes longer than the arithmetic of all but the convolutions. Of layers that take every record by itself
nothing but last digits of the weights' gradients depends on the slices: they are added up slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

BYTES = 4 * 2**20
"""Of the widest map of one slice, for each thread: what ``benchmarks/epoch.py`` was fastest with."""
FEWEST = 16
"""Records of a slice, at least, for each thread: fewer, and every call's own cost shows."""


def slice_size(layers: nn.Module, record: Tensor) -> int | None:
    """How many records to take at a time on the CPU; None: a batch as a whole.

    Args:
        layers: What every record goes through; left as it is.
        record: One made-up record ``(1, ...)``.

    Returns:
        A multiple of 8, the same for the same layers, shape and number of threads. None for layers that mix
        records or draw by position (BatchNorm, dropout), and off the CPU.
    """
    if record.device.type != "cpu" or _mixes(layers):
        return None
    threads = torch.get_num_threads()
    fitting = threads * BYTES // max(_widest(layers, record), 1)
    return max(fitting // 8 * 8, FEWEST * threads)


def in_slices(layers: Callable[[Tensor], Tensor], x: Tensor, size: int | None) -> Tensor:
    """``layers(x)``, computed ``size`` records at a time."""
    if size is None or len(x) <= size:
        return layers(x)
    return torch.cat([layers(part) for part in x.chunk(-(-len(x) // size))])


def _mixes(layers: nn.Module) -> bool:
    return any(
        isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd | StochasticDepth) and module.p > 0)
        for module in layers.modules()
    )


@torch.no_grad()
def _widest(layers: nn.Module, record: Tensor) -> int:
    """Bytes of the largest map that any layer makes of one record."""
    sizes = [0]

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    handles = [module.register_forward_hook(note) for module in layers.modules()]
    modes = [(module, module.training) for module in layers.modules()]
    layers.eval()
    try:
        layers(record)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return max(sizes)
