"""Reconstruction without weights or queries: a substitute edge whose features are like the releases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.decoders import Decoder, as_maps
from privhier.attacks.parts.fitting import count_macs, take
from privhier.attacks.parts.matching import affordable_steps, as_array, image_errors, pixels
from privhier.attacks.parts.nets import ChannelNorm, channel_norm
from privhier.attacks.parts.selection import own_split
from privhier.attacks.refusals import auxiliary_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream, torch_stream

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the discrepancy's kernels, in units of the median squared distance."""
_POOLED = 4
"""Side of the grid on which whole releases are compared."""
_START_NOISE = 0.1
"""Noise of the substitute before it has seen a release, in units of a channel's spread."""
_DECODER_BLOCKS = 2
_VALIDATION_ROWS = 256
_BLOCK = 64


class SubstituteEdge(nn.Module):
    """Images (b, 3, H, W) to maps (b, c, h, w) in units of each channel's mean and spread.

    Adds normal noise of a learned scale, since the releases' distribution shows theirs; no value
    falls below the least one that the channel ever had, as behind a rectifier.
    """

    floor: Tensor

    def __init__(self, maps: FloatArray, norm: ChannelNorm, image_shape: tuple[int, int, int], width: int):
        super().__init__()
        _, channels, self.height, self.breadth = maps.shape
        scale = min(image_shape[1] // self.height, image_shape[2] // self.breadth)
        halvings = int(math.log2(max(1, min(scale, 16))))
        layers: list[nn.Module] = []
        before = image_shape[0]
        for level in range(max(1, halvings)):
            wide = width * min(4, 2**level)
            stride = 2 if level < halvings else 1
            layers += [nn.Conv2d(before, wide, 3, stride=stride, padding=1), nn.GroupNorm(1, wide), nn.ReLU()]
            layers += [nn.Conv2d(wide, wide, 3, padding=1), nn.GroupNorm(1, wide), nn.ReLU()]
            before = wide
        if self.height == 1:
            layers += [nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten()]
            layers += [nn.Linear(before * _POOLED**2, channels), nn.Unflatten(1, (channels, 1, 1))]
        else:
            layers += [
                nn.AdaptiveAvgPool2d((self.height, self.breadth)),
                nn.Conv2d(before, channels, 3, padding=1),
            ]
        self.body = nn.Sequential(*layers)
        self.log_noise = nn.Parameter(torch.tensor(math.log(_START_NOISE)))
        lowest = torch.from_numpy(maps.min(axis=(0, 2, 3)).astype(np.float32)).view(1, -1, 1, 1)
        self.register_buffer("floor", norm(lowest))

    def forward(self, x_bchw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Features; with noise if a CPU generator is given."""
        z = torch.maximum(self.body(2 * x_bchw - 1), self.floor)
        if generator is None:
            return z
        noise = torch.randn(z.shape, generator=generator).to(z.device)
        return z + self.log_noise.exp() * noise


def critic(channels: int, side: int, width: int) -> nn.Sequential:
    """Judges neighborhoods of maps (b, c, h, w), vectors as 1x1; spectral norm (Miyato et al., 2018)."""
    kernel, stride = (3, 2) if side >= 3 else (1, 1)

    def layer(inputs: int, outputs: int, k: int, s: int) -> nn.Module:
        made: nn.Module = spectral_norm(nn.Conv2d(inputs, outputs, k, stride=s, padding=k // 2))
        return made

    return nn.Sequential(
        layer(channels, width, 1, 1),
        nn.LeakyReLU(0.2),
        layer(width, width, kernel, 1),
        nn.LeakyReLU(0.2),
        layer(width, 2 * width, kernel, stride),
        nn.LeakyReLU(0.2),
        layer(2 * width, 2 * width, kernel, stride),
        nn.LeakyReLU(0.2),
        layer(2 * width, 1, 1, 1),
    )


def mean_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of rows (n, q) and (m, q), Gaussian kernels of five bandwidths.

    Gretton et al. (2012), the biased statistic: at least 0, and defined for a single row.
    """
    rows = torch.cat([a, b])
    squares = (rows**2).sum(dim=1)
    distances = (squares[:, None] + squares[None] - 2 * rows @ rows.T).clamp_min(0)
    median = distances.detach().median().clamp_min(1e-6)
    kernel = torch.stack([torch.exp(-distances / (median * width)) for width in _BANDWIDTHS]).mean(dim=0)
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


@attacks.register("substitute")
@dataclass(frozen=True)
class SubstituteAttack(Attack):
    """Substitute edge and its decoder, trained until its features look like the victims' releases.

    For an attacker without the edge's weights and without a release of any image it knows: neither
    ``white_box`` nor ``aux.releases`` is read. Features of its own images are drawn towards the
    releases by a critic of neighborhoods and by the maximum mean discrepancy of pooled maps, as in
    FORA (Xu et al., 2024); a decoder learns at the same time to invert the substitute, as in PCAT
    (Gao and Zhang, 2023), and is then applied to the releases; UnSplit (Erdogan et al., 2022) does
    so for one image. The victims' releases are fitted **as a set**, which is what such an attacker
    has: what is said of one victim depends on the others, and few victims say little about the edge.
    The T releases of a record are averaged.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        width: Channels of the substitute's first stage, of the critic and of the decoder.
        steps: Most steps; each takes ``batch`` own images and as many releases.
        learning_rate: Of substitute and decoder; the critic's is the same.
        batch: Records of either kind in a step.
        critic_weight: Of the critic beside the discrepancy, in the substitute's loss.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "reconstruction"
    joint: ClassVar[bool] = True
    """Whether it uses the victims jointly, so that what it says of one depends on the others."""
    target: str = ""
    width: int = option(32, low=4)
    steps: int = option(1000, low=1)
    learning_rate: float = option(1e-3, low=1e-7)
    batch: int = option(32, low=2)
    critic_weight: float = option(0.1, low=0.0)
    max_gmacs: int = option(3000, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return auxiliary_refusal(view)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        aux, device = view.aux, view.device
        rng = numpy_stream(view.seed, "attack", "substitute", "split")
        split = own_split(np.zeros(len(aux.images), np.int64), aux.groups, rng)
        maps = as_maps(view.releases.mean(axis=1, keepdims=True))
        with isolated_rng(view.seed, "attack", "substitute"):
            # The decoder is given normalized maps, and so is left to normalize nothing.
            norm = channel_norm(maps)
            edge = SubstituteEdge(maps, norm, view.image_shape, self.width).to(device)
            example = as_array(norm(torch.from_numpy(maps[:_BLOCK])))
            decoder = Decoder(example, view.image_shape, self.width, _DECODER_BLOCKS)
            decoder.norm = _identity(maps.shape[1])
            decoder.to(device)
            norm.to(device)
            judge = critic(maps.shape[1], min(maps.shape[2:]), self.width).to(device)
            steps = self._train(view, split.train, maps, norm, edge, decoder, judge)
        held_out = split.validation[:_VALIDATION_ROWS]
        generator = torch_stream(view.seed, "attack", "substitute", "validation")
        errors, images, losses = [], [], []
        with torch.no_grad():
            for rows in np.array_split(held_out, max(1, len(held_out) // _BLOCK)):
                shown = pixels(aux.images, rows, device)
                errors.append(image_errors(decoder(edge(shown, generator))[0].clamp(0, 1), shown))
            for first in range(0, len(maps), _BLOCK):
                z = norm(take(maps, np.arange(first, min(first + _BLOCK, len(maps))), device))
                guess = decoder(z)[0].clamp(0, 1)
                images.append(guess)
                # The substitute's own view of the guess: far from the release where something went wrong.
                losses.append((edge(guess) - z).square().flatten(1).mean(dim=1))
        return AttackResult(
            reconstructions=as_array(torch.cat(images)),
            own_loss=as_array(torch.cat(losses)),
            validation=-float(torch.cat(errors).mean()),
            selected={"steps": steps, "noise": float(edge.log_noise.detach().exp())},
        )

    def _train(
        self,
        view: View,
        train: IntArray,
        maps: FloatArray,
        norm: ChannelNorm,
        edge: SubstituteEdge,
        decoder: Decoder,
        judge: nn.Module,
    ) -> int:
        """Train all three in place; the number of steps."""
        device = view.device
        example = torch.zeros(1, *view.image_shape, device=device)
        one = edge(example).detach()
        cost = sum(count_macs(net, x) for net, x in ((edge, example), (decoder, one), (judge, one)))
        batch = min(self.batch, len(train))
        steps = affordable_steps(cost * batch / 1e9, self.steps, self.max_gmacs)
        ours = [*edge.parameters(), *decoder.parameters()]
        makers = torch.optim.Adam(ours, self.learning_rate, betas=(0.5, 0.9))
        judging = torch.optim.Adam(judge.parameters(), self.learning_rate, betas=(0.5, 0.9))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(makers, steps)
        order = numpy_stream(view.seed, "attack", "substitute", "order")
        noise = torch_stream(view.seed, "attack", "substitute", "noise")
        for net in (edge, decoder, judge):
            net.train()
        for _ in range(steps):
            x = pixels(view.aux.images, order.choice(train, batch, replace=False), device)
            victims = order.choice(len(maps), batch, replace=len(maps) < batch)
            real = norm(take(maps, victims, device))
            made = edge(x, noise)
            judging.zero_grad()
            hinge = torch.relu(1 - judge(real)).mean() + torch.relu(1 + judge(made.detach())).mean()
            hinge.backward()  # type: ignore[no-untyped-call]
            judging.step()
            makers.zero_grad()
            loss = image_errors(decoder(made)[0], x).mean() - self.critic_weight * judge(made).mean()
            loss = loss + mean_discrepancy(_pooled(made), _pooled(real)) + _moment_gap(made, real)
            loss.backward()
            nn.utils.clip_grad_norm_(ours, 5.0)
            makers.step()
            schedule.step()
        for net in (edge, decoder, judge):
            net.eval()
        return steps


def _pooled(z: Tensor) -> Tensor:
    """Rows (b, q): means over a grid of 4x4 (or fewer) cells."""
    side = min(_POOLED, z.shape[-1], z.shape[-2])
    return nn.functional.adaptive_avg_pool2d(z, side).flatten(1)


def _moment_gap(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the batches' mean maps and of their channels' spreads."""
    # A channel that is at its floor everywhere has no spread, and a root no gradient there.
    first, second = ((z.var(dim=(0, 2, 3)) + 1e-6).sqrt() for z in (a, b))
    means = _pooled(a).mean(dim=0) - _pooled(b).mean(dim=0)
    return means.square().mean() + (first - second).square().mean()


def _identity(channels: int) -> ChannelNorm:
    return ChannelNorm(torch.zeros(channels), torch.ones(channels))
