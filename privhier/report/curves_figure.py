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
    PANEL,
    PURPLE,
    SKY,
    VERMILION,
    Drawing,
    calm,
    finish,
    legend,
)
from privhier.figures.text import fitted

_COLORS = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK, GRAY]
_SCORES = "scores"
_STYLES = ["-", "--", ":", "-."]
Series = dict[str, list[tuple[float, float]]]


def draw_curves(history: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """Every numeric entry of the history over the epochs of all phases, as figures ``curves_<i>``.

    Each kind of loss has axes of its own (an adversary's is of another scale than the cloud's), and all
    scores share one. Drawn under the caller's settings (``figures.style.RC``). Empty where nothing in the
    history is a finite number.
    """
    series, starts, epochs = _series(history)
    panels: dict[str, Series] = {}
    for name, points in series.items():
        panels.setdefault(_panel_of(name, points), {})[name] = points
    return [
        _draw(number, title, panels[title], starts, epochs)
        for number, title in enumerate(sorted(panels, key=lambda title: title == _SCORES))
    ]


def _panel_of(name: str, points: Sequence[tuple[float, float]]) -> str:
    """Scores together; losses by what stands before the word, all of an adversary's in one."""
    own = name.rsplit("/", 1)[-1]  # a task may be called glossy
    if "loss" in own.split("_"):
        whose = own.partition("loss")[0].strip("_").replace("_", " ") or "all"
        return f"loss: {'adversary' if whose.startswith('adv') else whose}"
    return _SCORES if all(0 <= value <= 1 for _, value in points) else own.replace("_", " ")


def _draw(number: int, title: str, lines: Series, starts: list[tuple[str, int]], epochs: int) -> Drawing:
    figure = Figure(figsize=(PANEL, 2.5), layout="constrained")
    axes, room = figure.subplots(), PANEL - 0.9
    _draw_lines(axes, lines, marked=epochs <= 30)
    _draw_phases(axes, starts, epochs, room)
    axes.set_title(fitted(title, room, size=10, bold=True), loc="left", fontweight="bold", pad=16)
    axes.set_xlabel("epoch, all phases")
    axes.set_xlim(0.5, epochs + 0.5)
    axes.locator_params(axis="x", integer=True)
    calm(axes)
    legend(figure, [axes], at="lower", columns=2)
    return finish(figure, f"curves_{number}", f"{title} over the epochs of all phases")


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


def _draw_lines(axes: Axes, lines: Series, *, marked: bool) -> None:
    for index, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(
            x,
            y,
            label=_printed(name),
            color=_COLORS[index % 8],
            linestyle=_STYLES[(index // 8) % 4],
            linewidth=1.6,
            marker="o" if marked else None,
            markersize=3.5,
        )


def _printed(name: str) -> str:
    """A line's name in the legend."""
    return name.removeprefix("val/").replace("_", " ").replace("/", ", ")


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
