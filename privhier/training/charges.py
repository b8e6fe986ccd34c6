"""What a run's schedule must have been charged for, held against its ledger.

A hash tells an edited file from the one that was written; this tells a ledger of this run from any other,
also where somebody made up the hashes as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from privhier.config import RunConfig
from privhier.config.phases import phases_of
from privhier.privacy.events import (
    AnyRelease,
    ClipEvent,
    Event,
    LabelEvent,
    StepEvent,
    ledger_error,
    release_event,
)
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import ReleaseMechanism
from privhier.training.clip import mechanism_of
from privhier.training.folder import RunFolder
from privhier.training.private_plan import noise_multiplier, sampling_plan


def check_charges(
    ledger: Ledger,
    config: RunConfig,
    mechanism: ReleaseMechanism,
    *,
    records: Mapping[str, int],
    task_classes: Mapping[str, int],
    finished: Collection[tuple[str, int]] | None = None,
    uplink: Mapping[str, int] | None = None,
) -> None:
    """Refuse a ledger that is not that of this run, as far as it has come.

    Every finished epoch must have been charged, every charge must be one of the schedule, with the
    configured mechanism and for all records. Under seeded noise every charge stands there once; under
    system noise an epoch that was begun again was charged again.

    Args:
        ledger: The account.
        config: The run's configuration.
        mechanism: The release mechanism with its final clip bound.
        records: Split to number of records: ``train``, ``val`` and ``test``.
        task_classes: Task to number of classes.
        finished: Finished entries of ``phases_of``; None: all, training has ended.
        uplink: What went up in all, as ``training.json`` says; given, it is compared as well.

    Raises:
        GuaranteeError: An epsilon of this ledger would be another run's, or nobody's.
    """
    done = set(phases_of(config.schedule) if finished is None else finished)
    expected = _expected(config, mechanism, records, task_classes)
    seen = Counter(_comparable(event) for event in ledger.events)
    known = {event for event, _ in expected}
    for event in seen:
        if event not in known:
            raise ledger_error(_name(event), asdict(event), "is a charge that this run cannot have made")
        if config.privacy.noise_source == "seeded" and seen[event] > 1:
            raise ledger_error(_name(event), seen[event], "charges of one seeded draw: it counts once")
    for event, phase in expected:
        if phase in done and not seen[event]:
            raise ledger_error(_name(event), None, f"was not charged, but {phase[0]} {phase[1]} is finished")
    if uplink is not None:
        _check_total(ledger, config, uplink)


def checked_ledger(folder: RunFolder, config: RunConfig, facts: Mapping[str, Any]) -> Ledger:
    """The ledger of a finished training, held against the configuration and the training's own totals.

    Args:
        folder: The run folder.
        config: Its configuration.
        facts: What ``finished_training`` says.

    Raises:
        GuaranteeError: It is not the ledger that this training was charged to.
    """
    ledger = Ledger.load(folder.ledger)
    if ledger.head != facts["ledger"]:
        raise ledger_error(folder.ledger.name, str(folder.ledger), "is not the one that training ended with")
    check_charges(
        ledger,
        config,
        mechanism_of(config, facts["n_train"], folder),
        records=facts["records"],
        task_classes=facts["task_classes"],
        uplink=facts["uplink"],
    )
    return ledger


def _expected(
    config: RunConfig,
    mechanism: ReleaseMechanism,
    records: Mapping[str, int],
    task_classes: Mapping[str, int],
) -> list[tuple[Event, tuple[str, int]]]:
    """Every event of the whole schedule, with the entry of ``phases_of`` that it is charged in."""
    source = config.privacy.noise_source

    def release(split: str, phase: str, epoch: int) -> AnyRelease:
        return release_event(mechanism, source, split=split, records=records[split], phase=phase, epoch=epoch)

    found: list[tuple[Event, tuple[str, int]]] = []
    phases = phases_of(config.schedule)
    if (chosen := config.release.quantile) is not None:
        clip = ClipEvent("train", records["train"], chosen.quantile, chosen.epsilon, source)
        found.append((clip, phases[0]))
    if config.privacy.label_epsilon is not None:
        share = config.privacy.label_epsilon / len(task_classes)
        for task, classes in task_classes.items():
            found.append((LabelEvent("train", records["train"], task, classes, share, source), phases[0]))
    for phase, epoch in phases:
        here = (phase, epoch)
        if phase in ("pretrain", "joint") and config.edge.dp_sgd is not None:
            found.append((_steps(config, records["train"], phase, epoch), here))
        if phase == "joint":
            found += [(release(split, "joint", epoch), here) for split in ("train", "val")]
        elif phase == "release":
            found += [(release(split, "cloud", 0), here) for split in ("train", "val")]
        elif phase == "test":
            joints = range(config.schedule.joint_epochs)
            found += [(release("test", "joint", joint), here) for joint in joints]
            if config.schedule.cloud_epochs:
                found.append((release("test", "cloud", 0), here))
    return found


def _steps(config: RunConfig, n_train: int, phase: str, epoch: int) -> StepEvent:
    assert config.edge.dp_sgd is not None
    rate, steps = sampling_plan(config, n_train)
    joint = phase == "joint"
    return StepEvent(
        records=n_train,
        phase=phase,
        epoch=epoch,
        steps=steps if not joint else 1,
        sampling="disjoint" if joint else "poisson",
        sample_rate=1.0 if joint else rate,
        noise_multiplier=noise_multiplier(config, n_train),
        max_grad_norm=config.edge.dp_sgd.max_grad_norm,
        noise_source=config.privacy.noise_source,
    )


def _comparable(event: Event) -> Event:
    """Disjoint epochs count as one mechanism however many batches they have: their number is compared by
    ``Ledger.verify_steps`` with what the optimizer did.
    """
    if isinstance(event, StepEvent) and event.sampling == "disjoint":
        return replace(event, steps=1)
    return event


def _check_total(ledger: Ledger, config: RunConfig, uplink: Mapping[str, int]) -> None:
    charged = sum(event.records * event.releases for event in ledger.events if isinstance(event, AnyRelease))
    carried = int(uplink["records"])
    exact = config.privacy.noise_source == "seeded"
    if carried > charged or (exact and carried != charged):
        raise ledger_error("uplink", carried, f"releases went up, but {charged} were charged")


def _name(event: Event) -> str:
    return "/".join(str(part) for part in event.key)
