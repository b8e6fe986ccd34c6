"""Where the pixels of a training lie: on the device itself where they fit, else one batch ahead of it.

What the edge is trained on does not depend on it: a batch's draws are keyed by record (``EdgeDraws``), three
numbers a picture made on the CPU, and the same pixels are moved by them wherever they lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from privhier.datasets.base import IntArray
from privhier.errors import ConfigError
from privhier.training.batches import TrainingData

SHARE = 0.5
"""Of a device's free memory, for pixels under ``runtime.resident: auto``; the rest is the network's."""
_CHUNK = 4096
"""Pictures that are brought onto a device at a time."""
Asked = bool | Literal["auto"]


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a CUDA device."""
    return int(torch.cuda.mem_get_info(device)[0])


def is_resident(asked: Asked, size: int, free: int) -> bool:
    """Whether pixels of ``size`` bytes are to lie on a device with ``free`` bytes.

    Raises:
        ConfigError: They were asked to and cannot.
    """
    if asked is True and size > free:
        raise ConfigError(
            key="runtime.resident",
            value=True,
            rule=f"needs {size} bytes on the device for the pixels, and {free} are free",
            remedy="Set runtime.resident=auto, or lower dataset.image_size or dataset.limit",
        )
    return size <= SHARE * free if asked == "auto" else asked


class Pixels:
    """The pixels of a training, batch by batch.

    On a CPU batches are read from the cache's memory map, with one copy; nothing is held. Elsewhere the whole
    cache lies on the device, or a thread reads the next batch into pinned memory while this one is trained.

    Args:
        data: What the edge owns.
        device: Where it is trained.
        asked: ``runtime.resident``.
    """

    def __init__(self, data: TrainingData, device: torch.device, asked: Asked) -> None:
        self._data, self._device = data, device
        self.whole: Tensor | None = None
        """uint8 ``(N, 3, H, W)`` on the device; None where it is not resident."""
        self.ahead = device.type != "cpu"
        """Whether batches are read ahead."""
        self._ready: tuple[IntArray, Tensor] | None = None
        if device.type != "cpu" and is_resident(asked, int(data.images.nbytes), free_memory(device)):
            self.hold()

    def hold(self) -> None:
        """Bring the whole cache onto the device."""
        images = self._data.images
        whole = torch.empty(images.shape, dtype=torch.uint8, device=self._device)
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            whole[part] = torch.from_numpy(np.array(images[part]))
        self.whole, self.ahead = whole, False

    def of(self, data: TrainingData, records: IntArray) -> Tensor:
        """uint8 ``(B, 3, H, W)`` of these records, on the device."""
        if self._ready is not None and self._ready[0] is records:
            return self._ready[1].to(self._device, non_blocking=True)
        if self.whole is not None and data.images is self._data.images:
            return self.whole.index_select(0, torch.from_numpy(records).to(self._device))
        return data.pixels(records).to(self._device, non_blocking=True)

    def batches(self, given: Iterable[IntArray]) -> Iterator[IntArray]:
        """The batches as given, their pixels read ahead where that pays; they may not depend on training."""
        if not self.ahead:
            yield from given
            return
        batches = iter(given)
        with ThreadPoolExecutor(max_workers=1) as thread:
            following = next(batches, None)
            coming = None if following is None else thread.submit(self._read, following)
            try:
                while following is not None and coming is not None:
                    records, pixels = following, coming.result()
                    following = next(batches, None)
                    coming = None if following is None else thread.submit(self._read, following)
                    self._ready = records, pixels
                    yield records
            finally:
                self._ready = None

    def _read(self, records: IntArray) -> Tensor:
        pixels = self._data.pixels(records)
        return pixels.pin_memory() if self._device.type == "cuda" else pixels
