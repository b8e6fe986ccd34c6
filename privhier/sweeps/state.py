"""A sweep folder: whose it is, which points are done, and ``points.json``, which says so to others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from privhier.errors import CheckpointError, OutputError
from privhier.storage.locks import exclusive
from privhier.storage.sealed import Sealed, altered, read_json
from privhier.sweeps.spec import Point, Sweep, load_sweep
from privhier.training.folder import RunFolder

SCHEMA = "privhier.sweep/1"
Status = Literal["pending", "running", "done", "failed"]


@dataclass
class PointState:
    """One entry of ``points.json``."""

    id: str
    config_hash: str
    settings: dict[str, Any]
    family: str
    seed: int
    status: Status = "pending"
    seconds: float | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class SweepFolder:
    """The paths of a sweep."""

    root: Path

    @property
    def sealed(self) -> Sealed:
        """Its own files (not its points'), bound by digests."""
        return Sealed(self.root)

    @property
    def spec(self) -> Path:
        """The resolved sweep."""
        return self.root / "sweep.yaml"

    @property
    def index(self) -> Path:
        """Every point and its status."""
        return self.root / "points.json"

    @property
    def commons(self) -> Path:
        """What points have in common (``privhier.training.commons``)."""
        return self.root / "shared"

    @property
    def tracking(self) -> Path:
        """Which MLflow run is this sweep's."""
        return self.root / "tracking.json"

    @property
    def search(self) -> Path:
        """The trials of a search."""
        return self.root / "search.json"

    @property
    def logs(self) -> Path:
        """What workers printed."""
        return self.root / "logs"

    def point(self, name: str) -> RunFolder:
        """The run folder of a point."""
        return RunFolder(self.root / "points" / name)

    def lock(self, name: str) -> Path:
        """Held by whoever works on a point."""
        return self.root / "locks" / f"{name}.lock"

    def occupy(self, sweep: Sweep) -> None:
        """Make the folder this sweep's, or find that it is.

        Raises:
            CheckpointError: It belongs to another sweep.
            OutputError: It holds something else, or cannot be written.
        """
        if self.spec.exists():
            self._check_owner(sweep)
        elif self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise OutputError(
                key="--out",
                value=str(self.root),
                rule="exists already and is not a sweep folder",
                remedy="Choose another --out",
            )
        self.sealed.write(self.spec, sweep.to_yaml())

    def _check_owner(self, sweep: Sweep) -> None:
        saved = load_sweep(self.sealed.checked(self.spec))
        if saved.hash() == sweep.hash():
            return
        differ = sorted(_differences(saved.identity(), sweep.identity()))
        raise CheckpointError(
            key="--out",
            value=str(self.root),
            rule=f"belongs to another sweep (they differ in {', '.join(differ[:5]) or 'their base'})",
            remedy="Choose another --out; the same name and base may go on there, with other axes",
        )


class Index:
    """The points of a sweep folder, written whole whenever something changes.

    Points that the folder holds but the sweep no longer names are kept as they are. Where another
    machine works on the same folder, its finished points are taken over at every write.
    """

    def __init__(self, folder: SweepFolder, sweep_hash: str) -> None:
        self._folder, self._hash = folder, sweep_hash
        self.points: dict[str, PointState] = {}
        self.kept = {row["id"]: row for row in self._read()}
        self.unsaved: str | None = None

    def name(self, points: Iterable[Point]) -> list[Point]:
        """Take up points; returns those that are still to be done."""
        todo = []
        for point in points:
            before = self.kept.pop(point.id, None)
            state = self.points.setdefault(
                point.id,
                PointState(
                    point.id, point.config_hash, dict(point.settings), point.family, point.config.seed
                ),
            )
            if is_done(self._folder.point(point.id), point.config_hash):
                state.status = "done"
                known = before.get("seconds") if before else None
                state.seconds = known or seconds_of(self._folder.point(point.id))
            else:
                todo.append(point)
        return todo

    def set(self, name: str, status: Status, **changes: Any) -> None:
        """Change a point and write."""
        state = self.points[name]
        state.status = status
        for key, value in changes.items():
            setattr(state, key, value)
        self.save()

    def count(self, status: Status) -> int:
        """How many of the sweep's points have this status."""
        return sum(state.status == status for state in self.points.values())

    def save(self) -> None:
        """Write ``points.json``; where that fails, remember why and go on: results come first."""
        try:
            with exclusive(self._folder.lock("points")):
                for row in self._read():
                    ours = self.points.get(row["id"])
                    if ours is None:
                        self.kept[row["id"]] = row
                    elif row["status"] == "done" and ours.status == "pending":
                        ours.status, ours.seconds, ours.error = "done", row.get("seconds"), None
                rows = [asdict(state) for state in self.points.values()]
                for row in self.kept.values():
                    rows.append(row | ({"status": "pending"} if row["status"] == "running" else {}))
                text = json.dumps({"schema": SCHEMA, "sweep_hash": self._hash, "points": rows}, indent=1)
                self._folder.sealed.write(self._folder.index, text + "\n")
            self.unsaved = None
        except (OSError, OutputError) as error:
            self.unsaved = str(error)

    def _read(self) -> list[dict[str, Any]]:
        try:
            if not self._folder.index.exists():
                return []
            rows: list[dict[str, Any]] = self._folder.sealed.read_json(self._folder.index)["points"]
        except CheckpointError as error:
            remedy = "Remove it: it is written anew from the run folders"
            raise altered(self._folder.index, error.rule, remedy) from error
        return rows


def is_done(folder: RunFolder, config_hash: str) -> bool:
    """Whether a run folder holds this configuration's result and report, logged if it is tracked."""
    tracking = folder.root / "tracking.json"
    try:
        if folder.sealed.read_json(folder.result)["config_hash"] != config_hash:
            return False
        if not folder.report.exists():
            return False
        state = read_json(tracking) if tracking.exists() else {"status": "FINISHED"}
        return state.get("status") == "FINISHED" or "failure" in state
    except (CheckpointError, AttributeError):  # edited or damaged: not done, so it is done again
        return False


def seconds_of(folder: RunFolder) -> float | None:
    """What a finished run says it took; None if it does not say."""
    try:
        timing = folder.sealed.read_json(folder.result).get("timing")
    except CheckpointError:
        return None
    if not timing:
        return None
    return round(sum(float(value) for name, value in timing.items() if "/" not in name), 3)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key in a.keys() | b.keys():
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            yield from _differences(x, y, f"{prefix}{key}.")
        elif x != y:
            yield f"{prefix}{key}"
