"""A reloaded edge must noise freshly: every call, every load, in training and in evaluation mode."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from privhier.models.inputs import normalize
from privhier.privacy.audit_row import AuditRow
from privhier.privacy.audit_trials import Kind
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.deploy import ReleasingEdge, load_edge

_ERRORS = 8.0
"""Standard errors of every comparison: a false alarm has probability below 1e-13."""
_KURTOSIS = {"gaussian": 3.0, "laplace": 6.0}
_VALUES = 8192


def audit_reload(run: Path, *, kind: Kind, scale: float, image_size: int, seed: int = 0) -> AuditRow:
    """Load the edge twice and release the same made-up images again and again; needs no data set.

    The noise of every release (what is left after subtracting the clipped features) must have the claimed
    scale, and no two releases may share theirs.

    Args:
        run: The run folder.
        kind: ``"gaussian"`` or ``"laplace"``.
        scale: The claimed sigma or b, in feature units.
        image_size: Height and width of the run's images.
        seed: Of the made-up images.

    Returns:
        A row that passes or fails.

    Raises:
        CheckpointError: Training has not finished there.
    """
    failures: list[str] = []
    values = 0
    for training in (False, True):
        first, second = (load_edge(run).train(training) for _ in range(2))
        mode = "training mode" if training else "evaluation mode"
        count = max(16, min(512, _VALUES // math.prod(first.edge.release_shape)))
        pixels = numpy_stream(seed, "audit", "images").integers(0, 256, (count, 3, image_size, image_size))
        images = torch.from_numpy(pixels.astype("uint8"))
        draws = {
            "first call": _noise(first, images, seed),
            "second call": _noise(first, images, seed),
            "second load": _noise(second, images, seed),
        }
        values += sum(noise.numel() for noise in draws.values())
        failures += [f"{mode}: {text}" for text in _problems(draws, kind, scale, first)]
    return AuditRow(
        name="reloaded edge",
        what="the same images released by load_edge twice over, in evaluation and in training mode",
        adjacency="none: every release must have its own noise of the claimed scale",
        draws=values,
        refuted=bool(failures),
        note="; ".join(failures) if failures else "fresh noise of the claimed scale in every call and load",
    )


def _noise(edge: ReleasingEdge, images: Tensor, seed: int) -> Tensor:
    """A release less the clipped features, float64 ``(n * values,)``.

    torch's global generator is in the same state for every call: dropout then repeats, and so would
    noise that is drawn from it.
    """
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        released: Tensor = edge(images)
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        clipped = edge.mechanism.clip_features(edge.edge.features(normalize(images)).float())
    return (released - clipped).double().flatten()


def _problems(draws: dict[str, Tensor], kind: Kind, scale: float, edge: ReleasingEdge) -> list[str]:
    variance = scale**2 * (1 if kind == "gaussian" else 2)
    count = next(iter(draws.values())).numel()
    # Rounding to float16 moves a value by at most 2**-11 of itself.
    largest = max(float(noise.abs().max()) for noise in draws.values()) + edge.mechanism.clip
    rounding = largest * 2**-11 / math.sqrt(variance) if edge.mechanism.quantize == "float16" else 0.0
    slack = 2 * rounding + rounding**2
    found = []
    for name, noise in draws.items():
        ratio = float(noise.square().mean()) / variance
        error = math.sqrt((_KURTOSIS[kind] - 1) / count)
        if not abs(ratio - 1) <= _ERRORS * error + slack:
            found.append(f"{name} has {math.sqrt(ratio):.3g} of the claimed noise")
    names = list(draws)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        one, two = draws[names[a]], draws[names[b]]
        ratio = float((one - two).square().mean()) / (2 * variance)
        # The excess kurtosis of a difference of two equal, independent values is half of one value's.
        error = math.sqrt(((_KURTOSIS[kind] - 3) / 2 + 2) / count)
        if not abs(ratio - 1) <= _ERRORS * error + slack:
            found.append(f"{names[a]} and {names[b]} differ by {math.sqrt(ratio):.3g} of what they should")
    return found
