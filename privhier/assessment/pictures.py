"""Reconstruction attacks of every threat model, scored against the originals, with their pictures kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from privhier.assessment.context import Context, Subject, bench_folder, fits, full_name, reconstructions
from privhier.assessment.lpips_weights import alexnet_state
from privhier.assessment.reidentify import Lineup, draw_lineup
from privhier.assessment.victims import build_attacks
from privhier.attacks.base import Attack
from privhier.attacks.bench import BenchEntry, stored_result
from privhier.attacks.embedders.build import build_embedder
from privhier.attacks.view import View
from privhier.config import RunConfig
from privhier.datasets.base import FloatArray
from privhier.evaluation.pictures import image_scores
from privhier.evaluation.result import Reconstruction
from privhier.evaluation.sheets import ReconstructionSheet
from privhier.training.folder import RunFolder

TARGET = "pictures"


def reconstruction(
    context: Context, plan: Sequence[tuple[str, Attack]], views: Mapping[str, View]
) -> dict[str, Reconstruction]:
    """Reconstruct test victims, drawn at random, under every threat model.

    Attacks that optimize for every victim get ``attacks.optimization_victims`` of them, the others
    ``attacks.reconstruction_victims``; every score says on how many it stands.
    """
    scores: dict[str, Reconstruction] = {}
    lineups: dict[int, Lineup | None] = {}
    for view in views.values():
        if view.task_labels is not None:  # no attack on pictures uses them
            continue
        for name, attack in plan:
            if fits(attack, view, views):
                pictured = context.victims.pictured[: victims_of(context, attack)]
                part = replace(view, releases=view.releases[pictured])
                for entry in context.run([(name, attack)], part, TARGET):
                    if entry.refusal is not None:
                        context.notes.append(
                            f"{name} drew no pictures ({view.threat_model}): {entry.refusal}"
                        )
                    if entry.result is not None:
                        n = len(part.releases)
                        if n not in lineups:
                            lineups[n] = _lineup(context, n)
                        scores[full_name(name, view.threat_model)] = _scored(context, entry, part, lineups[n])
    return scores


def victims_of(context: Context, attack: Attack) -> int:
    """How many test victims a reconstruction attack is given."""
    chosen = context.config.attacks
    limit = chosen.optimization_victims if attack.expensive else chosen.reconstruction_victims
    return min(limit, len(context.victims.test))


def _lineup(context: Context, n: int) -> Lineup | None:
    """Among whom the first ``n`` pictured victims are looked for; None without people or an embedder."""
    chosen, evaluation = context.config.attacks.embedders, context.config.evaluation
    dataset = context.prepared.dataset
    if not chosen or dataset.identity is None:
        return None
    embedder = build_embedder(chosen[0])
    lineup = draw_lineup(
        dataset,
        context.victims.test[context.victims.pictured[:n]],
        context.prepared.data.splits.test,
        embedder,
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=context.config.seed,
    )
    context.notes.extend(f"{chosen[0].name}: {note}" for note in embedder.notes)
    return lineup


def _scored(context: Context, entry: BenchEntry, view: View, lineup: Lineup | None) -> Reconstruction:
    rows = context.victims.test[context.victims.pictured[: len(view.releases)]]
    evaluation = context.config.evaluation
    mean_image = view.aux.images.mean(axis=0) / 255
    guesses = reconstructions(entry)
    return image_scores(
        context.prepared.data.images[rows],
        guesses,
        mean_image.astype(np.float32),
        context.prepared.dataset.group[rows],
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=context.config.seed,
        reidentification=None if lineup is None else lineup.score(guesses),
        alexnet_weights=alexnet_state(evaluation.lpips_weights),
    )


Drawn = tuple[FloatArray, FloatArray]
"""Reconstructions ``(n, 3, H, W)`` and the attacker's own loss ``(n,)``."""


def reconstruction_sheets(subject: Subject, reference: RunFolder | None) -> list[ReconstructionSheet]:
    """One sheet for each finished reconstruction attack, in the plan's order.

    The pictures are the best, the median and the worst by the attacker's own loss.
    """
    config = subject.config
    other = _stored(config, reference) if reference is not None else {}
    return [
        _sheet(name, subject, drawn, other.get(name))
        for name, drawn in _stored(config, subject.folder).items()
    ]


def _sheet(name: str, subject: Subject, own: Drawn, other: Drawn | None) -> ReconstructionSheet:
    images, victims = subject.prepared.data.images, subject.victims
    order = np.argsort(own[1], kind="stable")
    middle = len(order) // 2
    chosen = {"best": order[:4], "median": order[max(0, middle - 2) : middle + 2], "worst": order[-4:]}
    rows = [
        (
            label,
            np.asarray(images[victims.test[victims.pictured[row]]]),
            own[0][row],
            other[0][row] if other is not None else None,
        )
        for label, picked in chosen.items()
        for row in picked
    ]
    return ReconstructionSheet(name, rows)


def _stored(config: RunConfig, folder: RunFolder) -> dict[str, Drawn]:
    found = {}
    for model in config.attackers.threat_models:
        for name, attack in build_attacks(config)["reconstruction"]:
            stored = stored_result(bench_folder(folder, model, TARGET), name, attack)
            if stored is not None and stored.reconstructions is not None and stored.own_loss is not None:
                found[full_name(name, model)] = (stored.reconstructions, stored.own_loss)
    return found
