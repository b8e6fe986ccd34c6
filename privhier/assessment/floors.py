"""Floors of a run: what the victims' true task labels alone, and the cloud's own answers, say of a secret."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from privhier.assessment.context import Context, finished, outcome
from privhier.attacks.bench import BenchEntry
from privhier.attacks.floors import ANSWERS, LABELS, answers_view, floor_attacks, labels_view
from privhier.attacks.refusals import Kind
from privhier.attacks.view import View
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import GuaranteeError
from privhier.evaluation.leakage_parts import LabelCounts
from privhier.evaluation.scores import Outcome
from privhier.metrics.label_space import LARGEST, label_cells
from privhier.training.cloud import cloud_logits

MOST_COUNTS = 4096
"""Cells of task labels times classes of the secret up to which their counts are kept."""
_SAME = 1e-4
"""Answers on equal labels may differ by rounding, not by more."""


def floor_views(context: Context, cloud: View) -> dict[str, View]:
    """The two views without releases: of the true task labels, and of the cloud's answers.

    Args:
        context: The run.
        cloud: The curious cloud's view: test victims first, training victims after them.
    """
    task, classes = context.prepared.data.task.numpy(), _classes(context)
    victims = context.victims
    everyone = np.concatenate([victims.test, victims.training])

    def auxiliary(draw: int) -> FloatArray:
        return _answers(context, cloud, cloud.aux.releases(draw)[:, -1])

    return {
        LABELS: labels_view(cloud, victims=task[everyone], auxiliary=task[victims.aux], classes=classes),
        ANSWERS: answers_view(
            cloud, victims=_answers(context, cloud, cloud.releases[:, -1]), auxiliary=auxiliary
        ),
    }


def victim_cells(context: Context) -> IntArray:
    """``(n,)`` a number for the true task labels of every victim, test victims first; equal ones share it."""
    everyone = np.concatenate([context.victims.test, context.victims.training])
    _, cells = np.unique(context.prepared.data.task.numpy()[everyone], axis=0, return_inverse=True)
    return np.asarray(cells.reshape(-1), dtype=np.int64)


def floor_outcomes(context: Context, name: str, view: View) -> list[Outcome]:
    """What the attackers of one floor say of attribute ``name``; none where nothing can be learned.

    Raises:
        GuaranteeError: An attacker that was given labels only answers victims of equal labels differently.
    """
    said = [outcome(entry) for entry in _entries(context, "attribute", name, view)]
    if view.threat_model != LABELS:
        return said
    first = _first_of_cell(victim_cells(context))
    return [
        replace(
            one,
            probabilities=_told_by_labels(one.name, one.probabilities, first),
            predictions=one.predictions[first],
        )
        for one in said
    ]


def floor_embeddings(context: Context, name: str, view: View) -> dict[str, FloatArray]:
    """The same for verification: attacker to embeddings ``(n, E)``.

    Raises:
        GuaranteeError: As ``floor_outcomes``.
    """
    found: dict[str, FloatArray] = {}
    for entry in _entries(context, "verification", name, view):
        embeddings = finished(entry).embeddings
        if embeddings is None:
            raise TypeError(f"{entry.name} gave no embeddings")
        if view.threat_model == LABELS:
            embeddings = _told_by_labels(entry.name, embeddings, _first_of_cell(victim_cells(context)))
        found[entry.name] = embeddings
    return found


def label_counts(context: Context, name: str) -> LabelCounts | None:
    """How many test victims have each cell of task labels and each class; None where that is many numbers."""
    sizes, labels = _classes(context), context.prepared.labels[name]
    cells, classes = math.prod(sizes), len(labels.classes)
    if name == "identity" or cells > LARGEST or cells * classes > MOST_COUNTS:
        return None
    test = context.victims.test
    flat = (
        label_cells(list(context.prepared.data.task.numpy()[test].T), sizes) * classes + labels.values[test]
    )
    counts = np.bincount(flat, minlength=cells * classes).reshape(cells, classes)
    return LabelCounts(tasks=list(context.config.dataset.task), sizes=list(sizes), counts=counts.tolist())


def _entries(context: Context, kind: Kind, name: str, view: View) -> list[BenchEntry]:
    entries = context.run(floor_attacks(kind, name), view, name)
    return [entry for entry in entries if entry.result is not None]


def _classes(context: Context) -> tuple[int, ...]:
    return tuple(context.prepared.data.task_classes.values())


def _first_of_cell(cells: IntArray) -> IntArray:
    """``(n,)`` the first row with the same labels."""
    _, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _told_by_labels(attack: str, answers: FloatArray, first: IntArray) -> FloatArray:
    """``answers (n, q)``, those on equal labels made equal to the last bit; refused where they are not equal.

    A classifier's arithmetic may depend on a row's place among others: the last bits would then order victims
    of equal labels, and an AUC counts every order. More than that is knowledge no labels give.
    """
    told = answers[first]
    apart = float(np.abs(answers - told).max(initial=0.0))
    if not apart <= _SAME * max(1.0, float(np.abs(told).max(initial=0.0))):
        raise GuaranteeError(
            key="floor",
            value=attack,
            rule=f"was given task labels only, yet its answers on equal labels differ by {apart:.2g}",
            remedy="Mend the attack or the view: a floor must not see releases",
        )
    return told


def _answers(context: Context, cloud: View, last: FloatArray) -> FloatArray:
    """The tail's probabilities and (one-hot) predicted classes of every task: float32 ``(n, 2 * sum K)``."""
    if cloud.alphabet is not None:  # attackers see letters one-hot, the tail as numbers
        last = cloud.alphabet.letters_of(last).astype(np.float32)
    tail = context.trained.tail.to(context.device)
    columns = []
    for logits in cloud_logits(tail, np.array(last), device=context.device):
        probabilities = logits.softmax(1)
        columns += [probabilities, probabilities == probabilities.amax(1, keepdim=True)]
    return np.concatenate([column.numpy().astype(np.float32) for column in columns], axis=1)
