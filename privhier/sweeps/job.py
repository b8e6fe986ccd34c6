"""A sweep from its file to finished points: check, occupy the folder, let an engine work, sum up."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from privhier.config import RunConfig
from privhier.errors import ConfigError, PrivhierError
from privhier.process.cores import usable_cores
from privhier.sweeps.assignment import Assignment, Ending, Engine, shares_of
from privhier.sweeps.device_share import (
    Share,
    default_workers,
    read_share,
    refuse_without_cuda,
    share_of,
    visible_devices,
    wants_cuda,
)
from privhier.sweeps.local import LocalEngine
from privhier.sweeps.progress import Show, Standing
from privhier.sweeps.ray_engine import RayEngine
from privhier.sweeps.search import check_search, run_search
from privhier.sweeps.spec import Point, Sweep, load_sweep
from privhier.sweeps.state import Index, SweepFolder
from privhier.tracking.sweep import ParentRun

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class SweepSummary:
    """How a start of a sweep ended.

    Attributes:
        folder: The sweep folder.
        total: Points the sweep names.
        done: Finished ones.
        before: Those of them that were finished when this start began.
        failed: Label and error of those that failed.
        seconds: Wall time of this start.
        warnings: What else a reader should know.
    """

    folder: Path
    total: int
    done: int
    before: int
    failed: list[tuple[str, str]]
    seconds: float
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every point is done and written down."""
        return 0 if self.done == self.total and not self.warnings else 1

    def lines(self) -> Iterator[str]:
        """The summary as text."""
        yield (
            f"{self.done} of {self.total} points done ({self.before} were before), "
            f"{len(self.failed)} failed, in {self.seconds:.0f} s"
        )
        for label, error in self.failed:
            yield f"failed: {label}: {error}"
        for warning in self.warnings:
            yield f"warning: {warning}"
        yield f"sweep: {self.folder}"


def run_sweep(
    spec: str | Path,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    device_share: str | float | None = None,
    out: Path | None = None,
    progress: Show | None = None,
) -> SweepSummary:
    """Work on every point of a sweep that is not done yet.

    Args:
        spec: The sweep file.
        engine: ``local``: worker processes here. ``ray``: tasks on a Ray cluster.
        workers: Points at a time; default: as many as there are cores (and shares of a device) for.
        device_share: The part of a CUDA device that a point may fill, in (0, 1], or ``auto``: equal parts for
            the workers on it, which is what local workers get by default.
        out: The sweep folder; default ``runs/NAME-HASH``. An existing one of this sweep goes on.
        progress: Called whenever a point begins or ends.

    Raises:
        PrivhierError: Bad input; nothing has been computed then.
        KeyboardInterrupt: Stopped; what was finished or half done is kept.
    """
    started = time.perf_counter()
    sweep = load_sweep(spec)
    if workers is not None and workers < 1:
        raise ConfigError(key="--workers", value=workers, rule="must be at least 1", remedy="Try 2")
    share = None if device_share is None else read_share(device_share)
    if engine not in ("local", "ray"):
        raise ConfigError(
            key="--engine", value=engine, rule="must be local or ray", remedy="Try --engine local"
        )
    if sweep.file.search is None:
        points = sweep.points()
    else:  # a search has no grid, but its first setting shows whether base and axes fit together
        check_search()
        points = list(sweep.setting(tuple(axis.steps()[0] for axis in sweep.file.axes)))
    check_points(points)
    crew = _plan_crew([point.config for point in points], engine, workers, share)
    folder = SweepFolder(out if out is not None else Path("runs") / f"{sweep.name}-{sweep.hash()[:10]}")
    folder.occupy(sweep)
    run = _Run(sweep, folder, engine, crew, progress)
    try:
        if sweep.file.search is not None:
            run.total = sweep.file.search.n_trials * len(sweep.seeds())
            run_search(sweep, folder, run.work)
        else:
            run.work(points)
    except BaseException as error:
        run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run.end("FINISHED")
    return run.summary(time.perf_counter() - started)


def check_points(points: Sequence[Point]) -> None:
    """Refuse names and options that no registry knows or no run takes, before anything is computed.

    Raises:
        ConfigError: The first one, with its point.
    """
    from privhier.assessment.victims import build_attacks
    from privhier.datasets.load import build_source
    from privhier.defenses.base import build_defense
    from privhier.models.backbones import backbones
    from privhier.training.prepare import build_mechanism
    from privhier.training.private_plan import check_defense

    seen: set[str] = set()

    def once(config: RunConfig, *sections: str) -> bool:
        key = json.dumps(config.model_dump(mode="json", include=set(sections)), sort_keys=True)
        return key not in seen and not seen.add(key)  # type: ignore[func-returns-value]

    for point in points:
        config = point.config
        try:
            if once(config, "defense", "edge", "training", "model", "schedule", "release"):
                check_defense(config, build_defense(config.defense))
            if once(config, "dataset"):
                build_source(config.dataset)
            if once(config, "attacks", "dataset"):
                build_attacks(config)
            if once(config, "release", "schedule", "privacy", "model"):
                build_mechanism(config, 1000)  # any number: what is refused does not depend on it
            backbones.get(config.model.backbone)
        except PrivhierError as error:
            raise ConfigError(
                key=f"point ({point.label}): {error.key}",
                value=error.value,
                rule=error.rule,
                remedy=f"{error.remedy}, or change the axes",
            ) from error


@dataclass(frozen=True)
class _Crew:
    """How many points at a time, and what each has of the machine; ``threads`` of the hungriest one."""

    workers: int
    threads: int
    devices: int
    cuda: bool
    share: Share | None


def _plan_crew(
    configs: Sequence[RunConfig], engine: EngineName, workers: int | None, share: Share | None
) -> _Crew:
    """Decided before anything is written; a share that cannot be given is refused here."""
    threads = max(int(config.runtime.threads) for config in configs)
    cuda = any(config.runtime.device == "cuda" for config in configs)
    if engine == "ray":  # Ray counts the cluster's devices, which need not be here
        if not wants_cuda(configs, available=True):
            refuse_without_cuda(share)
            share = None
        several = workers if workers is not None else default_workers(threads, usable_cores())
        return _Crew(several, threads, 0, cuda, share)
    available = visible_devices()
    devices = available if wants_cuda(configs, available=available > 0) else 0
    if not devices:
        refuse_without_cuda(share)
    wanted: Share = "auto" if share is None else share
    if workers is None:
        workers = default_workers(threads, usable_cores(), devices=devices, share=wanted)
    return _Crew(workers, threads, devices, cuda, share_of(workers, devices, wanted) if devices else None)


class _Run:
    """One start of a sweep; also what its engine reports to."""

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        engine: EngineName,
        crew: _Crew,
        progress: Show | None,
    ) -> None:
        self.sweep, self.folder, self.progress = sweep, folder, progress
        self.index = Index(folder, sweep.hash())
        self.total: int | None = None
        self.before = 0
        self._engine_name: EngineName = engine
        self._crew = crew
        self._engine: Engine | None = None
        self._parent: ParentRun | None = None
        self._seconds: list[float] = []
        self._labels: dict[str, str] = {}
        self._warnings: list[str] = []

    def work(self, points: Sequence[Point]) -> None:
        """Work on those of the points that are not done."""
        self._labels |= {point.id: point.label for point in points}
        todo = self.index.name(points)
        self.before += len(points) - len(todo)
        self.index.save()
        self._show()
        if not todo:
            return
        engine = self._staff()
        engine.prepare()
        if self._parent is None and todo[0].config.tracking.enabled:
            self._parent = ParentRun(
                self.folder.root,
                todo[0].config.tracking.experiment,
                name=self.sweep.name,
                digest=self.sweep.hash(),
                params=self.sweep.file.model_dump(mode="json", include={"axes", "seeds"}),
            )
        assignments = [
            Assignment(
                id=point.id,
                config_hash=point.config_hash,
                config=point.config.model_dump(mode="json"),
                sweep=str(self.folder.root.absolute()),
                nesting=self._parent.nest(point.name) if self._parent is not None else None,
                shares=shares_of(point.config),
            )
            for point in todo
        ]
        engine.run(assignments, self)

    def started(self, name: str) -> None:
        """See ``Reporter``."""
        self.index.set(name, "running")
        self._show()

    def put_back(self, name: str) -> None:
        """See ``Reporter``."""
        self.index.set(name, "pending")
        self._show()

    def ended(self, ending: Ending) -> None:
        """See ``Reporter``."""
        done = ending.status == "done"
        if done:
            self._seconds.append(ending.seconds)
        self.index.set(ending.id, "done" if done else "failed", seconds=ending.seconds, error=ending.error)
        self._show()

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Send the workers home and write everything down."""
        if self._engine is not None:
            self._engine.close()
        for state in self.index.points.values():
            if state.status == "running":
                state.status = "pending"
        self.index.save()
        if self.index.unsaved is not None:
            self._warnings.append(f"points.json could not be written: {self.index.unsaved}")
        if self._parent is not None:
            counts = {f"points_{name}": float(self.index.count(name)) for name in ("done", "failed")}
            ended = "FAILED" if status == "FINISHED" and counts["points_failed"] else status
            failure = self._parent.finish(ended, counts)
            if failure is not None:
                self._warnings.append(failure)

    def summary(self, seconds: float) -> SweepSummary:
        """What this start did."""
        states = self.index.points.values()
        return SweepSummary(
            folder=self.folder.root,
            total=len(self.index.points),
            done=self.index.count("done"),
            before=self.before,
            failed=[
                (self._labels[state.id], f"{state.error['type']}: {state.error['message']}")
                for state in states
                if state.status == "failed" and state.error is not None
            ],
            seconds=seconds,
            warnings=self._warnings,
        )

    def _staff(self) -> Engine:
        crew = self._crew
        if self._engine is not None:
            return self._engine
        if self._engine_name == "local":
            share = crew.share if isinstance(crew.share, float) else 1.0
            self._engine = LocalEngine(crew.workers, self.folder, crew.devices, share)
        else:
            resources = self.sweep.file.ray
            self._engine = RayEngine(
                crew.workers, self.folder, resources, crew.threads, crew.cuda, crew.share
            )
        return self._engine

    def _show(self) -> None:
        if self.progress is None:
            return
        done, failed, running = (self.index.count(name) for name in ("done", "failed", "running"))
        total = self.total if self.total is not None else len(self.index.points)
        left = None
        if self._seconds and self._engine is not None:
            left = statistics.fmean(self._seconds) * (total - done - failed) / self._engine.workers
        self.progress(Standing(total, done, running, failed, left))
