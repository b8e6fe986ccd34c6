"""The ROC curves of membership attacks on logarithmic axes, where the few records they are sure of show."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.evaluation.result import Membership, MembershipScores
from privhier.figures.axes import log_axis, percent
from privhier.figures.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PANEL,
    PURPLE,
    RC,
    Drawing,
    calm,
    finish,
    legend,
)
from privhier.figures.text import fitted

_SERIES = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":")]
_PARTS = {
    "edge_weights": "edge weights, noiseless features",
    "task_exit": "task exit on fresh releases",
    "tail": "cloud tail on fresh releases",
}


def draw_roc(membership: Membership) -> list[Drawing]:
    """A figure a part of the network, one curve an attack, and what guessing reaches (TPR = FPR).

    Both axes are logarithmic, as in Carlini et al., 2022, from half of what one record is worth; a curve
    begins where the non-members resolve its FPR, and rates of zero lie on the lower edge. A whisker at
    FPR 1 % is that score's interval. Empty where no part was attacked.
    """
    floor = 0.5 / max(membership.n_members, membership.n_nonmembers)
    with matplotlib.rc_context(RC):
        return [_of_part(membership, part, number, floor) for number, part in enumerate(membership.parts)]


def _of_part(membership: Membership, part: str, number: int, floor: float) -> Drawing:
    figure = Figure(figsize=(PANEL, 3.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, scores) in enumerate(membership.parts[part].items()):
        _curve(axes, name, scores, index, floor)
    _frame(axes, floor)
    title = fitted(_PARTS.get(part, part), PANEL - 0.8, size=10, bold=True)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel("true-positive rate")
    legend(figure, [axes], at="lower", columns=2)
    return finish(
        figure,
        f"membership_roc_{number}",
        f"ROC curves of the membership attacks through {_PARTS.get(part, part)} on logarithmic axes, beside "
        "guessing",
    )


def _curve(axes: Axes, name: str, scores: MembershipScores, index: int, floor: float) -> None:
    color, style = _SERIES[index % len(_SERIES)]
    rates = [rate for rate, _ in scores.roc]
    heights = [max(height, floor) for _, height in scores.roc]
    # The curve is a staircase: a rate between two thresholds is reached with the lower one.
    axes.plot(
        rates,
        heights,
        drawstyle="steps-post",
        color=color,
        linestyle=style,
        linewidth=1.7,
        label=name,
        zorder=3,
    )
    at = scores.tpr_at_fpr_01
    if at is not None:
        value, low, high = (max(number, floor) for number in (at.value, at.low, at.high))
        axes.errorbar(
            [0.01 * 1.04**index],  # side by side, so that one whisker does not hide another
            [value],
            yerr=[[value - low], [high - value]],
            color=color,
            marker="o",
            markersize=4.5,
            capsize=3,
            linestyle="none",
            zorder=4,
        )


def _frame(axes: Axes, floor: float) -> None:
    axes.plot([floor, 1], [floor, 1], color=BLACK, linewidth=1.1, label="guessing: TPR = FPR", zorder=2)
    axes.axvline(0.01, color=GRAY, linewidth=0.8, linestyle=":", zorder=1)
    log_axis(axes.xaxis, floor, 1.0, label=percent)
    log_axis(axes.yaxis, floor, 1.08, label=percent)
    axes.set_xlabel("false-positive rate")
    calm(axes)
