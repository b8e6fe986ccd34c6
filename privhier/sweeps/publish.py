"""The sweep's page, written and put into its MLflow run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from privhier.report.sweep_page import write_sweep_report
from privhier.storage.sealed import read_json
from privhier.tracking.sweep import log_frontier


def publish(
    folder: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> tuple[Path, list[str]]:
    """Write the page of the sweep ``folder`` and log it with its figures to the sweep's MLflow run.

    Returns:
        The page, and what one should know beside it: what went wrong with the store, and how many points may
        not be quoted, by reason.
    """
    page = write_sweep_report(folder, progress=progress)
    frontier = folder / "frontier.json"
    files = [page, frontier, folder / "points.csv", *sorted(folder.glob("frontier_*.svg"))]
    told = read_json(frontier)
    panels = told["panels"]
    volumes = {
        f"hypervolume/{panel['attribute']}": panel["hypervolume"]["value"]
        for panel in panels
        if panel["hypervolume"]
    }
    problem = log_frontier(folder, files, volumes)
    notes = [] if problem is None else [f"warning: MLflow: {problem}"]
    counts = Counter(text for texts in told["unquotable"].values() for text in texts)
    notes += [f"WARNING: {text}, at {count} of the finished points" for text, count in counts.items()]
    return page, notes
