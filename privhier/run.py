"""The main job: train, attack, account, report. Every stage can be killed and resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from privhier.config import BottleneckConfig, Choice, EdgeConfig, ReleaseConfig, RunConfig, load_config
from privhier.datasets.base import FaceDataset
from privhier.datasets.load import build_source, load_dataset
from privhier.defenses.base import build_defense
from privhier.errors import CheckpointError, OutputError, TrackingError
from privhier.evaluation.report import write_report
from privhier.evaluation.result import ReferenceRun, Result
from privhier.lab.assess import Assessment, assess
from privhier.lab.membership import membership_scores
from privhier.lab.plan import Victims, check_bench, choose_victims
from privhier.lab.sheet import reconstruction_sheets
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import numpy_stream
from privhier.statement import account, git_state
from privhier.tracking import Nesting, Tracker, open_tracker
from privhier.training.folder import RunFolder, write_atomic
from privhier.training.prepare import Prepared, build_mechanism, pick_device, prepare
from privhier.training.private_edge import check_private
from privhier.training.schedule import Trainer
from privhier.training.shared import Shared
from privhier.training.trained import Trained, build_model, load_trained

Progress = Callable[[str, int, int], None]


@dataclass
class Session:
    """One run being worked on: everything checked, nothing but the configuration written yet."""

    config: RunConfig
    folder: RunFolder
    prepared: Prepared
    mechanism: ReleaseMechanism
    device: torch.device
    victims: Victims
    progress: Progress | None = None
    timing: dict[str, float] = field(default_factory=dict)
    shared: Shared | None = None
    nesting: Nesting | None = None

    def reference(self, name: str) -> Session:
        """The session of an unprotected network beside this one, on the same data and splits."""
        config = reference_config(self.config, name)
        folder = self.folder.reference(name)
        return Session(
            config,
            folder,
            self.prepared,
            build_mechanism(config, len(self.prepared.data.splits.train)),
            self.device,
            self.victims,
            self._labelled(name),
            shared=self.shared,
        )

    def claim_training(self) -> AbstractContextManager[None]:
        """Hold while training; of the runs of a sweep with the same network, one at a time trains."""
        return nullcontext() if self.shared is None else self.shared.training(self.folder, self.config)

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
            update={"auxiliary_sizes": [], "property": [], "membership": []}
        ),
    }
    if name == "open_wide":
        update["model"] = config.model.model_copy(update={"bottleneck": BottleneckConfig()})
    return config.model_copy(update=update)


def open_session(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    dataset: FaceDataset | None = None,
    shared: Path | None = None,
    nesting: Nesting | None = None,
) -> Session:
    """Check everything that can be wrong, then claim the output folder.

    Args:
        config: The run.
        out: Its folder.
        resume: Go on with the run in ``out``, if there is one.
        progress: Called with a description, steps done and steps in all.
        dataset: The faces ``config`` names, if they are loaded already.
        shared: A folder for what several runs have in common (see ``privhier.training.shared``).
        nesting: Which MLflow run this one belongs to.

    Raises:
        PrivhierError: Any bad input. Nothing has been written to ``out`` then.
    """
    folder = RunFolder(out)
    check_output(folder, config, resume=resume)
    device = pick_device(config)
    check_bench(config)
    defense = build_defense(config.defense)
    build_source(config.dataset)
    if dataset is None:
        dataset = load_dataset(config.dataset, seed=config.seed, progress=progress)
    prepared = prepare(config, dataset)
    mechanism = build_mechanism(config, len(prepared.data.splits.train))
    check_private(config, len(prepared.data.splits.train), defense)
    build_model(config, prepared.data)
    for name in config.evaluation.references:
        build_model(reference_config(config, name), prepared.data)
    victims = choose_victims(config, prepared)
    torch.set_num_threads(int(config.runtime.threads))
    threadpool_limits(limits=int(config.runtime.threads))  # scikit-learn's and BLAS's own pools
    write_atomic(folder.config, config.to_yaml())
    session = Session(config, folder, prepared, mechanism, device, victims, progress, nesting=nesting)
    if shared is not None:
        session.shared = Shared(shared, dataset.fingerprint)
        references: dict[str, RunConfig] = {
            name: reference_config(config, name) for name in config.evaluation.references
        }
        session.shared.link(folder, config, references)
    return session


def reopen_session(out: Path, *, progress: Progress | None = None) -> Session:
    """Open a run folder with the configuration saved in it."""
    folder = RunFolder(out)
    if not folder.config.exists():
        raise CheckpointError(
            key="RUN",
            value=str(out),
            rule="is not a run folder (it has no config.yaml)",
            remedy="Give a folder that `privhier run` or `privhier train` wrote",
        )
    return open_session(load_config(folder.config), out, resume=True, progress=progress)


def check_output(folder: RunFolder, config: RunConfig, *, resume: bool) -> None:
    """Refuse a folder that is taken, or, when resuming, one that belongs to another configuration."""
    root = folder.root
    if resume and folder.config.exists():
        saved = load_config(folder.config)
        if saved.hash() != config.hash():
            raise CheckpointError(
                key="--resume",
                value=str(root),
                rule=f"belongs to another configuration ({saved.hash()[:12]}, not {config.hash()[:12]})",
                remedy="Resume with the same CONFIG and overrides, or choose another --out",
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(
            key="--out",
            value=str(root),
            rule="exists already and is not an empty folder",
            remedy="Choose another --out, or add --resume to go on with the run in it",
        )
    probe = root if root.exists() else _nearest_parent(root)
    try:
        test = probe / f".privhier-{config.hash()[:8]}"
        test.touch()
        test.unlink()
    except OSError as error:
        raise OutputError(
            key="--out",
            value=str(root),
            rule=f"cannot be written: {error.strerror or error}",
            remedy="Choose a folder you may write to",
        ) from error


def run(session: Session, *, command: str) -> Result:
    """Train, attack, account, report; log to MLflow unless tracking is off."""
    try:
        tracker = start_tracking(session)
    except TrackingError:
        _give_up_folder(session.folder)
        raise
    try:
        trained = train(session, tracker)
        result = attack(session, trained, tracker)
        report(session, result, trained, command=command)
        _log_result(session, tracker, trained, result)
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    return result


def start_tracking(session: Session) -> Tracker:
    """Open the run's tracker with its parameters, tags and data set."""
    tags = {f"git_{key}": str(value) for key, value in git_state().items()}
    tracker = open_tracker(session.config, session.folder.root, tags=tags, nesting=session.nesting)
    splits = session.prepared.data.splits
    dataset = session.prepared.dataset
    sizes = {name: len(getattr(splits, name)) for name in ("train", "val", "aux", "test")}
    tracker.log_dataset(name=dataset.name, digest=dataset.fingerprint, sizes=sizes)
    return tracker


def train(session: Session, tracker: Tracker | None = None) -> Trained:
    """Train the run's network and its unprotected references; skips what is finished."""
    config, folder = session.config, session.folder
    if not folder.training.exists():

        def on_epoch(phase: str, epoch: int, metrics: dict[str, float]) -> None:
            if tracker is not None:
                tracker.log_epoch(phase, epoch, metrics)

        with session.claim_training():
            if not folder.config.exists():
                write_atomic(folder.config, config.to_yaml())
            if folder.training.exists():  # another run of the sweep trained it
                _replay(folder, on_epoch)
            else:
                with _timed(session.timing, "train"):
                    Trainer(
                        config,
                        session.prepared.data,
                        session.mechanism,
                        folder,
                        device=session.device,
                        keep=session.victims.training,
                        on_epoch=on_epoch,
                        progress=session.progress,
                    ).run()
    for name in config.evaluation.references:
        reference = session.reference(name)
        train(reference)
        session.timing[f"train_{name}"] = reference.timing.get("train", 0.0)
    return load_trained(config, session.prepared.data, folder)


def attack(session: Session, trained: Trained, tracker: Tracker | None = None) -> Result:
    """Attack the trained network and its references, account, check the ceilings, write the result."""
    own = _assess(session, trained, raw_images=session.config.attacks.raw_image)
    session.timing |= {f"attack/{name}": seconds for name, seconds in own.seconds.items()}
    references: dict[str, ReferenceRun] = {}
    for name in session.config.evaluation.references:
        other = session.reference(name)
        network = load_trained(other.config, session.prepared.data, other.folder)
        scores = _assess(other, network, raw_images=False)
        session.timing[f"attack_{name}"] = other.timing["attack"]
        references[name] = ReferenceRun(
            description=_describe(name),
            release_shape=list(network.edge.release_shape),
            utility=scores.utility,
            utility_mean=scores.utility_mean,
            leakage=scores.leakage,
            reconstruction=scores.reconstruction,
            by_group=scores.by_group,
        )
    membership = membership_scores(
        session.config,
        session.prepared,
        trained,
        session.folder,
        device=session.device,
        progress=session.progress,
    )
    result = account(
        config=session.config,
        folder=session.folder,
        prepared=session.prepared,
        trained=trained,
        own=own,
        membership=membership,
        references=references,
        timing=dict(session.timing),
        tracking_failure=tracker.failure if tracker is not None else None,
    )
    result.write(session.folder.result)
    if tracker is not None:
        for attribute, leakage in result.leakage.items():
            for scored in leakage.attacks:
                tracker.log_attack(attribute, scored)
        for method, reconstruction in result.reconstruction.items():
            tracker.log_reconstruction(method, reconstruction)
    return result


def report(session: Session, result: Result, trained: Trained, *, command: str) -> Path:
    """Write ``report.html`` from the result, the history and the finished reconstructions."""
    names = session.config.evaluation.references
    reference = session.folder.reference(names[0]) if names else None
    sheets = reconstruction_sheets(
        session.config, session.prepared, session.victims, session.folder, reference
    )
    return write_report(
        session.folder.root,
        result,
        session.config,
        history=trained.history,
        reconstructions=sheets,
        command=command,
    )


def _replay(folder: RunFolder, on_epoch: Callable[[str, int, dict[str, float]], None]) -> None:
    for row in json.loads(folder.history.read_text()):
        on_epoch(row.pop("phase"), row.pop("epoch"), row)


def _assess(session: Session, trained: Trained, *, raw_images: bool) -> Assessment:
    with _timed(session.timing, "attack"):
        return assess(
            session.config,
            session.prepared,
            trained,
            session.folder,
            session.victims,
            device=session.device,
            raw_images=raw_images,
            progress=session.progress,
        )


def _log_result(session: Session, tracker: Tracker, trained: Trained, result: Result) -> None:
    # Made-up numbers: a real release in a model artifact would be one more place that holds it.
    shape = (2, *trained.edge.release_shape)
    example = numpy_stream(session.config.seed, "tail_example").standard_normal(shape)
    tracker.log_tail(trained.tail, example.astype(np.float32))
    tracker.log_result(result)
    tracker.log_artifacts(session.folder.root)
    tracker.finish("FINISHED")


def _describe(name: str) -> str:
    return {
        "open": "unprotected network at the protected width: no clip, no noise, no defense",
        "open_wide": "unprotected network without bottleneck: the whole feature map goes up",
    }[name]


def _give_up_folder(folder: RunFolder) -> None:
    """Leave no folder behind a run that never started; one with work in it stays."""
    if {path.name for path in folder.root.iterdir()} == {folder.config.name}:
        folder.config.unlink()
        folder.root.rmdir()


def _nearest_parent(path: Path) -> Path:
    for parent in path.absolute().parents:
        if parent.exists():
            return parent
    return Path("/")


class _timed:  # noqa: N801  (a context manager reads as a verb)
    """Add the wall time of a block to ``timing[name]``."""

    def __init__(self, timing: dict[str, float], name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.timing[self.name] = self.timing.get(self.name, 0.0) + time.perf_counter() - self.started
