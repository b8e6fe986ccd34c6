"""Points of a plane drawn anew within their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from privhier.evaluation.points import Estimate
from privhier.seeding import numpy_stream

DRAWS = 1000
DRAW_METHOD = (
    "Every draw moves every point by an independent normal error whose size is its interval's (each side on "
    "its own), cut to [0, 1]; a leakage below guessing counts as guessing. Errors that points share, "
    "because they are scored on the same records, are not modeled. The volume's interval spans the "
    "percentile and the reflected bootstrap interval: the best of many noisy points looks better than it is "
    "(its optimism); percentiles alone would add that a second time, and reflecting alone would claim too "
    "much certainty near a volume of 0."
)

Draws = npt.NDArray[np.float64]


def drawn_points(
    utility: Sequence[Estimate],
    leakage: Sequence[Estimate],
    confidence: float,
    *stream: str | int,
    guessing: float,
) -> tuple[Draws, Draws]:
    """Both coordinates drawn anew, ``(DRAWS, n)`` each, from the stream ``stream`` (``DRAW_METHOD``).

    Leakage is nowhere below ``guessing``.
    """
    rng, z = numpy_stream(0, *stream), float(ndtri((1 + confidence) / 2))
    drawn = []
    for estimates in (utility, leakage):
        value, low, high = np.array([(e.value, e.low, e.high) for e in estimates]).T
        noise = rng.standard_normal((DRAWS, len(estimates))) / z
        drawn.append(np.clip(value + np.where(noise < 0, value - low, high - value) * noise, 0.0, 1.0))
    return drawn[0], np.maximum(drawn[1], guessing)
