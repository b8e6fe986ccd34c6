"""What pictures a report shows of one reconstruction attack."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReconstructionSheet:
    """Pictures of one attack for the report, chosen by the attacker's own loss (it never saw the originals).

    Attributes:
        attack: Its name, as in the result's ``reconstruction``.
        rows: ``(label, original, reconstruction, reference)``: original uint8 ``(3, H, W)``,
            reconstruction float ``(3, H, W)`` in [0, 1] (clamped), and the open network's
            reconstruction of the same record, or None.
    """

    attack: str
    rows: list[tuple[str, ImageArray, FloatArray, FloatArray | None]] = field(default_factory=list)
