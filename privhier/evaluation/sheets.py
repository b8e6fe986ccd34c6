"""What pictures a report shows of one reconstruction attack."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Scores = tuple[float, float | None, float]
"""SSIM with the original of: the reconstruction, the open network's (or None), the mean face."""


@dataclass(frozen=True)
class ReconstructionSheet:
    """Pictures of one attack for the report: its best, median and worst ones by their score.

    Attributes:
        attack: Its name, as in the result's ``reconstruction``.
        rows: ``(label, original, reconstruction, reference)``: original uint8 ``(3, H, W)``,
            reconstruction float ``(3, H, W)`` in [0, 1] (clamped), and the open network's
            reconstruction of the same record, or None.
        scores: Of every row; empty where they were not computed.
        mean_image: float ``(3, H, W)`` in [0, 1], the mean of the attacker's own images: what one who learned
            nothing from the release would draw; None where it is not known.
        count: Reconstructions of which the rows are the best, median and worst.
    """

    attack: str
    rows: list[tuple[str, ImageArray, FloatArray, FloatArray | None]] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    mean_image: FloatArray | None = None
    count: int | None = None
