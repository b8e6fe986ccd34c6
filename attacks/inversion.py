"""White-box reconstruction: images are optimized until the edge turns them into the victims' releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.descent import Optimizer, descent
from privhier.attacks.parts.matching import (
    Misfit,
    OwnCases,
    affordable_steps,
    image_errors,
    inverted_in_batches,
    mean_image,
    own_cases,
    pixels,
    stops_at,
    total_variation,
)
from privhier.attacks.parts.quasi_newton import history_bytes
from privhier.attacks.parts.ridge_start import RidgeStart
from privhier.attacks.parts.room import bytes_per_image, room_for
from privhier.attacks.view import IntArray, View
from privhier.config.choices import option
from privhier.errors import ConfigError
from privhier.seeding import numpy_stream

Descent = Literal["adam", "ridge_adam", "ridge_lbfgs"]
_STOPS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the steps at which the attacker looks at its own images: under noise an earlier stop may win."""


@dataclass(frozen=True)
class _Way:
    """A descent: its name, where it begins for releases (b, T, *shape), and who moves the images."""

    name: str
    start: Callable[[Tensor], Tensor]
    by: Optimizer

    def steps(self, steps: int) -> int:
        """Of so many steps of Adam's, how many it makes."""
        return steps if self.by == "adam" else max(1, steps // 2)


@attacks.register("inversion")
@dataclass(frozen=True)
class InversionAttack(Attack):
    """Descent through the edge with total variation (He, Zhang and Lee, 2019; Mahendran and Vedaldi, 2015).

    All T releases of a record are matched at once (of more than four, each step draws four). The misfit
    is divided by the mechanism's noise, so the prior counts more the more noise there is; its weight, the
    descent, and after how many steps to stop, are those that did best on the attacker's own validation
    images, which it releases itself. From the mean image no pixel knows where to go: under Adam the image
    is a sum of maps of falling size, whose coarse ones move whole regions at once, and the prior's weight
    sinks to its value during the descent; pixels alone are caught in patterns that explain the release and
    look like nothing. A linear guess is near enough for L-BFGS, which changes no more of it than the
    releases ask for. Images are inverted in batches, each as if alone.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        descents: Those that are tried. ``adam``: Adam from the mean of own images; ``ridge_adam``: from a
            linear guess, fitted on own records; ``ridge_lbfgs``: L-BFGS from there (of more than four
            releases a record, each step goes down another slope, and Adam takes its place).
        steps: Steps of Adam, with a cosine schedule; L-BFGS makes half as many.
        learning_rate: Adam's first rate, in units of the image's range; pixels are kept in [0, 1].
        weights: Weights of total variation that are tried, in nats per unit of mean slope.
        restarts: Starts per image: the first is that of the descent, the others are own images; the lowest
            own loss is kept.
        batch: Images optimized at a time; 0: as many as memory has room for.
        max_gmacs: Bound on the forward cost of one start of one image, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "reconstruction"
    white_box: ClassVar[bool] = True
    expensive: ClassVar[bool] = True
    descents: tuple[Descent, ...] = ("adam", "ridge_adam", "ridge_lbfgs")
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
        ways, ridge = self._ways(view, misfit, own)
        trials = [(weight, case) for weight in self.weights for case in range(len(own.images))]
        cases = torch.tensor([case for _, case in trials])
        weights = torch.tensor([weight for weight, _ in trials], device=view.device)
        truth, released = own.images[cases], own.releases[cases]
        found: list[tuple[float, _Way, int, float]] = []
        for way in ways:
            length, start = way.steps(steps), way.start(released)
            stops = stops_at(_STOPS, length)
            iterates = self._descend(view, misfit, released, start, weights, length, stops, way.by)
            errors = torch.stack([image_errors(x, truth) for x in iterates])
            table = errors.reshape(len(stops), len(self.weights), len(own.images)).mean(dim=2)
            row, column = divmod(int(table.argmin()), len(self.weights))
            found.append((float(table.min()), way, stops[row], self.weights[column]))
        least, way, stop, weight = min(found, key=lambda one: one[0])
        length, others = way.steps(steps), self._others(view, own.train)

        def inverted(part: Tensor) -> tuple[Tensor, Tensor]:
            starts = [way.start(part), *others]
            return self.invert(view, misfit, part, starts, weight, length, stop, way.by)

        each = bytes_per_image(misfit, view.image_shape) + history_bytes(view.image_shape)
        batch = self.batch or room_for(each, view.device)
        images, losses = inverted_in_batches(view, batch, inverted)
        return AttackResult(
            reconstructions=images,
            own_loss=losses,
            validation=-least,
            selected={"descent": way.name, "total_variation": weight, "steps": stop, "of": length},
            queries=own.queries + (0 if ridge is None else ridge.queries),
        )

    def _ways(self, view: View, misfit: Misfit, own: OwnCases) -> tuple[list[_Way], RidgeStart | None]:
        """The descents that are tried, and the linear guess where one was fitted.

        A guess that is no better than the mean image is not begun at, and L-BFGS does not follow a slope that
        changes from step to step.
        """
        if not self.descents or not set(self.descents) <= set(get_args(Descent)):
            raise ConfigError(
                key="InversionAttack.descents",
                value=self.descents,
                rule=f"must be one or several of {', '.join(get_args(Descent))}",
                remedy="Leave it out for all of them",
            )
        mean, wanted = mean_image(view, own.train), set(self.descents)
        ridge = RidgeStart(view, "inversion", own) if wanted - {"adam"} else None
        if ridge is not None and ridge.penalty is None:
            wanted = {"adam"}
        elif not misfit.all_at_once and "ridge_lbfgs" in wanted:
            wanted = wanted - {"ridge_lbfgs"} | {"ridge_adam"}
        ways = [_Way("adam", lambda releases: mean, "adam")] if "adam" in wanted else []
        if ridge is not None:
            by: tuple[Optimizer, ...] = ("adam", "lbfgs")
            ways += [_Way(f"ridge_{one}", ridge, one) for one in by if f"ridge_{one}" in wanted]
        return ways, ridge

    def _others(self, view: View, train: IntArray) -> list[Tensor]:
        """``restarts - 1`` own images, each (3, H, W)."""
        rows = numpy_stream(view.seed, "attack", "inversion", "starts").permutation(train)
        return list(pixels(view.aux.images, rows[: self.restarts - 1], view.device))

    def invert(
        self,
        view: View,
        misfit: Misfit,
        releases: Tensor,
        starts: Sequence[Tensor],
        weight: float,
        steps: int,
        stop: int,
        optimizer: Optimizer = "adam",
    ) -> tuple[Tensor, Tensor]:
        """Invert releases (b, T, *shape); of each image, the start with the lowest own loss.

        Args:
            view: With a white box.
            misfit: Of that view.
            releases: On the view's device.
            starts: Images (3, H, W), or one for each release (b, 3, H, W), to start from, each in turn.
            weight: Of total variation.
            steps: Length of the descent's schedule.
            stop: Steps of it that are made.
            optimizer: Who moves the images.

        Returns:
            Images (b, 3, H, W) in [0, 1] and own losses (b,).
        """
        weights = torch.full((len(releases),), weight, device=view.device)
        best: tuple[Tensor, Tensor] | None = None
        for start in starts:
            (x,) = self._descend(view, misfit, releases, start, weights, steps, [stop], optimizer)
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
        optimizer: Optimizer,
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
            optimizer=optimizer,
        )
