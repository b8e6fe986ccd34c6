"""Attack a trained network and score it: views in, leakage, utility and reconstructions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from privhier.attacks.base import Attack
from privhier.attacks.bench import BenchEntry, run_bench
from privhier.attacks.curious_cloud import curious_cloud_view, raw_image_view
from privhier.attacks.view import View
from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import ConfigError, DataError
from privhier.evaluation.by_group import GroupTally
from privhier.evaluation.pairs import Pairs
from privhier.evaluation.pictures import image_scores
from privhier.evaluation.result import (
    AttributeLeakage,
    Ceilings,
    GroupScores,
    Reconstruction,
    TaskUtility,
    UtilityMean,
    WorstAttack,
)
from privhier.evaluation.scores import (
    Sample,
    bayes_rule,
    classification_leakage,
    mean_score,
    task_scores,
)
from privhier.lab.outcomes import described, finished, outcome, reconstructions
from privhier.lab.plan import Victims, build_attacks
from privhier.metrics.bounds import macro_auc_lower_bound, recall_lower_bound
from privhier.models.edge import EdgeSegment
from privhier.models.weights import load_weights
from privhier.privacy.ceilings import Ceiling, ceiling, check_ceiling
from privhier.training.cloud import cloud_logits
from privhier.training.edge import edge_exit_logits
from privhier.training.folder import RunFolder
from privhier.training.prepare import Prepared
from privhier.training.trained import Trained, build_model

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Assessment:
    """Everything the bench found out about one network."""

    utility: dict[str, TaskUtility]
    utility_mean: UtilityMean
    leakage: dict[str, AttributeLeakage]
    reconstruction: dict[str, Reconstruction]
    by_group: dict[str, dict[str, GroupScores]]
    seconds: dict[str, float]
    """Wall time of every attack, by ``view/target/attack``."""


def assess(
    config: RunConfig,
    prepared: Prepared,
    trained: Trained,
    folder: RunFolder,
    victims: Victims,
    *,
    device: torch.device,
    raw_images: bool,
    progress: Progress | None = None,
) -> Assessment:
    """Score the tasks, attack every sensitive attribute and the images, compare with the ceilings.

    Args:
        raw_images: Also run the attribute and verification attackers on the raw images.
        progress: Called with a description, steps done and steps in all.

    Raises:
        GuaranteeError: A score whose 99.99 % lower bound lies above its ceiling.
    """
    job = _Job(config, prepared, trained, folder, victims, device, progress)
    utility, utility_mean = job.utility()
    plan = build_attacks(config)
    view = job.cloud_view()
    leakage = {name: job.leakage(name, plan[name], view) for name in config.dataset.sensitive}
    by_group = job.groups.scores(job.test_classes())  # before the raw images: who pays for the releases
    if raw_images:
        raw = job.raw_view()
        for name, found in leakage.items():
            reference = job.leakage(name, plan[name], raw).worst
            leakage[name] = found.model_copy(update={"raw_image_attack": reference})
    pictures = job.reconstruction(plan["reconstruction"], view)
    return Assessment(utility, utility_mean, leakage, pictures, by_group, job.seconds)


@dataclass(frozen=True)
class _Job:
    config: RunConfig
    prepared: Prepared
    trained: Trained
    folder: RunFolder
    victims: Victims
    device: torch.device
    progress: Progress | None
    groups: GroupTally = field(default_factory=GroupTally)
    seconds: dict[str, float] = field(default_factory=dict)

    def test_classes(self) -> dict[str, tuple[IntArray, tuple[str, ...]]]:
        """Class of every test record, and the classes' names, by sensitive attribute but identity."""
        names = [name for name in self.config.dataset.sensitive if name != "identity"]
        test, labels = self.prepared.data.splits.test, self.prepared.labels
        return {name: (labels[name].values[test], tuple(labels[name].classes)) for name in names}

    def utility(self) -> tuple[dict[str, TaskUtility], UtilityMean]:
        """Each task on the test split's last release, by the cloud and by the edge's own exit."""
        data, test = self.prepared.data, self.prepared.data.splits.test
        last = np.array(self.trained.test_releases[:, -1])  # a copy: the file's map is read-only
        tail, edge = self.trained.tail.to(self.device), self.trained.edge.to(self.device)
        cloud = cloud_logits(tail, last, device=self.device)
        exits = edge_exit_logits(edge, torch.from_numpy(last), device=self.device)
        utility, samples, means = {}, [], []
        for column, name in enumerate(self.config.dataset.task):
            labels = self.prepared.labels[name]
            sample = self._sample(test, labels.values, len(labels.classes), "test")
            counts = np.bincount(data.task[data.splits.train, column].numpy(), minlength=sample.n_classes)
            prior = np.maximum(counts, 1) / counts.sum()
            at_cloud, *curves = task_scores(sample, _softmax(cloud[column]), prior)
            at_edge, *_ = task_scores(sample, _softmax(exits[column]), prior)
            limit = self._ceiling(sample.n_classes, releases=1)
            self.groups.task(name, sample, bayes_rule(_softmax(cloud[column]), prior))
            for place, logits in (("cloud", cloud[column]), ("edge exit", exits[column])):
                probabilities = _softmax(logits)
                predictions = bayes_rule(probabilities, prior)
                self._check(f"task {name} at the {place}", limit, sample, probabilities, predictions)
            samples.append(sample)
            means.append(curves)
            utility[name] = TaskUtility(
                classes=list(labels.classes),
                cloud=at_cloud,
                edge_exit=at_edge,
                majority=sample.majority,
                ceiling=_shown(limit, 1),
            )
        mean = UtilityMean(
            auc=mean_score(samples, [pair[0] for pair in means]),
            balanced_accuracy=mean_score(samples, [pair[1] for pair in means]),
        )
        return utility, mean

    def cloud_view(self) -> View:
        """The curious cloud's view: test victims first, training victims after them."""
        victims, prepared = self.victims, self.prepared
        releases = [self.trained.test_releases[victims.test_rows], self.trained.training_releases]
        return curious_cloud_view(
            edges=self._edge_states(),
            mechanism=self.trained.mechanism,
            victims=np.concatenate(releases),
            images=prepared.data.images,
            aux=victims.aux,
            labels=self._labels(),
            n_classes=self._n_classes(),
            groups=self._attacker_groups(),
            draws=self.config.attacks.draws,
            seed=self.config.seed,
            device=self.device,
            tail=self.trained.tail,
        )

    def raw_view(self) -> View:
        """The same victims and auxiliary records as raw images."""
        return raw_image_view(
            images=self.prepared.data.images,
            victims=np.concatenate([self.victims.test, self.victims.training]),
            aux=self.victims.aux,
            labels=self._labels(),
            n_classes=self._n_classes(),
            groups=self._attacker_groups(),
            seed=self.config.seed,
            device=self.device,
        )

    def leakage(self, name: str, plan: Sequence[tuple[str, Attack]], view: View) -> AttributeLeakage:
        """Run the attackers of one attribute and score them, worst first."""
        entries = self._run(plan, view, name)
        refused = {entry.name: entry.refusal for entry in entries if entry.refusal is not None}
        done = [entry for entry in entries if entry.result is not None]
        if not done:
            raise ConfigError(
                key="attacks",
                value=[entry.name for entry in entries],
                rule=f"no attacker applies to {name}: {refused}",
                remedy="Name at least one attacker that applies to this release",
            )
        if plan[0][1].kind == "verification":
            return self._verification(name, done, refused)
        labels = self.prepared.labels[name]
        outcomes = [outcome(entry) for entry in done]
        test = self._sample(self.victims.test, labels.values, len(labels.classes), "victims")
        training = self._sample(self.victims.training, labels.values, len(labels.classes), "training")
        worst, attacks = classification_leakage(test, training, outcomes, identity=name == "identity")
        self.groups.attack(name, test, next(o.predictions for o in outcomes if o.name == worst.attack))
        releases = self.config.schedule.releases_per_record
        limit = self._ceiling(len(labels.classes), releases) if view.threat_model != "raw_image" else None
        for said in outcomes:
            probabilities = said.probabilities[: len(test.truth)]
            predictions = said.predictions[: len(test.truth)]
            self._check(f"{said.name} on {name}", limit, test, probabilities, predictions)
        return AttributeLeakage(
            classes=list(labels.classes) if name != "identity" else [],
            worst=worst,
            attacks=attacks,
            refused=refused,
            majority=test.majority,
            ceiling=_shown(limit, releases),
        )

    def _verification(
        self, name: str, entries: Sequence[BenchEntry], refused: dict[str, str]
    ) -> AttributeLeakage:
        identity = self.prepared.labels[name].values
        n = len(self.victims.test)
        test = self._pairs(identity[self.victims.test], "victims")
        training = self._pairs(identity[self.victims.training], "training")
        if test is None:
            raise DataError(
                key="attacks.victims",
                value=n,
                rule="no person among the test victims has two images",
                remedy="Raise attacks.victims or dataset.min_images_per_identity",
            )
        attacks, curves, trained = [], {}, {}
        for entry in entries:
            embeddings = finished(entry).embeddings
            if embeddings is None:
                raise TypeError(f"{entry.name} gave no embeddings")
            curves[entry.name] = test.curve(embeddings[:n])
            scores = {}
            if training is not None:
                trained[entry.name] = training.curve(embeddings[n:])
                scores["verification_auc"] = training.score(trained[entry.name])
            attacks.append(described(entry, test.score(curves[entry.name]), scores))
        attacks.sort(key=lambda attack: -curves[attack.attack].value)
        best = attacks[0]
        worst = WorstAttack(
            attack=best.attack,
            verification_auc=test.worst(list(curves.values())),
            training_records=(
                {"verification_auc": training.worst(list(trained.values()))} if training is not None else {}
            ),
        )
        return AttributeLeakage(classes=[], worst=worst, attacks=attacks, refused=refused, majority=0.5)

    def reconstruction(self, plan: Sequence[tuple[str, Attack]], view: View) -> dict[str, Reconstruction]:
        """Reconstruct the first test victims; SSIM and PSNR against the originals."""
        if not plan:
            return {}
        view = _first(view, min(self.config.attacks.reconstruction_victims, len(self.victims.test)))
        originals = self.prepared.data.images[self.victims.test[: len(view.releases)]]
        groups = self.prepared.dataset.group[self.victims.test[: len(view.releases)]]
        entries = self._run(plan, view, "reconstruction")
        evaluation = self.config.evaluation
        mean_image = view.aux.images.mean(axis=0) / 255
        return {
            entry.name: image_scores(
                originals,
                reconstructions(entry),
                mean_image.astype(np.float32),
                groups,
                resamples=evaluation.bootstrap,
                confidence=evaluation.confidence,
                seed=self.config.seed,
            )
            for entry in entries
            if entry.result is not None
        }

    def _edge_states(self) -> list[EdgeSegment]:
        """The edge as it was at every release of a record, in order."""
        schedule, states = self.config.schedule, []
        for epoch in range(schedule.joint_epochs):
            edge, _ = build_model(self.config, self.prepared.data, pretrained=False)
            load_weights(edge, self.folder.snapshot(epoch))
            states.append(edge.eval().to(self.device))
        return states + ([self.trained.edge.to(self.device)] if schedule.cloud_epochs else [])

    def _run(self, plan: Sequence[tuple[str, Attack]], view: View, name: str) -> list[BenchEntry]:
        entries = run_bench(plan, view, self._bench_folder(view, name), progress=self.progress)
        for entry in entries:
            if entry.result is not None:
                self.seconds[f"{view.threat_model}/{name}/{entry.name}"] = entry.result.seconds
        return entries

    def _bench_folder(self, view: View, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        return self.folder.attacks / view.threat_model / safe

    def _labels(self) -> dict[str, IntArray]:
        labels = {name: self.prepared.labels[name].values for name in self.config.dataset.sensitive}
        identity = self.prepared.dataset.identity
        # The attribute's own codes, not the data set's numbers, wherever identity is attacked.
        return ({"identity": identity} if identity is not None else {}) | labels

    def _n_classes(self) -> dict[str, int]:
        return {name: int(values.max()) + 1 for name, values in self._labels().items()}

    def _attacker_groups(self) -> IntArray:
        dataset = self.prepared.dataset
        known = self.config.dataset.identity_protocol == "known_people"
        return dataset.duplicate_group if known else dataset.group

    def _sample(self, records: IntArray, values: IntArray, n_classes: int, name: str) -> Sample:
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

    def _pairs(self, identity: IntArray, name: str) -> Pairs | None:
        evaluation = self.config.evaluation
        return Pairs.draw(
            identity,
            limit=3000,
            resamples=evaluation.bootstrap,
            confidence=evaluation.confidence,
            seed=self.config.seed,
            name=name,
        )

    def _check(
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
        attackers = len(self.config.attacks.attribute) * len(self.config.dataset.sensitive)
        n_checks = 2 * (attackers + 2 * len(self.config.dataset.task))
        recall = recall_lower_bound(predictions, sample.truth, sample.n_classes, n_checks=n_checks)
        check_ceiling(f"balanced accuracy of {what}", recall, limit.balanced_accuracy)
        if limit.auc is not None:
            area = macro_auc_lower_bound(probabilities, sample.truth, n_checks=n_checks)
            check_ceiling(f"AUC of {what}", area, limit.auc)

    def _ceiling(self, n_classes: int, releases: int) -> Ceiling | None:
        """None where DESIGN 6.9 binds nobody: no noise, or an attacker who knows the person."""
        if self.config.dataset.identity_protocol == "known_people":
            return None
        m = self.trained.mechanism
        return ceiling(m.mechanism, sigma=m.sigma, clip=m.clip, releases=releases, n_classes=n_classes)


def _first(view: View, n: int) -> View:
    return replace(view, releases=view.releases[:n])


def _softmax(logits: torch.Tensor) -> FloatArray:
    return np.asarray(torch.softmax(logits.float(), 1).numpy(), dtype=np.float32)


def _shown(limit: Ceiling | None, releases: int) -> Ceilings | None:
    if limit is None:
        return None
    return Ceilings(releases=releases, auc=limit.auc, balanced_accuracy=limit.balanced_accuracy)
