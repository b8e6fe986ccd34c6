"""Threat models beside the curious cloud's, each made from its view by adding or taking away knowledge.

All own the same labelled images (``attacks.auxiliary``, or the auxiliary split where that is smaller) and
so many fresh releases of each (``attacks.draws``); who holds the edge's weights makes as many as it likes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from privhier.attacks.view import AuxiliarySet, FloatArray, IntArray, View, WhiteBox, frozen
from privhier.models.edge import EdgeSegment
from privhier.privacy.release import ReleaseMechanism

THREAT_MODELS = {
    "curious_cloud": "all releases of a record, the cloud tail; no label of the victims",
    "curious_cloud_labels": "the same, and the victims' task labels as training messages carry them",
    "eavesdropper": "one release of a record (the last), no label, no tail",
    "white_box": "the curious cloud, and the edge's weights: gradients, fresh noise at will",
    "malicious_cloud": "the curious cloud, answering what it likes: the uplink carries nothing down, so it "
    "knows and can do what the curious cloud can",
}
"""Name to what the attacker holds beside the auxiliary set."""


def eavesdropper(view: View) -> View:
    """One release each, the last; no labels, no tail."""
    aux = view.aux

    def last(draw: int) -> FloatArray:
        return aux.releases(draw)[:, -1:]

    return replace(
        view,
        threat_model="eavesdropper",
        releases=view.releases[:, -1:],
        aux=replace(aux, releases=last),
        tail=None,
    )


def malicious_cloud(view: View) -> View:
    """The curious cloud's knowledge: no message goes down, so dishonest answers reach nobody."""
    return replace(view, threat_model="malicious_cloud")


def with_task_labels(view: View, *, victims: IntArray, auxiliary: IntArray, classes: Sequence[int]) -> View:
    """The curious cloud, reading the victims' task labels too.

    Args:
        view: The curious cloud's.
        victims: int64 ``(n, tasks)`` as sent (randomized where the run randomizes them).
        auxiliary: int64 ``(n_aux, tasks)``, made in the same way from the attacker's own labels.
        classes: Number of classes of every task.
    """
    if len(victims) != len(view.releases) or len(auxiliary) != len(view.aux.images):
        raise ValueError("one row of task labels for each victim and each auxiliary record")
    aux: AuxiliarySet = replace(view.aux, task_labels=frozen(np.asarray(auxiliary, dtype=np.int64)))
    return replace(
        view,
        threat_model="curious_cloud_labels",
        aux=aux,
        task_labels=frozen(np.asarray(victims, dtype=np.int64)),
        task_classes=tuple(classes),
    )


def white_box(view: View, *, edges: Sequence[EdgeSegment], mechanism: ReleaseMechanism) -> View:
    """The curious cloud, holding copies of the edge's weights at each of the T releases."""
    frozen = []
    for edge in edges:
        own = copy.deepcopy(edge).eval().to(view.device)
        for parameter in own.parameters():
            parameter.requires_grad_(False)
        frozen.append(own)
    if len(frozen) != view.releases.shape[1]:
        raise ValueError(f"{len(frozen)} edge states for {view.releases.shape[1]} releases")
    return replace(view, threat_model="white_box", white_box=WhiteBox(tuple(frozen), mechanism))


def fewer(view: View, rows: IntArray) -> View:
    """The same threat model with a smaller auxiliary set: only its records ``rows``."""
    aux = view.aux

    def releases(draw: int) -> FloatArray:
        return aux.releases(draw)[rows]

    return replace(
        view,
        aux=replace(
            aux,
            images=aux.images[rows],
            labels={name: labels[rows] for name, labels in aux.labels.items()},
            groups=aux.groups[rows],
            releases=releases,
            task_labels=None if aux.task_labels is None else aux.task_labels[rows],
        ),
    )
