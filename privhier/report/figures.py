"""Figures of the report, drawn with matplotlib's object interface: the same input gives the same SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.evaluation.headline import (
    METRIC_NAMES,
    Metric,
    ceiling_value,
    certified_value,
    chance,
    drawable,
    finite,
    headline,
    leading_metric,
    telling,
    worst_of,
)
from privhier.evaluation.result import AttackScores, AttributeLeakage, Result, Score, WorstAttack
from privhier.figures.axes import span
from privhier.figures.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PANEL,
    PURPLE,
    RC,
    VERMILION,
    WIDTH,
    Drawing,
    calm,
    finish,
    grow,
    legend,
)
from privhier.figures.text import fitted
from privhier.figures.text import width as text_width
from privhier.privacy.shown import claim
from privhier.report.curves_figure import draw_curves

_REFERENCES = [(ORANGE, "s"), (PURPLE, "D"), (GREEN, "^")]


def reference_title(name: str) -> str:
    """How a reference network is called in figures and tables."""
    titles = {"open": "open network, same width", "open_wide": "open network, wide release"}
    return titles.get(name, name)


@dataclass(frozen=True)
class _Reference:
    """An unprotected network in a figure of one attribute."""

    title: str
    score: Score
    training: Score | None
    headline: Score
    utility: Score
    color: str
    marker: str


def draw_all(result: Result, history: Sequence[Mapping[str, Any]]) -> dict[str, Drawing]:
    """Every figure of the report by name.

    ``tradeoff``, and where it has several panels each alone as ``tradeoff_<i>``; ``leakage_<i>`` (in order);
    ``curves_<i>``. All but the whole ``tradeoff`` are one panel wide: legible on a phone.
    """
    with matplotlib.rc_context(RC):
        drawings = [_tradeoff(result, _panels(result))]
        if len(_panels(result)) > 1:
            drawings += [
                _tradeoff(result, [panel], f"tradeoff_{number}")
                for number, panel in enumerate(_panels(result))
            ]
        for index, (attribute, leakage) in enumerate(result.leakage.items()):
            drawings.append(_leakage(index, attribute, leakage, result))
        drawings += draw_curves(history)
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def _training(scores: WorstAttack | AttackScores, metric: Metric) -> Score | None:
    score = scores.training_records.get(metric)
    return score if score is not None and finite(score) else None


def _lines(axes: Axes, leakage: AttributeLeakage, metric: Metric) -> list[float]:
    """Vertical reference lines; their positions."""
    guess = chance(leakage, metric)
    raw = worst_of(leakage.raw_image_attack, metric)
    top = headline(leakage, metric)
    words = "largest class" if metric == "top1" else "guessing"
    lines: list[tuple[float | None, str, str, str, float]] = [
        (guess, words, BLACK, "-", 1.1),
        (raw.value if raw else None, "same attack on raw images", VERMILION, "--", 1.3),
        (top.floor.value if top and top.floor else None, "floor: true task labels alone", BLUE, "-.", 1.3),
        (telling(ceiling_value(leakage, metric)), "ceiling of this run's releases", GREEN, ":", 1.6),
        (telling(certified_value(leakage, metric)), "certified, any attacker", GREEN, "-", 1.6),
    ]
    at = []
    for value, name, color, style, width in lines:
        if value is not None and math.isfinite(value):
            label = f"{name} {claim(value, decimals=3) if color == GREEN else f'{value:.3f}'}"
            axes.axvline(value, color=color, linewidth=width, linestyle=style, label=label, zorder=1)
            at.append(value)
    return at


def _cross(axes: Axes, x: Score, y: Score, *, color: str, marker: str, label: str) -> None:
    axes.errorbar(
        [x.value],
        [y.value],
        xerr=[[x.value - x.low], [x.high - x.value]],
        yerr=[[y.value - y.low], [y.high - y.value]],
        color=color,
        marker=marker,
        markersize=6.5,
        capsize=3,
        elinewidth=1.5,
        linestyle="none",
        label=label,
        zorder=3,
    )


def _references(result: Result, attribute: str, metric: Metric) -> list[_Reference]:
    """What of ``attribute`` leaks from the unprotected networks that were attacked on it."""
    found = []
    for (name, reference), (color, marker) in zip(
        result.references.items(), itertools.cycle(_REFERENCES), strict=False
    ):
        other = reference.leakage.get(attribute)
        score = drawable(other.worst, metric) if other else None
        top = headline(other, metric) if other else None
        if other is not None and score is not None and top is not None:
            mean, training = reference.utility_mean.auc, _training(other.worst, metric)
            title = reference_title(name)
            found.append(_Reference(title, score, training, top.score, mean, color, marker))
    return found


_Panel = tuple[str, AttributeLeakage, Metric, Score]


def draw_tradeoff(result: Result) -> Drawing | None:
    """Task utility against leakage, a panel an attribute; None where nothing can be drawn."""
    with matplotlib.rc_context(RC):
        return _tradeoff(result, _panels(result))


def _panels(result: Result) -> list[_Panel]:
    return [
        (attribute, leakage, top.metric, top.score)
        for attribute, leakage in result.leakage.items()
        if (top := headline(leakage)) is not None
    ]


def _tradeoff(result: Result, panels: Sequence[_Panel], name: str = "tradeoff") -> Drawing | None:
    utility = result.utility_mean.auc
    if not panels or not finite(utility):
        return None
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = PANEL if columns == 1 else WIDTH
    figure = Figure(figsize=(width, (3.6 if columns == 1 else 4.4) * rows), layout="constrained")
    per_row = 2 if columns == 2 else 1
    if columns > 1:
        grow(figure, rows * (len(result.references) + 4), per_row, free=rows * 5)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    ys = [utility.low, utility.high]
    for axes, (attribute, leakage, metric, own) in zip(grid, panels, strict=False):
        xs = [*_lines(axes, leakage, metric), own.low, own.high]
        room = width / columns - 0.6
        for other in _references(result, attribute, metric):
            if finite(other.utility):
                label = fitted(other.title, room / per_row - 0.55)
                _cross(
                    axes, other.headline, other.utility, color=other.color, marker=other.marker, label=label
                )
                xs += [other.headline.low, other.headline.high]
                ys += [other.utility.low, other.utility.high]
        _cross(axes, own, utility, color=BLUE, marker="o", label="this run")
        axes.set_xlim(*span(xs))
        axes.set_xlabel(f"leakage: worst attacker's {METRIC_NAMES[metric]}")
        better = "better: up and left ↖" if columns == 2 else "better ↖"
        title = fitted(attribute, room - 0.3 - text_width(better, 8.5), size=10, bold=True)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_title(better, loc="right", color=GRAY, fontsize=8.5)
        calm(axes)
        if columns > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=per_row, frameon=False)
    grid[0].set_ylim(*span(ys, 0.35))  # shared by all
    for axes in grid[::columns]:
        axes.set_ylabel("utility: mean task AUC, cloud")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if columns == 1:
        legend(figure, grid[:1], at="lower", columns=2)
    of = "" if len(panels) > 1 else f" ({panels[0][0]})"
    return finish(
        figure, name, f"Utility against leakage for this run and its open references, with intervals{of}"
    )


def _leakage(index: int, attribute: str, leakage: AttributeLeakage, result: Result) -> Drawing | None:
    metric = leading_metric(leakage.worst)
    worst = drawable(leakage.worst, metric) if metric else None
    if metric is None or worst is None:
        return None
    rows: list[tuple[str, Score, Score | None, str, str]] = [
        ("worst of all", worst, _training(leakage.worst, metric), BLACK, "o")
    ]
    rows += [
        (attack.attack, score, _training(attack, metric), BLUE, "o")
        for attack in worst_first(leakage, metric)
        if (score := drawable(attack, metric))
    ]
    split = len(rows)
    rows += [
        (r.title, r.score, r.training, r.color, r.marker) for r in _references(result, attribute, metric)
    ]
    raw = drawable(leakage.raw_image_attack, metric)
    if raw is not None:
        rows.append(("raw images", raw, None, VERMILION, "D"))
    figure = Figure(figsize=(PANEL, 1.15 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    xs = _lines(axes, leakage, metric)
    for y, (_, test, training, color, marker) in enumerate(rows):
        _whisker(axes, test, y - (0.13 if training else 0), color, marker, filled=True)
        if training:
            _whisker(axes, training, y + 0.17, color, marker, filled=False)
            xs += [training.low, training.high]
        xs += [test.low, test.high]
    if split < len(rows):
        axes.axhline(split - 0.5, color="#bdbdbd", linewidth=0.8)
    axes.plot([], [], "o", color=GRAY, label="test records")
    axes.plot([], [], "o", color=GRAY, markerfacecolor="white", label="training records")
    axes.set_yticks(range(len(rows)), [fitted(row[0], 1.75) for row in rows])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*span(xs, 0.04))
    axes.set_xlabel(fitted(f"{METRIC_NAMES[metric]} on {attribute}", PANEL - 2.1))
    calm(axes, "x")
    legend(figure, [axes], at="upper", columns=2)
    return finish(figure, f"leakage_{index}", f"Attackers on {attribute}, worst first, with reference lines")


def worst_first(leakage: AttributeLeakage, metric: Metric | None) -> list[AttackScores]:
    """The attackers by their score on test records, best attacker first; unscored ones last."""

    def key(attack: AttackScores) -> float:
        score = drawable(attack, metric) if metric else None
        return math.inf if score is None else -score.value

    return sorted(leakage.attacks, key=key)


def _whisker(axes: Axes, score: Score, y: float, color: str, marker: str, *, filled: bool) -> None:
    axes.errorbar(
        [score.value],
        [y],
        xerr=[[score.value - score.low], [score.high - score.value]],
        color=color,
        marker=marker,
        markersize=6.5 if filled else 5.5,
        markerfacecolor=color if filled else "white",
        elinewidth=1.8 if filled else 1.0,
        capsize=2.5,
        linestyle="none",
        zorder=3,
    )
