"""Where inversion begins: a linear guess of each image from its releases, in closed form, on own records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.parts.matching import OwnCases, image_errors, mean_image, pixels
from privhier.attacks.parts.white_box import clean_features, fresh_releases
from privhier.attacks.view import IntArray, View
from privhier.seeding import numpy_stream

PENALTIES = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
"""Of the ridge, each in units of a column's mean energy over the records."""
_FEWEST, _MOST, _ROWS = 32, 1024, 16_384
"""Own records a regression is fitted on, and rows where each position of a map is one."""
_PATCH = 1200
"""Most values of a patch."""
_UNFOLDED = 2**23
"""Values of unfolded patches that are held at once."""
_CLEARLY = 0.01
"""Share of the mean image's error that a guess must take away: less is luck in so few cases."""
_FLAT = 1e-6
"""A spread below which a column says nothing."""

Guess = Callable[[Tensor], Tensor]
"""Releases ``(b, T, *shape)`` to images ``(b, 3, H, W)``, which may leave [0, 1]."""


class RidgeStart:
    """Ridge regression of images on releases around the means of own records, as a decoder's linear start.

    Of maps, blocks of the image on patches of the release: one convolution for all positions. Of vectors
    and letters, the whole image on the whole release. The penalty is the one whose guesses are best on the
    own cases; where none clearly beats the mean image there, the guess is that mean.

    Args:
        view: With a white box: the attacker releases its own records.
        name: Of the attack, for its streams.
        own: The attack's split and cases.
    """

    def __init__(self, view: View, name: str, own: OwnCases) -> None:
        self._mean = mean_image(view, own.train)
        self._guess: Guess | None = None
        self.penalty: float | None = None
        """The chosen one; None: the mean image."""
        rows = _own_rows(view, name, own.train)
        released = fresh_releases(view, clean_features(view, view.aux.images, rows), name, "start")
        self.queries = released.shape[0] * released.shape[1]
        """Releases of own records that it took."""
        releases = torch.from_numpy(released).to(view.device)
        images = pixels(view.aux.images, rows, view.device)
        fitted = _guesses_of_maps if _is_map(releases.shape) else _guesses_of_vectors
        least = (1 - _CLEARLY) * self._error(self._mean.expand_as(own.images), own)
        for penalty, guess in fitted(releases, images):
            error = self._error(guess(own.releases).clamp(0, 1), own)
            if error < least:
                least, self.penalty, self._guess = error, penalty, guess

    def __call__(self, releases: Tensor) -> Tensor:
        """Images ``(b, 3, H, W)`` in [0, 1] of releases ``(b, T, *shape)``."""
        if self._guess is None:
            return self._mean.expand(len(releases), *self._mean.shape)
        return self._guess(releases).clamp(0, 1)

    @staticmethod
    def _error(guess: Tensor, own: OwnCases) -> float:
        return float(image_errors(guess, own.images).mean())


def _is_map(shape: tuple[int, ...]) -> bool:
    """Whether releases ``(n, T, *shape)`` are maps with positions to speak of."""
    return len(shape) == 5 and min(shape[3:]) >= 3


def _own_rows(view: View, name: str, train: IntArray) -> IntArray:
    shape = view.releases.shape
    wanted = _MOST
    if _is_map(shape):
        wanted = min(_MOST, max(_FEWEST, _ROWS // (shape[3] * shape[4])))
    rng = numpy_stream(view.seed, "attack", name, "start")
    return np.sort(rng.permutation(train)[:wanted])


def _usable(spread: Tensor) -> Tensor:
    """Spreads to divide by: a column that never moves counts as the widest one."""
    return torch.where(spread > _FLAT, spread, spread.amax().clamp_min(_FLAT))


def _solutions(gram: Tensor, cross: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Each penalty and its ``(gram + penalty * unit)^-1 cross``, float32; both given in float64."""
    unit = gram.diagonal().mean().clamp_min(1e-12)
    for penalty in PENALTIES:
        lifted = gram + torch.diag_embed((penalty * unit).expand(len(gram)))
        yield penalty, torch.linalg.solve(lifted, cross).float()


def _guesses_of_vectors(releases: Tensor, images: Tensor) -> Iterator[tuple[float, Guess]]:
    """By the dual form: as many unknowns as records, however wide the release."""
    flat, mean = releases.flatten(1), images.mean(dim=0)
    center, spread = flat.mean(dim=0), _usable(flat.std(dim=0, correction=0))
    rows, wanted = (flat - center) / spread, (images - mean).flatten(1)
    for penalty, weights in _solutions((rows @ rows.T).double(), wanted.double()):

        def guess(releases: Tensor, weights: Tensor = weights) -> Tensor:
            near = ((releases.flatten(1) - center) / spread) @ rows.T
            return mean + (near @ weights).view(len(releases), *mean.shape)

        yield penalty, guess


def _guesses_of_maps(releases: Tensor, images: Tensor) -> Iterator[tuple[float, Guess]]:
    """By the normal equations of all positions: as many unknowns as a patch has values."""
    maps, mean, size = _stacked(releases), images.mean(dim=0), tuple(images.shape[2:])
    channels, h, w = maps.shape[1:]
    block = (math.ceil(size[0] / h), math.ceil(size[1] / w))
    kernel = 1 if channels * 9 > _PATCH else 3 if channels * 25 > _PATCH else 5
    center = maps.mean(dim=0)
    spread = _usable((maps - center).square().mean(dim=(0, 2, 3)).sqrt()).view(-1, 1, 1)
    blocks = _cut(_resized(images - mean, (h * block[0], w * block[1])), block)
    gram, cross = _normal_equations((maps - center) / spread, blocks, kernel)
    for penalty, weights in _solutions(gram, cross):
        filters = weights.T.reshape(-1, channels, kernel, kernel).contiguous()

        def guess(releases: Tensor, filters: Tensor = filters) -> Tensor:
            x = (_stacked(releases) - center) / spread
            y = nn.functional.conv2d(x, filters, padding=kernel // 2)
            return mean + _resized(_put_together(y, block), size)

        yield penalty, guess


def _normal_equations(maps: Tensor, blocks: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Gram matrix ``(p, p)`` of patches and its product with blocks ``(n, q, h * w)``, float64."""
    n, channels, h, w = maps.shape
    columns, positions = channels * kernel**2, h * w
    gram = torch.zeros(columns, columns, dtype=torch.float64, device=maps.device)
    cross = torch.zeros(columns, blocks.shape[1], dtype=torch.float64, device=maps.device)
    every = max(1, math.ceil(n * positions / _ROWS))
    at_once = max(1, _UNFOLDED // (columns * positions))
    for first in range(0, n, at_once):
        part = slice(first, first + at_once)
        patches = nn.functional.unfold(maps[part], kernel, padding=kernel // 2)
        rows = patches.transpose(1, 2).reshape(-1, columns)[first % every :: every]
        wanted = blocks[part].transpose(1, 2).reshape(-1, blocks.shape[1])[first % every :: every]
        gram += (rows.T @ rows).double()
        cross += (rows.T @ wanted).double()
    return gram, cross


def _stacked(releases: Tensor) -> Tensor:
    """Maps ``(n, T, c, h, w)`` side by side as channels, or, where these were too many, their mean."""
    return releases.flatten(1, 2) if releases.shape[1] * releases.shape[2] <= _PATCH else releases.mean(dim=1)


def _cut(images: Tensor, block: tuple[int, int]) -> Tensor:
    """Images ``(n, 3, h * down, w * right)`` as blocks ``(n, 3 * down * right, h * w)``."""
    n, _, height, width = images.shape
    down, right = block
    parts = images.view(n, 3, height // down, down, width // right, right)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(n, 3 * down * right, -1)


def _put_together(blocks: Tensor, block: tuple[int, int]) -> Tensor:
    """Inverse of ``_cut``, from ``(n, 3 * down * right, h, w)``."""
    n, _, h, w = blocks.shape
    down, right = block
    parts = blocks.view(n, 3, down, right, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, 3, h * down, w * right)


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return nn.functional.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False)
