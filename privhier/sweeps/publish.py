"""The sweep's page, written and put into its MLflow run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from privhier.report.sweep_page import write_sweep_report
from privhier.storage.sealed import read_json
from privhier.tracking.sweep import log_frontier


def publish(
    folder: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> tuple[Path, str | None]:
    """Write the page of the sweep ``folder`` and log it with its figures to the sweep's MLflow run.

    Returns:
        The page, and what went wrong with the store, if anything.
    """
    page = write_sweep_report(folder, progress=progress)
    frontier = folder / "frontier.json"
    files = [page, frontier, folder / "points.csv", *sorted(folder.glob("frontier_*.svg"))]
    panels = read_json(frontier)["panels"]
    volumes = {
        f"hypervolume/{panel['attribute']}": panel["hypervolume"]["value"]
        for panel in panels
        if panel["hypervolume"]
    }
    return page, log_frontier(folder, files, volumes)
