"""The reconstructions a report shows: best, median and worst by the attacker's own loss."""

from __future__ import annotations

import numpy as np

from privhier.attacks.bench import stored_result
from privhier.config import RunConfig
from privhier.datasets.base import FloatArray
from privhier.evaluation.report import ReconstructionSheet
from privhier.lab.plan import Victims, build_attacks
from privhier.training.folder import RunFolder
from privhier.training.prepare import Prepared


def reconstruction_sheet(
    config: RunConfig,
    prepared: Prepared,
    victims: Victims,
    folder: RunFolder,
    reference: RunFolder | None,
) -> ReconstructionSheet | None:
    """Best, median and worst reconstructions by the attacker's own loss; None if there are none."""
    own = _stored_reconstructions(config, folder)
    if own is None:
        return None
    other = _stored_reconstructions(config, reference) if reference is not None else None
    order = np.argsort(own[1], kind="stable")
    middle = len(order) // 2
    chosen = {"best": order[:4], "median": order[max(0, middle - 2) : middle + 2], "worst": order[-4:]}
    rows = [
        (
            label,
            np.asarray(prepared.data.images[victims.test[row]]),
            own[0][row],
            other[0][row] if other is not None else None,
        )
        for label, picked in chosen.items()
        for row in picked
    ]
    return ReconstructionSheet(rows=rows)


def _stored_reconstructions(config: RunConfig, folder: RunFolder) -> tuple[FloatArray, FloatArray] | None:
    for name, attack in build_attacks(config)["reconstruction"]:
        stored = stored_result(folder.attacks / "curious_cloud" / "reconstruction", name, attack)
        if stored is not None and stored.reconstructions is not None and stored.own_loss is not None:
            return stored.reconstructions, stored.own_loss
    return None
