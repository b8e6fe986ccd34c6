"""Where everything stands in the page's interactive plot: a frontier as numbers of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from privhier.evaluation.frontier import Candidate, Frontier, Reference
from privhier.evaluation.points import Estimate, Point
from privhier.figures.axes import span
from privhier.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION
from privhier.report.figures import reference_title as _title

WIDTH, HEIGHT = 1136, 540
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 40, 52
_COLORS = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, GRAY]
_SHAPES = ["o", "s", "^", "D", "v", "P", "p"]
"""Matplotlib's names; every family has a shape besides its color, for gray prints."""


@dataclass(frozen=True)
class Style:
    """How a family is drawn: an Okabe-Ito color and a shape."""

    color: str
    shape: str


@dataclass(frozen=True)
class Whisker:
    """A point with its two intervals, in pixels."""

    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Mark:
    """One candidate."""

    candidate: Candidate
    at: Whisker
    style: Style
    path: str
    ceiling: float | None
    certified: float | None


@dataclass(frozen=True)
class Rule:
    """A vertical reference line."""

    x: float
    label: str
    anchor: str
    kind: str
    level: int


@dataclass(frozen=True)
class Plot:
    """One panel; dominated marks first, so that the front is drawn over them."""

    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[Mark]
    references: list[tuple[Reference, str, Whisker, str]]
    """With its title, place and outline."""
    rules: list[Rule]
    stair: str
    shade: str
    limit: str
    """The best trade of releases that are functions of the true labels, as far as it is in sight."""


def family_styles(points: Iterable[Point]) -> dict[str, Style]:
    """A style per family in order of appearance: colors repeat after seven, with another shape."""
    families = dict.fromkeys(point.family for point in points)
    return {name: Style(_COLORS[i % 7], _SHAPES[(i + i // 7) % 7]) for i, name in enumerate(families)}


def reference_name(reference: Reference, among: Sequence[Reference]) -> str:
    """Its title; with the release shape where there are several of one name."""
    title = _title(reference.name)
    if sum(other.name == reference.name for other in among) > 1:
        title += f" ({'x'.join(map(str, reference.release_shape))})"
    return title


def reference_shape(name: str, among: Sequence[Reference]) -> str:
    """A hollow shape per name of a reference network."""
    return "Dsv^P"[list(dict.fromkeys(other.name for other in among)).index(name) % 5]


def window(front: Frontier) -> tuple[tuple[float, float], tuple[float, float]]:
    """The leakage and the utility range that hold every interval, guessing, the floor and the raw images."""
    shown: list[tuple[Estimate, Estimate]] = [(c.leakage, c.utility) for c in front.candidates]
    shown += [(r.leakage, r.utility) for r in front.references]
    xs = [front.chance, *(line.value for line in (front.raw_image, front.floor) if line is not None)]
    xs += [edge for x, _ in shown for edge in (x.low, x.high)]
    ys = [edge for _, y in shown for edge in (y.low, y.high)]
    return span(xs, 0.04), span(ys, 0.04)


def stairs(front: Frontier, right: float, bottom: float) -> list[tuple[float, float]]:
    """Corners of the front's edge as (leakage, utility): what lies right and below is dominated."""
    corners: list[tuple[float, float]] = []
    height = bottom
    for candidate in reversed(front.front):
        corners += [(candidate.leakage.value, height), (candidate.leakage.value, candidate.utility.value)]
        height = candidate.utility.value
    return [*corners, (right, height)]


def place(front: Frontier, styles: dict[str, Style]) -> Plot:
    """Everything of one panel in pixels of a ``WIDTH`` x ``HEIGHT`` view box."""
    (x_low, x_high), (y_low, y_high) = window(front)

    def x(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    def whisker(leakage: Estimate, utility: Estimate) -> Whisker:
        low, high = x(leakage.low), x(leakage.high)
        return Whisker(x(leakage.value), y(utility.value), low, high, y(utility.high), y(utility.low))

    marks = []
    for candidate in sorted(front.candidates, key=lambda c: (c.on_front, c.utility.value)):
        at, style = whisker(candidate.leakage, candidate.utility), styles[candidate.family]
        size = 6.5 if candidate.on_front else 4.5
        bounds = (candidate.ceiling, candidate.certified) if candidate.on_front else (None, None)
        drawn = [x(bound) if bound is not None and bound <= x_high else None for bound in bounds]
        marks.append(Mark(candidate, at, style, shape(style.shape, at.x, at.y, size), *drawn))
    references = []
    for reference in front.references:
        at = whisker(reference.leakage, reference.utility)
        outline = shape(reference_shape(reference.name, front.references), at.x, at.y, 6.5)
        references.append((reference, reference_name(reference, front.references), at, outline))
    corners = [(x(a), y(b)) for a, b in stairs(front, x_high, y_low)]
    limit = " L".join(f"{x(a):g},{y(b):g}" for a, b in limit_points(front))
    stair = "M" + " L".join(f"{a:g},{b:g}" for a, b in corners)
    return Plot(
        x_ticks=[(x(t), f"{t:g}") for t in ticks(x_low, x_high, 10)],
        y_ticks=[(y(t), f"{t:g}") for t in ticks(y_low, y_high, 7)],
        marks=marks,
        references=references,
        rules=_rules(front, x),
        stair=stair,
        limit=f"M{limit}" if limit else "",
        shade=f"{stair} L{corners[-1][0]:g},{HEIGHT - BOTTOM} Z",
    )


def limit_points(front: Frontier, steps: int = 160) -> list[tuple[float, float]]:
    """The curve of label releases as (leakage, utility), as far as it runs through the window."""
    if len(front.label_limit) < 2:
        return []
    (x_low, x_high), (y_low, y_high) = window(front)
    leaked, useful = (np.array(column) for column in zip(*front.label_limit, strict=True))
    at = np.union1d(np.linspace(max(leaked[0], x_low), min(leaked[-1], x_high), steps), leaked)
    at = at[(at >= x_low) & (at <= x_high)]
    curve = np.interp(at, leaked, useful)
    seen = (curve >= y_low) & (curve <= y_high)
    return list(zip(at[seen].tolist(), curve[seen].tolist(), strict=True))


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers inside the range."""
    found = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(t), 10) for t in found if low <= t <= high]


def shape(name: str, x: float, y: float, r: float) -> str:
    """An SVG path of a marker of about radius ``r`` around ``(x, y)``."""
    if name == "o":
        return f"M{x - r:g},{y:g} a{r},{r} 0 1 0 {2 * r},0 a{r},{r} 0 1 0 {-2 * r},0 Z"
    if name == "P":
        w, long = 0.38 * r, 1.05 * r
        outline = [(-w, -long), (w, -long), (w, -w), (long, -w), (long, w), (w, w)]
        corners = outline + [(-a, -b) for a, b in outline]
    else:
        sides, turn, scale = {
            "s": (4, 45.0, 1.2),
            "^": (3, 0.0, 1.25),
            "D": (4, 0.0, 1.25),
            "v": (3, 180.0, 1.25),
            "p": (5, 0.0, 1.15),
        }[name]
        angles = [math.radians(turn + 360 * k / sides) for k in range(sides)]
        corners = [(scale * r * math.sin(a), -scale * r * math.cos(a)) for a in angles]
    return "M" + " L".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners) + " Z"


def chance_label(front: Frontier) -> str:
    """What an attacker who knows nothing reaches, in words."""
    what = "largest class" if front.metric == "top1" else "guessing"
    return f"{what} {front.chance:.2f}"


def floor_label(value: float) -> str:
    """What the true task labels alone tell, in words."""
    return f"floor: true task labels alone {value:.3f}"


def _rules(front: Frontier, x: Callable[[float], float]) -> list[Rule]:
    rules = [Rule(x(front.chance), chance_label(front), "start", "chance", 0)]
    if front.raw_image is not None:
        at = x(front.raw_image.value)
        label = f"same attack on raw images {front.raw_image.value:.3f}"
        near = abs(at - rules[0].x) < 420  # its label would run into the other one
        level = (1 if front.floor is None else 2) if near else 0
        rules.append(Rule(at, label, "end" if at > WIDTH / 2 else "start", "raw", level))
    if front.floor is not None:
        rules.append(Rule(x(front.floor.value), floor_label(front.floor.value), "start", "floor", 1))
    return rules
