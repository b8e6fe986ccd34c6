"""Finished runs and sweeps: read, attacked once more, drawn and compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from privhier.api.given import Overrides, Progress, shown, texts
from privhier.config import Choice
from privhier.config.errors import validated
from privhier.datasets.base import FaceDataset
from privhier.errors import ConfigError, DataError, ResultError
from privhier.evaluation.result import Result
from privhier.figures.style import Drawing
from privhier.process.progress import Report
from privhier.process.stopping import interruptible, sigterm_interrupts, whole
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
    from privhier.training.deploy import ReleasingEdge, TrainedTail


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
        from privhier.training.occupancy import saved_config

        self._paths = RunFolder(Path(folder))
        self._overrides, self._dataset = tuple(overrides), dataset
        self._progress: Report | None = None
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

    def release(self, images: npt.ArrayLike) -> npt.NDArray[Any]:
        """Sanitized releases of images by the trained edge, with fresh noise: one more release of each.

        Args:
            images: uint8 ``(B, 3, S, S)``, S as the run's.

        Returns:
            float32 ``(B, *release_shape)``; letters int64 ``(B, M)``.

        Raises:
            DataError: Another shape or type.
        """
        import torch

        from privhier.training.deploy import check_images

        given = _pixels(images)
        check_images(given, self.config.dataset.image_size)  # before the network is loaded
        sent: npt.NDArray[Any] = self.edge(torch.from_numpy(given)).payload()
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
        with whole():
            from privhier.assessment.single import view_of

        with interruptible("the same call again"):
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
        with whole():
            from privhier.assessment.single import score_attack, view_of
            from privhier.training.commons import settle

        needs_weights = getattr(attack, "white_box", False) is True
        chosen = view if view is not None else "white_box" if needs_weights else "curious_cloud"
        with interruptible("the same call again"), shown(progress) as report, sigterm_interrupts():
            self._watch(report)
            try:
                with self._session.hold(wait=True):
                    settle(self._paths)
                    return score_attack(self._context, attack, view_of(self._context, chosen))
            finally:
                self._watch(None)

    def add(
        self, attack: str, options: Mapping[str, Any] | None = None, *, progress: Progress = True
    ) -> Result:
        """Run one more attack and record it as an addition: from then on it is a part of ``result``.

        What ``privhier attack RUN --add`` does. The configuration and its hash stay what they were; leakage
        is the worst of all attackers, so an addition may raise it and never lowers it. One that is there
        already is not run again.

        Args:
            attack: Its registered name, for instance ``nearest_neighbors``.
            options: Its options, as a configuration has them.
            progress: Show how far it is, or a function that is told.

        Returns:
            The run's result, with it; ``self.result`` is the same.

        Raises:
            ConfigError: No such attack or option, or one that does not apply to this run.
            GuaranteeError: A score above its ceiling, beyond chance: the guarantee is wrong.
        """
        with whole():
            from privhier.session import add_attacks

        choice = validated(Choice, {"name": attack, "options": dict(options or {})})
        with interruptible("the same call again"), shown(progress) as report, sigterm_interrupts():
            self._watch(report)
            try:
                context = self._context
                command = f"privhier.open_run({str(self.folder)!r}).add({attack!r}, {choice.options!r})"
                added = add_attacks(self._session, context.trained, [choice], command=command)
            finally:
                self._watch(None)
        self.result = added.result
        return self.result

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

    def _watch(self, report: Report | None) -> None:
        """Tell ``report`` what goes on from here, loading the data set included."""
        self._progress = report
        if "_session" in self.__dict__:
            self._session.progress = report

    @cached_property
    def _session(self) -> Session:
        with whole():
            from privhier.session import reopen_session

        return reopen_session(
            self.folder, self._overrides, dataset=self._dataset, progress=self._progress, reading=True
        )

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


def _pixels(images: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.array(images)
    except ValueError as error:
        raise DataError(
            key="images", value=type(images).__name__, rule=f"is no array: {error}", remedy="Stack them"
        ) from error


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
    return FinishedRun(Path(folder), texts(overrides), dataset)


def load_edge(run: str | Path) -> ReleasingEdge:
    """The trained edge of a run folder: images in, sanitized releases out; needs no data set.

    Every call draws fresh noise and is one more release of each record; the caller keeps count.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    from privhier.training import deploy

    return deploy.load_edge(Path(run))


def load_tail(run: str | Path) -> TrainedTail:
    """The trained cloud tail of a run folder, or of the folder of ``privhier cloud``.

    ``load_tail(run).predict(load_edge(run)(images))`` names the likeliest class of every task.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    from privhier.training import deploy

    return deploy.load_trained_tail(Path(run))


def compare(runs: Iterable[FinishedRun | str | Path], *, every: bool = False) -> pd.DataFrame:
    """Runs side by side: the configuration keys in which they differ, utility, leakage, epsilon.

    Args:
        runs: Finished runs, or their folders.
        every: Add every metric, under the names MLflow has them.

    Returns:
        One row a run; the index is the folder's name (its path where names repeat).
    """
    from privhier.report.comparison import comparison

    if isinstance(runs, FinishedRun | str | Path):
        raise ConfigError(key="runs", value=runs, rule="must be a list of runs", remedy="Write [run]")
    opened = [one if isinstance(one, FinishedRun) else open_run(one) for one in runs]
    names = [one.folder.resolve().name for one in opened]
    labels = names if len(set(names)) == len(names) else [str(one.folder) for one in opened]
    return comparison([(one.config, one.result) for one in opened], labels, every=every)
