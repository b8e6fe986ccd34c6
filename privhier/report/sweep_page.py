"""``report.html`` of a sweep: one self-contained page that compares its points, and the files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from privhier.evaluation.breakers import TOLERATED as MATRIX_TOLERATED
from privhier.evaluation.breakers import Breakers, breakers
from privhier.evaluation.flat import clean_name
from privhier.evaluation.frontier import DRAW_METHOD, Candidate, Frontier, frontier, panels
from privhier.evaluation.headline import telling
from privhier.evaluation.points import INTERVAL_METHOD, Estimate, Point, Progress, load_points, varying_keys
from privhier.evaluation.ranking import RANK_METHOD, TOLERATED, Ranking, rank_families
from privhier.evaluation.warnings import unquotable
from privhier.privacy.shown import TWO_PROMISES, allowance, mixed_promises
from privhier.report import sweep_plot
from privhier.report.figures import reference_title
from privhier.report.page import VACUOUS, format_allows, format_ceiling, format_epsilon, format_gain
from privhier.report.sweep_figures import draw_frontier
from privhier.report.sweep_plot import NARROW, Plot, Style, family_styles, place, reference_name, shape
from privhier.report.sweep_tables import (
    Share,
    as_csv,
    as_parquet,
    breaker_rows,
    frontier_json,
    point_rows,
    ranking_rows,
    reference_shares,
    who_pays,
)
from privhier.storage.files import write_atomic, write_json
from privhier.storage.sealed import Sealed


@dataclass(frozen=True)
class Panel:
    """One frontier with all the page shows of it."""

    front: Frontier
    plot: Plot
    narrow: Plot
    slug: str
    shares: list[Share]
    rankings: list[Ranking]
    matrix: Breakers


@dataclass(frozen=True)
class Table:
    """All settings of one bench, the fronts' first."""

    bench: str
    keys: list[str]
    attributes: list[Frontier]
    rows: list[tuple[Candidate, list[Candidate | None]]]


def write_sweep_report(sweep: Path, *, progress: Progress | None = None) -> Path:
    """Write the page, the tables (points, ranking, breakers), ``frontier.json`` and the figures.

    Works on an unfinished sweep as well: what is not done is listed.

    Args:
        sweep: A folder that ``privhier sweep`` wrote.
        progress: Called with a description, steps done and steps in all.

    Returns:
        The path of ``report.html``.

    Raises:
        ResultError: There is no readable ``points.json``.
        OutputError: The folder cannot be written.
    """
    points = load_points(sweep, progress=progress)
    name, sweep_hash = _identity(sweep)
    wanted, styles = panels(points), family_styles(points)
    fronts: list[Frontier] = []
    for bench, attribute in wanted:
        fronts.append(frontier(points, attribute, bench))
        if progress is not None:
            progress("computing frontiers", len(fronts), len(wanted))
    rows = point_rows(points, fronts)
    write_atomic(sweep / "points.csv", as_csv(rows))
    write_atomic(sweep / "points.parquet", as_parquet(rows))
    write_atomic(sweep / "ranking.csv", as_csv(ranking_rows(fronts)))
    write_atomic(sweep / "breakers.csv", as_csv(breaker_rows(fronts)))
    told = frontier_json(fronts, name=name, sweep_hash=sweep_hash) | {"unquotable": _unquotable(points)}
    write_json(sweep / "frontier.json", told)
    slugs = _slugs(fronts)
    for count, (front, slug) in enumerate(zip(fronts, slugs, strict=True), 1):
        svg, pdf = draw_frontier(front, styles)
        write_atomic(sweep / f"frontier_{slug}.svg", svg)
        write_atomic(sweep / f"frontier_{slug}.pdf", pdf)
        if progress is not None:
            progress("drawing figures", count, len(fronts))
    page = render(name, sweep_hash, points, fronts, slugs, styles)
    write_atomic(sweep / "report.html", page)
    return sweep / "report.html"


def render(
    name: str,
    sweep_hash: str,
    points: Sequence[Point],
    fronts: Sequence[Frontier],
    slugs: Sequence[str],
    styles: Mapping[str, Style],
) -> str:
    """The page as text. Every value from outside is escaped; nothing is fetched from anywhere."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(estimate=format_estimate, epsilon=format_epsilon, value=_value)
    environment.filters.update(allows=format_allows, gain=format_gain)
    here = resources.files("privhier.report")

    def read(file: str) -> str:
        return here.joinpath(file).read_text(encoding="utf-8")

    keys = varying_keys(points)
    names = {point.setting: setting_name(point, keys) for point in points if point.result is not None}
    shown = []
    for front, slug in zip(fronts, slugs, strict=True):
        titles = {r: reference_name(r, front.references) for r in front.references}
        shares = who_pays(front, names)
        shares = [*reference_shares(front, titles), *shares] if shares else []
        ranks = (
            [rank_families(front, tolerated=lost) for lost in TOLERATED] if len(front.families) > 1 else []
        )
        wide, narrow = place(front, styles, names), place(front, styles, names, NARROW)
        shown.append(Panel(front, wide, narrow, slug, shares, ranks, breakers(front)))
    status = {s: [p for p in points if p.status == s] for s in ("done", "running", "pending", "failed")}
    return environment.from_string(read("sweep.html.j2")).render(
        name=name,
        sweep_hash=sweep_hash,
        points=points,
        status=status,
        panels=shown,
        tables=_tables(fronts, keys),
        names=names,
        keys=keys,
        short=short_keys(keys),
        styles=styles,
        used=list(dict.fromkeys(c.family for f in fronts for c in f.candidates)),
        plot=sweep_plot,
        shape=shape,
        reference_title=reference_title,
        command=command,
        tip=_tip,
        tolerated=MATRIX_TOLERATED,
        breakable=_breakable,
        setting_name=setting_name,
        vacuous=VACUOUS,
        two_promises=TWO_PROMISES
        if mixed_promises(c.delta for f in fronts for c in f.candidates if c.epsilon)
        else "",
        added=_unequal_additions(points),
        unquotable=_unquotable(points),
        simulated=any(p.result.release.get("noise_source") == "seeded" for p in points if p.result),
        seeds=sorted({point.seed for point in points}),
        interval_method=INTERVAL_METHOD,
        draw_method=DRAW_METHOD,
        rank_method=RANK_METHOD,
        css=Markup(read("report.css") + read("sweep.css")),
        js=Markup(read("sweep.js")),
    )


def _unquotable(points: Sequence[Point]) -> dict[str, list[str]]:
    """Point to why none of its numbers may be quoted (not learned, a collapsed code), for those there are."""
    found = {p.id: unquotable(p.result.warnings) for p in points if p.result is not None}
    return {name: texts for name, texts in found.items() if texts}


def _unequal_additions(points: Sequence[Point]) -> dict[str, list[str]]:
    """Point to the attacks that were added to it; empty where all finished points have the same."""
    found = {p.id: [one.described for one in p.result.additions] for p in points if p.result is not None}
    return (
        {}
        if len({tuple(sorted(one)) for one in found.values()}) < 2
        else {k: v for k, v in found.items() if v}
    )


def command(point: Point) -> str:
    """What repeats a point, from inside the sweep folder."""
    return f"privhier run points/{point.id}/config.yaml --out repeated/{point.id}"


def setting_name(point: Point, keys: Sequence[str]) -> str:
    """A setting in words: the family, then what varies besides; ``keys`` are the axes that vary."""
    short = short_keys(keys)
    shown = {key: point.settings[key] for key in keys if key in point.settings}
    parts = [f"{short[key]} {_value(value)}" for key, value in shown.items() if value != point.family]
    return ", ".join([point.family, *parts])


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted keys by as few of their last parts as tell them apart.

    Example:
        >>> short_keys(["release.sigma", "model.bottleneck.size"])
        {'release.sigma': 'sigma', 'model.bottleneck.size': 'bottleneck.size'}
    """
    found = {}
    for key in keys:
        parts = key.split(".")
        # "size" or "kind" of what? A key three deep keeps its parent's name.
        for count in range(min(len(parts), 2 if len(parts) > 2 else 1), len(parts) + 1):
            tail = ".".join(parts[-count:])
            if sum(other == tail or other.endswith(f".{tail}") for other in keys) == 1:
                break
        found[key] = tail
    return found


def format_estimate(estimate: Estimate | None) -> str:
    """``0.771 [0.759, 0.784]``."""
    if estimate is None:
        return "–"  # noqa: RUF001 - the typographic dash of an empty cell
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tip(candidate: Candidate) -> str:
    """The tooltip of a point, one fact a line; also what a browser without scripts shows."""
    first = candidate.points[0]
    lines = [f"{candidate.family}{' (unprotected)' if candidate.unprotected else ''}"]
    lines += [f"{key} = {_value(value)}" for key, value in first.settings.items()]
    vacuous = candidate.epsilon is not None and candidate.epsilon > VACUOUS
    seeds = ", ".join(str(point.seed) for point in candidate.points)
    ceiling, certified = telling(candidate.ceiling), telling(candidate.certified)
    lines += [
        f"utility {format_estimate(candidate.utility)}",
        f"leakage {format_estimate(candidate.leakage)}{_counts(candidate)}",
        f"beyond the labels' floor {format_estimate(candidate.excess)}",
        *([] if candidate.cloud_gain is None else [f"cloud gain {format_gain(candidate.cloud_gain)}"]),
        f"ceiling {'none' if ceiling is None else format_ceiling(ceiling)}",
        *([] if certified is None else [f"certified {format_ceiling(certified)}"]),
        f"epsilon {format_epsilon(candidate.epsilon)}{' (numerically vacuous)' if vacuous else ''}",
        *([] if candidate.allows is None else [allowance(candidate.allows)]),
        f"{'on the front' if candidate.on_front else 'dominated'} "
        f"(on it in {candidate.front_share:.0%} of the draws)",
        f"seeds {seeds}; a click opens the report of seed {first.seed}",
        command(first),
    ]
    return "\n".join(lines)


def _counts(candidate: Candidate) -> str:
    below = candidate.leakage.value < candidate.counted
    return f", counts as guessing ({candidate.counted:.3f})" if below else ""


def _breakable(name: str) -> Markup:
    """An attacker's name that may be broken where its words are joined."""
    return Markup(re.sub(r"([_@])", r"\1<wbr>", str(escape(name))))


def _tables(fronts: Sequence[Frontier], keys: Sequence[str]) -> list[Table]:
    tables = []
    for bench in dict.fromkeys(front.bench for front in fronts):
        own = [front for front in fronts if front.bench == bench]
        lookup = [{c.points[0].setting: c for c in front.candidates} for front in own]
        everyone = {setting: c for found in reversed(lookup) for setting, c in found.items()}
        rows = [(c, [found.get(setting) for found in lookup]) for setting, c in everyone.items()]
        rows.sort(key=lambda row: (-sum(c is not None and c.on_front for c in row[1]), -row[0].utility.value))
        firsts = [row[0].points[0] for row in rows]
        used = [key for key in keys if any(p.settings.get(key, p.family) != p.family for p in firsts)]
        tables.append(Table(bench, used, own, rows))
    return tables


def _slugs(fronts: Sequence[Frontier]) -> list[str]:
    """File names: the attribute; the data set and tasks before it where there are several."""
    several = len({front.bench for front in fronts}) > 1
    slugs: list[str] = []
    for front in fronts:
        slug = clean_name(front.attribute).replace("/", "_")
        slug = f"{clean_name(front.bench).replace('/', '_')}_{slug}" if several else slug
        slugs.append(slug if slug not in slugs else f"{slug}_{len(slugs)}")
    return slugs


def _identity(sweep: Path) -> tuple[str, str]:
    """Name and hash of the sweep; the folder's name where ``sweep.yaml`` does not give one."""
    sealed = Sealed(sweep)
    digest = str(sealed.read_json(sweep / "points.json").get("sweep_hash", ""))
    try:
        data = yaml.load(sealed.read(sweep / "sweep.yaml"), yaml.SafeLoader)
        return str(data["name"]), digest
    except (yaml.YAMLError, KeyError, TypeError):
        return sweep.resolve().name, digest
