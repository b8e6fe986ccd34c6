"""Property inference: the make-up of sets of training records, estimated from their releases alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from privhier.assessment.context import Context, finished
from privhier.attacks.base import Attack
from privhier.attacks.view import View
from privhier.datasets.base import IntArray
from privhier.evaluation.result import PopulationShares, PropertyInference
from privhier.evaluation.scores import as_score
from privhier.metrics.intervals import group_bootstrap_weights, percentile_interval
from privhier.seeding import numpy_stream


def property_inference(
    context: Context, name: str, plan: Sequence[tuple[str, Attack]], cloud: View
) -> list[PropertyInference]:
    """Every estimator on the training victims' releases: all of them, and sets of other make-up.

    Args:
        context: The run.
        name: The sensitive attribute.
        plan: Attacks of kind ``property`` on it.
        cloud: The curious cloud's view; test victims first.
    """
    labels, n = context.prepared.labels[name], len(context.victims.test)
    values, classes = labels.values[context.victims.training], len(labels.classes)
    rng = numpy_stream(context.config.seed, "populations", name)
    sets = populations(values, classes, rng)
    view = replace(cloud, releases=cloud.releases[n:], populations=tuple(sets))
    truth = np.stack([np.bincount(values[rows], minlength=classes) / len(rows) for rows in sets])
    known = np.bincount(cloud.aux.labels[name], minlength=classes) / len(cloud.aux.images)
    weights = group_bootstrap_weights(
        np.arange(len(sets)), context.config.evaluation.bootstrap, numpy_stream(context.config.seed, "sets")
    )
    rows = []
    for entry in context.run(plan, view, f"property-{name}"):
        if entry.result is None:
            continue
        result = finished(entry)
        if result.shares is None:
            raise TypeError(f"{entry.name} gave no shares")
        errors = np.abs(result.shares - truth).mean(axis=1)
        resampled = (weights * errors).sum(axis=1) / weights.sum(axis=1)
        interval = percentile_interval(float(errors.mean()), resampled, context.config.evaluation.confidence)
        rows.append(
            PropertyInference(
                attack=entry.name,
                repr=repr(entry.attack),
                classes=list(labels.classes),
                error=as_score(interval, len(sets)),
                auxiliary_error=float(np.abs(known - truth).mean()),
                populations=[
                    PopulationShares(n=len(chosen), truth=real.tolist(), estimate=guess.tolist())
                    for chosen, real, guess in zip(sets, truth, result.shares, strict=True)
                ],
                selected=dict(result.selected),
            )
        )
    return rows


def populations(
    labels: IntArray, n_classes: int, rng: np.random.Generator, *, count: int = 9, most: int = 1000
) -> list[IntArray]:
    """Sets of rows with known, different make-up; the first is everybody.

    Two classes: shares of class 1 evenly spaced from 0.1 to 0.9. More: shares drawn uniformly.

    Args:
        labels: int64 ``(n,)``.
        n_classes: K.
        rng: Stream of the draws.
        count: Sets beside everybody.
        most: Rows of a set at most; fewer where a class has too few.
    """
    rows_of = [np.flatnonzero(labels == k) for k in range(n_classes)]
    sets = [np.arange(len(labels))]
    for number in range(count):
        if n_classes == 2:
            share = 0.1 + 0.8 * number / max(1, count - 1)
            shares = np.array([1 - share, share])
        else:
            shares = rng.dirichlet(np.ones(n_classes))
        shares *= [len(rows) > 0 for rows in rows_of]
        if shares.sum() == 0:
            continue
        shares /= shares.sum()
        room = [len(rows) / share for rows, share in zip(rows_of, shares, strict=True) if share > 0.02]
        size = int(min(most, *room))
        taken = [
            rng.choice(rows, min(len(rows), round(size * share)), replace=False)
            for rows, share in zip(rows_of, shares, strict=True)
        ]
        chosen = np.sort(np.concatenate(taken)).astype(np.int64)
        if len(chosen):
            sets.append(chosen)
    return sets
