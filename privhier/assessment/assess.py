"""Attack a trained network and score it: views in, leakage, utility and reconstructions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from privhier.assessment.certificates import certificates
from privhier.assessment.context import Context, Subject, shown_ceiling
from privhier.assessment.floors import floor_views
from privhier.assessment.leakage import label_leakage, leakage, leakage_by_auxiliary
from privhier.assessment.pictures import reconstruction
from privhier.assessment.properties import property_inference
from privhier.assessment.victims import attribute_plan, build_attacks
from privhier.assessment.views import cloud_view, raw_view, smaller_views, threat_rows, threat_views
from privhier.datasets.base import FloatArray, IntArray
from privhier.evaluation.result import (
    AttributeLeakage,
    GroupScores,
    PropertyInference,
    Reconstruction,
    TaskUtility,
    ThreatModelRow,
    UtilityMean,
)
from privhier.evaluation.scores import bayes_rule, gain, mean_score, task_scores
from privhier.training.cloud import cloud_logits
from privhier.training.edge import edge_exit_logits
from privhier.training.finite import exploded, logits_text
from privhier.training.trained import Trained


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
    property_inference: dict[str, list[PropertyInference]] = field(default_factory=dict)
    label_inference: dict[str, AttributeLeakage] = field(default_factory=dict)
    threat_models: list[ThreatModelRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader must know of the tools that were used."""


def assess(subject: Subject, trained: Trained, *, raw_images: bool) -> Assessment:
    """Score the tasks, attack every sensitive attribute and the images, compare with the ceilings.

    Args:
        subject: The run.
        trained: Its network.
        raw_images: Also run the attribute and verification attackers on the raw images.

    Raises:
        GuaranteeError: A score whose 99.99 % lower bound lies above its ceiling, or above its certificate.
    """
    context, config = Context(subject, trained, notes=list(subject.victims.notes)), subject.config
    means, utility = _utility(context)
    plan = build_attacks(config)
    cloud = cloud_view(context)
    views, floors = threat_views(context, cloud), floor_views(context, cloud)
    certified = certificates(context)
    found = {
        name: leakage(context, name, plan[name], views, floors, certified.get(name))
        for name in config.dataset.sensitive
    }
    # Before anything else tallies the same attributes: who pays for the releases.
    by_group = context.groups.scores(_test_classes(context))
    smaller = smaller_views(context, cloud)
    for name in config.dataset.sensitive:
        found[name] = leakage_by_auxiliary(context, name, plan[name], smaller, found[name], cloud)
    if raw_images:
        raw = {"raw_image": raw_view(context)}
        for name in config.dataset.sensitive:
            if any(
                not attack.white_box and attack.refuses(raw["raw_image"]) is None for _, attack in plan[name]
            ):
                reference = leakage(context, name, plan[name], raw).worst
                found[name] = found[name].model_copy(update={"raw_image_attack": reference})
            else:
                context.notes.append(f"no configured attacker on {name} can read raw images")
    shares = {
        name: property_inference(context, name, plan[f"property {name}"], cloud)
        for name in config.dataset.sensitive
        if plan.get(f"property {name}")
    }
    labels: dict[str, AttributeLeakage] = {}
    if config.privacy.label_epsilon is not None and "curious_cloud_labels" in views:
        reading = views["curious_cloud_labels"]
        asked = {
            task: label_leakage(context, task, attribute_plan(config, task), reading)
            for task in config.dataset.task
        }
        labels = {task: answer for task, answer in asked.items() if answer is not None}
    pictures = reconstruction(context, plan["reconstruction"], views)
    notes = list(dict.fromkeys(context.notes))
    rows, seconds = threat_rows(context, cloud, views), context.seconds
    return Assessment(utility, means, found, pictures, by_group, seconds, shares, labels, rows, notes)


_BLOCK = 1024
"""Releases read by the edge's exits at a time."""


def _test_classes(context: Context) -> Mapping[str, tuple[IntArray, tuple[str, ...]]]:
    """Class of every test record, and the classes' names, by sensitive attribute but identity."""
    names = [name for name in context.config.dataset.sensitive if name != "identity"]
    test, labels = context.prepared.data.splits.test, context.prepared.labels
    return {name: (labels[name].values[test], tuple(labels[name].classes)) for name in names}


def _utility(context: Context) -> tuple[UtilityMean, dict[str, TaskUtility]]:
    """Each task on the test split's last release, by the cloud and by the edge's own exit."""
    data, test, trained = context.prepared.data, context.prepared.data.splits.test, context.trained
    last = trained.test_releases[:, -1]  # the file's map: of maps, a copy could be tens of gigabytes
    tail, edge = trained.tail.to(context.device), trained.edge.to(context.device)
    cloud = cloud_logits(tail, last, device=context.device)
    parts = [
        edge_exit_logits(
            edge, edge.read(torch.from_numpy(np.array(last[start : start + _BLOCK]))), device=context.device
        )
        for start in range(0, len(last), _BLOCK)
    ]
    exits = [torch.cat(task) for task in zip(*parts, strict=True)]
    training, where = context.config.training, f"releases of test records of run {context.config.name}"
    if problem := logits_text(cloud):
        raise exploded("cloud", training.cloud.lr, problem, where)
    if problem := logits_text(exits):
        raise exploded("edge", training.edge.lr, problem, where)
    utility, samples, means, exit_curves = {}, [], [], []
    for column, name in enumerate(context.config.dataset.task):
        labels = context.prepared.labels[name]
        sample = context.sample(test, labels.values, len(labels.classes), "test")
        counts = np.bincount(data.task[data.splits.train, column].numpy(), minlength=sample.n_classes)
        prior = np.maximum(counts, 1) / counts.sum()
        at_cloud, *curves = task_scores(sample, _softmax(cloud[column]), prior)
        at_edge, exit_auc, _ = task_scores(sample, _softmax(exits[column]), prior)
        limit = context.ceiling(sample, releases=1)
        context.groups.task(name, sample, bayes_rule(_softmax(cloud[column]), prior))
        for place, logits in (("cloud", cloud[column]), ("edge exit", exits[column])):
            probabilities = _softmax(logits)
            predictions = bayes_rule(probabilities, prior)
            context.check(f"task {name} at the {place}", limit, sample, probabilities, predictions)
        samples.append(sample)
        means.append(curves)
        exit_curves.append(exit_auc)
        utility[name] = TaskUtility(
            classes=list(labels.classes),
            cloud=at_cloud,
            edge_exit=at_edge,
            majority=sample.majority,
            ceiling=shown_ceiling(limit, 1),
            cloud_gain=gain(sample, curves[:1], [exit_auc]),
        )
    mean = UtilityMean(
        auc=mean_score(samples, [pair[0] for pair in means]),
        balanced_accuracy=mean_score(samples, [pair[1] for pair in means]),
        cloud_gain=gain(samples[0], [pair[0] for pair in means], exit_curves),
    )
    return mean, utility


def _softmax(logits: torch.Tensor) -> FloatArray:
    return np.asarray(torch.softmax(logits.float(), 1).numpy(), dtype=np.float32)
