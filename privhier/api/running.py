"""Runs and sweeps from Python: the same checks, files and errors as on the command line."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from privhier.api.finished import FinishedRun, FinishedSweep
from privhier.api.given import Overrides, Progress, load_config, shown, texts
from privhier.config import RunConfig, parse_config, read_config
from privhier.datasets.base import FaceDataset
from privhier.errors import CheckpointError, ConfigError
from privhier.process.stopping import interruptible, sigterm_interrupts, whole
from privhier.training.folder import RunFolder


def run(
    config: RunConfig | str | Path | Mapping[str, Any],
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    dataset: FaceDataset | None = None,
    progress: Progress = True,
) -> FinishedRun:
    """Train, attack, account, log to MLflow and write the report: ``privhier run``.

    Args:
        config: A configuration, or what ``load_config`` takes.
        overrides: As ``load_config`` takes them.
        out: The run folder; default: ``runs/NAME-HASH``.
        resume: Go on with the run in ``out`` after an interruption; a finished one is read.
        dataset: Your own faces (``privhier.datasets.from_arrays``) in place of those ``config`` names.
        progress: Show how far it is (a bar on a terminal, a line in a notebook), or a function that is told.

    Raises:
        PrivhierError: As on the command line; its ``remedy`` says what to do.
        InterruptedRunError: Ctrl-C, or the notebook's stop button; what is finished is kept.
    """
    resolved = config if isinstance(config, RunConfig) else load_config(config)
    resolved = parse_config(read_config(resolved.model_dump(mode="json"), texts(overrides)))
    if dataset is not None:
        resolved = _with_faces(resolved, dataset)
    folder = Path(out) if out is not None else default_folder(resolved, dataset)
    if resume and RunFolder(folder).result.exists() and RunFolder(folder).report.exists():
        return _same(FinishedRun(folder, dataset=dataset), resolved, dataset)
    again = f"privhier.run(..., out={str(folder)!r}, resume=True)"
    with interruptible(again), shown(progress) as report, sigterm_interrupts():
        with whole():
            if resolved.tracking.enabled:
                importlib.import_module("torch._dynamo")  # the tail's export would load it in mid-run
            from privhier import session as job
        session = job.open_session(resolved, folder, resume=resume, progress=report, dataset=dataset)
        job.run(session, command=_command(folder, dataset))
    return FinishedRun(folder, dataset=dataset)


def sweep(
    spec: str | Path,
    *,
    out: str | Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    device_share: float | Literal["auto"] | None = None,
    progress: bool = True,
) -> FinishedSweep:
    """Work on every point of a sweep that is not done yet, and write its page: ``privhier sweep``.

    Args:
        spec: The sweep's YAML file.
        out: The sweep folder; default: ``runs/NAME-HASH``. An existing one of this sweep goes on.
        engine: ``local``: worker processes here; ``ray``: a cluster.
        workers: Points at a time; default: as many as there are cores for.
        device_share: The part of a CUDA device's memory that a point may fill, in (0, 1]; ``"auto"``: equal
            parts for the workers on it, which is what local workers get by default.
        progress: Show how many points are done.

    Raises:
        PrivhierError: As on the command line. A point that fails is in ``summary.failed``.
        InterruptedRunError: Ctrl-C; what is finished is kept.
    """
    from privhier.sweeps.job import run_sweep
    from privhier.sweeps.publish import publish

    folder = Path(out) if out is not None else None
    with interruptible("the same call again"), shown(progress) as report, sigterm_interrupts():
        show = None if report is None else lambda now: report(str(now), now.done + now.failed, now.total)
        summary = run_sweep(
            spec, engine=engine, workers=workers, device_share=device_share, out=folder, progress=show
        )
        page = publish(summary.folder)[0] if summary.done else None
    return FinishedSweep(summary, page)


def default_folder(config: RunConfig, faces: FaceDataset | None = None) -> Path:
    """Where a run goes that is not told; faces in memory are no part of a configuration, but of the name."""
    data = "" if faces is None else f"-{faces.fingerprint[:6]}"
    return Path("runs") / f"{config.folder_name}{data}"


def _with_faces(config: RunConfig, faces: FaceDataset) -> RunConfig:
    """The configuration with the data set that was handed over."""
    if not isinstance(faces, FaceDataset):
        raise ConfigError(
            key="dataset",
            value=type(faces).__name__,
            rule="must be a FaceDataset",
            remedy="Make one: privhier.datasets.from_arrays(images, attributes, identity=...)",
        )
    chosen = config.dataset
    for key, plain in (("limit", None), ("min_images_per_identity", 1), ("crop", "none")):
        if (value := getattr(chosen, key)) != plain:
            raise ConfigError(
                key=f"dataset.{key}",
                value=value,
                rule="chooses while a data set is read; these faces were handed over",
                remedy="Choose before you hand them over, and leave the key out",
            )
    size = int(faces.images.shape[-1])
    handed = {"name": faces.name, "image_size": size, "root": None, "options": {}}
    return parse_config(config.model_dump(mode="json") | {"dataset": chosen.model_dump(mode="json") | handed})


def _command(folder: Path, faces: FaceDataset | None) -> str:
    """What repeats the run; faces in memory can be handed over in Python only."""
    if faces is not None:
        return f"privhier.run({str(folder / 'config.yaml')!r}, dataset=faces, out=...)"
    return shlex.join(["privhier", "run", str(folder / "config.yaml"), "--out", "OUT"])


def _same(done: FinishedRun, config: RunConfig, faces: FaceDataset | None) -> FinishedRun:
    """A finished run, if it is one of this configuration and these faces."""
    from privhier.training.occupancy import check_output

    check_output(RunFolder(done.folder), config, resume=True)
    if faces is not None and faces.fingerprint != done.result.dataset["fingerprint"]:
        raise CheckpointError(
            key="dataset",
            value=str(done.folder),
            rule="holds a finished run on other faces",
            remedy="Choose another out",
        )
    return done
