"""One point of a sweep as an assignment: the same on a local worker and on a cluster's."""

from __future__ import annotations

import json
import shlex
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from privhier.config import RunConfig
from privhier.storage.files import write_json
from privhier.storage.locks import exclusive
from privhier.sweeps.state import SweepFolder, is_done, seconds_of
from privhier.tracking.tracker import Nesting
from privhier.training.commons import raw_image_key, reference_key, training_key

if TYPE_CHECKING:
    from privhier.datasets.base import FaceDataset


@dataclass(frozen=True)
class Assignment:
    """A point to be worked on; plain enough to be sent to another process or machine.

    Attributes:
        id: The point's.
        config_hash: Its configuration's hash.
        config: The configuration as plain data.
        sweep: The sweep folder.
        nesting: The sweep's MLflow run and the point's name there; None: untracked.
        shares: What it has in common with other points; two that compute the same are kept apart.
    """

    id: str
    config_hash: str
    config: dict[str, Any]
    sweep: str
    nesting: Nesting | None = None
    shares: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ending:
    """How an assignment ended. ``busy``: another machine works on that point."""

    id: str
    status: Literal["done", "failed", "busy"]
    seconds: float = 0.0
    error: dict[str, Any] | None = None


class Reporter(Protocol):
    """What an engine tells while it works."""

    def started(self, name: str) -> None:
        """A worker took up a point."""

    def put_back(self, name: str) -> None:
        """A point's worker was lost, or another machine holds the point; it will be tried again."""

    def ended(self, ending: Ending) -> None:
        """A point is done, or failed for good."""


class Engine(Protocol):
    """Works on assignments, several at a time."""

    @property
    def workers(self) -> int:
        """How many at a time."""

    def prepare(self) -> None:
        """Raise what makes work impossible, before any has begun."""

    def run(self, assignments: Iterable[Assignment], report: Reporter) -> None:
        """Work until every assignment has ended. A Ctrl-C leaves no worker behind."""

    def close(self) -> None:
        """Send the workers home."""


@dataclass
class Memory:
    """What a worker keeps from one point for the next: the last data set it loaded."""

    key: str = ""
    dataset: FaceDataset | None = field(default=None, repr=False)

    def load(self, config: RunConfig) -> FaceDataset:
        """The faces of ``config``, loaded once for equal sections and seeds."""
        from privhier.datasets.load import load_dataset

        key = json.dumps([config.dataset.model_dump(mode="json"), config.seed], sort_keys=True)
        if self.dataset is None or key != self.key:
            self.dataset = load_dataset(config.dataset, seed=config.seed)
            self.key = key
        return self.dataset


def shares_of(config: RunConfig) -> frozenset[str]:
    """Keys of everything a run may have in common with others."""
    from privhier.session import reference_config

    keys = {training_key(config)}
    if config.attacks.raw_image:
        keys.add(raw_image_key(config))
    keys |= {reference_key(reference_config(config, name)) for name in config.evaluation.references}
    return frozenset(keys)


def work_on(assignment: Assignment, memory: Memory | None = None, *, wait: bool = False) -> Ending:
    """Work on a point from wherever it was left; an error is kept in its folder and in the ending.

    Args:
        assignment: The point.
        memory: What the worker keeps between points.
        wait: Wait for another process that holds the point, instead of answering ``busy``.
    """
    folder, started = SweepFolder(Path(assignment.sweep)), time.perf_counter()
    try:
        with exclusive(folder.lock(assignment.id), wait=wait) as held:
            if not held:
                return Ending(assignment.id, "busy")
            point = folder.point(assignment.id)
            if is_done(point, assignment.config_hash):
                return Ending(assignment.id, "done", seconds_of(point) or 0.0)
            _work(assignment, folder, memory or Memory())
    except Exception as error:  # whatever it is, the sweep goes on, and the error is kept
        return keep_error(
            folder,
            assignment.id,
            {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": traceback.format_exc(),
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
    return Ending(assignment.id, "done", round(time.perf_counter() - started, 3))


def keep_error(folder: SweepFolder, name: str, error: dict[str, Any]) -> Ending:
    """Write a point's ``error.json``, room permitting, and make the ending of it."""
    with suppress(Exception):
        write_json(folder.point(name).root / "error.json", error)
    return Ending(name, "failed", float(error["seconds"]), error)


def _work(assignment: Assignment, folder: SweepFolder, memory: Memory) -> None:
    from privhier import session as job

    config = RunConfig.model_validate(assignment.config)
    point = folder.point(assignment.id)
    _clear(point.root, point.config)
    session = job.open_session(
        config,
        point.root,
        resume=True,
        dataset=memory.load(config),
        commons=folder.commons,
        nesting=assignment.nesting,
    )
    job.run(session, command=shlex.join(["privhier", "run", str(point.config)]))


def _clear(root: Path, config: Path) -> None:
    """Remove the last attempt's error, and a folder that was killed before it held a configuration."""
    (root / "error.json").unlink(missing_ok=True)
    if root.is_dir() and not config.exists():
        for debris in root.glob("*.tmp"):
            debris.unlink()
