"""Named random streams. Every draw belongs to a stream; nothing touches the global generators."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_ONE_AT_A_TIME = threading.RLock()
"""There is one global generator a process."""


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of the experiment ``seed``.

    Streams of different names are unrelated (SHA-256). torch's CPU generator keeps only the low 32 bits of
    a seed: good for studies, never for secrets.

    Example:
        >>> stream_seed(0, "release", 3) == stream_seed(0, "release", 3)
        True
        >>> stream_seed(0, "release", 3) == stream_seed(0, "release", 4)
        False
    """
    text = "/".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream ``names``."""
    return np.random.default_rng(stream_seed(seed, *names))


def torch_stream(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for the stream ``names`` on ``device``."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))


@contextmanager
def isolated_rng(seed: int, *names: str | int) -> Iterator[None]:
    """Run code that insists on torch's global generator (weight initialization, dropout) reproducibly.

    The global CPU and CUDA generators are seeded inside and put back as they were on exit. Threads take
    turns, so keep the block short.
    """
    cuda = torch.cuda.is_available()
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        drawn = stream_seed(seed, *names)
        # As torch.manual_seed does it, which without CUDA walks the stack for a driver that never comes.
        torch.default_generator.manual_seed(drawn)
        if cuda:
            torch.cuda.manual_seed_all(drawn)
        yield
