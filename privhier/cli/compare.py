"""The verb ``privhier compare``: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privhier.cli.console import say, say_table

if TYPE_CHECKING:
    import pandas as pd

_BESIDE = ("floor", "excess", "certified")
"""Columns of a secret that are shown beside its score."""


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs")],
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every column there instead, with intervals")
    ] = None,
) -> None:
    """Print what differs between runs, and utility, leakage and epsilon of each.

    Intervals are in brackets. A secret's score is its headline: of all attackers and threat models the
    worst, on test and on training records.
    """
    from privhier.api import compare as side_by_side
    from privhier.storage.files import write_atomic

    table = side_by_side(runs, every=csv is not None)
    if csv is not None:
        write_atomic(csv, table.to_csv(lineterminator="\n"))
        say(f"compared: {csv}")
        return
    say_table(drawn(table))
    say(*([table.attrs["note"]] if "note" in table.attrs else []))


def drawn(table: pd.DataFrame) -> object:
    """The table turned on its side, one column a run: names of configuration keys are long."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False)
    made.add_column("", overflow="fold")  # a key that is cut is no key
    for name in table.index:
        made.add_column(Text(str(name)))
    for name in shown_columns(list(table.columns)):
        made.add_row(Text(name), *(Text(cell(row, name)) for _, row in table.iterrows()))
    return made


def shown_columns(names: list[str]) -> list[str]:
    """Those a person reads first: what differs, utility, each secret's score with who reached it, epsilon."""
    secrets = [name.removesuffix("/score") for name in names if name.endswith("/score")]
    found = [
        name for name in names if not name.startswith(("utility", "leakage/")) and "_per_record" not in name
    ]
    own = ("epsilon", "delta", "allows")
    result = [name for name in found if name not in own] + ["utility_mean/auc"]
    for secret in secrets:
        result += [secret, f"{secret}/attack", *(f"{secret}/{name}" for name in _BESIDE)]
    return [name for name in [*result, *own] if name in names]


def cell(row: pd.Series, name: str) -> str:
    """A value as text, with its interval where it has one."""
    value = row[name]
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if value != value:
        return "none" if name in ("epsilon", "delta", "allows") else ""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    ends = f" [{low:.3f}, {high:.3f}]" if isinstance(low, float) and low == low else ""
    return f"{value:.3f}{ends}" if "/" in name else f"{value:.4g}"
