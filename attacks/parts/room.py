"""How many images at a time: what a device likes is a full one, what it can bear is its memory."""

from __future__ import annotations

import torch
from torch import Tensor

from privhier.attacks.parts.matching import Misfit

CPU_BYTES, CPU_MOST = 2**30, 32
"""On a CPU: what a step may keep for its way back, and the most images; more only leave its caches."""
CUDA_SHARE, CUDA_MOST = 0.5, 1024
"""On a CUDA device: the part of its free memory that a step may keep, and the most images."""


def bytes_per_image(misfit: Misfit, image_shape: tuple[int, int, int]) -> int:
    """What a step keeps of each image for its way back: measured as two images' bytes less one's."""
    return _kept(misfit, 2, image_shape) - _kept(misfit, 1, image_shape)


def room_for(bytes_each: int, device: str) -> int:
    """Images at a time on this device, at least 1."""
    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(torch.device(device))
        share = torch.cuda.get_per_process_memory_fraction(torch.device(device))
        return affordable_batch(bytes_each, device_bytes=min(free, share * total))
    return affordable_batch(bytes_each)


def affordable_batch(bytes_each: int, *, device_bytes: float | None = None) -> int:
    """Images at a time, at least 1.

    Args:
        bytes_each: What a step keeps of each image.
        device_bytes: Free memory of the CUDA device; None: a CPU.

    Example:
        >>> affordable_batch(4_000_000), affordable_batch(200_000_000)
        (32, 5)
        >>> affordable_batch(4_000_000, device_bytes=80e9), affordable_batch(200_000_000, device_bytes=80e9)
        (1024, 200)
    """
    room, most = (CPU_BYTES, CPU_MOST) if device_bytes is None else (CUDA_SHARE * device_bytes, CUDA_MOST)
    return max(1, min(most, int(room // max(bytes_each, 1))))


def _kept(misfit: Misfit, images: int, image_shape: tuple[int, int, int]) -> int:
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    device = misfit.device
    x = torch.zeros(images, *image_shape, device=device, requires_grad=True)
    states = list(range(min(misfit.releases_per_record, misfit.most_states)))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        predicted = misfit.predict(x, states)
        predicted.square().sum()
    return sum(kept.values())
