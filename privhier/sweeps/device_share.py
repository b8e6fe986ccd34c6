"""Several workers on one CUDA device: which device each works on, and how much of its memory it may fill.

Decided with plain numbers, so that every decision can be tried where there is no device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from privhier.config import RunConfig
from privhier.errors import ConfigError

Share = float | Literal["auto"]
USED = 0.9
"""Part of a device that workers share out between them under ``auto``: what a CUDA context, its libraries and
the allocator's rounding take of the device is not counted by the limit (some 0.4 to 0.6 GB a process)."""
_STEP = 1e-4
"""Ray counts a device in ten-thousandths."""
_KEY = "--device-share"


class Cuda(Protocol):
    """What is asked of ``torch.cuda``."""

    def is_available(self) -> bool:
        """Whether there is a device."""

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        """Let this process's allocator take that part of the device's memory, and raise beyond it."""


@dataclass(frozen=True)
class Seat:
    """Where a worker works.

    Attributes:
        device: Number of the CUDA device among those this process sees; None: no CUDA device is used.
        share: Part of its memory that the worker may fill, in (0, 1]; 1 sets no limit.
    """

    device: int | None = None
    share: float = 1.0

    def environment(self, base: Mapping[str, str], devices: int) -> dict[str, str]:
        """The worker's environment: it sees its own device alone, under whatever name that has here."""
        if self.device is None or devices < 2:
            return dict(base)
        visible = base.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(devices)]
        return {**base, "CUDA_VISIBLE_DEVICES": names[self.device].strip()}


def read_share(value: str | float) -> Share:
    """``auto``, or a number in (0, 1].

    Raises:
        ConfigError: Anything else.
    """
    if value == "auto":
        return "auto"
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(value, bool) or not _STEP <= share <= 1:
        raise ConfigError(
            key=_KEY,
            value=value,
            rule=f"must be auto, or a part of one device from {_STEP:g} to 1",
            remedy="Try auto, or 0.25 for four workers a device",
        )
    return share


def wants_cuda(configs: Sequence[RunConfig], *, available: bool) -> bool:
    """Whether any of these runs would compute on a CUDA device where there is one."""
    return available and any(config.runtime.device in ("auto", "cuda") for config in configs)


def default_workers(threads: int, cores: int, *, devices: int = 0, share: Share = "auto") -> int:
    """Points at a time where nobody says: as many as cores and a stated share of the devices have room for.

    Args:
        threads: Of the hungriest point.
        cores: Usable here.
        devices: CUDA devices that points would use; 0: none.
        share: A stated share bounds the workers by ``devices * floor(1 / share)``; ``auto`` does not.
    """
    room = max(1, cores // max(threads, 1))
    return room if not devices or share == "auto" else min(room, devices * _workers_a_device(share))


def share_of(workers: int, devices: int, wanted: Share) -> float:
    """The part of a device that each of ``workers`` may fill.

    ``auto``: all of it where no two share a device, else ``USED`` in equal parts, rounded down.

    Raises:
        ConfigError: The stated shares add up to more than the devices have.
    """
    a_device = math.ceil(workers / max(devices, 1))
    if wanted == "auto":
        return 1.0 if a_device == 1 else round(math.floor(USED / a_device / _STEP + 1e-6) * _STEP, 4)
    if a_device > _workers_a_device(wanted):
        fits = max(devices, 1) * _workers_a_device(wanted)
        raise ConfigError(
            key=_KEY,
            value=wanted,
            rule=f"{workers} workers on {devices} device(s) would fill more than there is of one",
            remedy=f"Use --workers {fits}, or --device-share auto",
        )
    return wanted


def seat_of(number: int, devices: int, share: float) -> Seat:
    """The seat of the worker with this number, from 0: devices take turns."""
    return Seat(number % devices, share) if devices else Seat()


def refuse_without_cuda(share: Share | None) -> None:
    """A stated share where no point would use a CUDA device has nothing to be a share of.

    Raises:
        ConfigError: So it is.
    """
    if isinstance(share, float):
        raise ConfigError(
            key=_KEY,
            value=share,
            rule="no point of this sweep would use a CUDA device here",
            remedy="Leave it out: on a CPU, workers share the cores by runtime.threads",
        )


def limit_memory(share: float, cuda: Cuda) -> None:
    """Hold this process to its share of its device, the first one it sees; beyond it torch raises.

    Args:
        share: In (0, 1]; 1 sets no limit.
        cuda: ``torch.cuda``.
    """
    if share < 1 and cuda.is_available():
        cuda.set_per_process_memory_fraction(share, 0)


def visible_devices() -> int:
    """CUDA devices of this process; asked of the driver, so no context (and no memory) is taken here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def own_environment(seat: Seat, devices: int) -> dict[str, str]:
    """See ``Seat.environment``, over this process's own."""
    return seat.environment(os.environ, devices)


def _workers_a_device(share: float) -> int:
    return max(1, math.floor(1 / share + 1e-9))
