"""The main job: train, attack, account, report. Every stage can be killed and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from privhier.assessment.additions import REFERENCES_LACK, extended
from privhier.assessment.assess import Assessment, assess
from privhier.assessment.claims import result_of
from privhier.assessment.membership import membership_scores
from privhier.assessment.pictures import reconstruction_sheets
from privhier.errors import CheckpointError, ResultError, TrackingError
from privhier.evaluation.additions import Addition, read_additions
from privhier.evaluation.result import ReferenceRun, Result
from privhier.report.page import write_report
from privhier.seeding import numpy_stream
from privhier.session.opening import Session
from privhier.tracking.tracker import Tracker, open_tracker
from privhier.training.commons import settle
from privhier.training.folder import RunFolder
from privhier.training.trained import Trained, load_trained
from privhier.training.trainer import Trainer


def run(session: Session, *, command: str) -> Result:
    """Train, attack, account, report; log to MLflow unless tracking is off."""
    with session.hold():
        return _run(session, command)


def _run(session: Session, command: str) -> Result:
    try:
        tracker = start_tracking(session)
    except TrackingError:
        _give_up_folder(session.folder)
        raise
    try:
        trained = train(session, tracker)
        result = attack(session, trained, tracker)
        settle(session.folder)
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
    tracker = open_tracker(session.config, session.folder.root, nesting=session.nesting)
    splits = session.prepared.data.splits
    dataset = session.prepared.dataset
    sizes = {name: len(getattr(splits, name)) for name in ("train", "val", "aux", "test")}
    tracker.log_dataset(name=dataset.name, digest=dataset.fingerprint, sizes=sizes)
    return tracker


def train(session: Session, tracker: Tracker | None = None) -> Trained:
    """Train the run's network and its unprotected references; skips what is finished."""
    with session.hold():
        return _train(session, tracker)


def _train(session: Session, tracker: Tracker | None) -> Trained:
    config, folder = session.config, session.folder
    if not folder.training.exists():

        def on_epoch(phase: str, epoch: int, metrics: dict[str, float]) -> None:
            if tracker is not None:
                tracker.log_epoch(phase, epoch, metrics)

        with session.hold_training():
            if not folder.config.exists():
                folder.sealed.write(folder.config, config.to_yaml())
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
                        profile=folder.profile if session.profile else None,
                    ).run()
    for name in config.evaluation.references:
        reference = session.reference(name)
        _train(reference, None)
        session.timing[f"train_{name}"] = reference.timing.get("train", 0.0)
    return load_trained(config, session.prepared.data, folder)


def attack(session: Session, trained: Trained, tracker: Tracker | None = None) -> Result:
    """Attack the trained network and its references, account, check the ceilings, write the result."""
    with session.hold(wait=True):
        return _attack(session, trained, tracker)


def _attack(session: Session, trained: Trained, tracker: Tracker | None) -> Result:
    additions = read_additions(session.folder.sealed, session.folder.additions)
    failure = tracker.failure if tracker is not None else None
    result = attacked(session, trained, additions, tracking_failure=failure)
    result.write(session.folder.result)
    if tracker is not None:
        for attribute, leakage in result.leakage.items():
            for scored in leakage.attacks:
                tracker.log_attack(attribute, scored)
        for method, reconstruction in result.reconstruction.items():
            tracker.log_reconstruction(method, reconstruction)
    return result


def attacked(
    session: Session, trained: Trained, additions: Sequence[Addition], *, tracking_failure: str | None = None
) -> Result:
    """What the run and its references say under the configured attackers and the additions; writes no result.

    Attacks that are finished are read, not run again.

    Args:
        session: The run.
        trained: Its network.
        additions: Attacks beside those its configuration names.
        tracking_failure: What went wrong with MLflow.
    """
    subject = replace(session, config=extended(session.config, additions))
    own = _assess(subject, trained, raw_images=session.config.attacks.raw_image)
    session.timing |= {f"attack/{name}": seconds for name, seconds in own.seconds.items()}
    references: dict[str, ReferenceRun] = {}
    for name in session.config.evaluation.references:
        other = session.reference(name)
        network = load_trained(other.config, session.prepared.data, other.folder)
        theirs = replace(other, config=extended(other.config, additions, but=REFERENCES_LACK))
        scores = _assess(theirs, network, raw_images=False)
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
    return result_of(
        session,
        trained,
        own,
        membership=membership_scores(subject, trained),
        references=references,
        additions=additions,
        timing=_timing(session),
        tracking_failure=tracking_failure,
    )


def _timing(session: Session) -> dict[str, float]:
    """Wall seconds by stage: of this call, or of an earlier one where that did more of the work.

    What is finished is read, not done again: a second call would say that attacks cost next to nothing.
    """
    before: dict[str, float] = {}
    if session.folder.sealed.knows(session.folder.result):
        with suppress(CheckpointError, ResultError):  # damaged: it is written anew
            before = Result.of_run(session.folder.sealed, session.folder.result).timing
    names = [*before, *(name for name in session.timing if name not in before)]
    return {name: max(before.get(name, 0.0), session.timing.get(name, 0.0)) for name in names}


def report(session: Session, result: Result, trained: Trained, *, command: str) -> Path:
    """Write ``report.html`` from the result, the history and the finished reconstructions."""
    with session.hold(wait=True):
        return _report(session, result, trained, command)


def _report(session: Session, result: Result, trained: Trained, command: str) -> Path:
    names = session.config.evaluation.references
    reference = session.folder.reference(names[0]) if names else None
    drawing = [one for one in result.additions if one.section == "reconstruction"]
    sheets = reconstruction_sheets(replace(session, config=extended(session.config, drawing)), reference)
    return write_report(
        session.folder.root,
        result,
        session.config,
        history=trained.history,
        reconstructions=sheets,
        command=command,
    )


def _replay(folder: RunFolder, on_epoch: Callable[[str, int, dict[str, float]], None]) -> None:
    for row in folder.sealed.read_json(folder.history):
        on_epoch(row.pop("phase"), row.pop("epoch"), row)


def _assess(session: Session, trained: Trained, *, raw_images: bool) -> Assessment:
    with _timed(session.timing, "attack"):
        return assess(session, trained, raw_images=raw_images)


def _log_result(session: Session, tracker: Tracker, trained: Trained, result: Result) -> None:
    # Made-up numbers: a real release in a model artifact would be one more place that holds it.
    shape = (2, *trained.edge.release_shape)
    stream, letters = numpy_stream(session.config.seed, "tail_example"), trained.mechanism.letters
    example = stream.integers(0, letters, shape) if letters else stream.standard_normal(shape)
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
    made = {path.name for path in (folder.config, folder.sealed.path, folder.lock)}
    if {path.name for path in folder.root.iterdir()} <= made:
        folder.config.unlink()
        folder.sealed.path.unlink()
        folder.lock.unlink(missing_ok=True)
        folder.root.rmdir()


class _timed:  # noqa: N801  (a context manager reads as a verb)
    """Add the wall time of a block to ``timing[name]``."""

    def __init__(self, timing: dict[str, float], name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.timing[self.name] = self.timing.get(self.name, 0.0) + time.perf_counter() - self.started
