"""One run being worked on: everything checked, its folder occupied, nothing but the configuration written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from privhier.assessment.context import Progress, Subject
from privhier.assessment.victims import check_auxiliary, check_bench, choose_victims
from privhier.config import BottleneckConfig, Choice, EdgeConfig, ReleaseConfig, RunConfig
from privhier.datasets.base import FaceDataset
from privhier.datasets.load import build_source, check_handed, load_dataset
from privhier.defenses.base import build_defense
from privhier.privacy.release import ReleaseMechanism
from privhier.tracking.tracker import Nesting
from privhier.training.commons import Commons, settle
from privhier.training.finish import check_training_records
from privhier.training.folder import RunFolder
from privhier.training.occupancy import (
    check_output,
    held,
    occupy,
    saved_config,
    with_absolute_paths,
)
from privhier.training.prepare import build_mechanism, pick_device, prepare
from privhier.training.private_plan import check_private
from privhier.training.trained import build_model


@dataclass(kw_only=True)
class Session(Subject):
    """One run being worked on: everything checked, nothing but the configuration written yet.

    Attributes:
        mechanism: Clip and noise of every release.
        timing: Wall seconds by stage, filled as they end.
        commons: What the runs of a sweep have in common; None: nothing.
        nesting: The MLflow run this one belongs to.
        profile: Whether to write where the time of its training's epochs goes.
    """

    mechanism: ReleaseMechanism
    timing: dict[str, float] = field(default_factory=dict)
    commons: Commons | None = None
    nesting: Nesting | None = None
    profile: bool = False
    _holding: bool = False

    def reference(self, name: str) -> Session:
        """The session of an unprotected network beside this one, on the same data and splits."""
        config = reference_config(self.config, name)
        folder = self.folder.reference(name)
        folder.sealed.bind(config=config.hash(), data=self.prepared.dataset.fingerprint)
        return Session(
            config=config,
            folder=folder,
            prepared=self.prepared,
            victims=self.victims,
            device=self.device,
            progress=self._labelled(name),
            mechanism=build_mechanism(config, len(self.prepared.data.splits.train)),
            commons=self.commons,
        )

    @contextmanager
    def hold(self, *, wait: bool = False) -> Iterator[None]:
        """Work in the folder; no other process does meanwhile.

        Args:
            wait: Wait for one that does; else it is an ``OutputError``.
        """
        if self._holding:
            yield
            return
        with held(self.folder, waiting=self._wait if wait else None):
            self._holding = True
            try:
                yield
            finally:
                self._holding = False

    def _wait(self) -> None:
        if self.progress is not None:
            self.progress(f"waiting for another process in {self.folder.root}", 0, 1)

    def hold_training(self) -> AbstractContextManager[None]:
        """Hold while training; of the runs of a sweep with the same network, one at a time trains."""
        return nullcontext() if self.commons is None else self.commons.training(self.folder, self.config)

    def _labelled(self, name: str) -> Progress | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda text, done, total: progress(f"reference {name}: {text}", done, total)


def reference_config(config: RunConfig, name: str) -> RunConfig:
    """An unprotected network's configuration: no clip, noise or defense (``open_wide``: nor bottleneck)."""
    update: dict[str, Any] = {
        "name": f"{config.name}.{name}",
        "release": ReleaseConfig(mechanism="none", quantize=config.release.quantize),
        "defense": Choice(name="none"),
        "edge": EdgeConfig(),
        "privacy": config.privacy.model_copy(update={"label_epsilon": None}),
        "evaluation": config.evaluation.model_copy(update={"references": []}),
        "attacks": config.attacks.model_copy(
            update={
                "auxiliary_sizes": [],
                "property": [],
                "membership": [],
                # Whoever attacks the run attacks what it is held against.
                "adaptive": config.attacks.adapts(defended=config.defense.name != "none"),
            }
        ),
    }
    bottleneck = config.model.bottleneck
    if name == "open_wide":
        update["model"] = config.model.model_copy(update={"bottleneck": BottleneckConfig()})
    elif bottleneck.kind == "letters" and bottleneck.size is not None:  # the values that become letters
        values = BottleneckConfig(kind="dimension", size=bottleneck.size * bottleneck.groups)
        update["model"] = config.model.model_copy(update={"bottleneck": values})
    return config.model_copy(update=update)


def open_session(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    dataset: FaceDataset | None = None,
    commons: Path | None = None,
    nesting: Nesting | None = None,
    wait: bool = False,
    reading: bool = False,
) -> Session:
    """Check everything that can be wrong, then occupy the output folder.

    Args:
        config: The run.
        out: Its folder.
        resume: Go on with the run in ``out``, if there is one.
        progress: Called with a description, steps done and steps in all.
        dataset: The faces ``config`` names, if they are loaded already.
        commons: A folder for what several runs have in common (see ``privhier.training.commons``).
        nesting: Which MLflow run this one belongs to.
        wait: Wait for another process that works in ``out``.
        reading: Look at a run that exists: its folder is checked, and nothing is written there.

    Raises:
        PrivhierError: Any bad input. Nothing has been written to ``out`` then.
    """
    folder = RunFolder(out)
    check_output(folder, config, resume=resume)
    config = with_absolute_paths(config)
    device = pick_device(config)
    check_bench(config)
    defense = build_defense(config.defense)
    build_source(config.dataset)
    if dataset is None:
        dataset = load_dataset(config.dataset, seed=config.seed, progress=progress)
    check_handed(config.dataset, dataset)
    prepared = prepare(config, dataset)
    mechanism = build_mechanism(config, len(prepared.data.splits.train))
    check_private(config, len(prepared.data.splits.train), defense)
    edge, _ = build_model(config, prepared.data)
    check_training_records(config, prepared.data, edge, defense)
    for name in config.evaluation.references:
        build_model(reference_config(config, name), prepared.data)
    torch.set_num_threads(int(config.runtime.threads))
    threadpool_limits(limits=int(config.runtime.threads))  # scikit-learn's and BLAS's own pools
    session = Session(
        config=config,
        folder=folder,
        prepared=prepared,
        victims=choose_victims(config, prepared),
        device=device,
        progress=progress,
        mechanism=mechanism,
        nesting=nesting,
    )
    check_auxiliary(config, prepared, session.victims)
    if reading:
        folder.sealed.match("config", config.hash())
        folder.sealed.match("data", dataset.fingerprint)
        return session
    with session.hold(wait=wait):
        check_output(folder, config, resume=resume)  # again, now that nobody else can write there
        if commons is None:
            settle(folder)
        occupy(folder, config, dataset.fingerprint)
    if commons is not None:
        session.commons = Commons(commons, dataset.fingerprint)
        references: dict[str, RunConfig] = {
            name: reference_config(config, name) for name in config.evaluation.references
        }
        session.commons.link(folder, config, references)
    return session


def reopen_session(
    out: Path,
    overrides: Sequence[str] = (),
    *,
    progress: Progress | None = None,
    dataset: FaceDataset | None = None,
    reading: bool = False,
) -> Session:
    """Open a run folder with the configuration saved in it.

    Args:
        out: The run folder.
        overrides: ``key.path=value``: where its images are now, threads, device.
        progress: Called with a description, steps done and steps in all.
        dataset: Its faces, if they are loaded already; another data set is refused.
        reading: Write nothing there.
    """
    config = saved_config(RunFolder(out), overrides)
    return open_session(
        config, out, resume=True, progress=progress, dataset=dataset, wait=True, reading=reading
    )
