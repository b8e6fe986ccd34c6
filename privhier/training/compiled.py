"""``runtime.compile``: the edge's forward and backward through torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from privhier.errors import ConfigError

BACKEND = "inductor"
"""What compiles; on a CPU it needs a C++ compiler, on CUDA Triton."""


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function, compiled when it is first called; a batch of another size compiles it once more."""
    result: Callable[[Tensor], Tensor] = torch.compile(function, backend=BACKEND)
    return result


def check_compiles(device: torch.device) -> None:
    """Compile a small convolution, forward and backward.

    Raises:
        ConfigError: Nothing here compiles, e.g. for lack of a C++ compiler.
    """
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).to(device)
    try:
        compiled(layers)(torch.zeros(1, 1, 4, 4, device=device)).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ImportError) as error:
        inner = getattr(error, "inner_exception", error)  # what dynamo wraps
        why = next((line for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
        raise ConfigError(
            key="runtime.compile",
            value=True,
            rule=f"needs what torch.compile needs on {device.type}, and it says: {why}",
            remedy="Install a C++ compiler (CPU) or Triton (CUDA), or set runtime.compile=false",
        ) from error
