"""Figures of the report, drawn with matplotlib's object interface: the same input gives the same SVG.

Colors are Okabe and Ito's, which stay apart for color-blind readers; every series also has its own
marker or line style, so the figures survive gray printing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.evaluation.result import AttributeLeakage, Result, Score, WorstAttack
from privhier.privacy.shown import claim

Metric = Literal["auc", "verification_auc", "top1", "balanced_accuracy"]
METRIC_NAMES: dict[str, str] = {
    "auc": "AUC",
    "verification_auc": "verification AUC",
    "top1": "top-1 accuracy",
    "balanced_accuracy": "balanced accuracy",
}

BLACK, GRAY, GRID = "#222222", "#767676", "#e4e4e4"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
_LINES = [BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK, GRAY]
_STYLES = ["-", "--", ":", "-."]
_REFERENCES = [(ORANGE, "s"), (PURPLE, "D"), (GREEN, "^")]
WIDTH = 10.58  # inches; the report's column of 1016 CSS pixels
RC: Any = {  # matplotlib's settings of every figure of the report
    "svg.hashsalt": "privhier",
    "svg.fonttype": "path",
    "text.parse_math": False,  # attribute names are data: a dollar sign in one is a dollar sign
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": "#9a9a9a",
    "xtick.color": "#4a4a4a",
    "ytick.color": "#4a4a4a",
}


@dataclass(frozen=True)
class Drawing:
    """One figure in both of its formats, with the text a reader who cannot see it gets."""

    name: str
    alt: str
    svg: bytes
    png: bytes


def leading_metric(worst: WorstAttack) -> Metric | None:
    """The score an attribute is judged by: AUC, else verification AUC, top-1, balanced accuracy."""
    order: tuple[Metric, ...] = ("auc", "verification_auc", "top1", "balanced_accuracy")
    return next((metric for metric in order if getattr(worst, metric) is not None), None)


def chance(leakage: AttributeLeakage, metric: Metric) -> float:
    """What an attacker who knows nothing reaches: 0.5 for an AUC, the largest class for top-1, else 1/K."""
    if metric in ("auc", "verification_auc"):
        return 0.5
    return leakage.majority if metric == "top1" else 1 / max(len(leakage.classes), 1)


def ceiling_value(leakage: AttributeLeakage, metric: Metric) -> float | None:
    """The proven ceiling of ``metric``, where there is one."""
    if leakage.ceiling is None or metric not in ("auc", "balanced_accuracy"):
        return None
    value: float | None = getattr(leakage.ceiling, metric)
    return value


def reference_title(name: str) -> str:
    """How a reference network is called in figures and tables."""
    titles = {"open": "open network, same width", "open_wide": "open network, wide release"}
    return titles.get(name, name)


def draw_all(result: Result, history: Sequence[Mapping[str, Any]]) -> dict[str, Drawing]:
    """Every figure of the report by name: ``tradeoff``, ``leakage_<i>`` (in order), ``curves``."""
    with matplotlib.rc_context(RC):
        drawings = [_tradeoff(result)]
        for index, (attribute, leakage) in enumerate(result.leakage.items()):
            drawings.append(_leakage(index, attribute, leakage, result))
        drawings.append(_curves(history))
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def _score(worst: WorstAttack | None, metric: Metric) -> Score | None:
    score: Score | None = getattr(worst, metric, None)
    return score


def finish(figure: Figure, name: str, alt: str) -> Drawing:
    """A finished figure in both formats, without dates: the same figure is the same bytes."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "privhier"})
    figure.savefig(png, format="png", dpi=150, metadata={"Software": "privhier"})
    return Drawing(name, alt, svg.getvalue(), png.getvalue())


def calm(axes: Axes, grid: Literal["x", "y", "both"] = "both") -> None:
    """Quiet axes: two spines, a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)


def _short(text: str, limit: int = 34) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high - low) * pad, 0.008)
    return low - room, high + room


def _lines(axes: Axes, leakage: AttributeLeakage, metric: Metric) -> list[float]:
    """Vertical reference lines; their positions."""
    at = [chance(leakage, metric)]
    guess = f"guessing {at[0]:.2f}" if metric != "top1" else f"largest class {at[0]:.2f}"
    axes.axvline(at[0], color=BLACK, linewidth=1.1, label=guess, zorder=1)
    raw = _score(leakage.raw_image_attack, metric)
    if raw is not None:
        axes.axvline(raw.value, color=VERMILION, linewidth=1.3, linestyle="--", zorder=1)
        axes.lines[-1].set_label(f"same attack on raw images {raw.value:.2f}")
        at.append(raw.value)
    bound = ceiling_value(leakage, metric)
    if bound is not None:
        axes.axvline(bound, color=GREEN, linewidth=1.6, linestyle=":", zorder=1)
        axes.lines[-1].set_label(f"ceiling of this run's releases {claim(bound, decimals=2)}")
        at.append(bound)
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


def _tradeoff(result: Result) -> Drawing | None:
    panels = [
        (attribute, leakage, metric)
        for attribute, leakage in result.leakage.items()
        if (metric := leading_metric(leakage.worst)) is not None
    ]
    if not panels:
        return None
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = WIDTH if columns > 1 else 7.4
    figure = Figure(figsize=(width, (4.4 if columns < 3 else 4.6) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    utility = result.utility_mean.auc
    for axes, (attribute, leakage, metric) in zip(grid, panels, strict=False):
        xs, ys = _lines(axes, leakage, metric), [utility.low, utility.high]
        own: Score = getattr(leakage.worst, metric)
        for (name, reference), (color, marker) in zip(
            result.references.items(), _REFERENCES * 9, strict=False
        ):
            other = reference.leakage.get(attribute)
            score = _score(other.worst, metric) if other else None
            if score is not None:
                mean = reference.utility_mean.auc
                _cross(axes, score, mean, color=color, marker=marker, label=reference_title(name))
                xs += [score.low, score.high]
                ys += [mean.low, mean.high]
        _cross(axes, own, utility, color=BLUE, marker="o", label="this run")
        axes.set_xlim(*_span([*xs, own.low, own.high]))
        axes.set_ylim(*_span(ys, 0.35))
        axes.set_xlabel(f"leakage: worst attacker's {METRIC_NAMES[metric]}")
        axes.set_title(_short(attribute), loc="left", fontweight="bold")
        axes.set_title("better: up and left ↖", loc="right", color=GRAY, fontsize=8.5)
        calm(axes)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2 if columns < 3 else 1, frameon=False
        )
    grid[0].set_ylabel("utility: mean task AUC, cloud")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return finish(
        figure, "tradeoff", "Utility against leakage for this run and its open references, with intervals"
    )


def _leakage(index: int, attribute: str, leakage: AttributeLeakage, result: Result) -> Drawing | None:
    metric = leading_metric(leakage.worst)
    if metric is None:
        return None
    attackers = [a for a in worst_first(leakage, metric) if getattr(a, metric) is not None]
    rows: list[tuple[str, Score, Score | None, str, str]] = [
        (a.attack, getattr(a, metric), a.training_records.get(metric), BLUE, "o") for a in attackers
    ]
    worst: Score = getattr(leakage.worst, metric)
    rows.insert(0, ("worst of all", worst, leakage.worst.training_records.get(metric), BLACK, "o"))
    split = len(rows)
    for (name, reference), (color, marker) in zip(result.references.items(), _REFERENCES * 9, strict=False):
        other = reference.leakage.get(attribute)
        score = _score(other.worst, metric) if other else None
        if other is not None and score is not None:
            title = reference_title(name)
            rows.append((title, score, other.worst.training_records.get(metric), color, marker))
    raw = _score(leakage.raw_image_attack, metric)
    if raw is not None:
        rows.append(("raw images", raw, None, VERMILION, "D"))
    figure = Figure(figsize=(WIDTH, 1.25 + 0.36 * len(rows)), layout="constrained")
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
    axes.set_yticks(range(len(rows)), [_short(row[0]) for row in rows])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*_span(xs, 0.04))
    axes.set_xlabel(f"{METRIC_NAMES[metric]} on {attribute}")
    calm(axes, "x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return finish(figure, f"leakage_{index}", f"Attackers on {attribute}, worst first, with reference lines")


def worst_first(leakage: AttributeLeakage, metric: Metric | None) -> list[Any]:
    """The attackers by their score on test records, best attacker first; unscored ones last."""

    def key(attack: Any) -> float:
        score = getattr(attack, metric) if metric else None
        return math.inf if score is None else -float(score.value)

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


def _curves(history: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Every numeric entry of the history over the epochs of all phases, losses and scores apart."""
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for entry in history:
        phases.setdefault(str(entry.get("phase", "")), []).append(entry)
    series: dict[str, list[tuple[float, float]]] = {}
    starts: list[tuple[str, int]] = []
    offset = 0
    for phase, entries in phases.items():
        starts.append((phase, offset))
        for position, entry in enumerate(sorted(entries, key=lambda e: float(e.get("epoch", 0)))):
            for name, value in entry.items():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if name not in ("phase", "epoch", "step") and number and math.isfinite(value):
                    series.setdefault(name, []).append((offset + position + 1.0, float(value)))
        offset += len(entries)
    if not series:
        return None
    scores = {n: p for n, p in series.items() if "loss" not in n and all(0 <= v <= 1 for _, v in p)}
    losses = {n: p for n, p in series.items() if n not in scores}
    panels = [(t, s) for t, s in (("losses", losses), ("scores", scores)) if s]
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True
    ):
        for index, (name, points) in enumerate(lines.items()):
            x, y = zip(*points, strict=True)
            axes.plot(
                x,
                y,
                label=_short(name.replace("_", " "), 30),
                color=_LINES[index % 8],
                linestyle=_STYLES[(index // 8) % 4],
                linewidth=1.6,
                marker="o" if offset <= 30 else None,
                markersize=3.5,
            )
        for phase, start in starts:
            if start:
                axes.axvline(start + 0.5, color="#bdbdbd", linewidth=0.9)
            axes.annotate(
                _short(phase, 20),
                (start + 0.6, 1.01),
                xycoords=("data", "axes fraction"),
                color=GRAY,
                fontsize=8.5,
            )
        axes.set_title(title, loc="left", fontweight="bold", pad=16)
        axes.set_xlabel("epoch, all phases")
        axes.set_xlim(0.5, offset + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        calm(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8.5)
    return finish(figure, "curves", "Losses and scores over the epochs of all phases")
