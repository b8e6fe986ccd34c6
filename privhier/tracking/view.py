"""The saved view that an experiment opens on: utility against leakage, a point a run.

MLflow keeps a view as a tag of its experiment: a JSON envelope with a name and the page's state as text
(its own menu "Views" lists it). Versions before those envelopes read the state itself from the tag; it
stands there as well.
"""

from __future__ import annotations

import json
import time
from typing import Any

VIEW = "privhier-tradeoff"
"""The view's key in links."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_NAME = "Utility against leakage"
_SECTION = "privhier-tradeoff-section"
_NUMBERS = ("utility", "leakage", "excess", "certified", "epsilon")


def view_path(experiment: str) -> str:
    """Where the view is on the page of any MLflow server: the fragment of an address, with its ``#``."""
    asked = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"#/experiments/{experiment}/runs?{asked}"


def view_value() -> str:
    """The tag's value."""
    state, now = _state(), int(time.time() * 1000)
    envelope = {"name": _NAME, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return json.dumps(state | envelope)


def _state() -> dict[str, Any]:
    """All runs with a result (attackers' runs have none), their numbers, and two scatters before all else."""
    return {
        "searchFilter": "metrics.utility >= 0",
        "orderByKey": "metrics.`leakage`",
        "orderByAsc": True,
        "selectedColumns": [
            *(f"metrics.`{name}`" for name in _NUMBERS),
            "params.`defense.name`",
            "tags.`kind`",
        ],
        "runsHiddenMode": "SHOW_ALL",
        "useGroupedValuesInCharts": False,
        "isAccordionReordered": True,  # else the sections are sorted by name
        "compareRunSections": [
            {**_section(_SECTION, _NAME), "columns": 2, "cardHeight": 460},
            _section("privhier-model-metrics", "Model metrics"),
            _section("privhier-system-metrics", "System metrics"),
        ],
        "compareRunCharts": [_scatter("utility", "leakage"), _scatter("utility", "excess")],
    }


def _section(key: str, name: str) -> dict[str, Any]:
    return {
        "uuid": key,
        "name": name,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"privhier-{x}-{y}",
        "displayName": f"{x} against {y}",
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
        "runsCountToCompare": 100,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
    }
