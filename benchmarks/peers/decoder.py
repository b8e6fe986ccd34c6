"""Training a decoder from releases to images: ours against the same network in ART's training loop.

No packaged peer brings a decoder of its own (README), so the network, its linear start in closed form, the
loss, records, batches and epochs are ours on both sides; ART's ``PyTorchRegressor`` trains. Ours also scores
its own validation records after every epoch, keeps the best one, and learns to foresee each guess's error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Contender, Outcome, Report, Row, Rule, compare
from pages import versions_of
from scene import inversion_scene, shapes_of
from torch import Tensor, nn

from privhier.attacks.parts.decoders import Decoder, as_maps, window_ssim
from privhier.attacks.parts.decoding import DecoderPlan, decode_victims
from privhier.attacks.parts.selection import own_split
from privhier.attacks.view import View
from privhier.seeding import isolated_rng, numpy_stream

PLAN = DecoderPlan(width=32, blocks=2, learning_rate=2e-3, epochs=5, batch=32, max_gmacs=10_000)
AUXILIARY, SIZE = 300, 32
WITHIN = 0.1


class Objective(nn.Module):
    """Mean absolute error, mean square and half of what structural similarity lacks."""

    def forward(self, guess: Tensor, truth: Tensor) -> Tensor:
        """Of images ``(b, 3, H, W)``; ART hands guesses over flat."""
        guess = guess.reshape(truth.shape)
        apart = guess - truth
        return apart.abs().mean() + apart.square().mean() + 0.5 * (1 - window_ssim(guess, truth)).mean()


class ImagesAlone(nn.Module):
    """The decoder without what it says of its own guess."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, maps: Tensor) -> Tensor:
        """Maps ``(b, c, h, w)`` to images ``(b, 3, H, W)``."""
        return self.decoder(maps)[0]  # type: ignore[no-any-return]


class Records:
    """The attacker's own maps and images, split as our decoder splits them."""

    def __init__(self, view: View) -> None:
        aux = view.aux
        rng = numpy_stream(view.seed, "attack", "decoder", "split")
        self.split = own_split(np.zeros(len(aux.images), np.int64), aux.groups, rng, share=0.15)
        self.maps = as_maps(aux.releases(0))
        self.images = aux.images.astype(np.float32) / np.float32(255)

    @torch.no_grad()
    def loss(self, network: nn.Module) -> float:
        """Of the held-out records."""
        network.eval()
        rows = self.split.validation
        guess = network(torch.from_numpy(self.maps[rows])).clamp(0, 1)
        return float(Objective()(guess, torch.from_numpy(self.images[rows])))


def _fresh(view: View, records: Records) -> Decoder:
    with isolated_rng(view.seed, "attack", "decoder"):
        return Decoder(records.maps[records.split.validation], view.image_shape, PLAN.width, PLAN.blocks)


def ours(view: View, data: str) -> Contender:
    """Our training, from the start in closed form to the victims' images."""

    def start() -> Callable[[], Report]:
        network = shapes_of(_fresh(view, Records(view)))

        def work() -> Report:
            made = decode_victims(view, PLAN)
            said = f"epoch {made.epoch} of {made.epochs} kept"
            return lambda: Outcome(network, data, -made.validation, PLAN.epochs, said)

        return work

    return Contender("ours", start)


def in_art(view: View, data: str) -> Contender:
    """The same start, then ART's loop."""
    from art.estimators.regression import PyTorchRegressor

    def start() -> Callable[[], Report]:
        records = Records(view)
        decoder = _fresh(view, records)
        network, train = shapes_of(decoder), records.split.train
        whole = ImagesAlone(decoder)
        optimizer = torch.optim.AdamW(whole.parameters(), lr=PLAN.learning_rate, weight_decay=1e-4)
        estimator = PyTorchRegressor(
            whole, Objective(), records.maps.shape[1:], optimizer=optimizer, device_type="cpu"
        )

        def work() -> Report:
            decoder.fit_start(records.maps[train], records.images[train])
            with isolated_rng(0, "peers", "art"):
                estimator.fit(
                    records.maps[train], records.images[train], batch_size=PLAN.batch, nb_epochs=PLAN.epochs
                )
            with torch.no_grad():
                whole.eval()(torch.from_numpy(np.array(as_maps(view.releases))))
            return lambda: Outcome(network, data, records.loss(whole), PLAN.epochs)

        return work

    return Contender("ART PyTorchRegressor, our network", start)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Row]:
    """One network."""
    scene = inversion_scene("small_cnn", "stage1", size=SIZE, victims=4, auxiliary=AUXILIARY)
    yield compare(
        f"decoder training, {AUXILIARY} releases of {tuple(scene.releases.shape[2:])}, {SIZE}x{SIZE}",
        ours(scene.view, scene.data),
        in_art(scene.view, scene.data),
        versions=versions_of("adversarial-robustness-toolbox"),
        unit="seconds an epoch",
        pairs=pairs,
        rule=Rule(within=WITHIN),
        warm=False,
    )
