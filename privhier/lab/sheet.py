"""The reconstructions a report shows: best, median and worst by the attacker's own loss, for every attack."""

from __future__ import annotations

import numpy as np

from privhier.attacks.bench import stored_result
from privhier.config import RunConfig
from privhier.datasets.base import FloatArray
from privhier.evaluation.report import ReconstructionSheet
from privhier.lab.context import bench_folder, full_name
from privhier.lab.pictures import TARGET
from privhier.lab.plan import Victims, build_attacks
from privhier.training.folder import RunFolder
from privhier.training.prepare import Prepared

Drawn = tuple[FloatArray, FloatArray]
"""Reconstructions ``(n, 3, H, W)`` and the attacker's own loss ``(n,)``."""


def reconstruction_sheets(
    config: RunConfig,
    prepared: Prepared,
    victims: Victims,
    folder: RunFolder,
    reference: RunFolder | None,
) -> list[ReconstructionSheet]:
    """One sheet for each finished reconstruction attack, in the plan's order."""
    other = _stored(config, reference) if reference is not None else {}
    return [
        _sheet(name, prepared, victims, drawn, other.get(name))
        for name, drawn in _stored(config, folder).items()
    ]


def _sheet(
    name: str, prepared: Prepared, victims: Victims, own: Drawn, other: Drawn | None
) -> ReconstructionSheet:
    order = np.argsort(own[1], kind="stable")
    middle = len(order) // 2
    chosen = {"best": order[:4], "median": order[max(0, middle - 2) : middle + 2], "worst": order[-4:]}
    rows = [
        (
            label,
            np.asarray(prepared.data.images[victims.test[victims.pictured[row]]]),
            own[0][row],
            other[0][row] if other is not None else None,
        )
        for label, picked in chosen.items()
        for row in picked
    ]
    return ReconstructionSheet(name, rows)


def _stored(config: RunConfig, folder: RunFolder) -> dict[str, Drawn]:
    found = {}
    for model in config.attacks.threat_models:
        for name, attack in build_attacks(config)["reconstruction"]:
            stored = stored_result(bench_folder(folder, model, TARGET), name, attack)
            if stored is not None and stored.reconstructions is not None and stored.own_loss is not None:
                found[full_name(name, model)] = (stored.reconstructions, stored.own_loss)
    return found
