"""White-box reconstruction: images are optimized until the edge turns them into the victims' releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.descent import descent
from privhier.attacks.parts.matching import (
    Misfit,
    affordable_steps,
    image_errors,
    inverted_in_batches,
    mean_image,
    own_cases,
    pixels,
    stops_at,
    total_variation,
)
from privhier.attacks.parts.room import bytes_per_image, room_for
from privhier.attacks.view import IntArray, View
from privhier.config.choices import option
from privhier.seeding import numpy_stream

_STOPS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the steps at which the attacker looks at its own images: under noise an earlier stop may win."""


@attacks.register("inversion")
@dataclass(frozen=True)
class InversionAttack(Attack):
    """Adam through the edge with total variation (He, Zhang and Lee, 2019; Mahendran and Vedaldi, 2015).

    All T releases of a record are matched at once (of more than four, each step draws four). The misfit
    is divided by the mechanism's noise, so the prior counts more the more noise there is; its weight,
    and after how many steps to stop, are those that did best on the attacker's own validation images,
    which it releases itself. The image is a sum of maps of falling size, whose coarse ones move whole
    regions at once, and the prior's weight sinks to its value during the descent: pixels alone are
    caught in patterns that explain the release and look like nothing. Images are inverted in batches,
    each as if alone: losses are summed, and Adam works on every value by itself.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        steps: Steps of Adam, with a cosine schedule.
        learning_rate: Its first rate, in units of the image's range; pixels are kept in [0, 1].
        weights: Weights of total variation that are tried, in nats per unit of mean slope.
        restarts: Starts per image: the first from the auxiliary mean image, the others from own images;
            the lowest own loss is kept.
        batch: Images optimized at a time; 0: as many as memory has room for (``parts/room.py``).
        max_gmacs: Bound on the forward cost of one start of one image, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "reconstruction"
    white_box: ClassVar[bool] = True
    expensive: ClassVar[bool] = True
    steps: int = option(200, low=1)
    learning_rate: float = option(0.02, low=1e-7)
    weights: tuple[float, ...] = option((3.0, 10.0, 30.0, 100.0), low=0.0)
    restarts: int = option(1, low=1)
    batch: int = option(0, low=0)
    max_gmacs: int = option(100, low=1)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        own = own_cases(view, "inversion")
        misfit = Misfit(view, own.train)
        steps = affordable_steps(misfit.gmacs(), self.steps, self.max_gmacs)
        starts = self._starts(view, own.train)
        stops = stops_at(_STOPS, steps)

        trials = [(weight, case) for weight in self.weights for case in range(len(own.images))]
        cases = torch.tensor([case for _, case in trials])
        weights = torch.tensor([weight for weight, _ in trials], device=view.device)
        iterates = self._descend(view, misfit, own.releases[cases], starts[0], weights, steps, stops)
        errors = torch.stack([image_errors(x, own.images[cases]) for x in iterates])
        table = errors.reshape(len(stops), len(self.weights), len(own.images)).mean(dim=2)
        chosen, best = divmod(int(table.argmin()), len(self.weights))
        stop, weight = stops[chosen], self.weights[best]

        def inverted(part: Tensor) -> tuple[Tensor, Tensor]:
            return self.invert(view, misfit, part, starts, weight, steps, stop)

        batch = self.batch or room_for(bytes_per_image(misfit, view.image_shape), view.device)
        images, losses = inverted_in_batches(view, batch, inverted)
        return AttackResult(
            reconstructions=images,
            own_loss=losses,
            validation=-float(table.min()),
            selected={"total_variation": weight, "steps": stop, "of": steps},
            queries=own.queries,
        )

    def _starts(self, view: View, train: IntArray) -> list[Tensor]:
        """The mean of own images, then ``restarts - 1`` of them, each (3, H, W)."""
        rows = numpy_stream(view.seed, "attack", "inversion", "starts").permutation(train)
        others = pixels(view.aux.images, rows[: self.restarts - 1], view.device)
        return [mean_image(view, train), *others]

    def invert(
        self,
        view: View,
        misfit: Misfit,
        releases: Tensor,
        starts: Sequence[Tensor],
        weight: float,
        steps: int,
        stop: int,
    ) -> tuple[Tensor, Tensor]:
        """Invert releases (b, T, *shape); of each image, the start with the lowest own loss.

        Args:
            view: With a white box.
            misfit: Of that view.
            releases: On the view's device.
            starts: Images (3, H, W) to start from, each in turn.
            weight: Of total variation.
            steps: Length of the descent's schedule.
            stop: Steps of it that are made.

        Returns:
            Images (b, 3, H, W) in [0, 1] and own losses (b,).
        """
        weights = torch.full((len(releases),), weight, device=view.device)
        best: tuple[Tensor, Tensor] | None = None
        for start in starts:
            (x,) = self._descend(view, misfit, releases, start, weights, steps, [stop])
            with torch.no_grad():
                loss = misfit(x, releases) + weights * total_variation(x)
            if best is None:
                best = x, loss
            else:
                better = loss < best[1]
                best = (
                    torch.where(better[:, None, None, None], x, best[0]),
                    torch.where(better, loss, best[1]),
                )
        assert best is not None
        return best

    def _descend(
        self,
        view: View,
        misfit: Misfit,
        releases: Tensor,
        start: Tensor,
        weights: Tensor,
        steps: int,
        stops: Sequence[int],
    ) -> list[Tensor]:
        """The iterates (b, 3, H, W) after each of ``stops`` steps of a descent of ``steps``."""
        rng = numpy_stream(view.seed, "attack", "inversion", "states")
        return descent(
            misfit,
            releases,
            start,
            weights,
            rate=self.learning_rate,
            steps=steps,
            stops=stops,
            states=lambda: misfit.states(rng),
        )
