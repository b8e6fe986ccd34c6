"""A reloaded edge must noise freshly: every call, every load, in training and in evaluation mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privhier.audit.row import AuditRow
from privhier.audit.trials import Kind
from privhier.models.inputs import normalize
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.deploy import ReleasingEdge, load_edge
from privhier.uplink.grid import rounded

_ERRORS = 8.0
"""Standard errors of every comparison: a false alarm has probability below 1e-10."""
_REPEATS = 64
"""Releases made up by the auditor, from which expectations and standard errors are read."""
_VALUES = 8192


def audit_reload(run: Path, *, kind: Kind, scale: float, image_size: int, seed: int = 0) -> AuditRow:
    """Load the edge twice and release the same made-up images again and again; needs no data set.

    What a release adds to the clipped features must be as large as noise of the claimed scale, rounded for
    the wire, would make it, and no two releases may share theirs. What it would be is found by simulation,
    so it holds however coarse the rounding: where a rounding step is far wider than the noise, a release
    shows little of it, and the audit can ask for no more.

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
        clipped = _clipped(first, images, seed)
        draws = {
            "first call": _added(first, images, clipped, seed),
            "second call": _added(first, images, clipped, seed),
            "second load": _added(second, images, clipped, seed),
        }
        expected = _expected(clipped, kind, scale, first, seed)
        values += sum(added.numel() for added in draws.values())
        failures += [f"{mode}: {text}" for text in _problems(draws, *expected)]
    return AuditRow(
        name="reloaded edge",
        what="the same images released by load_edge twice over, in evaluation and in training mode",
        adjacency="none: every release must have its own noise of the claimed scale",
        draws=values,
        refuted=bool(failures),
        note="; ".join(failures) if failures else "fresh noise of the claimed scale in every call and load",
    )


def _clipped(edge: ReleasingEdge, images: Tensor, seed: int) -> Tensor:
    """The clipped features that every release of these images starts from, float32 ``(n, *shape)``.

    torch's global generator is in the same state for every call: dropout then repeats, and so would
    noise that is drawn from it.
    """
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        return edge.mechanism.clip_features(edge.edge.features(normalize(images)).float())


def _added(edge: ReleasingEdge, images: Tensor, clipped: Tensor, seed: int) -> Tensor:
    """A release less the clipped features, float64 ``(n, *shape)``: noise, and what rounding makes of it."""
    with torch.no_grad(), isolated_rng(seed, "audit", "reload"):
        released: Tensor = edge(images).values
    return released.double() - clipped.double()


@dataclass(frozen=True)
class _Expected:
    """A mean square as sound releases have it: its expectation and its standard error."""

    mean: float
    error: float

    def fits(self, found: float) -> bool:
        return abs(found - self.mean) <= _ERRORS * self.error + 1e-9 * self.mean


def _expected(
    clipped: Tensor, kind: Kind, scale: float, edge: ReleasingEdge, seed: int
) -> tuple[_Expected, _Expected]:
    """The mean square of what a release adds, and that of the difference of two, by simulation."""
    rng, center = numpy_stream(seed, "audit", "reload", "expected"), clipped.numpy()
    draw = rng.laplace if kind == "laplace" else rng.normal
    alone, apart, before = [], [], None
    for _ in range(_REPEATS + 1):
        noised = (center + draw(scale=scale, size=center.shape)).astype(np.float32)
        released = rounded(noised, edge.mechanism.quantize).astype(np.float64)
        alone.append(float(np.square(released - center).mean()))
        if before is not None:
            apart.append(float(np.square(released - before).mean()))
        before = released
    return _summary(alone), _summary(apart)


def _summary(found: list[float]) -> _Expected:
    error = float(np.std(found, ddof=1)) * math.sqrt(1 + 1 / len(found))
    return _Expected(float(np.mean(found)), error)


def _problems(draws: dict[str, Tensor], alone: _Expected, apart: _Expected) -> list[str]:
    found = []
    for name, added in draws.items():
        size = float(added.square().mean())
        if not alone.fits(size):
            found.append(f"{name} has {_share(size, alone)} of the claimed noise")
    names = list(draws)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        size = float((draws[names[a]] - draws[names[b]]).square().mean())
        if not apart.fits(size):
            found.append(f"{names[a]} and {names[b]} differ by {_share(size, apart)} of what they should")
    return found


def _share(size: float, expected: _Expected) -> str:
    return f"{math.sqrt(size / expected.mean):.3g}" if expected.mean > 0 else "more"
