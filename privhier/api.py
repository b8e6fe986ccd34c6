"""What ``import privhier`` offers: runs, sweeps and edges from Python, as on the command line.

Everything here checks, writes and prints what the command line does, and raises the same typed errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from privhier.config import RunConfig, parse_config, read_config
from privhier.config import load_config as load_file
from privhier.datasets.base import FaceDataset
from privhier.errors import ConfigError, DataError, ResultError
from privhier.evaluation.result import Result
from privhier.figures.style import Drawing
from privhier.process.progress import Report, shown_progress
from privhier.process.stopping import interruptible, sigterm_interrupts
from privhier.report.summary import summarize
from privhier.training.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from privhier.assessment.context import Context
    from privhier.assessment.single import Scores
    from privhier.attacks.base import Attack
    from privhier.attacks.view import View
    from privhier.session import Session
    from privhier.sweeps.job import SweepSummary
    from privhier.training.deploy import ReleasingEdge

__all__ = [
    "FinishedRun",
    "FinishedSweep",
    "compare",
    "load_config",
    "load_edge",
    "open_run",
    "run",
    "sweep",
]

Overrides = Sequence[str] | Mapping[str, Any]
Progress = bool | Report


class FinishedRun:
    """A run folder with a result; made by ``run`` and ``open_run``.

    Attributes:
        folder: The run folder.
        config: Its resolved configuration.
        result: Everything it claims.
    """

    def __init__(
        self, folder: Path, overrides: Sequence[str] = (), dataset: FaceDataset | None = None
    ) -> None:
        from privhier.training.claim import saved_config

        self._paths = RunFolder(Path(folder))
        self._overrides, self._dataset = tuple(overrides), dataset
        self.folder = self._paths.root
        self.config = saved_config(self._paths, overrides)
        self.result = Result.of_run(self._paths.sealed, self._paths.result)

    @property
    def report(self) -> Path:
        """The page, ``report.html``."""
        return self._paths.report

    @cached_property
    def edge(self) -> ReleasingEdge:
        """The trained edge: called with uint8 images ``(B, 3, S, S)``, it releases them."""
        return load_edge(self.folder)

    @property
    def faces(self) -> FaceDataset:
        """The data set it was trained and attacked on; loaded when first asked for."""
        return self._session.prepared.dataset

    def release(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Sanitized releases of images by the trained edge, with fresh noise: one more release of each.

        Args:
            images: uint8 ``(B, 3, S, S)``, S as the run's.

        Returns:
            float32 ``(B, *release_shape)``.

        Raises:
            DataError: Another shape or type.
        """
        import torch

        given, size = np.array(images), self.config.dataset.image_size
        if given.dtype != np.uint8 or given.ndim != 4 or given.shape[1:] != (3, size, size):
            raise DataError(
                key="images",
                value=f"{given.dtype} {given.shape}",
                rule=f"must be uint8 (B, 3, {size}, {size})",
                remedy="Resize them as the run's data set was",
            )
        sent: npt.NDArray[np.float32] = self.edge(torch.from_numpy(given)).numpy()
        return sent

    def view(self, name: str = "curious_cloud") -> View:
        """What a threat model hands an attacker of this run: ``view.releases`` is ``(n, T, *shape)``.

        Test victims come first, then training victims. Made anew by loading data and network.

        Args:
            name: ``curious_cloud``, ``curious_cloud_labels``, ``eavesdropper``, ``white_box``,
                ``malicious_cloud``, or ``raw_image``.

        Raises:
            ConfigError: No such view.
        """
        from privhier.assessment.single import view_of

        return view_of(self._context, name)

    def attack(self, attack: Attack, *, view: str | None = None, progress: Progress = True) -> Scores:
        """Score one more attacker on this run; ``result.json`` stays as it is.

        Its answers are kept in the run folder: asked again, it is not run again.

        Args:
            attack: For instance ``privhier.attacks.NearestNeighbors(target="male")``.
            view: See ``view``; default: the white box for an attack that needs it, else the curious cloud.
            progress: Show how far it is, or a function that is told.

        Returns:
            Scores with intervals, those on training victims among them (``training_records``).

        Raises:
            ConfigError: The target is not of this run, or the attack does not apply.
            GuaranteeError: A score above its ceiling, beyond chance: the guarantee is wrong.
        """
        from privhier.assessment.single import score_attack, view_of

        chosen = view if view is not None else "white_box" if attack.white_box else "curious_cloud"
        with interruptible("the same call again"), _shown(progress) as report:
            context = self._context
            context.subject.progress = report
            with self._session.hold(wait=True):
                return score_attack(context, attack, view_of(context, chosen))

    def plot(self) -> Drawing:
        """Task utility against what leaks, with intervals; shown by a notebook, ``save`` writes it.

        Raises:
            ResultError: No score of this run can be drawn.
        """
        from privhier.report.figures import draw_tradeoff

        drawing = draw_tradeoff(self.result)
        if drawing is None:
            raise ResultError(
                key="plot",
                value=self.config.name,
                rule="no score of this run can be drawn",
                remedy="Look at result.leakage",
            )
        return drawing

    def summary(self) -> str:
        """The lines that the command line prints at a run's end."""
        return "\n".join(summarize(self.result))

    def __repr__(self) -> str:
        return f"FinishedRun({str(self.folder)!r})"

    @cached_property
    def _session(self) -> Session:
        from privhier.session import reopen_session

        return reopen_session(self.folder, self._overrides, dataset=self._dataset)

    @cached_property
    def _context(self) -> Context:
        from privhier.assessment.context import Context
        from privhier.training.trained import load_trained

        session = self._session
        return Context(session, load_trained(session.config, session.prepared.data, session.folder))


class FinishedSweep:
    """A sweep folder; made by ``sweep``.

    Attributes:
        folder: The sweep folder.
        summary: How this start ended: points done, failed, seconds, warnings.
    """

    def __init__(self, summary: SweepSummary, page: Path | None) -> None:
        self.folder, self.summary, self.report = summary.folder, summary, page

    @property
    def runs(self) -> list[FinishedRun]:
        """Its finished points, in their order."""
        from privhier.evaluation.points import load_points

        done = [point for point in load_points(self.folder) if point.result is not None]
        return [FinishedRun(self.folder / "points" / point.id) for point in done]

    def table(self) -> pd.DataFrame:
        """``compare`` of its finished points."""
        return compare(self.runs)

    def __repr__(self) -> str:
        return f"FinishedSweep({str(self.folder)!r}: {self.summary.done} of {self.summary.total} done)"


def load_config(source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> RunConfig:
    """A run's configuration.

    Args:
        source: A YAML file, or plain data as such a file holds it.
        overrides: ``["release.sigma=0.3", ...]`` as on the command line, or ``{"release.sigma": 0.3}``.

    Raises:
        ConfigError: Key, value, rule and remedy of the first thing wrong.

    Example:
        >>> data = {
        ...     "name": "small",
        ...     "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
        ...     "schedule": {"joint_epochs": 1},
        ... }
        >>> load_config(data, {"release.mechanism": "gaussian", "release.sigma": 0.3}).release.sigma
        0.3
    """
    texts = _texts(overrides)
    if isinstance(source, Mapping):
        return parse_config(read_config(source, texts))
    return load_file(source, texts)


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
    from privhier import session as job

    resolved = config if isinstance(config, RunConfig) else load_config(config)
    resolved = parse_config(read_config(resolved.model_dump(mode="json"), _texts(overrides)))
    if dataset is not None:
        resolved = _with_faces(resolved, dataset)
    folder = Path(out) if out is not None else default_folder(resolved)
    if resume and RunFolder(folder).result.exists() and RunFolder(folder).report.exists():
        return _same(FinishedRun(folder, dataset=dataset), resolved)
    again = f"privhier.run(..., out={str(folder)!r}, resume=True)"
    with interruptible(again), _shown(progress) as report, sigterm_interrupts():
        session = job.open_session(resolved, folder, resume=resume, progress=report, dataset=dataset)
        job.run(session, command=f"privhier run {folder / 'config.yaml'}")
    return FinishedRun(folder, dataset=dataset)


def open_run(
    folder: str | Path, overrides: Overrides = (), *, dataset: FaceDataset | None = None
) -> FinishedRun:
    """A finished run, read from its folder and checked against its digests.

    Args:
        folder: What ``privhier run`` wrote.
        overrides: Where its images are now: ``dataset.root``, ``dataset.cache``, ``runtime.*``.
        dataset: The faces, where the run was given them in memory.

    Raises:
        CheckpointError: No run folder, or one that was edited.
        ResultError: The run has no result yet.
    """
    return FinishedRun(Path(folder), _texts(overrides), dataset)


def sweep(
    spec: str | Path,
    *,
    out: str | Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    progress: bool = True,
) -> FinishedSweep:
    """Work on every point of a sweep that is not done yet, and write its page: ``privhier sweep``.

    Args:
        spec: The sweep's YAML file.
        out: The sweep folder; default: ``runs/NAME-HASH``. An existing one of this sweep goes on.
        engine: ``local``: worker processes here; ``ray``: a cluster.
        workers: Points at a time; default: as many as there are cores for.
        progress: Show how many points are done.

    Raises:
        PrivhierError: As on the command line. A point that fails is in ``summary.failed``.
        InterruptedRunError: Ctrl-C; what is finished is kept.
    """
    from privhier.sweeps.job import run_sweep
    from privhier.sweeps.publish import publish

    folder = Path(out) if out is not None else None
    with interruptible("the same call again"), _shown(progress) as report, sigterm_interrupts():
        show = None if report is None else lambda now: report(str(now), now.done + now.failed, now.total)
        summary = run_sweep(spec, engine=engine, workers=workers, out=folder, progress=show)
        page = publish(summary.folder)[0] if summary.done else None
    return FinishedSweep(summary, page)


def load_edge(run: str | Path) -> ReleasingEdge:
    """The trained edge of a run folder: images in, sanitized releases out; needs no data set.

    Every call draws fresh noise and is one more release of each record; the caller keeps count.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    from privhier.training import deploy

    return deploy.load_edge(Path(run))


def compare(runs: Iterable[FinishedRun | str | Path], *, every: bool = False) -> pd.DataFrame:
    """Runs side by side: the configuration keys in which they differ, utility, leakage, epsilon.

    Args:
        runs: Finished runs, or their folders.
        every: Add every metric, under the names MLflow has them.

    Returns:
        One row a run; the index is the folder's name (its path where names repeat).
    """
    from privhier.report.comparison import comparison

    opened = [one if isinstance(one, FinishedRun) else open_run(one) for one in runs]
    names = [one.folder.resolve().name for one in opened]
    labels = names if len(set(names)) == len(names) else [str(one.folder) for one in opened]
    return comparison([(one.config, one.result) for one in opened], labels, every=every)


def default_folder(config: RunConfig) -> Path:
    """Where a run goes that is not told."""
    return Path("runs") / f"{config.name}-{config.hash()[:10]}"


def _texts(overrides: Overrides) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    if isinstance(overrides, str):
        raise ConfigError(
            key="overrides",
            value=overrides,
            rule="must be a list of texts or a mapping",
            remedy=f"Write [{overrides!r}]",
        )
    return list(overrides)


def _with_faces(config: RunConfig, faces: FaceDataset) -> RunConfig:
    """The configuration with the data set that was handed over."""
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


def _same(done: FinishedRun, config: RunConfig) -> FinishedRun:
    from privhier.training.claim import check_output

    check_output(RunFolder(done.folder), config, resume=True)
    return done


@contextmanager
def _shown(progress: Progress) -> Iterator[Report | None]:
    if callable(progress):
        yield progress
    elif progress:
        with shown_progress() as report:
            yield report
    else:
        yield None
