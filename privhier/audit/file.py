"""``audit.json`` and its plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import matplotlib
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privhier.audit.row import AuditRow
from privhier.errors import ResultError
from privhier.figures.axes import LARGEST
from privhier.figures.style import BLACK, BLUE, RC, VERMILION, calm, legend, rendered
from privhier.figures.text import fitted
from privhier.storage.files import write_atomic

SCHEMA: Final = "privhier.audit/1"


class AuditReport(BaseModel):
    """Everything an audit of a run found; ``refuted`` where a claim is wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["privhier.audit/1"] = Field(SCHEMA, alias="schema")
    name: str
    config_hash: str
    seed: int
    alarm: float
    """Probability of a false alarm of one release audit, at most."""
    note: str = ""
    """What was audited, or why there was nothing to audit."""
    rows: list[AuditRow]
    warnings: list[str] = Field(default_factory=list)
    """What went wrong beside the audit, e.g. with MLflow; not in the file."""

    @property
    def refuted(self) -> bool:
        """Whether any row is."""
        return any(row.refuted for row in self.rows)

    def lines(self) -> list[str]:
        """What the command line prints."""
        first = [self.note] if self.note else []
        return [*first, *(row.line() for row in self.rows), *(f"warning: {text}" for text in self.warnings)]

    def metrics(self) -> dict[str, float]:
        """Every number of the audit by name, as MLflow keeps them."""
        found = {"audit/refuted": float(self.refuted)}
        for row in self.rows:
            numbers = {
                "claimed_epsilon": row.claimed_epsilon,
                "lower_95": row.lower_95,
                "lower_alarm": row.lower_alarm,
                "refuted": float(row.refuted),
            }
            found |= {f"audit/{row.name}/{name}": x for name, x in numbers.items() if x is not None}
        return found

    def write(self, run: Path) -> list[Path]:
        """Write ``audit.json``, ``audit.svg`` and ``audit.png`` into a run folder, each whole or not at all.

        Raises:
            OutputError: The folder cannot be written.
        """
        text = self.model_dump_json(indent=2, by_alias=True) + "\n"
        AuditReport.model_validate_json(text)
        files = {run / "audit.json": text.encode()}
        svg, png = draw_audit(self.rows)
        files |= {run / "audit.svg": svg, run / "audit.png": png}
        for path, data in files.items():
            write_atomic(path, data)
        return list(files)

    @classmethod
    def read(cls, run: Path) -> AuditReport:
        """Read and validate ``audit.json`` of a run folder; raises ``ResultError``."""
        path = run / "audit.json"
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise ResultError(
                key=path.name,
                value=str(path),
                rule=f"is not a readable {SCHEMA} file: {error}",
                remedy=f"Run `privhier audit {run}` first",
            ) from error


def draw_audit(rows: list[AuditRow]) -> tuple[bytes, bytes]:
    """Claims beside their lower bounds as ``(svg, png)``; the same rows give the same bytes."""
    shown = [row for row in rows if row.claimed_epsilon is not None]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.0, 1.3 + 0.42 * max(1, len(shown))), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(shown):
            claimed, low, alarm = (
                min(epsilon or 0.0, LARGEST)
                for epsilon in (row.claimed_epsilon, row.lower_95, row.lower_alarm)
            )
            color = VERMILION if row.refuted else BLUE
            axes.barh(place, low, height=0.5, color=color, alpha=0.75, label="at least, 95 %")
            mark: Any = {"linestyle": "", "clip_on": False, "color": BLACK}
            axes.plot([alarm], [place], marker="|", markersize=12, label="at least, alarm level", **mark)
            axes.plot([claimed], [place], marker="D", markersize=6, label="claimed", **mark)
        names = [fitted(row.name, 2.4) + " REFUTED" * row.refuted for row in shown]
        axes.set_yticks(range(len(shown)), names)
        axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("epsilon" if shown else "nothing is claimed, nothing was drawn")
        calm(axes, "x")
        legend(figure, [axes], at="lower", columns=3)
        svg, png = rendered(figure, "svg", "png")
    return svg, png
