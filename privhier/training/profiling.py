"""Where an epoch's time goes: torch's profiler around one epoch of each phase, and what its time was for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from privhier.models.span import PREFIX
from privhier.storage.files import write_atomic

OTHER = "everything else"
_CONVOLUTION = "convolution"


class Profiling:
    """Profiles one epoch of every phase of a training: the second where there is one, as the first warms up.

    Args:
        folder: Where ``PHASE.trace.json.gz`` (for chrome://tracing or Perfetto) and ``PHASE.md`` go.
        phases: What is still to run, as ``(phase, epoch)``.
        device: Where it runs.
    """

    def __init__(self, folder: Path, phases: Sequence[tuple[str, int]], device: torch.device) -> None:
        epochs: defaultdict[str, list[int]] = defaultdict(list)
        for phase, epoch in phases:
            epochs[phase].append(epoch)
        self._chosen = {(phase, numbers[:2][-1]) for phase, numbers in epochs.items()}
        self._folder, self._device = folder, device

    @contextmanager
    def epoch(self, phase: str, epoch: int) -> Iterator[None]:
        """Profile the block if this epoch is one of those chosen, and write trace and table."""
        if (phase, epoch) not in self._chosen:
            yield
            return
        cuda = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        with profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True) as found:
            yield
        self._folder.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(self._folder / f"{phase}.trace.json.gz"))
        text = table(shares(found.events()), f"{phase} epoch {epoch + 1} on {self._device.type}")
        write_atomic(self._folder / f"{phase}.md", text)


def shares(events: Any) -> dict[str, float]:
    """Processor seconds by what they were for, the largest first.

    Every event's own time counts once: under convolution if it is one, forward or backward, else under the
    innermost span around it (``privhier.models.span``).
    """
    found: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event.is_async or str(event.device_type).endswith("CUDA"):
            continue
        found[_kind(event)] += event.self_cpu_time_total / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def table(seconds: Mapping[str, float], title: str) -> str:
    """The shares as a table in Markdown."""
    total = sum(seconds.values()) or 1.0
    rows = [f"| {name} | {value:.4f} | {100 * value / total:.1f} % |" for name, value in seconds.items()]
    head = ["| what | processor seconds | share |", "|---|---|---|"]
    return "\n".join([f"# {title}", "", *head, *rows, f"| together | {total:.4f} | 100 % |", ""])


def _kind(event: Any) -> str:
    if _CONVOLUTION in event.name:
        return f"{_CONVOLUTION} {'backward' if 'backward' in event.name else 'forward'}"
    while event is not None:
        if event.name.startswith(PREFIX):
            return str(event.name[len(PREFIX) :])
        event = event.cpu_parent
    return OTHER
