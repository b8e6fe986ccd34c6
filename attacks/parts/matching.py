"""What attacks that invert the edge share: misfit of an image's releases, priors, the attacker's own cases.

Shapes: b images, T releases of each; images are (b, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from privhier.attacks.parts.decoders import window_ssim
from privhier.attacks.parts.fitting import count_macs
from privhier.attacks.parts.selection import own_split
from privhier.attacks.parts.white_box import clean_features, fresh_releases, predicted_releases, weights_of
from privhier.attacks.view import FloatArray, ImageArray, IntArray, View
from privhier.models.inputs import normalize
from privhier.privacy.noise import SeededNoise
from privhier.seeding import numpy_stream

OWN_CASES = 8
"""The attacker's own validation images whose releases it inverts to choose hyper-parameters."""
_SCALE_ROWS = 32
"""Own images from which the size of noiseless releases is read."""
_PRECISION = 1e-4
"""Share of the releases' variance that stands for noise where there is none: less is not resolved."""
_STATES = 4
"""Edge states matched in one step; of more than these, each step draws some."""
_FIRST_NOISE = 0.1
_TEMPERED = 0.7
_IMPOSSIBLE = 1e-9
"""Probability of an answer below which no slope is followed."""
_SLOPE_FLOOR = 1e-6
"""Under the root of the total variation, so that its gradient is bounded on flat images."""


def pixels(images: ImageArray, rows: IntArray, device: str) -> Tensor:
    """Rows of uint8 images as float32 ``(b, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.asarray(images[rows])).to(device).float() / 255


def mean_image(view: View, rows: IntArray) -> Tensor:
    """Mean of own images, float32 ``(3, H, W)`` in [0, 1]: the guess of an attacker who knows nothing."""
    mean = view.aux.images[rows].mean(axis=0, dtype=np.float64) / 255
    return torch.from_numpy(mean).float().to(view.device)


def total_variation(x_bchw: Tensor) -> Tensor:
    """Isotropic total variation per value, ``(b,)`` (Rudin, Osher and Fatemi, 1992)."""
    down = x_bchw[..., 1:, :-1] - x_bchw[..., :-1, :-1]
    right = x_bchw[..., :-1, 1:] - x_bchw[..., :-1, :-1]
    return (down**2 + right**2 + _SLOPE_FLOOR).sqrt().mean(dim=(1, 2, 3))


def total_variation_slope(x_bchw: Tensor, weights: Tensor) -> Tensor:
    """The gradient of ``(weights * total_variation(x)).sum()`` in x: same shape; ``weights (b,)``."""
    down = x_bchw[..., 1:, :-1] - x_bchw[..., :-1, :-1]
    right = x_bchw[..., :-1, 1:] - x_bchw[..., :-1, :-1]
    each = (weights / down[0].numel()).view(-1, 1, 1, 1)
    share = each * (down.square() + right.square() + _SLOPE_FLOOR).rsqrt()
    down, right = down * share, right * share
    slope = torch.zeros_like(x_bchw)
    slope[..., :-1, :-1] = -(down + right)
    slope[..., 1:, :-1] += down
    slope[..., :-1, 1:] += right
    return slope


def image_errors(guess: Tensor, truth: Tensor) -> Tensor:
    """By which an attacker chooses on its own images, ``(b,)``: mean absolute error + (1 - SSIM) / 2."""
    return (guess - truth).abs().mean(dim=(1, 2, 3)) + 0.5 * (1 - window_ssim(guess, truth))


@dataclass(frozen=True)
class OwnCases:
    """The attacker's own split, and the images it inverts to choose hyper-parameters.

    Attributes:
        train: int64 rows of the auxiliary set to learn from.
        images: float32 ``(k, 3, H, W)`` in [0, 1], of its validation split.
        releases: float32 ``(k, T, *shape)``, made by the attacker itself.
    """

    train: IntArray
    images: Tensor
    releases: Tensor

    @property
    def queries(self) -> int:
        """Releases of its own images that the attacker made."""
        return self.releases.shape[0] * self.releases.shape[1]


def own_cases(view: View, name: str) -> OwnCases:
    """Up to ``OWN_CASES`` images of the attack's own validation split, released once each."""
    aux = view.aux
    rng = numpy_stream(view.seed, "attack", name, "split")
    split = own_split(np.zeros(len(aux.images), np.int64), aux.groups, rng)
    rows = np.sort(rng.permutation(split.validation)[:OWN_CASES])
    released = fresh_releases(view, clean_features(view, aux.images, rows), name, "own")
    return OwnCases(
        train=split.train,
        images=pixels(aux.images, rows, view.device),
        releases=torch.from_numpy(released).to(view.device),
    )


class Misfit:
    """How badly images explain releases: the negative log-likelihood under the mechanism's noise.

    Letters: minus the logarithm of the answers' probability. Values:
    ``sum over T and values of (predicted - release)^2 / (2 v)``. Both are divided by the number of image
    values so that one weight of a prior suits all sizes. ``v`` is the variance of the mechanism's
    noise and of the rounding for the wire, or what an optimizer can resolve (``1e-4`` of the variance of
    noiseless releases) where that is more: the more noise, the more a prior of the same weight counts.

    Args:
        view: With a white box.
        train: Own rows, from which the variance of noiseless releases is read.
    """

    def __init__(self, view: View, train: IntArray) -> None:
        self._view = view
        box = weights_of(view)
        self.releases_per_record, self.most_states, self.device = len(box.edges), _STATES, view.device
        with torch.no_grad():
            clean = self.predict(pixels(view.aux.images, train[:_SCALE_ROWS], view.device))
        mechanism = box.mechanism
        noise = mechanism.sigma**2 * (2 if mechanism.mechanism == "laplace" else 1)
        self.spread = max(float((clean - clean.mean(dim=0)).square().mean()), 1e-24)
        """Variance of noiseless releases over images, averaged over values."""
        self.variance = max(noise + self._rounding(clean), _PRECISION * self.spread)
        """v."""
        self._values = int(np.prod(view.image_shape))

    def _rounding(self, clean: Tensor) -> float:
        """Mean square by which the wire rounds own releases of these noiseless ones ``(b, T, *shape)``."""
        mechanism = weights_of(self._view).mechanism
        if mechanism.quantize == "float32":
            return 0.0
        exact = replace(mechanism, quantize="float32")
        noise = SeededNoise(self._view.seed, "attack", "rounding")
        noised = exact.sanitize(clean.flatten(0, 1), noise).values
        return float((mechanism.quantized(noised) - noised).double().square().mean())

    def allow_for(self, x: Tensor, releases: Tensor) -> None:
        """Raise ``v`` to the mean square by which these images miss these releases.

        A model that cannot draw every image is then not trusted beyond its own error.
        """
        with torch.no_grad():
            missed = float((self.predict(x) - releases).square().mean())
        self.variance = max(self.variance, missed)

    def predict(self, x: Tensor, states: Sequence[int] | None = None) -> Tensor:
        """Noiseless releases ``(b, T, *shape)`` of images, or those of some edge states only."""
        view = self._view
        if states is not None and len(states) < self.releases_per_record:
            box = weights_of(view)
            view = replace(view, white_box=replace(box, edges=tuple(box.edges[t] for t in states)))
        return predicted_releases(view, x)

    @property
    def all_at_once(self) -> bool:
        """Whether every step matches all edge states, so that all steps go down the same slope."""
        return self.releases_per_record <= _STATES

    def states(self, rng: np.random.Generator) -> list[int]:
        """The edge states to match in one step: all, or four drawn anew."""
        if self.all_at_once:
            return list(range(self.releases_per_record))
        return sorted(rng.permutation(self.releases_per_record)[:_STATES].tolist())

    def __call__(self, x: Tensor, releases: Tensor, states: Sequence[int] | None = None) -> Tensor:
        """``(b,)``, differentiable in x; an unbiased estimate where only some states are given."""
        chosen = range(self.releases_per_record) if states is None else states
        wanted = releases if len(chosen) == releases.shape[1] else releases[:, list(chosen)]
        share = len(chosen) / self.releases_per_record
        if self._view.alphabet is not None:
            likely = self.predict(x, states).clamp_min(_IMPOSSIBLE).log()
            return -(likely * wanted).flatten(1).sum(dim=1) / (share * self._values)
        squares = (self.predict(x, states) - wanted).square().flatten(1).sum(dim=1)
        return squares / (2 * self.variance * share * self._values)

    def slope(self, x: Tensor, releases: Tensor, states: Sequence[int] | None = None) -> Tensor:
        """The gradient of the misfit's sum in x, same shape: of the edge's weights nothing is asked for."""
        return self.value_and_slope(x, releases, states)[1]

    def value_and_slope(
        self, x: Tensor, releases: Tensor, states: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The misfit ``(b,)`` and ``slope``, in one pass."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self(x, releases, states)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), slope

    def tempering(self, progress: float) -> float:
        """Factor at least 1 on a prior, falling to 1 over the descent's first 70 %; progress in [0, 1].

        As if v sank from a tenth of the releases' variance to what it is: coarse structure first, since
        a descent that may fit fine detail at once is caught in it.
        """
        if progress >= _TEMPERED:
            return 1.0
        return float(max(1.0, _FIRST_NOISE * self.spread / self.variance) ** (1 - progress / _TEMPERED))

    def gmacs(self) -> float:
        """Cost of one step for one image, forward, in 10^9 multiply-accumulates."""
        box = weights_of(self._view)
        example = torch.zeros(1, *self._view.image_shape, device=self._view.device)
        edge = box.edges[-1]
        return min(self.releases_per_record, _STATES) * count_macs(edge, normalize(example)) / 1e9


def affordable_steps(gmacs_per_step: float, steps: int, max_gmacs: float) -> int:
    """Steps on one image that stay under ``max_gmacs``; at least a tenth of those asked for."""
    return max(1, steps // 10, min(steps, int(max_gmacs / max(gmacs_per_step, 1e-9))))


def stops_at(shares: Sequence[float], steps: int) -> list[int]:
    """The steps at which an attacker looks at its own images, sorted, each once."""
    return sorted({round(share * steps) for share in shares})


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient in the optimizer's own values; nothing reaches the edge's weights."""
    (group,) = optimizer.param_groups
    values: list[Tensor] = group["params"]
    for value, gradient in zip(values, torch.autograd.grad(loss, values), strict=True):
        value.grad = gradient
    optimizer.step()


def inverted_in_batches(
    view: View, batch: int, invert: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[FloatArray, FloatArray]:
    """Images float32 ``(n, 3, H, W)`` and own losses ``(n,)`` of all victims, ``batch`` at a time.

    Args:
        view: Whose releases are inverted.
        batch: Victims at a time.
        invert: From releases ``(b, T, *shape)`` on the view's device to images and own losses.
    """
    images, losses = [], []
    for first in range(0, len(view.releases), batch):
        part = torch.from_numpy(np.array(view.releases[first : first + batch])).to(view.device)
        image, loss = invert(part)
        images.append(image)
        losses.append(loss)
    return as_array(torch.cat(images)), as_array(torch.cat(losses))


def as_array(x: Tensor) -> FloatArray:
    """float32 on the CPU."""
    return np.asarray(x.detach().float().cpu().numpy(), dtype=np.float32)
