"""The tables as a page and as comma-separated values; which machine, in words, and which versions."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import Row, Strength

COMMON = ("torch", "opacus", "numpy", "scikit-learn")
"""What both sides of a comparison run on."""


def versions_of(*names: str) -> str:
    """``name version`` of installed packages."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def machine(threads: int) -> str:
    """The processor's model and the threads used; no name of the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    kind = ", ".join(sorted(models)) or platform.machine()
    return f"{kind}, {threads} thread, {platform.system()}, Python {platform.python_version()}"


def times_table(rows: Sequence[Row]) -> str:
    """The table of times."""
    head = (
        "| comparison | peer | ratio (smallest to largest pair) | by the wall | pairs | ours | peer's | unit "
        "| verdict | reached |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {row.what} | {row.peer} | {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}) | {row.wall:.2f} "
        f"| {row.pairs} "
        f"| {row.ours:.4g} | {row.theirs:.4g} | {row.unit} | {row.verdict} | {row.note} |\n"
        for row in rows
    ]
    return head + "".join(lines)


def strengths_table(rows: Sequence[Strength]) -> str:
    """The table of strengths."""
    head = (
        "| comparison | peer | score | ours | peer's | ours minus peer's | victims | seconds | verdict |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {row.what} | {row.peer} | {row.score} | {_interval(row.ours)} | {_interval(row.theirs)} "
        f"| {_interval(row.gap, sign=True)} | {row.n} | {row.seconds[0]:.3g} and {row.seconds[1]:.3g} "
        f"| {row.verdict} |\n"
        for row in rows
    ]
    return head + "".join(lines)


@dataclass
class Found:
    """What one comparison found.

    Attributes:
        machine: Where.
        times, strengths: Its rows.
        skipped: What could not be compared, a line each.
    """

    machine: str
    times: list[Row] = field(default_factory=list)
    strengths: list[Strength] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Found:
        """From what ``dataclasses.asdict`` gave, read back from JSON."""
        strengths = [
            Strength(
                **{name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
            )
            for one in stored["strengths"]
        ]
        return cls(stored["machine"], [Row(**one) for one in stored["times"]], strengths, stored["skipped"])


def page(everything: Mapping[str, Found]) -> str:
    """The whole page, from what each comparison found."""
    rows = [row for found in everything.values() for row in found.times]
    strengths = [row for found in everything.values() for row in found.strengths]
    skipped = [line for found in everything.values() for line in found.skipped]
    machines = "; ".join(dict.fromkeys(found.machine for found in everything.values()))
    parts = [
        "# Beside the peers\n\nWritten by `benchmarks/peers/run.py`; how each comparison is made stands in "
        "`benchmarks/peers/README.md`.\n\n"
        f"Machine: {machines}. On both sides: {versions_of(*COMMON)}. Others used this machine at "
        "the same time: ratios of alternating pairs count, seconds do not.\n",
    ]
    peers = sorted({row.versions for row in (*rows, *strengths)})
    parts.append("\nPeers: " + "; ".join(peers) + ".\n" if peers else "\n")
    if rows:
        said = "the peer's processor time over ours: above 1, ours is faster; medians of alternating pairs"
        parts.append(f"\n## Times\n\nRatio: {said}.\n\n{times_table(rows)}")
    if strengths:
        said = "95 % intervals from the same 1,000 resamples of the victims on both sides"
        parts.append(f"\n## Strengths\n\nLarger is stronger; {said}.\n\n{strengths_table(strengths)}")
    if skipped:
        parts.append("\n## Not compared\n\n" + "".join(f"- {line}\n" for line in skipped))
    return "".join(parts)


def table(everything: Mapping[str, Found]) -> str:
    """The same as comma-separated values."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "what", "peer", "versions", "measure", "value", "low", "high", "ours", "theirs"])
    for found in everything.values():
        for row in found.times:
            numbers = (row.ratio, row.low, row.high, row.ours, row.theirs)
            cells = [row.what, row.peer, row.versions, row.unit]
            writer.writerow(["time", *cells, *(f"{n:.6g}" for n in numbers)])
        for one in found.strengths:
            numbers = (*one.gap, one.ours[0], one.theirs[0])
            cells = [one.what, one.peer, one.versions, one.score]
            writer.writerow(["strength", *cells, *(f"{n:.6g}" for n in numbers)])
    return out.getvalue()


def _interval(value: tuple[float, float, float], *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{value[0]:{form}} ({value[1]:{form}} to {value[2]:{form}})"
