"""Figures of the attack bench: leakage against the auxiliary set's size, success against cost."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from privhier.evaluation.figures import (
    BLACK,
    BLUE,
    GREEN,
    METRIC_NAMES,
    ORANGE,
    PURPLE,
    RC,
    VERMILION,
    Drawing,
    calm,
    ceiling_value,
    chance,
    finish,
    leading_metric,
)
from privhier.evaluation.result import AttackScores, AttributeLeakage, Result
from privhier.evaluation.roc_figure import draw_roc

_MODELS = {
    "curious_cloud": (BLUE, "o"),
    "curious_cloud_labels": (ORANGE, "s"),
    "eavesdropper": (GREEN, "^"),
    "white_box": (VERMILION, "D"),
    "malicious_cloud": (PURPLE, "v"),
}


def draw_bench(result: Result) -> dict[str, Drawing]:
    """Figures by name, ``auxiliary_<i>`` and ``cost_<i>``, where attribute i has one; ``membership_roc``."""
    drawings: list[Drawing | None] = [draw_roc(result.membership)] if result.membership else []
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
        if metric is not None and (score := getattr(point.worst, metric)) is not None
    ]
    if metric is None or len(points) < 2:
        return None
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    sizes = [size for size, _ in points]
    values = [score.value for _, score in points]
    low = [score.value - score.low for _, score in points]
    high = [score.high - score.value for _, score in points]
    axes.axhline(chance(leakage, metric), color=BLACK, linewidth=1.1, label="guessing")
    bound = ceiling_value(leakage, metric)
    if bound is not None:
        axes.axhline(bound, color=GREEN, linewidth=1.6, linestyle=":", label="ceiling")
    axes.errorbar(sizes, values, yerr=[low, high], color=BLUE, marker="o", capsize=3, label="worst attacker")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("labelled images the attacker owns")
    axes.set_ylabel(f"{METRIC_NAMES[metric]} on {attribute}")
    calm(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
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
        if (seconds := attack_seconds(timing, attribute, attack)) and (score := getattr(attack, metric))
    ]
    if len(placed) < 2:
        return None
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(chance(leakage, metric), color=BLACK, linewidth=1.1, label="guessing")
    seen = set()
    for attack, seconds, score in placed:
        color, marker = _MODELS.get(attack.threat_model, (PURPLE, "v"))
        name = attack.threat_model.replace("_", " ")
        axes.errorbar(
            [seconds],
            [score.value],
            yerr=[[score.value - score.low], [score.high - score.value]],
            color=color,
            marker=marker,
            capsize=2,
            linestyle="none",
            label=None if name in seen else name,
        )
        seen.add(name)
        axes.annotate(
            attack.attack.split("@")[0],
            (seconds, score.value),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds the attacker took (training and answering)")
    axes.set_ylabel(f"{METRIC_NAMES[metric]} on {attribute}")
    calm(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return finish(figure, f"cost_{index}", f"Success of the attackers on {attribute} against their time")
