"""What every part of an assessment works on: the run, its victims, and how scores are drawn and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from privhier.assessment.victims import Victims
from privhier.attacks.base import Attack, AttackResult
from privhier.attacks.bench import BenchEntry, run_bench
from privhier.attacks.view import View
from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.evaluation.by_group import GroupTally
from privhier.evaluation.pairs import Pairs
from privhier.evaluation.result import AttackScores, Ceilings
from privhier.evaluation.scores import Outcome, Sample
from privhier.metrics.bounds import macro_auc_lower_bound, recall_lower_bound
from privhier.privacy.ceilings import Ceiling, ceiling, check_ceiling
from privhier.training.folder import RunFolder
from privhier.training.prepare import Prepared
from privhier.training.trained import Trained

Progress = Callable[[str, int, int], None]

_OTHERS = ("curious_cloud_labels", "eavesdropper", "white_box", "malicious_cloud")
"""Threat models whose attackers carry the model's name; the curious cloud's and references go without."""


@dataclass
class Subject:
    """The run that is assessed; ``privhier.session.Session`` is one.

    Attributes:
        config: The run.
        folder: Its folder; finished attacks are kept there.
        prepared: Its data.
        victims: Who is attacked, and the attacker's records.
        device: Where to compute.
        progress: Told what is going on: a description, steps done and steps in all.
    """

    config: RunConfig
    folder: RunFolder
    prepared: Prepared
    victims: Victims
    device: torch.device
    progress: Progress | None = None


@dataclass(frozen=True)
class Context:
    """One trained network about to be scored.

    Attributes:
        subject: The run.
        trained: What training left.
        groups: Tally of who is served and exposed, by class.
        seconds: Wall time of every attack, by ``view/target/attack``; filled as they end.
        notes: What a reader must know of the tools that were used; ends among the result's warnings.
    """

    subject: Subject
    trained: Trained
    groups: GroupTally = field(default_factory=GroupTally)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.subject.config

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return self.subject.folder

    @property
    def prepared(self) -> Prepared:
        """The run's data."""
        return self.subject.prepared

    @property
    def victims(self) -> Victims:
        """Who is attacked."""
        return self.subject.victims

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.subject.device

    def run(self, plan: Sequence[tuple[str, Attack]], view: View, name: str) -> list[BenchEntry]:
        """Attack ``view`` with every attack of the plan; what is on disk already is read."""
        folder = bench_folder(self.folder, view.threat_model, name)
        entries = run_bench(plan, view, folder, progress=self.subject.progress)
        for entry in entries:
            if entry.result is not None:
                self.seconds[f"{view.threat_model}/{name}/{entry.name}"] = entry.result.seconds
        return entries

    def sample(self, records: IntArray, values: IntArray, n_classes: int, name: str) -> Sample:
        """Truth of ``records`` and the bootstrap over their groups."""
        evaluation = self.config.evaluation
        return Sample.draw(
            values[records],
            n_classes,
            self.prepared.dataset.group[records],
            resamples=evaluation.bootstrap,
            confidence=evaluation.confidence,
            seed=self.config.seed,
            name=name,
        )

    def pairs(self, identity: IntArray, name: str) -> Pairs | None:
        """Pairs of records with these people, and the bootstrap over people."""
        evaluation = self.config.evaluation
        return Pairs.draw(
            identity,
            limit=3000,
            resamples=evaluation.bootstrap,
            confidence=evaluation.confidence,
            seed=self.config.seed,
            name=name,
        )

    def ceiling(self, sample: Sample, releases: int) -> Ceiling | None:
        """Of the classes that occur; None where nobody is bound: no noise, or a known person."""
        if self.config.dataset.identity_protocol == "known_people":
            return None
        m, present = self.trained.mechanism, len(np.unique(sample.truth))
        if present < 2:
            return None
        return ceiling(m, releases=releases, n_classes=present)

    @property
    def n_checks(self) -> int:
        """Scores that are held against a ceiling; as many at most against a certificate."""
        chosen = self.config.attackers
        rounds = len(chosen.threat_models) + len(chosen.auxiliary_sizes) + 1
        attackers = len(chosen.attribute) * len(self.config.dataset.sensitive) * rounds
        return 2 * (attackers + 2 * len(self.config.dataset.task))

    def check(
        self,
        what: str,
        limit: Ceiling | None,
        sample: Sample,
        probabilities: FloatArray,
        predictions: IntArray,
    ) -> None:
        """Fail the run if a score is above its ceiling with 99.99 % confidence over all checks."""
        if limit is None:
            return
        n_checks = self.n_checks
        # Recall is averaged over the classes that occur, and the ceiling is theirs: number them anew.
        present, truth = np.unique(sample.truth, return_inverse=True)
        named = np.where(np.isin(predictions, present), np.searchsorted(present, predictions), len(present))
        recall = recall_lower_bound(named, truth, len(present), n_checks=n_checks)
        check_ceiling(f"balanced accuracy of {what}", recall, limit.balanced_accuracy)
        if limit.auc is not None:
            area = macro_auc_lower_bound(probabilities, sample.truth, n_checks=n_checks)
            check_ceiling(f"AUC of {what}", area, limit.auc)


def bench_folder(folder: RunFolder, threat_model: str, name: str) -> Path:
    """Where the finished attacks of one view on one target lie."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return folder.attacks / threat_model / safe


def fits(attack: Attack, view: View, views: Mapping[str, View]) -> bool:
    """Whether this is the view to run an attack on.

    Attacks that need the edge's weights run where they are; the others gain nothing by them, and run on
    the white box only if there is no other view to run them on.
    """
    if attack.white_box or view.white_box is None:
        return attack.white_box == (view.white_box is not None)
    return all(other.white_box is not None for other in views.values())


def full_name(entry_name: str, threat_model: str) -> str:
    """An attack's name in results: ``mlp``, or ``mlp@eavesdropper`` where it is not the curious cloud's."""
    return f"{entry_name}@{threat_model}" if threat_model in _OTHERS else entry_name


def shown_ceiling(limit: Ceiling | None, releases: int) -> Ceilings | None:
    """A ceiling as results hold it."""
    if limit is None:
        return None
    return Ceilings(releases=releases, auc=limit.auc, balanced_accuracy=limit.balanced_accuracy)


def outcome(entry: BenchEntry) -> Outcome:
    """What an attribute attacker said, ready to be scored."""
    result = finished(entry)
    if result.probabilities is None or result.predictions is None:
        raise TypeError(f"{entry.name} gave no probabilities")
    return Outcome(
        name=entry.name,
        representation=repr(entry.attack),
        probabilities=result.probabilities,
        predictions=result.predictions,
        validation=result.validation,
        selected=dict(result.selected),
        queries=result.queries,
    )


def described(entry: BenchEntry, name: str, threat_model: str) -> AttackScores:
    """A verification attacker, not yet scored."""
    result = finished(entry)
    return AttackScores(
        attack=name,
        repr=repr(entry.attack),
        threat_model=threat_model,
        validation=result.validation if np.isfinite(result.validation) else None,
        selected=dict(result.selected),
        queries=result.queries,
    )


def finished(entry: BenchEntry) -> AttackResult:
    """The result of an attack that was not refused."""
    if entry.result is None:
        raise TypeError(f"{entry.name} was refused: {entry.refusal}")
    return entry.result


def reconstructions(entry: BenchEntry) -> FloatArray:
    """The pictures a reconstruction attacker drew."""
    pictures = finished(entry).reconstructions
    if pictures is None:
        raise TypeError(f"{entry.name} gave no reconstructions")
    return pictures
