"""How a decoder is trained on the auxiliary set and turned on the victims, each guess with its own doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from privhier.attacks.parts.decoders import Decoder, as_maps, window_ssim
from privhier.attacks.parts.features import LastDraw, usable_spread
from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, fit, take
from privhier.attacks.parts.selection import own_split
from privhier.attacks.view import AuxiliarySet, FloatArray, ImageArray, IntArray, View
from privhier.seeding import isolated_rng, numpy_stream, torch_stream

_RIDGE_ROWS = 300_000
"""Positions (of all records) the closed-form start is fitted on."""
_LARGEST_LOG = 80.0
"""Of a foreseen error: what float32 still holds; it is cut to the range seen afterwards."""


@dataclass(frozen=True)
class DecoderPlan:
    """How a decoder is built and trained.

    Attributes:
        width: Channels of the residual network (halved on maps over 256 positions).
        blocks: Residual blocks.
        learning_rate: Peak rate of AdamW.
        epochs: Most epochs.
        batch: Records a step.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    width: int
    blocks: int
    learning_rate: float
    epochs: int
    batch: int
    max_gmacs: int


@dataclass(frozen=True)
class Decoded:
    """What a trained decoder makes of the victims.

    Attributes:
        images: float32 ``(n, 3, H, W)`` in [0, 1].
        own_loss: float32 ``(n,)``, the foreseen mean absolute error of each.
        validation: Minus the loss on the own validation split.
        epoch: The epoch that was kept; 0 is the linear start.
        epochs: Most epochs that were affordable.
        queries: Releases of auxiliary records that were used.
    """

    images: FloatArray
    own_loss: FloatArray
    validation: float
    epoch: int
    epochs: int
    queries: int


def decode_victims(view: View, plan: DecoderPlan) -> Decoded:
    """Train a decoder on the auxiliary set, a fresh draw every epoch, and draw the victims with it."""
    aux, device = view.aux, view.device
    rng = numpy_stream(view.seed, "attack", "decoder", "split")
    split = own_split(np.zeros(len(aux.images), np.int64), aux.groups, rng, share=0.15)
    train = split.train
    drawn = LastDraw(aux)
    held_out = as_maps(drawn(0)[split.validation])
    with isolated_rng(view.seed, "attack", "decoder"):
        network = Decoder(held_out, view.image_shape, plan.width, plan.blocks)
        network.fit_start(*_start_data(drawn, aux, train, held_out))
        network.to(device)
        example = take(held_out, [0], device)
        epochs = affordable_epochs(network, example, len(train), plan.epochs, plan.max_gmacs)

        def loss(epoch: int, positions: Tensor) -> Tensor:
            chosen = train[positions.numpy()]
            maps = torch.from_numpy(as_maps(drawn(epoch)[chosen])).to(device)
            images = _images(aux.images, chosen, device)
            return _objective(network(maps)[0], images)[0].mean()

        def score() -> float:
            guesses, _ = _decode(network, held_out, device)
            return -float(_errors(guesses, aux.images, split.validation)[0].mean())

        begin = score()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        value, epoch = fit(
            network,
            FitPlan(epochs, plan.batch, plan.learning_rate, 1e-4, epochs),
            records=len(train),
            loss=loss,
            score=score,
            generator=torch_stream(view.seed, "attack", "decoder", "order"),
        )
        if begin > value:
            network.load_state_dict(before)
            value, epoch = begin, 0
        guesses, described = _decode(network, held_out, device)
        errors = _errors(guesses, aux.images, split.validation)[1]
        images, victims_described = _decode(network, as_maps(view.releases), device)
    foreseen = _predicted_error(described, errors, victims_described)
    return Decoded(images, foreseen, value, epoch, epochs, drawn.queries)


def _start_data(
    drawn: LastDraw, aux: AuxiliarySet, train: IntArray, held_out: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Maps and images for the closed-form start: some records, or several draws of all (at most 4)."""
    rows = max(64, _RIDGE_ROWS // (held_out.shape[2] * held_out.shape[3]))
    chosen = train[:: max(1, len(train) // rows)]
    draws = int(np.clip(rows // len(chosen), 1, min(4, aux.draws)))
    maps = np.concatenate([as_maps(drawn(k)[chosen]) for k in range(draws)])
    images: FloatArray = np.tile(aux.images[chosen].astype(np.float32) / np.float32(255), (draws, 1, 1, 1))
    return maps, images


@torch.no_grad()
def _decode(network: Decoder, maps: FloatArray, device: str) -> tuple[FloatArray, FloatArray]:
    """Images (n, 3, H, W) in [0, 1] and their descriptions (n, f)."""
    images: list[FloatArray] = []
    described: list[FloatArray] = []
    for begin in range(0, len(maps), 256):
        guess, about = network(take(maps, np.arange(begin, min(begin + 256, len(maps))), device))
        images.append(guess.clamp(0, 1).cpu().numpy())
        described.append(about.cpu().numpy())
    pictures: FloatArray = np.concatenate(images)
    descriptions: FloatArray = np.concatenate(described)
    return pictures, descriptions


def _errors(guesses: FloatArray, images: ImageArray, indices: IntArray) -> tuple[FloatArray, FloatArray]:
    """Loss and mean absolute error (n,) of reconstructions of the attacker's own images ``indices``."""
    each: list[FloatArray] = []
    absolute: list[FloatArray] = []
    for begin in range(0, len(guesses), 256):
        truth = _images(images, indices[begin : begin + 256], "cpu")
        loss, error = _objective(torch.from_numpy(guesses[begin : begin + 256]), truth)
        each.append(loss.numpy())
        absolute.append(error.numpy())
    return np.concatenate(each), np.concatenate(absolute)


def _predicted_error(described: FloatArray, errors: FloatArray, victims: FloatArray) -> FloatArray:
    """The victims' L1 errors (n,) as foreseen by a ridge on log errors of the own validation records."""
    mean, spread = described.mean(axis=0), usable_spread(described.std(axis=0))
    ridge = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit((described - mean) / spread, np.log(errors + 1e-4))
    # Victims far outside what was seen get no estimate beyond the range seen.
    foreseen = np.exp(np.minimum(ridge.predict((victims - mean) / spread), _LARGEST_LOG))
    return np.asarray(np.clip(foreseen, errors.min() / 2, errors.max() * 2), dtype=np.float32)


def _images(images: ImageArray, indices: IntArray, device: str) -> Tensor:
    return torch.from_numpy(np.asarray(images[indices])).to(device).float() / 255


def _objective(guess: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Per-image training loss and mean absolute error, both (b,)."""
    difference = guess - truth
    absolute = difference.abs().mean(dim=(1, 2, 3))
    squared = (difference**2).mean(dim=(1, 2, 3))
    return absolute + squared + 0.5 * (1 - window_ssim(guess, truth)), absolute
