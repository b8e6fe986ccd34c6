"""White-box reconstruction within a learned image model: latents of a VAE, searched through the edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, count_macs, fit
from privhier.attacks.parts.matching import (
    Misfit,
    OwnCases,
    affordable_steps,
    descend,
    image_errors,
    inverted_in_batches,
    own_cases,
    pixels,
)
from privhier.attacks.view import IntArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream, torch_stream

_PIXEL_SPREAD = 0.1
"""Standard deviation of the VAE's pixels around its mean output: fixes the weight of the KL term."""
_GALLERY = 256
"""Own training images among which the start of a search is looked for."""
_VALIDATION_ROWS = 256
"""Own images of the held-out split that choose the VAE's epoch, at most."""
_BLOCK = 64


class VariationalAutoencoder(nn.Module):
    """Kingma and Welling (2014), convolutional: images (b, 3, H, W) to latents (b, latent) and back."""

    def __init__(self, image_shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.size = (height, breadth)
        self.latent = latent
        depth = max(1, min(height, breadth).bit_length() - 3)
        widths = [min(4, 2**level) * width for level in range(depth)]
        grid = (-(-height // 2**depth), -(-breadth // 2**depth))
        down: list[nn.Module] = []
        before = channels
        for wide in widths:
            down += [nn.Conv2d(before, wide, 4, stride=2, padding=1), nn.GroupNorm(1, wide), nn.SiLU()]
            before = wide
        flat = before * grid[0] * grid[1]
        down += [nn.AdaptiveAvgPool2d(grid), nn.Flatten(), nn.Linear(flat, 2 * latent)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [nn.Linear(latent, flat), nn.Unflatten(1, (before, *grid)), nn.SiLU()]
        for wide in reversed([width, *widths[:-1]]):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(before, wide, 3, padding=1)]
            up += [nn.GroupNorm(1, wide), nn.SiLU()]
            before = wide
        self.decoder = nn.Sequential(*up, nn.Conv2d(before, channels, 3, padding=1))

    def encode(self, x_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, each (b, latent)."""
        mean, log_variance = self.encoder(2 * x_bchw - 1).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 8)

    def decode(self, z: Tensor) -> Tensor:
        """Images (b, 3, H, W) in (0, 1) of latents (b, latent)."""
        x = self.decoder(z)
        if tuple(x.shape[2:]) != self.size:
            x = nn.functional.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return torch.sigmoid(x)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Images decoded from the posterior's mean."""
        return self.decode(self.encode(x_bchw)[0])

    def negative_bound(self, x_bchw: Tensor, noise: Tensor) -> Tensor:
        """Negative evidence lower bound (b,) in nats, with one standard normal draw (b, latent)."""
        mean, log_variance = self.encode(x_bchw)
        guess = self.decode(mean + (log_variance / 2).exp() * noise)
        squares = (guess - x_bchw).square().flatten(1).sum(dim=1) / (2 * _PIXEL_SPREAD**2)
        return squares + 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)


@attacks.register("generative")
@dataclass(frozen=True)
class GenerativeAttack(Attack):
    """Latent search as in generative model inversion (Zhang et al., 2020), with a VAE of the own images.

    For every victim, Adam looks for the latent whose decoded image the edge turns into its T releases,
    under the latents' Gaussian prior; the VAE's own error counts as noise. It starts from the own
    training image (of a gallery) that explains the releases best. The prior's weight is the one that
    did best on the attacker's own validation images. It reconstructs what the VAE can draw: strong where
    noise leaves little, blunt where much is known.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        latent: Values of a latent.
        width: Channels of the VAE at full size.
        epochs: Most epochs of the VAE.
        learning_rate: Peak rate of AdamW.
        max_gmacs: Bound on the forward cost of training it, in 10^9 multiply-accumulates.
        steps: Steps of Adam on each latent.
        search_rate: Its rate, falling to zero on a cosine.
        weights: Weights of the Gaussian prior that are tried; 1 is Bayes' rule.
        batch: Records a step, and victims searched at a time.
        max_search_gmacs: Bound on the forward cost of the search for one image.
    """

    kind: ClassVar[Kind] = "reconstruction"
    white_box: ClassVar[bool] = True
    expensive: ClassVar[bool] = True
    latent: int = option(128, low=1)
    width: int = option(24, low=4)
    epochs: int = option(30, low=1)
    learning_rate: float = option(2e-3, low=1e-7)
    max_gmacs: int = option(1500, low=1)
    steps: int = option(150, low=1)
    search_rate: float = option(0.1, low=1e-7)
    weights: tuple[float, ...] = option((0.1, 1.0, 10.0, 100.0), low=0.0)
    batch: int = option(32, low=2)
    max_search_gmacs: int = option(100, low=1)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        own = own_cases(view, "generative")
        model, epoch = self._train(view, own)
        misfit = Misfit(view, own.train)
        misfit.allow_for(model(own.images), own.releases)
        example = torch.zeros(1, self.latent, device=view.device)
        cost = misfit.gmacs() + count_macs(model.decoder, example) / 1e9
        steps = affordable_steps(cost, self.steps, self.max_search_gmacs)
        gallery = self._gallery(view, model, own.train)

        errors = []
        for weight in self.weights:
            z = self._search(view, model, misfit, own.releases, gallery, weight, steps)
            with torch.no_grad():
                errors.append(float(image_errors(model.decode(z), own.images).mean()))
        weight = self.weights[int(np.argmin(errors))]

        def inverted(part: Tensor) -> tuple[Tensor, Tensor]:
            z = self._search(view, model, misfit, part, gallery, weight, steps)
            with torch.no_grad():
                x = model.decode(z)
                return x, self._energy(view, misfit(x, part), z, weight)

        images, losses = inverted_in_batches(view, self.batch, inverted)
        return AttackResult(
            reconstructions=images,
            own_loss=losses,
            validation=-min(errors),
            selected={"prior": weight, "epoch": epoch, "steps": steps},
            queries=own.queries,
        )

    def _train(self, view: View, own: OwnCases) -> tuple[VariationalAutoencoder, int]:
        """A VAE of the own training images; its epoch is chosen on the images held out."""
        aux, device, train = view.aux, view.device, own.train
        held_out = np.setdiff1d(np.arange(len(aux.images)), train)[:_VALIDATION_ROWS]
        shown = pixels(aux.images, held_out, device)
        normal = torch_stream(view.seed, "attack", "generative", "noise")
        fixed = torch.randn(len(held_out), self.latent, generator=normal).to(device)
        with isolated_rng(view.seed, "attack", "generative"):
            model = VariationalAutoencoder(view.image_shape, self.latent, self.width).to(device)
            epochs = affordable_epochs(model, shown[:1], len(train), self.epochs, self.max_gmacs)

            def loss(_epoch: int, positions: Tensor) -> Tensor:
                x = pixels(aux.images, train[positions.numpy()], device)
                noise = torch.randn(len(x), self.latent, generator=normal).to(device)
                return model.negative_bound(x, noise).mean() / x[0].numel()

            @torch.no_grad()
            def score() -> float:
                parts = zip(torch.split(shown, _BLOCK), torch.split(fixed, _BLOCK), strict=True)
                return -float(torch.cat([model.negative_bound(x, noise) for x, noise in parts]).mean())

            _, epoch = fit(
                model,
                FitPlan(epochs, self.batch, self.learning_rate, 1e-4, epochs),
                records=len(train),
                loss=loss,
                score=score,
                generator=torch_stream(view.seed, "attack", "generative", "order"),
            )
        return model.requires_grad_(False), epoch

    @torch.no_grad()
    def _gallery(
        self, view: View, model: VariationalAutoencoder, train: IntArray
    ) -> list[tuple[Tensor, Tensor]]:
        """Latents and the releases their images would give, in blocks of up to 64; the first is zero."""
        rows = numpy_stream(view.seed, "attack", "generative", "gallery").permutation(train)[:_GALLERY]
        images = pixels(view.aux.images, rows, view.device)
        encoded = torch.cat([model.encode(x)[0] for x in torch.split(images, _BLOCK)])
        latents = torch.cat([torch.zeros(1, self.latent, device=view.device), encoded])
        return [(z, model.decode(z)) for z in torch.split(latents, _BLOCK)]

    @torch.no_grad()
    def _start(
        self,
        misfit: Misfit,
        releases: Tensor,
        gallery: Sequence[tuple[Tensor, Tensor]],
        states: Sequence[int],
    ) -> Tensor:
        """Of each record (b, T, ...), the latent of the gallery whose releases come nearest."""
        wanted = releases[:, list(states)].flatten(1)
        distances = []
        for _, images in gallery:
            predicted = misfit.predict(images, states).flatten(1)
            # Without the square of what is wanted, which is the same for all of the gallery.
            distances.append((predicted**2).sum(dim=1) - 2 * wanted @ predicted.T)
        nearest = torch.cat(distances, dim=1).argmin(dim=1)
        return torch.cat([z for z, _ in gallery])[nearest]

    def _search(
        self,
        view: View,
        model: VariationalAutoencoder,
        misfit: Misfit,
        releases: Tensor,
        gallery: Sequence[tuple[Tensor, Tensor]],
        weight: float,
        steps: int,
    ) -> Tensor:
        rng = numpy_stream(view.seed, "attack", "generative", "states")
        z = self._start(misfit, releases, gallery, misfit.states(rng)).requires_grad_(True)
        optimizer = torch.optim.Adam([z], self.search_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            energy = self._energy(view, misfit(model.decode(z), releases, misfit.states(rng)), z, weight)
            descend(optimizer, energy.sum())
            schedule.step()
        return z.detach()

    @staticmethod
    def _energy(view: View, misfit: Tensor, z: Tensor, weight: float) -> Tensor:
        """Negative log-posterior (b,) per image value, the prior's part times ``weight``."""
        return misfit + weight * 0.5 * (z**2).sum(dim=1) / float(np.prod(view.image_shape))
