"""The views of a run: one for each threat model, and the same attackers' view of the raw images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from privhier.assessment.context import Context
from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view, raw_image_view
from privhier.attacks.threat_models import (
    THREAT_MODELS,
    eavesdropper,
    fewer,
    malicious_cloud,
    white_box,
    with_task_labels,
)
from privhier.attacks.view import View
from privhier.datasets.base import IntArray
from privhier.evaluation.result import ThreatModelRow
from privhier.models.edge import EdgeSegment
from privhier.models.weights import load_weights
from privhier.privacy.labels import randomize
from privhier.privacy.noise import SeededNoise
from privhier.training.trained import build_model


def cloud_view(context: Context) -> View:
    """The curious cloud's view: test victims first, training victims after them."""
    victims, trained = context.victims, context.trained
    releases = [trained.test_releases[victims.test_rows], trained.training_releases]
    return curious_cloud_view(
        edges=edge_states(context),
        mechanism=trained.mechanism,
        victims=np.concatenate(releases),
        source=_source(context),
        draws=context.config.attacks.draws,
        seed=context.config.seed,
        device=context.device,
        tail=trained.tail,
    )


def threat_views(context: Context, cloud: View) -> dict[str, View]:
    """The configured threat models' views, all made from the curious cloud's.

    Left out is what would repeat another's numbers: an eavesdropper where every record is released
    once, a malicious cloud, which knows and can do what the curious one can.
    """
    made: dict[str, View] = {}
    wanted = context.config.attackers.threat_models
    for name in wanted:
        if name == "curious_cloud":
            made[name] = cloud
        elif name == "eavesdropper" and (cloud.releases.shape[1] > 1 or "curious_cloud" not in wanted):
            made[name] = eavesdropper(cloud)
        elif name == "curious_cloud_labels":
            made[name] = labelled_view(context, cloud)
        elif name == "white_box":
            made[name] = white_box_view(context, cloud)
        elif name == "malicious_cloud" and "curious_cloud" not in wanted:
            made[name] = malicious_cloud(cloud)
    return made


def threat_rows(context: Context, cloud: View, views: Mapping[str, View]) -> list[ThreatModelRow]:
    """What every configured threat model holds, those that were not run included."""
    rows = []
    for name in dict.fromkeys(context.config.attackers.threat_models):
        view = views.get(name, cloud)
        rows.append(
            ThreatModelRow(
                name=name,
                holds=THREAT_MODELS[name],
                releases=view.releases.shape[1],
                auxiliary=len(view.aux.images),
                draws=view.aux.draws,
                same_as=None if name in views else "curious_cloud",
            )
        )
    return rows


def labelled_view(context: Context, cloud: View) -> View:
    """The curious cloud with task labels: as sent with training records, made alike for test records."""
    victims, data = context.victims, context.prepared.data
    sent = data.task.numpy()
    if context.config.privacy.label_epsilon is not None:
        sent = context.folder.sealed.read_array(context.folder.labels)
    rows = np.concatenate(
        [_answers(context, victims.test, "test"), np.asarray(sent[victims.training], dtype=np.int64)]
    )
    return with_task_labels(
        cloud,
        victims=rows,
        auxiliary=_answers(context, victims.aux, "aux"),
        classes=tuple(data.task_classes.values()),
    )


def white_box_view(context: Context, cloud: View) -> View:
    """The curious cloud's view with the edge's weights at every release."""
    return white_box(cloud, edges=edge_states(context), mechanism=context.trained.mechanism)


def smaller_views(context: Context, cloud: View) -> list[View]:
    """The curious cloud with smaller auxiliary sets, smallest first; whole groups, each in the next."""
    groups = cloud.aux.groups
    order = np.random.default_rng(context.config.seed).permutation(np.unique(groups))
    rank = np.empty(int(groups.max()) + 1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    rows = np.argsort(rank[groups], kind="stable")
    views = []
    for size in sorted(set(context.config.attacks.auxiliary_sizes)):
        if size < len(rows):
            last = groups[rows[size - 1]]
            kept = np.sort(np.concatenate([rows[:size], rows[size:][groups[rows[size:]] == last]]))
            views.append(replace(fewer(cloud, kept), threat_model=f"curious_cloud_aux{size}"))
    return views


def raw_view(context: Context) -> View:
    """The same victims and auxiliary records as raw images."""
    return raw_image_view(
        victims=np.concatenate([context.victims.test, context.victims.training]),
        source=_source(context),
        seed=context.config.seed,
        device=context.device,
    )


def edge_states(context: Context) -> list[EdgeSegment]:
    """The edge as it was at every release of a record, in order."""
    schedule, states = context.config.schedule, []
    for epoch in range(schedule.joint_epochs):
        edge, _ = build_model(context.config, context.prepared.data, pretrained=False)
        load_weights(edge, context.folder.sealed.checked(context.folder.snapshot(epoch)))
        states.append(edge.eval().to(context.device))
    return states + ([context.trained.edge.to(context.device)] if schedule.cloud_epochs else [])


def _answers(context: Context, records: IntArray, name: str) -> IntArray:
    """Task labels of records that never sent any, as the run would have sent them."""
    data, epsilon = context.prepared.data, context.config.privacy.label_epsilon
    labels = data.task[records]
    if epsilon is None:
        return np.asarray(labels.numpy(), dtype=np.int64)
    columns = []
    for task, classes in enumerate(data.task_classes.values()):
        noise = SeededNoise(context.config.seed, "attacker", "labels", name, task)
        columns.append(randomize(labels[:, task], epsilon / len(data.task_classes), classes, noise).numpy())
    return np.stack(columns, axis=1).astype(np.int64)


def _labels(context: Context) -> dict[str, IntArray]:
    prepared, dataset = context.prepared, context.config.dataset
    labels = {name: prepared.labels[name].values for name in (*dataset.task, *dataset.sensitive)}
    identity = prepared.dataset.identity
    # The attribute's own codes, not the data set's numbers, wherever identity is attacked.
    return ({"identity": identity} if identity is not None else {}) | labels


def _source(context: Context) -> AuxiliarySource:
    dataset, labels = context.prepared.dataset, _labels(context)
    known = context.config.dataset.identity_protocol == "known_people"
    return AuxiliarySource(
        images=context.prepared.data.images,
        rows=context.victims.aux,
        labels=labels,
        n_classes={name: int(values.max()) + 1 for name, values in labels.items()},
        groups=dataset.duplicate_group if known else dataset.group,
    )
