"""Every kind of figure over odd ranges and names: plain text, no label over another, no glyph missing.

A missing glyph, a layout that collapses and an axis without extent are matplotlib's warnings, hence errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, cycle, pairwise
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from privhier.audit.file import draw_audit
from privhier.audit.row import AuditRow
from privhier.evaluation.frontier import frontier
from privhier.evaluation.points import Point
from privhier.evaluation.result import (
    AttackScores,
    AuxiliaryPoint,
    Membership,
    MembershipScores,
    Result,
    Score,
    WorstAttack,
)
from privhier.figures import style
from privhier.figures.axes import log_ticks, percent, plain
from privhier.figures.text import NOTE, fitted, printable, width
from privhier.report.bench_figures import draw_bench
from privhier.report.figures import draw_all
from privhier.report.sweep_figures import draw_frontier
from privhier.report.sweep_plot import family_styles, place

TINY, HUGE = 1e-12, 1e12


@dataclass(frozen=True)
class Case:
    """What is odd, on every axis and in every name; the rest is plain."""

    attribute: str = "male"
    attacks: tuple[str, ...] = ("logistic_regression", "mlp", "gradient_boosting", "cnn")
    seconds: tuple[float, ...] = (3.1, 21.4, 14.9, 240.0)
    scores: tuple[float, ...] = (0.55, 0.62, 0.71, 0.58)
    half: float = 0.02
    sizes: tuple[int, ...] = (100, 1000, 10_000)
    epsilons: tuple[float, ...] = (0.5, 4.0, 37.6)
    records: int = 500
    losses: tuple[float, ...] = (0.7, 0.5, 0.4)
    series: int = 1
    phases: tuple[str, ...] = ("pretrain", "joint", "cloud")
    panels: int = 1


LONG = "the shade of the left eyebrow as seen by annotator number " * 6
CASES = {
    "plain": Case(panels=3),
    "one point": Case(
        attacks=("mlp",),
        seconds=(2.0,),
        scores=(0.6,),
        sizes=(100,),
        epsilons=(1.0,),
        records=1,
        losses=(0.5,),
        phases=("joint",),
    ),
    "equal values": Case(
        seconds=(5.0,) * 4,
        scores=(0.5,) * 4,
        half=0.0,
        sizes=(64, 64, 64),
        epsilons=(1.0,) * 3,
        losses=(0.5,) * 3,
    ),
    "under a decade": Case(
        seconds=(3.1, 3.4, 4.6, 3.9), sizes=(1000, 1001, 1003), epsilons=(1.0, 1.001, 1.002), records=2
    ),
    "hardly apart": Case(
        seconds=(1000.0001, 1000.0002, 1000.0003, 1000.0004),
        scores=(0.7, 0.7 + 1e-9, 0.7 + 2e-9, 0.7),
        half=1e-10,
        sizes=(100_000, 100_001, 100_002),
        losses=(1.0, 1.0 + 1e-12, 1.0 - 1e-12),
    ),
    "many decades": Case(
        seconds=(1e-6, 1.0, 1e5, 1e9),
        sizes=(1, 30, 10**9, 10**15),
        epsilons=(1e-6, 1.0, 1e6),
        records=10**9,
        losses=(1e-9, 1.0, 1e9),
    ),
    "zeros": Case(
        seconds=(0.0, 0.0, 1.0, 2.0),
        scores=(0.0,) * 4,
        half=0.0,
        sizes=(0, 0, 5),
        epsilons=(0.0,) * 3,
        losses=(0.0,) * 3,
    ),
    "tiny": Case(seconds=(TINY, 2 * TINY, 3 * TINY, TINY), epsilons=(TINY,) * 3, losses=(TINY, 2 * TINY)),
    "huge": Case(
        seconds=(HUGE, 2 * HUGE, 3 * HUGE, HUGE),
        epsilons=(HUGE, 1e300, 1.7e308),
        losses=(HUGE, 1e38, 1.7e308),
    ),
    "not numbers": Case(
        seconds=(math.nan, math.inf, 1.0, 2.0),
        scores=(math.inf, 0.6, 0.6, 0.7),
        losses=(math.nan, math.inf, 0.5),
    ),
    "many": Case(
        attacks=tuple(f"attack_{n}" for n in range(30)),
        seconds=tuple(1.0 + 0.1 * n for n in range(30)),
        scores=tuple(0.5 + 0.01 * n for n in range(30)),
        sizes=tuple(range(100, 130)),
        epsilons=tuple(float(n) for n in range(30)),
        series=40,
        phases=("pretrain", *(f"phase {n}" for n in range(7))),
    ),
    "long names": Case(attribute=LONG, attacks=(LONG, LONG + "x", "w" * 500, "mlp"), phases=(LONG, "joint")),
    "wide names": Case(panels=3, attribute="W" * 60, attacks=("W" * 60, "M" * 60, "W", "M")),
    "Chinese": Case(panels=2, attribute="性别==男", attacks=("攻击者", "👩‍🦰 🤖"), phases=("预训练", "云")),
    "long Chinese": Case(attribute="性别" * 40, attacks=("攻击者" * 30, "mlp")),
    "Arabic": Case(attribute="الجنس", attacks=("مهاجم", "mlp"), phases=("تدريب",)),
    "breaks and surrogates": Case(attribute="a\nb\tc\x00\u202e", attacks=("x\ny", "\udcff")),
    "formulas": Case(attribute=r"$x_{1}$ \frac{$", attacks=("$", "a_b^c"), phases=("$p$",)),
    "nothing": Case(attacks=(), seconds=(), scores=(), sizes=(), epsilons=(), losses=(), phases=()),
}  # fmt: skip


def score(value: float, half: float = 0.02) -> Score:
    return Score(value=value, low=value - half, high=value + half, n=100)


def made_up(case: Case, result: Result) -> Result:
    """The example with the case's attackers on three attributes, its times, sizes and membership attacks."""
    scores = [score(value, case.half) for value in case.scores] or [score(0.6)]
    attacks = [
        AttackScores(attack=name, repr=name, auc=value, training_records={"auc": value})
        for name, value in zip(case.attacks, cycle(scores), strict=False)
    ]
    worst = WorstAttack(attack="worst", auc=scores[0], training_records={"auc": scores[-1]})
    leakage = next(iter(result.leakage.values())).model_copy(
        update={
            "attacks": attacks,
            "worst": worst,
            "raw_image_attack": worst,
            "by_auxiliary": [
                AuxiliaryPoint(auxiliary=size, draws=4, worst=worst.model_copy(update={"auc": value}))
                for size, value in zip(case.sizes, cycle(scores), strict=False)
            ],
        }
    )
    timing = {
        f"attack/curious_cloud/{case.attribute}/{name}": seconds
        for name, seconds in zip(case.attacks, cycle(case.seconds or (1.0,)), strict=False)
    }
    other = {case.attribute: leakage}
    references = {n: r.model_copy(update={"leakage": other}) for n, r in result.references.items()}
    references[case.attribute] = next(iter(references.values()))
    membership = Membership(
        parts={
            part: {name: membership_scores(case) for name in case.attacks}
            for part in (("edge_weights", case.attribute, "tail") if case.attacks else ())
        },
        n_members=case.records,
        n_nonmembers=case.records,
        shadows=8,
        shadow_records=10,
    )
    update = {
        "leakage": {case.attribute + " again" * n: leakage for n in range(case.panels)},
        "references": references,
        "timing": timing,
        "membership": membership,
    }
    return result.model_copy(update=update)


def membership_scores(case: Case) -> MembershipScores:
    roc = [(0.0, 0.0), (1e-3, 0.0), (1e-2, 0.03), (0.1, 0.3), (1.0, 1.0)]
    return MembershipScores(
        repr="x", auc=score(0.6), tpr_at_fpr_001=None, tpr_at_fpr_01=score(0.03), roc=roc, shadows=8
    )


def history_of(case: Case) -> list[dict[str, Any]]:
    return [
        {"phase": phase, "epoch": epoch}
        | {f"edge_loss_{n}": value for n in range(case.series)}
        | {f"accuracy_{n}_{case.attribute}": 0.5 + 0.01 * n for n in range(case.series)}
        for phase in case.phases
        for epoch, value in enumerate(case.losses)
    ]


def points_of(case: Case, result: Result) -> list[Point]:
    names = case.attacks or ("none",)
    points = []
    for number, (family, value) in enumerate(zip(names, cycle(case.scores or (0.6,)), strict=False)):
        found = result.leakage[case.attribute]
        worst = WorstAttack(attack="x", auc=score(value if math.isfinite(value) else 0.6, case.half))
        leakage = {case.attribute: found.model_copy(update={"worst": worst})}
        changed = result.model_copy(update={"leakage": leakage})
        points.append(Point(f"p{number}", "", {"n": number}, family, 0, "done", result=changed))
    return points


def rows_of(case: Case) -> list[AuditRow]:
    return [
        AuditRow(
            name=case.attribute + name,
            what="x",
            adjacency="x",
            claimed_epsilon=epsilon,
            lower_95=epsilon / 2,
            lower_alarm=None,
            refuted=bool(number % 2),
        )
        for number, (name, epsilon) in enumerate(
            zip(cycle(case.attacks or ("",)), case.epsilons, strict=False)
        )
    ]


def draw_sweep(case: Case, result: Result) -> Any:
    points = points_of(case, made_up(case, result))
    front = frontier(points, case.attribute)
    return draw_frontier(front, family_styles(points))


KINDS: dict[str, Callable[[Case, Result], Any]] = {
    "run": lambda case, result: draw_all(made_up(case, result), history_of(case)),
    "bench": lambda case, result: draw_bench(made_up(case, result)),
    "sweep": draw_sweep,
    "audit": lambda case, result: draw_audit(rows_of(case)),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def tick_labels(figure: Figure) -> list[tuple[str, Any]]:
    """Every label that is drawn, of major and minor ticks, with its box."""
    found = []
    for axis in (axis for axes in figure.axes if axes.get_visible() for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            label = tick.label1
            if low <= tick.get_loc() <= high and label.get_visible() and label.get_text():
                found.append((label.get_text(), label.get_window_extent()))
    return found


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Finished figures as they were laid out last; not rendered, which takes most of the time."""
    seen: list[Figure] = []

    def keep(figure: Figure, _: str) -> bytes:
        if figure not in seen:
            seen.append(figure)
        return b""

    monkeypatch.setattr(style, "_file", keep)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_odd_ranges_and_names_are_drawn_plainly(name, kind, result, figures):
    case = CASES[name]
    drawn = KINDS[kind](case, result)
    assert figures or name in ("one point", "nothing", "zeros")
    assert isinstance(drawn, dict | tuple)
    for figure in figures:
        said = "\n".join(texts(figure))
        assert "mathdefault" not in said
        if name != "formulas":
            assert "$" not in said
        labels = tick_labels(figure)
        over = [(a, b) for (a, x), (b, y) in combinations(labels, 2) if x.overlaps(y)]
        assert over == []
        assert not [label for label, _ in labels if "\n" in label]
        right = figure.bbox.width
        assert all(box.x0 >= -1 and box.x1 <= right + 1 for _, box in labels)
        for axes in figure.axes:
            assert axes.bbox.width > 80
            assert axes.bbox.height > 30


@pytest.mark.parametrize("name", ["under a decade", "hardly apart", "many decades", "equal values"])
def test_a_logarithmic_axis_says_where_it_is(name, result, figures):
    draw_bench(made_up(CASES[name], result))
    for axes in (axes for figure in figures for axes in figure.axes):
        for axis in (axes.xaxis, axes.yaxis):
            said = [text.get_text() for text in axis.get_majorticklabels() if text.get_visible()]
            assert len(set(said)) == len(said)
    cost = next(f for f in figures if "seconds" in f.axes[0].get_xlabel())
    assert cost.axes[0].get_xscale() == "log"
    assert 2 <= len(cost.axes[0].get_xticklabels()) <= 12


def test_rates_of_a_roc_are_true_percentages(result, figures):
    """A tenth of a percent was once labelled 0%."""
    draw_bench(made_up(replace(CASES["plain"], records=10_000), result))
    roc = next(f for f in figures if "false-positive" in f.axes[0].get_xlabel())
    axis = roc.axes[0].xaxis
    ticks = zip(axis.get_majorticklabels(), axis.get_majorticklocs(), strict=True)
    said = {label.get_text(): float(place) for label, place in ticks}
    assert said == {"0.01%": 1e-4, "0.1%": 1e-3, "1%": 1e-2, "10%": 0.1, "100%": 1.0}


def test_escapes_are_explained_where_there_are_any(result, figures):
    draw_all(made_up(CASES["Chinese"], result), [])
    draw_audit(rows_of(CASES["Chinese"]))
    draw_sweep(CASES["Chinese"], result)
    for figure in figures:
        (note,) = (text for text in figure.findobj(Text) if text.get_text() == NOTE)
        boxes = [box.get_window_extent() for box in [*figure.legends, *figure.axes]]
        assert not any(note.get_window_extent().overlaps(box) for box in boxes)
    assert any(r"\u6027\u522b==\u7537" in text for text in texts(figures[0]))
    figures.clear()
    draw_all(made_up(CASES["Arabic"], result), [])
    assert not any(NOTE in texts(figure) for figure in figures)


def test_attackers_names_beside_their_points_do_not_cover_each_other(result, figures):
    draw_bench(made_up(CASES["equal values"], result))
    cost = next(f for f in figures if "seconds" in f.axes[0].get_xlabel())
    boxes = [text.get_window_extent() for text in cost.axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.parametrize("name", ["plain", "hardly apart", "equal values", "many"])
def test_the_page_s_own_plot_has_ticks_apart(name, result):
    case = CASES[name]
    points = points_of(case, made_up(case, result))
    plot = place(frontier(points, case.attribute), family_styles(points), {})
    for ticks, room in ((plot.x_ticks, 40), (plot.y_ticks, 16)):
        places = sorted(at for at, _ in ticks)
        assert len({label for _, label in ticks}) == len(ticks) >= 2
        assert all(b - a >= room for a, b in pairwise(places))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 1000.0, [1, 10, 100, 1000]),
        (3.0, 60.0, [5, 10, 20, 50]),
        (3.1, 4.6, [3.5, 4.0, 4.5]),
        (1e-100, 1e100, [10.0**k for k in range(-100, 101, 29)]),
    ],
)
def test_ticks_of_any_span(low, high, expected):
    assert log_ticks(low, high) == pytest.approx(expected)


def test_numbers_are_as_short_as_tells_them_apart():
    assert plain([0.001, 20, 1e9]) == ["0.001", "20", "1e+09"]
    assert plain([1000.0001, 1000.0002]) == ["1000.0001", "1000.0002"]
    assert plain([5.0, 5.0]) == ["5", "5"]
    assert percent([0.0005, 0.25]) == ["0.05%", "25%"]


@pytest.mark.parametrize("text", ["male", "W" * 400, "性别" * 99, "a\nb", "👩‍🦰", "", "\udc80", "الجنس" * 50])
@pytest.mark.parametrize("inches", [0.1, 1.0, 3.0])
def test_a_fitted_name_fits(text, inches):
    cut = fitted(text, inches)
    assert cut.replace("\u200d", "").isprintable()
    assert width(cut) <= max(inches, width("…"))
    if width(printable(text)) <= inches:
        assert cut == printable(text)
    else:
        assert "…" in cut


def test_names_that_differ_at_their_ends_stay_apart():
    assert fitted("the same long beginning of two attributes, a", 1.5).endswith(", a")
    assert fitted("the same long beginning of two attributes, b", 1.5).endswith(", b")


def test_a_legend_is_not_wider_than_its_figure(result, figures):
    draw_bench(made_up(CASES["long names"], result))
    for figure in figures:
        for box in figure.legends:
            extent = box.get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.width
