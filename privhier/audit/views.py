"""What a release audit tries: pairs of inputs, what the adversary computes, and what the claim allows.

Strength is mu for Gaussian releases and pure epsilon for Laplace releases; both are proportional to the
distance of the clipped features, and k independent releases add up as sqrt(k) mu and k epsilon.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privhier.audit.trials import BATCH, FAR, INSIDE, Draw, Trials

_GROSS = {"gaussian": 2.5, "laplace": 3.0}
"""Strength at which counting can tell a broken mechanism from a sound one with few draws."""
_FEW = 2.0
"""The same in batches of the run's own size, where draws are fewest."""
_SHIFT = 6.0
_BLOCK = 128
"""Half of the batches in which whole splits are released."""
_CALL = 64
"""Rows that cost as much as a call of the release function."""


@dataclass(frozen=True)
class View:
    """One way to look.

    Attributes:
        name: For the reader.
        allowed: The most strength a sound mechanism gives this view.
        scale: What a bound on this view is multiplied with to stand beside the row's claim.
        draw: Number of trials to the scores of that many trials under each of the two inputs.
        calls: Calls of the release function that one trial takes, where that is more than its share of a
            large batch; 0 where its row is a trial among many.
        many: Trials that one row gives.
    """

    name: str
    allowed: float
    scale: float
    draw: Draw
    calls: float = 0
    many: int = 1


class Views:
    """The views of one release function.

    Args:
        trials: Makes the draws.
        single: Claimed strength of one release under replace-one.
        releases: T, the releases of a record that the claim covers.
        rng: Random directions.
        repeats: Small batches summed up in one trial, at most.
    """

    def __init__(
        self, trials: Trials, *, single: float, releases: int, rng: np.random.Generator, repeats: int
    ) -> None:
        self.trials, self.single, self.releases, self.repeats = trials, single, releases, repeats
        self.directions = self._directions(rng)

    def whole(self, releases: int) -> float:
        """Strength of that many independent releases at full distance."""
        return self.single * (math.sqrt(releases) if self.trials.kind == "gaussian" else releases)

    def plain(self, limit: float) -> list[View]:
        """One record's releases, a far input against its mirror image; scaled so that all claim T of them.

        Beyond ``limit`` counting has no power left: then both inputs lie inside the ball, as far apart as
        gives that strength, and the bound is scaled up by the distance, exactly for additive noise.
        """
        views, clip = [], self.trials.clip
        laplace = self.trials.kind == "laplace"
        counts = {self.releases, 1} if laplace else {self.releases}
        for (name, u), count in itertools.product(self.directions.items(), sorted(counts)):
            share = min(1.0, limit / self.whole(count))
            allowed = share * self.whole(count)
            label = f"{name}, {count} release{'s' if count > 1 else ''}"
            label += "" if share == 1 else f", inside the ball at {share:.2g} C"
            size = FAR * clip if share == 1 else share * clip
            for statistic in ("likelihood ratio", "sum") if laplace else ("likelihood ratio",):
                half = math.inf if statistic == "sum" else share * clip
                draw = self.trials.mirror(u, size, half, count)
                views.append(
                    View(f"{label}, {statistic}", allowed, self.whole(self.releases) / allowed, draw)
                )
        return views

    def fresh(self) -> list[View]:
        """Noise that is shared: two epochs of one record, and other records whose features are known.

        Bounds are per single release.
        """
        u, clip = self.directions["diagonal"], self.trials.clip
        views = []
        share, allowed = self._share(2)
        for epochs in sorted({(0, 1), (0, max(1, self.releases - 1))}):
            draw = self.trials.two_epochs(u, share * clip, epochs)
            name = f"epochs {epochs[0]} and {epochs[1]}, the second mirrored, subtracted"
            views.append(View(name, allowed, self.single / allowed, draw))
        share, allowed = self._share(1)
        half = self.trials.rows // 2
        for apart in sorted({1, half} | ({_BLOCK} if half % _BLOCK == 0 else set())):
            draw = self.trials.known_noise(u, share * clip, apart)
            name = f"noise of a known record {apart} later in the batch subtracted"
            views.append(View(name, allowed, self.single / allowed, draw))
        draw = self.trials.known_noise(u, share * clip, None)
        name = "noise of a known record at the same place in the next batch subtracted"
        views.append(View(name, allowed, self.single / allowed, draw))
        return views

    def clipping(self) -> list[View]:
        """A record far outside the ball against its clipped image: the claim is that nothing differs."""
        allowed = self.whole(1) * (1 - INSIDE)
        views = [
            View(f"{name}, far against its clipped image", allowed, 1.0, self.trials.clipped_image(u))
            for name, u in self.directions.items()
        ]
        repeat = self._repeats()
        draw = self.trials.small_batches(self.directions["diagonal"], alone=True, repeat=repeat)
        name = "alone among zeros, far against its clipped image"
        return [*views, View(name, self.whole(repeat) * (1 - INSIDE), 1.0, draw, 2 * repeat)]

    def others(self) -> list[View]:
        """The other records of a batch, with the target at zero against far: they must not move."""
        repeat = self._repeats()
        return [
            View(
                f"{BATCH - 1} others on the {name}, the target at zero against far, {repeat} batches",
                0.0,
                1.0,
                self.trials.small_batches(self.directions[name], alone=False, repeat=repeat),
                2 * repeat,
            )
            for name in ("diagonal", "axis")
        ]

    def unequal(self) -> list[View]:
        """A record at zero against one at C, or as far inside the ball as counting needs: half the distance.

        Additive noise knows nothing of its record. Noise (or a clamp) that is scaled by the record's own
        norm or peak is the same for an input and its mirror image, and shows only here.
        """
        views = []
        share = min(INSIDE, 2 * _GROSS[self.trials.kind] / self.single)
        for name in ("axis", "diagonal"):
            u = self.directions[name]
            far = share * self.trials.clip * u
            for statistic in ("likelihood ratio", "size"):
                views.append(
                    View(
                        f"{name}, zero against {share:.2g} C, {statistic}",
                        share * self.single / 2,
                        2 / share,
                        self.trials.pair(
                            torch.zeros_like(u), far, u=u, half=share * self.trials.clip / 2,
                            energy=statistic == "size",
                        ),
                    )
                )  # fmt: skip
        return views

    def own_batches(self, sizes: Sequence[tuple[int, int]]) -> list[View]:
        """Batches of the very sizes that the run releases: the whole ones, and what is left for the last.

        Args:
            sizes: Epoch, and records of a batch in it.
        """
        # Laplace noise is told apart best along one value, and with few draws at little strength.
        views, u = [], self.directions["axis" if self.trials.kind == "laplace" else "diagonal"]
        share = min(INSIDE, _FEW / self.single)
        allowed, far = share * self.single, share * self.trials.clip * u
        for epoch, size in sizes:
            draw = self.trials.pair(-far, far, u=u, half=share * self.trials.clip, own=(epoch, size))
            name = f"batches of {size} in epoch {epoch}, mirror images at {share:.2g} C"
            calls = 1 / size if size < _CALL else 0
            views.append(View(name, allowed, self.single / allowed, draw, calls))
        return views

    def _share(self, releases: int) -> tuple[float, float]:
        """How far inside the ball to look, in clip norms, and the strength that is claimed there."""
        share = min(INSIDE, _GROSS[self.trials.kind] / self.whole(releases))
        return share, share * self.whole(releases)

    def _repeats(self) -> int:
        """Batches summed up in one trial, until a shift of C would stand out of the noise."""
        return max(1, min(self.repeats, math.ceil((_SHIFT / self.single) ** 2)))

    def _directions(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Unit vectors in the mechanism's norm, float32 ``(values,)``."""
        values = self.trials.values
        found = {
            "axis": np.eye(1, values)[0],
            "diagonal": np.ones(values),
            "random": rng.standard_normal(values),
        }
        order = 2 if self.trials.kind == "gaussian" else 1
        return {
            name: torch.from_numpy((u / np.linalg.norm(u, order)).astype(np.float32))
            for name, u in found.items()
        }
