"""Losses and scores over the epochs of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.figures.axes import LARGEST
from privhier.figures.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH,
    Drawing,
    calm,
    finish,
    grow,
)
from privhier.figures.text import fitted

_COLORS = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK, GRAY]
_STYLES = ["-", "--", ":", "-."]
Series = dict[str, list[tuple[float, float]]]


def draw_curves(history: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Every numeric entry of the history over the epochs of all phases, losses and scores apart.

    Drawn under the caller's settings (``figure_style.RC``). None where nothing in it is a finite number.
    """
    series, starts, epochs = _series(history)
    if not series:
        return None
    scores = {n: p for n, p in series.items() if "loss" not in n and all(0 <= v <= 1 for _, v in p)}
    losses = {n: p for n, p in series.items() if n not in scores}
    panels = [(t, s) for t, s in (("losses", losses), ("scores", scores)) if s]
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    grow(figure, max(len(lines) for _, lines in panels), 2, free=6)
    grid = figure.subplots(1, len(panels), squeeze=False).ravel()
    room = WIDTH / len(panels) - 0.9
    for axes, (title, lines) in zip(grid, panels, strict=True):
        _draw_lines(axes, lines, marked=epochs <= 30, room=room / 2 - 0.55)
        _draw_phases(axes, starts, epochs, room)
        axes.set_title(title, loc="left", fontweight="bold", pad=16)
        axes.set_xlabel("epoch, all phases")
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        calm(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8.5)
    return finish(figure, "curves", "Losses and scores over the epochs of all phases")


def _series(history: Sequence[Mapping[str, Any]]) -> tuple[Series, list[tuple[str, int]], int]:
    """The lines by name, the phases with the number of epochs before them, and all epochs."""
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for entry in history:
        phases.setdefault(str(entry.get("phase", "")), []).append(entry)
    series: Series = {}
    starts: list[tuple[str, int]] = []
    offset = 0
    for phase, entries in phases.items():
        starts.append((phase, offset))
        for position, entry in enumerate(sorted(entries, key=lambda e: float(e.get("epoch", 0)))):
            for name, value in entry.items():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                # An exploded loss would leave no height for anything else, and overflow the axis.
                if name not in ("phase", "epoch", "step") and number and abs(value) <= LARGEST:
                    series.setdefault(name, []).append((offset + position + 1.0, float(value)))
        offset += len(entries)
    return series, starts, offset


def _draw_lines(axes: Axes, lines: Series, *, marked: bool, room: float) -> None:
    for index, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(
            x,
            y,
            label=fitted(name.replace("_", " "), room, size=8.5),
            color=_COLORS[index % 8],
            linestyle=_STYLES[(index // 8) % 4],
            linewidth=1.6,
            marker="o" if marked else None,
            markersize=3.5,
        )


def _draw_phases(axes: Axes, starts: list[tuple[str, int]], epochs: int, room: float) -> None:
    ends = [start for _, start in starts[1:]] + [epochs]
    for (phase, start), end in zip(starts, ends, strict=True):
        if start:
            axes.axvline(start + 0.5, color="#bdbdbd", linewidth=0.9)
        axes.annotate(
            fitted(phase, room * (end - start) / epochs - 0.1, size=8.5),
            (start + 0.6, 1.01),
            xycoords=("data", "axes fraction"),
            color=GRAY,
            fontsize=8.5,
        )
