"""What a sweep found to leak at a cut: for plans that must keep below a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from privhier.config import RunConfig, ScheduleConfig
from privhier.errors import CheckpointError, ResultError
from privhier.evaluation.headline import headline
from privhier.evaluation.points import Estimate, Point, estimate, load_points
from privhier.evaluation.result import Score
from privhier.storage.sealed import Sealed

_OWN = ("model.cut", "model.bottleneck", "schedule", "seed")
"""Axes that are compared with what is asked for, not with the configuration."""


@dataclass(frozen=True)
class _Known:
    """A finished point with its resolved configuration."""

    point: Point
    config: Mapping[str, Any]


class LeakageByCut:
    """The finished points of a sweep folder, to be asked by cut and schedule.

    Raises:
        ResultError: Not a sweep folder.
    """

    def __init__(self, sweep: Path) -> None:
        self._known = [
            _Known(point, _config(sweep / "points" / point.id / "config.yaml"))
            for point in load_points(sweep)
            if point.result is not None
        ]

    def of(self, config: RunConfig, *, cut: str, schedule: ScheduleConfig) -> Estimate | None:
        """The worst attacker's score over all sensitive attributes, mean over seeds; None: unknown.

        A point counts if it has the same data set, sensitive attributes, backbone, cut and bottleneck,
        releases every record as often, and agrees with ``config`` along every other axis of its sweep.
        """
        wanted = config.model_dump(mode="json")
        found = [
            (_worst(known.point), known.point.confidence)
            for known in self._known
            if _fits(known, wanted, cut, schedule)
        ]
        scores = [(score, confidence) for score, confidence in found if score is not None]
        return estimate([score for score, _ in scores], scores[0][1]) if scores else None


def _fits(known: _Known, wanted: Mapping[str, Any], cut: str, schedule: ScheduleConfig) -> bool:
    same = ["dataset.name", "dataset.sensitive", "model.backbone", "model.bottleneck"]
    same += [axis for axis in known.point.settings if not axis.startswith(_OWN)]
    if any(_at(known.config, axis) != _at(wanted, axis) for axis in same):
        return False
    own = ScheduleConfig.model_validate(known.config["schedule"])
    return bool(
        _at(known.config, "model.cut") == cut and own.releases_per_record == schedule.releases_per_record
    )


def _worst(point: Point) -> Score | None:
    """Of the attribute that leaks most."""
    found = point.result.leakage.values() if point.result is not None else ()
    scores = [top.score for leakage in found if (top := headline(leakage)) is not None]
    return max(scores, key=lambda score: score.value, default=None)


def _at(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _config(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.load(Sealed(path.parent).read(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if isinstance(data, dict):
            return data
        reason = "it is no mapping"
    except (CheckpointError, yaml.YAMLError) as error:
        reason = str(error)
    raise ResultError(
        key="config.yaml",
        value=str(path),
        rule=f"is not the resolved configuration of a run: {reason}",
        remedy="Remove the point's folder and start the sweep again: the point is computed anew",
    )
