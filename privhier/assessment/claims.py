"""What a run claims: scores, guarantees, totals and where they come from, put into one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from privhier.assessment.additions import extended
from privhier.assessment.assess import Assessment
from privhier.assessment.context import Subject
from privhier.config import RunConfig
from privhier.datasets.base import examples
from privhier.datasets.check import count_kinds
from privhier.datasets.relations import told_together
from privhier.evaluation.additions import Addition
from privhier.evaluation.result import GuaranteeRow, Membership, ReferenceRun, Result, UplinkTotals
from privhier.evaluation.warnings import code_warnings, score_warnings
from privhier.privacy.leakage_guarantee import maximal_leakage_row, released_of
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import Mechanism, ReleaseMechanism
from privhier.privacy.shown import claim
from privhier.process.source import git_state
from privhier.training.charges import checked_ledger
from privhier.training.occupancy import resumptions
from privhier.training.prepare import Prepared
from privhier.training.trained import Trained, finished_training
from privhier.uplink.sizes import ReleaseFormat

_MIXED = (
    "BatchNorm on the edge mixes the records of a batch: what a training record puts into the releases of "
    "the others in its batch is covered by no row"
)
SPLITS = ("train", "val", "aux", "test")


def result_of(
    subject: Subject,
    trained: Trained,
    own: Assessment,
    *,
    membership: Membership | None = None,
    references: Mapping[str, ReferenceRun],
    additions: Sequence[Addition] = (),
    timing: Mapping[str, float],
    tracking_failure: str | None = None,
) -> Result:
    """Put everything a run found out, what was added to it included, into a validated result."""
    config, folder, prepared = subject.config, subject.folder, subject.prepared
    attacked = extended(config, additions)
    ledger, mechanism = checked_ledger(folder, config, finished_training(folder)), trained.mechanism
    releases = ledger.releases_per_record()
    shape = list(trained.edge.release_shape)
    form = ReleaseFormat(tuple(shape), mechanism.wire, letters=mechanism.letters or None)
    return Result(
        name=config.name,
        config_hash=config.hash(),
        git=git_state(),
        seed=config.seed,
        dataset=describe_dataset(config, prepared),
        release={
            **_how(mechanism, trained.code),
            "shape": shape,
            "values": int(np.prod(shape)),
            "releases_per_record": releases,
            "noise_source": config.privacy.noise_source,
            "network": trained.edge.describe(),
            **({"defense": trained.defense} if trained.defense else {}),
        },
        utility=own.utility,
        utility_mean=own.utility_mean,
        leakage=own.leakage,
        reconstruction=own.reconstruction,
        references=dict(references),
        by_group=own.by_group,
        property_inference=own.property_inference,
        label_inference=own.label_inference,
        threat_models=own.threat_models,
        membership=membership,
        additions=list(additions),
        guarantees=guarantee_rows(attacked, prepared, ledger, dimension=int(np.prod(shape))),
        uplink=UplinkTotals(
            bytes_per_record=trained.uplink["bytes"] / max(trained.uplink["records"], 1),
            payload_bytes_per_record=form.payload_bytes_per_record,
            releases_per_record=releases,
            total_bytes=trained.uplink["bytes"],
        ),
        warnings=[
            *code_warnings(trained.code),
            *score_warnings(own.utility, {name: run.utility for name, run in references.items()}),
            *run_warnings(
                config,
                prepared,
                mechanism,
                mended=trained.edge.describe().get("mended", []),
                resumed=resumptions(folder),
            ),
            *own.notes,
            *([f"MLflow stopped taking this run: {tracking_failure}"] if tracking_failure else []),
        ],
        timing=dict(timing),
    )


def _how(mechanism: Mechanism, code: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The terms of a release, as plain data; of letters also how validation records use them."""
    if mechanism.letters:
        return {**mechanism.terms, "quantize": mechanism.wire, "code": list(code)}
    noisy = mechanism.mechanism != "none"
    return {
        "mechanism": mechanism.mechanism,
        "clip": mechanism.clip if noisy else None,
        "sigma": mechanism.sigma if noisy else None,
        "quantize": mechanism.quantize,
    }


def guarantee_rows(
    config: RunConfig, prepared: Prepared, ledger: Ledger, *, dimension: int | None = None
) -> list[GuaranteeRow]:
    """The ledger's guarantees, with a row for the person of most images where people are known.

    Args:
        dimension: Values of one release; None: no row of maximal leakage.
    """
    identity, splits = prepared.dataset.identity, prepared.data.splits
    largest = None
    if identity is not None:
        parts = {name: getattr(splits, name) for name in ("train", "val", "test")}
        largest = {name: int(np.bincount(identity[records]).max()) for name, records in parts.items()}
    mixes = config.model.norm == "batch" and config.edge.dp_sgd is None
    also = [_MIXED] if mixes else []
    if config.report.pictures == "all" and config.attacks.reconstruction:
        also.append(
            "pictures of test victims, originals beside reconstructions, embedded in report.html and logged "
            "with it (report.pictures=none leaves them out)"
        )
    if config.privacy.noise_seed is not None:
        also.append(
            "privacy.noise_seed: left out of the report and of MLflow, but kept in the run folder's "
            "config.yaml, and config_hash is a hash of it: a short one is found by trying"
        )
    rows = ledger.guarantees(
        delta=config.privacy.delta_for(len(splits.train)), largest_person=largest, also_not_covered=also
    )
    if dimension is not None:
        shared = [x for x in rows[0].does_not_cover if all(x in row.does_not_cover for row in rows)]
        released = released_of(ledger.events, dimension)
        rows.append(maximal_leakage_row(released, noise_source=config.privacy.noise_source, open_ends=shared))
    return [GuaranteeRow(**asdict(row)) for row in rows]


def describe_dataset(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Counts, problems, protocol and splits of the data, as plain data."""
    dataset, splits = prepared.dataset, prepared.data.splits
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n": len(dataset),
        "image_size": prepared.data.image_size,
        "people": None if dataset.identity is None else len(np.unique(dataset.identity)),
        "groups": len(np.unique(dataset.group)),
        "identity_protocol": config.dataset.identity_protocol,
        "splits": {name: len(getattr(splits, name)) for name in SPLITS},
        "classes": {
            name: dict(zip(labels.classes, np.bincount(labels.values).tolist(), strict=True))
            for name, labels in prepared.labels.items()
            if name != "identity"
        },
        "problems": len(dataset.problems),
        "first_problems": [asdict(problem) for problem in examples(dataset.problems, 20)],
        "notices": count_kinds(dataset.notices),
        "first_notices": [asdict(notice) for notice in dataset.notices[:20]],
    }


def run_warnings(
    config: RunConfig,
    prepared: Prepared,
    mechanism: ReleaseMechanism,
    *,
    mended: Sequence[str] = (),
    resumed: Sequence[str] = (),
) -> list[str]:
    """What a reader should know before quoting a number of this run."""
    found = [f"went on with {change}: last digits may differ from an undisturbed run" for change in resumed]
    n = len(prepared.data.splits.train)
    delta = config.privacy.delta_for(n)
    private = not mechanism.deterministic or config.edge.dp_sgd is not None
    if private and n * delta > 0.1:
        allowed = "a whole record" if n * delta >= 1 else f"a whole record with probability {n * delta:.2g}"
        found.append(
            f"privacy.delta {claim(delta)} is not {'' if n * delta >= 1 else 'well '}below 1/n = {1 / n:g}: "
            f"such a guarantee allows publishing {allowed}"
        )
    if prepared.dataset.problems:
        count = len(prepared.dataset.problems)
        found.append(f"{count} files or label rows were skipped (see the data section)")
    told = told_together(prepared.labels, config.dataset.task, config.dataset.sensitive)
    if told:
        found.append(
            f"the tasks together tell {', '.join(told)} on all {len(prepared.dataset)} records: no defense "
            "can hide what the tasks say"
        )
    if mended:
        found.append(f"for DP-SGD the edge was changed: {'; '.join(mended)}")
    elif config.model.norm == "batch":
        found.append(f"{_MIXED}; the own-release rows bind who sees that record's own releases only")
    return found
