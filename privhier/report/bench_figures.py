"""Figures of the attack bench: leakage against the auxiliary set's size, success against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from privhier.evaluation.headline import (
    METRIC_NAMES,
    Metric,
    ceiling_value,
    chance,
    drawable,
    leading_metric,
    telling,
)
from privhier.evaluation.result import AttackScores, AttributeLeakage, Result, Score
from privhier.figures.axes import LARGEST, log_axis, log_room
from privhier.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PANEL,
    PURPLE,
    RC,
    VERMILION,
    Drawing,
    calm,
    finish,
    legend,
)
from privhier.figures.text import fitted
from privhier.report.roc_figure import draw_roc

_MODELS = {
    "curious_cloud": (BLUE, "o"),
    "curious_cloud_labels": (ORANGE, "s"),
    "eavesdropper": (GREEN, "^"),
    "white_box": (VERMILION, "D"),
    "malicious_cloud": (PURPLE, "v"),
}
_SIDES: tuple[tuple[int, Literal["left", "right"]], ...] = ((4, "left"), (-4, "right"))
_PLACES = [(x, side, y) for y in (4, -10, 13, -19, 22, -28, 31, -37) for x, side in _SIDES]
"""Of a name beside its point: offset to the right in points, its own alignment, offset upward."""


def draw_bench(result: Result) -> dict[str, Drawing]:
    """Figures by name: ``membership_roc_<i>``; ``auxiliary_<i>``, ``cost_<i>`` where attribute i has one."""
    drawings: list[Drawing | None] = [*draw_roc(result.membership)] if result.membership else []
    with matplotlib.rc_context(RC):
        for index, (attribute, leakage) in enumerate(result.leakage.items()):
            drawings.append(_auxiliary(index, attribute, leakage))
            drawings.append(_cost(index, attribute, leakage, result.timing))
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def attack_seconds(timing: Mapping[str, float], target: str, attack: AttackScores) -> float | None:
    """Wall time of an attacker on ``target``, from the result's ``timing``."""
    bare = attack.attack.split("@")[0]
    return timing.get(f"attack/{attack.threat_model}/{target}/{bare}")


def _auxiliary(index: int, attribute: str, leakage: AttributeLeakage) -> Drawing | None:
    metric = leading_metric(leakage.worst)
    points = [
        (point.auxiliary, score)
        for point in leakage.by_auxiliary
        if metric is not None and point.auxiliary > 0 and (score := drawable(point.worst, metric)) is not None
    ]
    if metric is None or len(points) < 2:
        return None
    figure = Figure(figsize=(PANEL, 2.9), layout="constrained")
    axes = figure.subplots()
    sizes = [size for size, _ in points]
    values = [score.value for _, score in points]
    low = [score.value - score.low for _, score in points]
    high = [score.high - score.value for _, score in points]
    _levels(axes, leakage, metric)
    axes.errorbar(sizes, values, yerr=[low, high], color=BLUE, marker="o", capsize=3, label="worst attacker")
    at = sorted(set(sizes))
    log_axis(axes.xaxis, *log_room(sizes), at=at, label=lambda ticks: [f"{int(tick):,}" for tick in ticks])
    axes.set_xlabel("labelled images the attacker owns")
    axes.set_ylabel(fitted(f"{METRIC_NAMES[metric]} on {attribute}", 2.4))
    calm(axes)
    legend(figure, [axes], at="upper", columns=2)
    return finish(figure, f"auxiliary_{index}", f"Leakage of {attribute} against the auxiliary set's size")


def _cost(
    index: int, attribute: str, leakage: AttributeLeakage, timing: Mapping[str, float]
) -> Drawing | None:
    metric = leading_metric(leakage.worst)
    if metric is None:
        return None
    placed = [
        (attack, seconds, score)
        for attack in (*leakage.attacks, *leakage.attacks_with_labels)
        if (seconds := attack_seconds(timing, attribute, attack)) is not None
        and 1 / LARGEST < seconds < LARGEST
        and (score := drawable(attack, metric)) is not None
    ]
    if len(placed) < 2:
        return None
    figure = Figure(figsize=(PANEL, 3.1), layout="constrained")
    axes = figure.subplots()
    _levels(axes, leakage, metric)
    for attack, seconds, score in placed:
        color, marker = _MODELS.get(attack.threat_model, (PURPLE, "v"))
        axes.errorbar(
            [seconds],
            [score.value],
            yerr=[[score.value - score.low], [score.high - score.value]],
            color=color,
            marker=marker,
            capsize=2,
            linestyle="none",
            label=attack.threat_model.replace("_", " "),
        )
    log_axis(axes.xaxis, *log_room([seconds for _, seconds, _ in placed], 0.12))
    axes.set_xlabel("seconds the attacker took (training and answering)")
    axes.set_ylabel(fitted(f"{METRIC_NAMES[metric]} on {attribute}", 2.8))
    calm(axes)
    legend(figure, [axes], at="upper", columns=2)
    _name_points(figure, axes, placed)
    return finish(figure, f"cost_{index}", f"Success of the attackers on {attribute} against their time")


def _levels(axes: Axes, leakage: AttributeLeakage, metric: Metric) -> None:
    """Horizontal lines: guessing, the labels' floor and the ceiling where there are any."""
    guess, bound = chance(leakage, metric), telling(ceiling_value(leakage, metric))
    floor = drawable(leakage.floor, metric)
    if math.isfinite(guess):
        axes.axhline(guess, color=BLACK, linewidth=1.1, label="guessing")
    if floor is not None:
        axes.axhline(floor.value, color=BLUE, linewidth=1.1, linestyle="-.", label="true task labels alone")
    if bound is not None and math.isfinite(bound):
        axes.axhline(bound, color=GREEN, linewidth=1.6, linestyle=":", label="ceiling")


def _name_points(figure: Figure, axes: Axes, placed: Sequence[tuple[AttackScores, float, Score]]) -> None:
    """Every attack's name beside its point, inside the axes and over no other name where there is room."""
    figure.draw_without_rendering()
    frame, taken = axes.get_window_extent(), list[Bbox]()
    for attack, seconds, score in placed:
        name = fitted(attack.attack.split("@")[0], 1.6, size=7)
        note = axes.annotate(
            name, (seconds, score.value), xytext=(4, 4), textcoords="offset points", fontsize=7
        )
        note.set_in_layout(False)  # a name at the edge must not shrink the axes
        for x, side, y in _PLACES:
            note.set_position((x, y))
            note.set_horizontalalignment(side)
            box = note.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        else:
            note.remove()
            continue
        taken.append(box)
