"""Reconstruction attacks of every threat model, scored against the originals, with their pictures kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

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
from privhier.metrics.images import ssim
from privhier.training.folder import RunFolder

TARGET = "pictures"
SHOWN = 2
"""Of the best, the median and the worst reconstructions each."""


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

    The pictures are the best, the median and the worst by their SSIM with the original, beside the mean of
    the attacker's own images.
    """
    config = subject.config
    other = _stored(config, reference) if reference is not None else {}
    own = _stored(config, subject.folder)
    if not own:
        return []
    mean = _mean_image(subject)
    return [_sheet(name, subject, drawn, other.get(name), mean) for name, drawn in own.items()]


def _mean_image(subject: Subject) -> FloatArray:
    """Of the attacker's own images, ``(3, H, W)`` in [0, 1]; a few at a time, since they may be many."""
    images, rows = subject.prepared.data.images, np.sort(subject.victims.aux)
    parts = np.array_split(rows, max(1, len(rows) // 256))
    total = sum(np.asarray(images[part]).sum(axis=0, dtype=np.float64) for part in parts)
    return np.asarray(total / (255 * max(1, len(rows))), dtype=np.float32)


def _sheet(
    name: str, subject: Subject, own: Drawn, other: Drawn | None, mean: FloatArray
) -> ReconstructionSheet:
    images, victims = subject.prepared.data.images, subject.victims
    originals = np.asarray(images[victims.test[victims.pictured[: len(own[0])]]])
    scores = _ssim(own[0], originals)
    theirs = None if other is None else _ssim(other[0][: len(originals)], originals)
    blank = _ssim(np.broadcast_to(mean, own[0].shape), originals)
    return ReconstructionSheet(
        name,
        [
            (label, originals[row], own[0][row], None if other is None else other[0][row])
            for row, label in _chosen(scores).items()
        ],
        scores=[
            (float(scores[row]), None if theirs is None else float(theirs[row]), float(blank[row]))
            for row in _chosen(scores)
        ],
        mean_image=mean,
        count=len(scores),
    )


def _chosen(scores: npt.NDArray[np.float64]) -> dict[int, str]:
    """Rows of the best, median and worst scores with their labels; of few, each row once."""
    order = np.argsort(-scores, kind="stable")
    shown = max(1, min(SHOWN, len(order) // 3))
    middle = max(0, (len(order) - shown) // 2)
    groups = {"best": order[:shown], "median": order[middle : middle + shown], "worst": order[-shown:]}
    chosen: dict[int, str] = {}
    for label, picked in groups.items():
        for row in picked:
            chosen.setdefault(int(row), label)
    return chosen


def _ssim(drawn: FloatArray, originals: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Of every reconstruction ``(n, 3, H, W)`` with its original."""
    truth = np.asarray(originals, dtype=np.float32) / 255
    return ssim(np.clip(np.nan_to_num(drawn), 0, 1).astype(np.float32), truth, data_range=1.0)


def _stored(config: RunConfig, folder: RunFolder) -> dict[str, Drawn]:
    found = {}
    for model in config.attackers.threat_models:
        for name, attack in build_attacks(config)["reconstruction"]:
            stored = stored_result(bench_folder(folder, model, TARGET), name, attack)
            if stored is not None and stored.reconstructions is not None and stored.own_loss is not None:
                found[full_name(name, model)] = (stored.reconstructions, stored.own_loss)
    return found
