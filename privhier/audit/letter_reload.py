"""A reloaded edge must answer letters by the claimed channel: every call, every load, in both modes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from privhier.audit.fits import Fit, fitted_row
from privhier.audit.letter_claim import ClaimedLetters, IntArray
from privhier.audit.letter_trials import LetterTrials
from privhier.audit.letters import too_few_changed
from privhier.audit.paths import GivenFeatures, stand_in
from privhier.audit.release import ALARM
from privhier.audit.row import AuditRow
from privhier.errors import CheckpointError
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.privacy.release import Release
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.deploy import ReleasingEdge, load_edge

_IMAGES = 256
_ROWS = 4096
_CHANGED = 40
"""Changed answers to wait for: that none at all come would have a chance below 1e-17."""
_MOST, _WORK = 200_000, 5e8
"""Records released in one draw, at most, and distances of values."""


def audit_letter_reload(run: Path, claimed: ClaimedLetters, *, image_size: int, seed: int = 0) -> AuditRow:
    """Load the edge twice and release the same records again and again; needs no data set.

    Made-up images go all the way. Since few answers are changed at a high epsilon, many more records are
    released from chosen features that take the place of the images' own.

    Args:
        run: The run folder.
        claimed: How letters are said to be answered.
        image_size: Height and width of the run's images.
        seed: Of images and letters.

    Returns:
        A row that passes or fails.

    Raises:
        CheckpointError: Training has not finished there.
    """
    fits, limits = list[Fit](), ""
    for training in (False, True):
        rng = numpy_stream(seed, "audit", "images")
        pixels = rng.integers(0, 256, (_IMAGES, 3, image_size, image_size)).astype("uint8")
        first, second = (load_edge(run).train(training) for _ in range(2))
        trials = _trials(first, claimed, rng)
        records = _enough(trials)
        found = _by_load(trials, _trials(second, claimed, rng), records)
        found += _of_images(trials, first, torch.from_numpy(pixels), seed)
        mode = "training mode" if training else "evaluation mode"
        fits += [replace(fit, name=f"{mode}: {fit.name}") for fit in found]
        limits = too_few_changed(claimed, trials.common, records * claimed.groups)
    row = fitted_row(
        "reloaded edge",
        "the same records released by load_edge twice over, in evaluation and in training mode",
        "none: every letter must be answered anew by the claimed channel",
        fits,
        ALARM / len(fits),
    )
    return row.model_copy(update={"note": row.note + limits})


def _trials(edge: ReleasingEdge, claimed: ClaimedLetters, rng: np.random.Generator) -> LetterTrials:
    """Releases of chosen features by this edge."""
    code = edge.edge.codebook
    if code is None:
        raise CheckpointError(
            key="edge.safetensors",
            value="no letters",
            rule="an edge that releases letters has their code once it is trained",
            remedy="Train this run to its end",
        )

    def release(features: Tensor, *, epoch: int, batch: int) -> Tensor:
        own, size, images = edge.edge, edge.image_size, stand_in(len(features)).images
        edge.edge = cast(EdgeSegment, GivenFeatures(features, code).train(edge.training))
        edge.image_size = images.shape[-1]
        try:
            return _letters(edge(torch.from_numpy(images)))
        finally:
            edge.edge, edge.image_size = own, size

    return LetterTrials(release, claimed, code, rng=rng, first_batch=0, draws=16 * _ROWS)


def _enough(trials: LetterTrials) -> int:
    """Records of one draw: until answers that are not changed at all would be missed."""
    claimed = trials.claimed
    wanted = _CHANGED / max(claimed.changed(trials.common), 1e-12) / claimed.groups
    work = claimed.groups * claimed.letters * trials.code.size
    return int(min(max(_ROWS, wanted), _MOST, max(_ROWS, _WORK / work)))


def _by_load(first: LetterTrials, second: LetterTrials, records: int) -> list[Fit]:
    """The same letters released thrice: each time by the channel, no time as before."""
    batches = [first.some(_ROWS) for _ in range(math.ceil(records / _ROWS))]
    letters, draws = np.concatenate(batches), dict[str, IntArray]()
    for name, trials in (("first call", first), ("second call", first), ("second load", second)):
        draws[name] = np.concatenate([trials.answers(batch) for batch in batches])
    fits = [first.turned(f"answers of the {name}", letters, found) for name, found in draws.items()]
    for one, other in itertools.combinations(draws, 2):
        name = f"pairs of answers of {one} and {other}"
        fits.append(first.twice(name, letters, draws[one], draws[other]))
    return fits


def _of_images(trials: LetterTrials, edge: ReleasingEdge, images: Tensor, seed: int) -> list[Fit]:
    """Images that go all the way, and the letters that they have.

    torch's global generator is in the same state for both: dropout then repeats.
    """
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        letters = trials.code.letters_of(edge.edge.features(normalize(images)).float()).cpu().numpy()
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        answers = _letters(edge(images)).cpu().numpy()
    return [replace(fit, name=f"{fit.name} of images") for fit in trials.by_letter(letters, answers)]


def _letters(release: Release) -> Tensor:
    """What goes up of a release; nothing that a letter could be mistaken for, where it has none."""
    return release.values.new_full((len(release), 1), -1) if release.letters is None else release.letters
