"""The audit of a run: what it claims, held against draws through its own release code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from privhier.audit.file import AuditReport
from privhier.audit.letter_claim import ClaimedLetters
from privhier.audit.letter_reload import audit_letter_reload
from privhier.audit.letters import audit_letters
from privhier.audit.paths import AuditedReleases
from privhier.audit.release import ALARM, Claimed, audit_release, strength_of
from privhier.audit.reload import audit_reload
from privhier.audit.row import AuditRow
from privhier.audit.trials import Kind
from privhier.config import RunConfig
from privhier.evaluation.result import Result
from privhier.privacy import shown
from privhier.privacy.accounting import gaussian_epsilon
from privhier.privacy.distinguishing import letters_accuracy, pure_accuracy, release_accuracy
from privhier.privacy.events import AnyRelease
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.ledger import Ledger
from privhier.tracking.audit import log_audit
from privhier.training.charges import checked_ledger
from privhier.training.clip import mechanism_of
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import saved_config
from privhier.training.trained import finished_training

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Claim:
    """What a run claims about one record's own releases.

    Attributes:
        kind: The mechanism.
        epsilon: Of all ``releases`` together, replace-one.
        delta: Of the claim; 0 where it is pure.
        releases: T, the most that any record has had.
        test_releases: Releases of a test record.
        records: Split to the records that were released.
        strength: mu (gaussian) or epsilon (laplace, letters) of a single release.
        letters: How letters are said to be answered, where the run releases any.
    """

    kind: Kind
    epsilon: float
    delta: float
    releases: int
    test_releases: int
    records: Mapping[str, int]
    strength: float
    letters: ClaimedLetters | None = None

    def of(self, releases: int) -> float:
        """Epsilon that is claimed for that many releases of one record."""
        if self.kind != "gaussian":
            return self.strength * releases
        return gaussian_epsilon(self.strength * math.sqrt(releases), self.delta)


@dataclass(frozen=True)
class AuditContext:
    """What every part of an audit may need.

    Attributes:
        run: The run folder.
        config: Its configuration.
        claim: What it claims of releases; None: nothing.
        draws: Trials of a main row.
        seed: Of everything that the auditor draws.
        progress: Told what is going on.
    """

    run: Path
    config: RunConfig
    claim: Claim | None
    draws: int
    seed: int
    progress: Progress | None = None


RowProducer = Callable[[AuditContext], list[AuditRow]]
"""One part of an audit; returns no rows where the run claims nothing that it could test."""


def audit_run(
    run: Path,
    *,
    draws: int = 1_000_000,
    seed: int = 0,
    more: tuple[RowProducer, ...] = (),
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a finished run, write ``audit.json`` and its plot, and log them to MLflow.

    Args:
        run: A run folder whose training has finished; the data set is not needed.
        draws: Trials of the release audit's main row, at least 1,000.
        seed: Of everything that the auditor draws.
        more: Further parts, whose rows come after the release audit's.
        overrides: ``key.path=value``: where the images are now.
        progress: Called with a text and how many parts of how many are done.

    Returns:
        The report; ``refuted`` says that a claim is wrong.

    Raises:
        CheckpointError: Training has not finished there.
        GuaranteeError: The run has no ledger.
        ReleaseError: The run's code refuses ordinary features.
    """
    folder = RunFolder(run)
    config = saved_config(folder, overrides)
    finished_training(folder)
    claim = read_claim(folder, config)
    context = AuditContext(run, config, claim, draws, seed, progress)
    parts: tuple[RowProducer, ...] = (_training, _evaluation, _reloaded, *more)
    rows: list[AuditRow] = []
    for number, part in enumerate(parts):
        if progress is not None:
            progress("audit: parts", number, len(parts))
        rows += part(context)
    report = AuditReport(
        name=config.name,
        config_hash=config.hash(),
        seed=seed,
        alarm=ALARM,
        note=_note(claim, config),
        rows=rows,
    )
    problem = log_audit(config, run, report.metrics(), report.write(run))
    return report if problem is None else report.model_copy(update={"warnings": [problem]})


def read_claim(folder: RunFolder, config: RunConfig) -> Claim | None:
    """The claim on own releases that ``result.json`` prints, else what the ledger would print.

    T is what the ledger holds, but never less than the schedule's.

    Raises:
        GuaranteeError: There is no ledger.
        ConfigError: It claims an epsilon of 0 for releases that are not Gaussian.
    """
    facts = finished_training(folder)
    mechanism = mechanism_of(config, facts["n_train"], folder)
    ledger = checked_ledger(folder, config, facts)
    accounts = ledger.accounts()
    if mechanism.mechanism == "none" or not accounts:
        return None
    delta = config.privacy.delta_for(facts["n_train"])
    epsilon: float | None = max(account.spent(mechanism.mechanism, delta) for account in accounts.values())
    if folder.result.exists():
        rows = Result.of_run(folder.sealed, folder.result).guarantees
        epsilon, printed = next(
            ((row.epsilon, row.delta) for row in rows if row.name == OWN_RELEASES), (None, None)
        )
        delta = printed or delta
    if epsilon is None or not math.isfinite(epsilon):
        return None
    # The choice of a clip bound is no release: what is claimed of releases alone is the rest.
    epsilon -= max(account.clip_epsilon for account in accounts.values())
    releases = max(ledger.releases_per_record(), config.schedule.releases_per_record)
    kind: Kind = "letters" if mechanism.letters else cast(Kind, mechanism.mechanism)
    whole = strength_of(kind, epsilon, delta)
    strength = whole / (math.sqrt(releases) if kind == "gaussian" else releases)
    claim = Claim(
        kind=kind,
        epsilon=epsilon,
        delta=delta if kind == "gaussian" else 0.0,
        releases=releases,
        test_releases=max(1, ledger.releases_per_record("test")),
        records=_released(ledger),
        strength=strength,
    )
    if not mechanism.letters:
        return claim
    each = strength / mechanism.groups
    letters = ClaimedLetters(mechanism.mechanism, mechanism.letters, mechanism.groups, each, releases)
    return replace(claim, letters=letters)


def _training(context: AuditContext) -> list[AuditRow]:
    return _releases(context, "training")


def _evaluation(context: AuditContext) -> list[AuditRow]:
    return _releases(context, "evaluation")


def _releases(context: AuditContext, path: str) -> list[AuditRow]:
    claim = context.claim
    if claim is None:
        return []
    edge = load_edge(context.run)
    code = edge.edge.codebook
    paths = AuditedReleases(context.config, edge.mechanism, code)
    training = path == "training"
    releases = claim.releases if training else claim.test_releases
    shape = edge.edge.release_shape
    release = paths.training if training else paths.evaluation
    batches = paths.batches(path, claim.records.get("train" if training else "test", 0), shape)
    own: dict[str, Any] = {"draws": context.draws, "seed": context.seed, "name": path, "batches": batches}
    if claim.letters is not None and code is not None:
        return audit_letters(release, replace(claim.letters, releases=releases), code=code, **own)
    return audit_release(
        release,
        Claimed(
            kind=claim.kind,
            clip=edge.mechanism.clip,
            epsilon=claim.epsilon if training else claim.of(releases),
            delta=claim.delta,
            releases=releases,
        ),
        shape=shape,
        **own,
    )


def _released(ledger: Ledger) -> dict[str, int]:
    """Split to the records that one release of it holds."""
    events = [event for event in ledger.events if isinstance(event, AnyRelease)]
    return {event.split: event.records for event in events}


def _reloaded(context: AuditContext) -> list[AuditRow]:
    claim = context.claim
    if claim is None:
        return []
    folder = RunFolder(context.run)
    facts = finished_training(folder)
    if claim.letters is not None:
        size = facts["image_size"]
        return [audit_letter_reload(context.run, claim.letters, image_size=size, seed=context.seed)]
    scale = 2 * mechanism_of(context.config, facts["n_train"], folder).clip / claim.strength
    return [
        audit_reload(
            context.run, kind=claim.kind, scale=scale, image_size=facts["image_size"], seed=context.seed
        )
    ]


def _note(claim: Claim | None, config: RunConfig) -> str:
    if claim is None:
        return f"mechanism {config.release.mechanism!r} claims nothing on releases: nothing to audit"
    text = f"claimed: epsilon {shown.claim(claim.epsilon)} for {claim.releases} release(s) of one record"
    allowed = _allowed(claim)
    at = f", delta {shown.claim(claim.delta)}" if claim.delta else ""
    return f"{text}{at}; it {shown.allowance(allowed)}"


def _allowed(claim: Claim) -> float:
    """The best balanced accuracy at telling two records apart that the claim allows."""
    if claim.letters is not None:
        known = claim.letters
        told = letters_accuracy(known.matrix[:, :-1], known.groups, known.releases)
        return min(told, pure_accuracy(claim.epsilon))
    kind: Literal["gaussian", "laplace"] = "gaussian" if claim.kind == "gaussian" else "laplace"
    return release_accuracy(kind, 2 / claim.strength, 1.0, claim.releases)
