"""A sweep folder as typed points, and points that differ only in the seed as one estimate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import ndtri, stdtrit

from privhier.errors import CheckpointError, ResultError
from privhier.evaluation.result import Gain, Result, Score
from privhier.storage.sealed import Sealed, read_json

SCHEMA = "privhier.sweep/1"
Progress = Callable[[str, int, int], None]
Status = Literal["pending", "running", "done", "failed"]
INTERVAL_METHOD = (
    "Mean over the seeds. Its variance is that between the seeds, divided by their number, plus the mean "
    "variance of the runs' own bootstraps over groups of test records (squared half-width of the interval "
    "over its normal quantile). The second part is not divided: the seeds draw their test records from one "
    "data set, so it may not average out. Student's t with Welch and Satterthwaite's degrees of freedom; "
    "upper and lower side each on their own; cut to [0, 1]. With one seed only the run's bootstrap is left."
)


class _Row(BaseModel):
    """One entry of ``points.json``; keys this reader does not know are none of its business."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    config_hash: str
    settings: dict[str, Any] = Field(default_factory=dict)
    family: str = ""
    seed: int = 0
    status: Status = "pending"
    seconds: float | None = None
    error: str | dict[str, Any] | None = None


class _Index(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_: Literal["privhier.sweep/1"] = Field(alias="schema")
    sweep_hash: str = ""
    points: list[_Row]


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        id: Its folder under ``points/``.
        settings: The axes' values by dotted config key, without the seed; a mapping such as a defense's
            options counts as one key per option.
        family: What colors it, e.g. the defense's name.
        status: As the engine wrote it; a finished point whose result cannot be read is ``failed``.
        error: Why it failed, else None.
        result: What it claims; None unless it is done.
        confidence: Of the intervals in ``result``.
        unprotected: It neither noises its releases nor defends them.
    """

    id: str
    config_hash: str
    settings: Mapping[str, Any]
    family: str
    seed: int
    status: Status
    seconds: float | None = None
    error: str | None = None
    result: Result | None = field(default=None, repr=False)
    confidence: float = 0.95
    unprotected: bool = False

    @property
    def bench(self) -> str:
        """Data set and tasks: only points of one bench can be compared."""
        if self.result is None:
            return ""
        return f"{self.result.dataset.get('name', 'data')}: {', '.join(self.result.utility)}"

    @property
    def setting(self) -> str:
        """What is equal for points that differ only in the seed."""
        return json.dumps([self.bench, self.family, dict(self.settings)], sort_keys=True, default=str)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval (see ``INTERVAL_METHOD``)."""

    value: float
    low: float
    high: float
    seeds: int


def is_sweep(folder: Path) -> bool:
    """Whether ``folder`` is a sweep folder, and not a run folder."""
    return (folder / "points.json").is_file()


def load_points(sweep: Path, *, progress: Progress | None = None) -> list[Point]:
    """All points of a sweep folder, in the engine's order, finished or not.

    Args:
        progress: Called with a description, points read and points in all.

    Raises:
        CheckpointError: ``points.json`` was edited or damaged.
        ResultError: ``points.json`` is missing or malformed. A point whose own files are broken is
            returned as failed, with the reason, and takes nothing else down.
    """
    path = sweep / "points.json"
    try:
        index = _Index.model_validate_json(Sealed(sweep).read(path) if path.exists() else b"")
    except ValidationError as error:
        raise ResultError(
            key="points.json",
            value=str(sweep),
            rule=f"is not a readable {SCHEMA} file: {error}",
            remedy="Give a folder that `privhier sweep` wrote",
        ) from error
    points = []
    for count, row in enumerate(index.points, 1):
        points.append(_point(sweep, row))
        if progress is not None:
            progress("reading points", count, len(index.points))
    return points


def estimate(scores: Sequence[Score | Gain], confidence: float, *, lowest: float = 0.0) -> Estimate:
    """Several seeds' scores as one; ``confidence`` is that of their intervals and of the answer.

    ``lowest`` is the least that such a score can be: -1 for a difference.

    Example:
        >>> a, b = (Score(value=v, low=v - 0.02, high=v + 0.02, n=500) for v in (0.70, 0.70))
        >>> estimate([a, b], 0.95)
        Estimate(value=0.7, low=0.68, high=0.72, seeds=2)
    """
    values = np.array([score.value for score in scores], dtype=np.float64)
    if not len(values):
        raise ValueError("no scores")
    mean, z = float(values.mean()), float(ndtri((1 + confidence) / 2))
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    down = _reach(between, [s.value - s.low for s in scores], z, confidence)
    up = _reach(between, [s.high - s.value for s in scores], z, confidence)
    low, high = round(max(mean - down, lowest), 12), round(min(mean + up, 1.0), 12)
    return Estimate(round(mean, 12), min(low, round(mean, 12)), max(high, round(mean, 12)), len(values))


def group_by_setting(points: Iterable[Point]) -> list[tuple[Point, ...]]:
    """Finished points, those of equal settings together, seeds in order; in order of appearance."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.result is not None:
            groups.setdefault(point.setting, []).append(point)
    return [tuple(sorted(group, key=lambda p: p.seed)) for group in groups.values()]


def varying_keys(points: Iterable[Point]) -> list[str]:
    """Axes along which the points differ, in order of appearance."""
    seen: dict[str, set[str]] = {}
    points = list(points)
    for key in dict.fromkeys(key for point in points for key in point.settings):
        seen[key] = {json.dumps(point.settings.get(key), default=str) for point in points}
    return [key for key, values in seen.items() if len(values) > 1]


def _reach(between: float, widths: Sequence[float], z: float, confidence: float) -> float:
    """Half-width of one side: ``t * sqrt(between + within)``."""
    variance = between + float(np.mean(np.square(widths))) / z**2
    if between <= 0:
        return z * float(np.sqrt(variance))
    freedom = (len(widths) - 1) * (variance / between) ** 2
    return float(stdtrit(freedom, (1 + confidence) / 2)) * float(np.sqrt(variance))


def _point(sweep: Path, row: _Row) -> Point:
    folder = sweep / "points" / row.id
    status, error, result, facts = row.status, _error_text(row.error), None, _Facts()
    if status == "done":
        try:
            sealed = Sealed(folder)
            result = Result.of_run(sealed, folder / "result.json")
            facts = _facts(sealed, folder / "config.yaml")
        except (ResultError, CheckpointError) as problem:
            status, error, result = "failed", f"{type(problem).__name__}: {problem}", None
    elif status == "failed" and error is None:
        error = _error_file(folder / "error.json")
    return Point(
        id=row.id,
        config_hash=row.config_hash,
        settings=_flat(row.settings),
        family=row.family or facts.defense,
        seed=row.seed,
        status=status,
        seconds=row.seconds,
        error=error,
        result=result,
        confidence=facts.confidence,
        unprotected=result is not None and facts.defense == "none" and not result.release.get("sigma"),
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@dataclass(frozen=True)
class _Facts:
    """What a result does not say about its own configuration."""

    defense: str = "none"
    confidence: float = 0.95


def _facts(sealed: Sealed, path: Path) -> _Facts:
    """Read with libyaml and without validation: a thousand files in a second."""
    try:
        data = yaml.load(sealed.read(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _Facts(str(data["defense"]["name"]), float(data["evaluation"]["confidence"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ResultError(
            key="config.yaml",
            value=str(path),
            rule=f"is not the resolved configuration of a run: {type(error).__name__}: {error}",
            remedy="Remove the point's folder and start the sweep again: the point is computed anew",
        ) from error


def _error_text(error: str | Mapping[str, Any] | None) -> str | None:
    if isinstance(error, Mapping):
        return f"{error.get('type', 'Error')}: {error.get('message', '')}"
    return error


def _error_file(path: Path) -> str:
    if not path.exists():
        return "no error was kept"
    try:
        return _error_text(read_json(path)) or "no error was kept"
    except CheckpointError as problem:
        return f"no error can be told: {problem.rule}"
