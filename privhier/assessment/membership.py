"""Membership inference against a finished run: its training records told from others.

The attacker's shadow models go through the run's own trainer, on records the attacker holds, in a folder
that is thrown away: nothing of them is logged or charged to the run's ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from privhier.assessment.context import Subject
from privhier.assessment.shadow_training import ShadowTrainer, network_parts
from privhier.assessment.victims import choose_victims
from privhier.attacks.membership.base import MembershipAttack, MembershipResult
from privhier.attacks.membership.build import build_membership_attacks
from privhier.attacks.membership.shadows import training_rows
from privhier.attacks.membership.view import MembershipView, Population, Workshop
from privhier.attacks.view import frozen
from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.errors import ConfigError
from privhier.evaluation.result import Membership, MembershipScores
from privhier.evaluation.scores import Curve, Sample, defined
from privhier.metrics.classification import auc, auc_resampled
from privhier.metrics.roc import roc_points, tpr_at_fpr, tpr_at_fpr_resampled
from privhier.process.cores import usable_cores
from privhier.seeding import numpy_stream
from privhier.training.prepare import Prepared
from privhier.training.trained import Trained

_MOST_WORKERS = 8
"""Each holds libraries and activations of its own: about half a gigabyte for a small network."""


@dataclass(frozen=True)
class Candidates:
    """Records whose membership is asked for, in an order that tells nothing.

    Attributes:
        records: Rows of the data set.
        member: bool, whether the run was trained on each; for the scorer alone.
        population: Rows of the auxiliary records.
    """

    records: IntArray
    member: npt.NDArray[np.bool_]
    population: IntArray


def membership_scores(subject: Subject, trained: Trained, *, workers: int | None = None) -> Membership | None:
    """Run the membership attacks that ``config.attacks.membership`` names; None where it names none.

    Finished shadow models are kept in the run folder and used again after a kill.

    Args:
        subject: The run.
        trained: Its network.
        workers: Shadow models trained at the same time; None: as many as the CPU has room for with
            ``runtime.threads`` threads each, and one on a GPU. No score depends on it.

    Raises:
        ConfigError: An unknown attack or option, no attack that applies, or shadow models too small for
            the run's own training (DP-SGD needs more records than a batch).
    """
    config, prepared = subject.config, subject.prepared
    attacks = build_membership_attacks(config.attacks.membership)
    if not attacks:
        return None
    candidates = choose_candidates(config, prepared)
    view = _view_of(subject, trained, candidates, workers)
    refused = _refused(attacks, view)
    if len(refused) == len(attacks):
        raise ConfigError(
            key="attacks.membership",
            value=[name for name, _ in attacks],
            rule=f"no membership attack applies: {refused}",
            remedy="Name one that applies, or give the aux split a larger share",
        )
    sample = _sample(config, prepared, candidates)
    parts: dict[str, dict[str, MembershipScores]] = {name: {} for name in view.target}
    applied = [(name, attack) for name, attack in attacks if name not in refused]
    seconds = {}
    for name, attack in applied:
        result = attack.run(view)
        seconds[name] = result.seconds
        for part in parts:
            parts[part][name] = _scored(sample, result, part, repr(attack), attack.shadows)
    return Membership(
        parts=parts,
        refused=refused,
        n_members=int(candidates.member.sum()),
        n_nonmembers=int((~candidates.member).sum()),
        shadows=max(attack.shadows for _, attack in applied),
        shadow_records=len(training_rows(view, 0)),
        seconds=seconds,
    )


def refused_membership(subject: Subject, trained: Trained) -> dict[str, str]:
    """Which of the membership attacks that the configuration names do not apply, and why."""
    attacks = build_membership_attacks(subject.config.attacks.membership)
    candidates = choose_candidates(subject.config, subject.prepared)
    return _refused(attacks, _view_of(subject, trained, candidates, 1))


def _view_of(
    subject: Subject, trained: Trained, candidates: Candidates, workers: int | None
) -> MembershipView:
    config, device = subject.config, subject.device
    if workers is None:
        room = usable_cores() // int(config.runtime.threads)
        workers = 1 if device.type != "cpu" else max(1, min(_MOST_WORKERS, room))
    workshop = Workshop(subject.folder.attacks / "membership", workers, subject.progress)
    return membership_view(config, subject.prepared, trained, candidates, device=device, workshop=workshop)


def _refused(attacks: Sequence[tuple[str, MembershipAttack]], view: MembershipView) -> dict[str, str]:
    return {name: reason for name, attack in attacks if (reason := attack.refuses(view)) is not None}


def choose_candidates(config: RunConfig, prepared: Prepared) -> Candidates:
    """Half training records, half records never trained on (test records); whole groups on either side.

    The splits share no group (under ``known_people``: no photo), so neither do the two halves. The
    larger half is cut down to the smaller.
    """
    victims, splits = choose_victims(config, prepared), prepared.data.splits
    known = config.dataset.identity_protocol == "known_people"
    groups = prepared.dataset.duplicate_group if known else prepared.dataset.group
    most = min(config.attacks.membership_candidates // 2, len(splits.train), len(splits.test))
    halves = [
        _groups_within(records, groups[records], most, numpy_stream(config.seed, "candidates", name))
        for name, records in (("members", splits.train), ("others", splits.test))
    ]
    records = np.concatenate(halves)
    member = np.repeat([True, False], [len(half) for half in halves])
    order = numpy_stream(config.seed, "candidates", "order").permutation(len(records))
    return Candidates(records[order], member[order], victims.aux)


def membership_view(
    config: RunConfig,
    prepared: Prepared,
    trained: Trained,
    candidates: Candidates,
    *,
    device: torch.device,
    workshop: Workshop,
) -> MembershipView:
    """The attacker's view of a finished run; ``candidates.member`` stays out of it.

    Labels handed on are the data set's own: the edge knows the identities of training people only, so
    its label table would give members away.
    """
    data, records, population = prepared.data, candidates.records, candidates.population
    pool = np.concatenate([records, population])
    sensitive = np.stack([prepared.labels[name].values for name in config.dataset.sensitive], axis=1)
    images, task = np.asarray(data.images[pool]), data.task.numpy()[pool]
    train = ShadowTrainer(
        config=config,
        images=images,
        task=task,
        sensitive=sensitive[pool],
        task_classes=dict(data.task_classes),
        sensitive_classes={name: len(prepared.labels[name].classes) for name in config.dataset.sensitive},
        mechanism=trained.mechanism,
        device=str(device),
        persons=None if data.persons is None else data.persons_of(pool).numpy(),
    )
    n = len(records)
    edge, tail = trained.edge.to(device), trained.tail.to(device)
    return MembershipView(
        images=frozen(images[:n]),
        labels=frozen(task[:n]),
        groups=frozen(np.unique(prepared.dataset.group[records], return_inverse=True)[1].astype(np.int64)),
        population=Population(frozen(images[n:]), frozen(task[n:])),
        target=network_parts(edge, tail, trained.mechanism, seed=config.seed, device=str(device)),
        train=train,
        records=len(data.splits.train),
        seed=config.seed,
        pipeline=_pipeline(config, trained),
        workshop=workshop,
    )


def _pipeline(config: RunConfig, trained: Trained) -> str:
    """Everything that shapes a shadow model beside its records; attacks and intervals do not."""
    shaping = config.model_dump(mode="json", exclude={"attacks", "evaluation", "report", "tracking", "name"})
    shaping["dataset"].pop("root")
    shaping["dataset"].pop("cache")
    return f"{shaping}/{trained.mechanism}"


def _groups_within(records: IntArray, groups: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """At most ``most`` records, groups kept whole, at least one group; sorted."""
    unique, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(unique))
    fitting = max(1, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    return records[np.isin(inverse, order[:fitting])]


def _sample(config: RunConfig, prepared: Prepared, candidates: Candidates) -> Sample:
    evaluation = config.evaluation
    return Sample.draw(
        candidates.member.astype(np.int64),
        2,
        prepared.dataset.group[candidates.records],
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=config.seed,
        name="membership",
    )


def _scored(
    sample: Sample, result: MembershipResult, part: str, representation: str, shadows: int
) -> MembershipScores:
    scores, member = result.scores[part], sample.truth
    area = Curve(auc(scores, member), auc_resampled(scores, member, sample.weights))
    low, percent = (
        Curve(tpr_at_fpr(scores, member, fpr), tpr_at_fpr_resampled(scores, member, fpr, sample.weights))
        for fpr in (0.001, 0.01)
    )
    return MembershipScores(
        repr=representation,
        auc=defined(area.score(sample)),
        tpr_at_fpr_001=low.score(sample),
        tpr_at_fpr_01=percent.score(sample),
        roc=roc_points(scores, member),
        shadows=shadows,
        selected=dict(result.selected),
        queries=result.queries,
    )
