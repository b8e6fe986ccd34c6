"""Where everything stands in the page's interactive plot: a frontier as numbers of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from privhier.evaluation.frontier import Candidate, Frontier, Reference
from privhier.evaluation.headline import telling
from privhier.evaluation.points import Estimate, Point
from privhier.figures.axes import span
from privhier.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION
from privhier.report.figures import reference_title as _title

_COLORS = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, GRAY]
_PLACES = [(a, dx, dy) for dy in (-9, 16, -23, 30, -37, 44) for a, dx in (("start", 9), ("end", -9))]
"""Of a name beside its point: anchor, and offset in pixels."""
_SHAPES = ["o", "s", "^", "D", "v", "P", "p"]
"""Matplotlib's names; every family has a shape besides its color, for gray prints."""


@dataclass(frozen=True)
class Canvas:
    """A view box in pixels with its margins, and how many ticks it has room for.

    ``named``: whether lines and points are named inside of it; else the page says their names below.
    """

    kind: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    ticks: tuple[int, int]
    named: bool


WIDE = Canvas("wide", 1136, 540, 62, 20, 40, 52, (10, 7), True)
NARROW = Canvas("narrow", 400, 420, 50, 12, 14, 48, (5, 6), False)
"""For a desk, and for a phone, where the other's words would be 4 pixels high."""


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
class Name:
    """What a point on the front is called, and where that is written."""

    text: str
    x: float
    y: float
    anchor: str


@dataclass(frozen=True)
class Mark:
    """One candidate, where its leakage counts; ``measured`` is where it was measured if that is elsewhere."""

    candidate: Candidate
    at: Whisker
    style: Style
    path: str
    ceiling: float | None
    certified: float | None
    measured: float | None
    name: Name | None


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

    canvas: Canvas
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
    """The leakage and the utility range that hold every interval, the lines, and the front's certificates."""
    shown: list[tuple[Estimate, Estimate]] = [(c.leakage, c.utility) for c in front.candidates]
    shown += [(r.leakage, r.utility) for r in front.references]
    xs = [front.chance, *(line.value for line in (front.raw_image, front.floor) if line is not None)]
    xs += [bound for c in front.front if (bound := telling(c.certified)) is not None]
    xs += [edge for x, _ in shown for edge in (x.low, x.high)]
    ys = [edge for _, y in shown for edge in (y.low, y.high)]
    return span(xs, 0.04), span(ys, 0.04)


def stairs(front: Frontier, right: float, bottom: float) -> list[tuple[float, float]]:
    """Corners of the front's edge as (leakage, utility): what lies right and below is dominated."""
    corners: list[tuple[float, float]] = []
    height = bottom
    for candidate in reversed(front.front):
        corners += [(candidate.counted, height), (candidate.counted, candidate.utility.value)]
        height = candidate.utility.value
    return [*corners, (right, height)]


def place(
    front: Frontier, styles: Mapping[str, Style], names: Mapping[str, str], canvas: Canvas = WIDE
) -> Plot:
    """Everything of one panel in pixels of a canvas.

    Args:
        front: What is drawn.
        styles: By family.
        names: Setting (``Point.setting``) to its words.
        canvas: Its view box.
    """
    (x_low, x_high), (y_low, y_high) = window(front)
    floor = canvas.height - canvas.bottom

    def x(value: float) -> float:
        across = canvas.width - canvas.left - canvas.right
        return round(canvas.left + (value - x_low) / (x_high - x_low) * across, 1)

    def y(value: float) -> float:
        return round(floor - (value - y_low) / (y_high - y_low) * (floor - canvas.top), 1)

    def whisker(at: float, leakage: Estimate, utility: Estimate) -> Whisker:
        ends = x(min(leakage.low, at)), x(max(leakage.high, at))
        return Whisker(x(at), y(utility.value), *ends, y(utility.high), y(utility.low))

    marks: list[Mark] = []
    taken: list[tuple[float, float, float, float]] = []
    for candidate in sorted(front.candidates, key=lambda c: (c.on_front, c.utility.value)):
        at, style = (
            whisker(candidate.counted, candidate.leakage, candidate.utility),
            styles[candidate.family],
        )
        size = 6.5 if candidate.on_front else 4.5
        bounds = (telling(candidate.ceiling) if candidate.on_front else None, telling(candidate.certified))
        ceiling, certified = (x(b) if b is not None and b <= x_high else None for b in bounds)
        measured = x(candidate.leakage.value) if candidate.leakage.value < candidate.counted else None
        text = names.get(candidate.points[0].setting, candidate.family)
        name = _name(text, at, canvas, taken) if candidate.on_front and canvas.named else None
        outline = shape(style.shape, at.x, at.y, size)
        marks.append(Mark(candidate, at, style, outline, ceiling, certified, measured, name))
    references = []
    for reference in front.references:
        at = whisker(reference.leakage.value, reference.leakage, reference.utility)
        outline = shape(reference_shape(reference.name, front.references), at.x, at.y, 6.5)
        references.append((reference, reference_name(reference, front.references), at, outline))
    corners = [(x(a), y(b)) for a, b in stairs(front, x_high, y_low)]
    limit = " L".join(f"{x(a):g},{y(b):g}" for a, b in limit_points(front))
    stair = "M" + " L".join(f"{a:g},{b:g}" for a, b in corners)
    return Plot(
        canvas=canvas,
        x_ticks=[(x(t), f"{t:g}") for t in ticks(x_low, x_high, canvas.ticks[0])],
        y_ticks=[(y(t), f"{t:g}") for t in ticks(y_low, y_high, canvas.ticks[1])],
        marks=marks,
        references=references,
        rules=_rules(front, x, canvas),
        stair=stair,
        limit=f"M{limit}" if limit else "",
        shade=f"{stair} L{corners[-1][0]:g},{floor} Z",
    )


def _name(text: str, at: Whisker, canvas: Canvas, taken: list[tuple[float, float, float, float]]) -> Name:
    """Beside its point, inside the canvas and over no other name where there is room; adds to ``taken``."""
    wide = 6.4 * len(text)  # of 12 pixels high letters, generously
    box, chosen = (0.0, 0.0, 0.0, 0.0), Name(text, at.x, at.y, "start")
    for anchor, dx, dy in _PLACES:
        left = at.x + dx - (wide if anchor == "end" else 0)
        box = (left, at.y + dy - 11, left + wide, at.y + dy + 3)
        chosen = Name(text, round(at.x + dx, 1), round(at.y + dy, 1), anchor)
        inside = box[0] >= canvas.left and box[2] <= canvas.width - canvas.right and box[1] >= canvas.top
        if inside and not any(_over(box, other) for other in taken):
            break
    taken.append(box)
    return chosen


def _over(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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


def _rules(front: Frontier, x: Callable[[float], float], canvas: Canvas) -> list[Rule]:
    rules = [Rule(x(front.chance), chance_label(front), "start", "chance", 0)]
    if front.raw_image is not None:
        at = x(front.raw_image.value)
        label = f"same attack on raw images {front.raw_image.value:.3f}"
        near = abs(at - rules[0].x) < 420  # its label would run into the other one
        level = (1 if front.floor is None else 2) if near else 0
        rules.append(Rule(at, label, "end" if at > canvas.width / 2 else "start", "raw", level))
    if front.floor is not None:
        rules.append(Rule(x(front.floor.value), floor_label(front.floor.value), "start", "floor", 1))
    return rules
