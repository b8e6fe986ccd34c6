"""A plan as tables and sentences."""

from __future__ import annotations

from itertools import groupby

from rich.table import Table

from privhier.planner.plan import Plan, Row
from privhier.planner.stages import Forecast
from privhier.planner.units import show_bitrate, show_bytes, show_seconds
from privhier.uplink.sizes import ReleaseFormat


def tables(plan: Plan) -> list[Table]:
    """The cuts, every schedule over all of them, and what one would do otherwise."""
    whole = plan.profile.whole
    cuts = _table(
        "cuts",
        "cut",
        "release",
        "bytes each (alone)",
        "edge step",
        "cloud step",
        "edge memory",
        "edge operations",
    )
    for name, cut in plan.profile.cuts.items():
        edge, cloud, _ = plan.machines.fit(cut, plan.records.batch_size)
        count = cut.edge_count
        share = f" ({count.step / whole.count.step:.0%})" if whole else ""
        part = f" ({count.memory.total / whole.count.memory.total:.0%})" if whole else ""
        cuts.add_row(
            name,
            _release(cut.form),
            f"{cut.form.bytes_per_record:.0f} ({cut.form.payload_bytes_per_record:g})",
            show_seconds(edge.step + edge.pack),
            show_seconds(cloud.step + cloud.receive),
            show_bytes(count.memory.total) + part,
            f"{count.step / 1e6:.3g} M{share}",
        )
    found = [cuts]
    for regime, rows in groupby(plan.rows, key=lambda row: row.forecast.regime):
        note = ", as configured" if regime == plan.configured else ""
        table = _table(
            regime + note, "cut", "step", "epoch", "run", "up an epoch", "up in all", "bound by", "leakage"
        )
        for row in rows:
            leakage = f"{row.leakage.value:.3f}" if row.leakage else "unknown"
            table.add_row(row.cut, *_cells(row.forecast), row.forecast.bound, leakage)
        found.append(table)
    if plan.alternatives:
        others = _table("otherwise", "", "step", "epoch", "run", "up an epoch", "up in all", "down in all")
        for name, forecast in plan.alternatives:
            regime = f"{forecast.regime}, {name}" if name else forecast.regime
            others.add_row(regime, *_cells(forecast), show_bytes(forecast.down_bytes))
        found.append(others)
    return found


def lines(plan: Plan) -> list[str]:
    """What was skipped, refused and assumed, and last the choice."""
    said = [f"skipped: {cut}: {reason}" for cut, reason in plan.profile.skipped.items()]
    refused: dict[tuple[str, str], list[str]] = {}
    for row in plan.rows:
        if row.refused:
            refused.setdefault((row.cut, row.refused), []).append(row.forecast.regime)
    said += [f"not chosen: {cut} for {'; '.join(names)}: {why}" for (cut, why), names in refused.items()]
    said += [f"assumed: {text}" for text in plan.assumptions]
    rate = show_bitrate(plan.link.bits_per_second)
    said.append(_choice(f"best cut at {rate} for {plan.configured}", plan.best))
    said.append(_choice(f"fastest at {rate} of all schedules", plan.fastest))
    return said


def _release(form: ReleaseFormat) -> str:
    """One record's release: its shape, or its letters."""
    if form.letters is None:
        return "x".join(map(str, form.shape))
    return f"{form.shape[0]} of {form.letters} letters"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _cells(forecast: Forecast) -> list[str]:
    seconds = (forecast.step_seconds, forecast.epoch_seconds, forecast.run_seconds)
    sizes = (forecast.up_bytes_per_epoch, forecast.up_bytes)
    return [*map(show_seconds, seconds), *map(show_bytes, sizes)]


def _choice(what: str, row: Row | None) -> str:
    if row is None:
        return f"{what}: none keeps to the limits"
    seconds = show_seconds(row.forecast.run_seconds)
    return f"{what}: {row.cut}, {row.forecast.regime}, {seconds}, bound by the {row.forecast.bound}"
