"""The frontier as a figure for a paper: SVG and PDF, the same bytes for the same numbers."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.evaluation.frontier import Candidate, Frontier
from privhier.evaluation.headline import telling
from privhier.figures.style import BLACK, BLUE, GRAY, RC, calm, legend, rendered
from privhier.figures.text import fitted
from privhier.report.figures import reference_title
from privhier.report.sweep_plot import (
    Style,
    chance_label,
    floor_label,
    limit_points,
    reference_shape,
    stairs,
    window,
)


def draw_frontier(front: Frontier, styles: dict[str, Style]) -> tuple[bytes, bytes]:
    """One panel as ``(svg, pdf)``, 6.4 inches wide; a leakage below guessing stands where it counts."""
    with matplotlib.rc_context(RC | {"font.size": 8.0}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        _draw(axes, front, styles)
        legend(figure, [axes], at="lower", columns=3)
        svg, pdf = rendered(figure, "svg", "pdf")
    return svg, pdf


def _draw(axes: Axes, front: Frontier, styles: dict[str, Style]) -> None:
    (x_low, x_high), (y_low, y_high) = window(front)
    axes.axvline(front.chance, color=BLACK, linewidth=1.0, zorder=1, label=chance_label(front))
    if front.raw_image is not None:
        axes.axvline(front.raw_image.value, color=GRAY, linewidth=1.2, linestyle="--", zorder=1)
        axes.lines[-1].set_label(f"same attack on raw images {front.raw_image.value:.3f}")
    if front.floor is not None:
        label = floor_label(front.floor.value)
        axes.axvline(front.floor.value, color=BLUE, linewidth=1.2, linestyle="-.", zorder=1, label=label)
    if best := limit_points(front):
        axes.plot(
            *zip(*best, strict=True),
            color=BLUE,
            linewidth=1.2,
            linestyle="--",
            zorder=2,
            label="best function of the true labels",
        )
    edge = stairs(front, x_high, y_low)
    axes.plot(*zip(*edge, strict=True), color="#8a8f96", linewidth=1.2, zorder=2, label="Pareto set")
    for name, style in styles.items():
        mine = [c for c in front.candidates if c.family == name]
        for on_front in (False, True):
            _errors(axes, [c for c in mine if c.on_front == on_front], style, name, on_front)
        if mine and not any(c.on_front for c in mine):
            axes.containers[-1].set_label(name)
    _bounds(axes, front, styles, x_high)
    named: set[str] = set()
    for reference in front.references:
        axes.plot(
            [reference.leakage.value],
            [reference.utility.value],
            marker=reference_shape(reference.name, front.references),
            markersize=7,
            markerfacecolor="white",
            markeredgecolor=BLACK,
            linestyle="none",
            zorder=5,
            label=None if reference.name in named else reference_title(reference.name),
        )
        named.add(reference.name)
    bare = [c for c in front.candidates if c.unprotected]
    if bare:
        axes.plot(
            [c.counted for c in bare],
            [c.utility.value for c in bare],
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=BLACK,
            markeredgewidth=0.8,
            linestyle="none",
            zorder=5,
            label="unprotected point",
        )
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(y_low, y_high)
    axes.set_xlabel(f"worst leakage of {fitted(front.attribute, 3.0, size=8)} ({front.metric_name})")
    axes.set_ylabel("utility (cloud AUC, mean of the tasks)")
    calm(axes)


def _errors(axes: Axes, candidates: list[Candidate], style: Style, name: str, on_front: bool) -> None:
    if not candidates:
        return
    u, at = [c.utility for c in candidates], [c.counted for c in candidates]
    ends = [(min(c.leakage.low, c.counted), max(c.leakage.high, c.counted)) for c in candidates]
    axes.errorbar(
        at,
        [e.value for e in u],
        xerr=[
            [x - low for x, (low, _) in zip(at, ends, strict=True)],
            [high - x for x, (_, high) in zip(at, ends, strict=True)],
        ],
        yerr=[[e.value - e.low for e in u], [e.high - e.value for e in u]],
        color=style.color,
        marker=style.shape,
        markersize=6 if on_front else 4,
        markeredgecolor=BLACK if on_front else style.color,
        markeredgewidth=0.8 if on_front else 0,
        elinewidth=1.0 if on_front else 0.5,
        alpha=1.0 if on_front else 0.4,
        linestyle="none",
        zorder=4 if on_front else 3,
        label=name if on_front else None,
    )


def _bounds(axes: Axes, front: Frontier, styles: dict[str, Style], right: float) -> None:
    """From points on the front to their ceilings (dotted) and certificates (solid)."""
    for name, line in (("ceiling", ":"), ("certified", "-")):
        label: str | None = name
        for candidate in front.front:
            bound = telling(getattr(candidate, name))
            if bound is None or bound > right:
                continue
            y, color = candidate.utility.value, styles[candidate.family].color
            axes.plot([candidate.counted, bound], [y, y], line, color=color, linewidth=0.9)
            axes.plot([bound], [y], "|", color=color, markersize=9, label=label)
            label = None
