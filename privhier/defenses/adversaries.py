"""Adversaries of unlike kinds that a defense trains beside the adversarial exits, and holds constant.

One adversary at chance proves nothing: the edge has learned to fool that one. Several of unlike kinds,
started anew at staggered times, are harder to fool together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from privhier.models.norms import group_norm

KINDS = ("linear", "mlp", "cnn", "fourier")
"""In the order in which they are taken; after the last the first again, started elsewhere. On vectors, which
have nothing to convolve, ``cnn`` is a wider ``mlp``."""
HIDDEN, WIDE, CHANNELS, FEATURES = 64, 256, 32, 256
_SIDE = 8
"""All but the CNN see a map averaged to at most 8x8."""
_POOLED = 4
_FREQUENCIES = (0.25, 8.0)
"""Range of the scales of the random frequencies: a release has about unit norm, up to its clip bound."""


class RandomFourier(nn.Module):
    r"""Random features :math:`\sqrt 2 \cos(z W + b)` (Rahimi and Recht, 2007), drawn once and kept.

    Their inner products are those of a sum of Gaussian kernels whose scales lie evenly, in logarithms,
    between the two ends of ``_FREQUENCIES``: no bandwidth is read off the data.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        low, high = (math.log(end) for end in _FREQUENCIES)
        scales = torch.linspace(low, high, FEATURES).exp()
        self.register_buffer("frequencies", torch.randn(width, FEATURES) * scales)
        self.register_buffer("phases", torch.rand(FEATURES) * 2 * math.pi)

    def forward(self, z: Tensor) -> Tensor:
        """Features ``(B, FEATURES)`` of ``z (B, d)``."""
        return math.sqrt(2) * torch.cos(z @ self.frequencies + self.phases)


def build_adversary(kind: str, feature_shape: Sequence[int], n_classes: int) -> nn.Module:
    """An adversary ``(B, *feature_shape)`` to logits ``(B, n_classes)``, drawn from torch's generator.

    Args:
        kind: One of ``KINDS``.
        feature_shape: ``(d,)`` or ``(C, h, w)``.
        n_classes: At least 2.
    """
    if kind == "cnn" and len(feature_shape) == 3:
        return _cnn(feature_shape, n_classes)
    layers, width = _flat(feature_shape)
    if kind == "fourier":
        layers.append(RandomFourier(width))
        width = FEATURES
    elif kind != "linear":
        hidden = WIDE if kind == "cnn" else HIDDEN
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        if kind == "cnn":
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


class Panel(nn.Module):
    """Adversaries of a defense's own: one of each secret for every member.

    Drawn from torch's generator, on the CPU, which the caller has seeded and isolated.

    Args:
        count: Members.
        feature_shape: What they see of one record.
        classes: Number of classes of every secret.
    """

    def __init__(self, count: int, feature_shape: Sequence[int], classes: Sequence[int]) -> None:
        super().__init__()
        self._shape, self._classes = tuple(feature_shape), tuple(classes)
        self.members = nn.ModuleList(self._fresh(number) for number in range(count))

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, z: Tensor) -> list[list[Tensor]]:
        """Logits ``(B, K)`` of ``z (B, *feature_shape)``, for each secret those of all members."""
        return self._ask(z, held=False)

    def held(self, z: Tensor) -> list[list[Tensor]]:
        """The same with every parameter held constant: the gradient reaches ``z`` alone."""
        return self._ask(z, held=True)

    def due(self, step: int, every: int) -> list[int]:
        """The members that start anew after this step, from 1: each every so often, at times of its own.

        Example:
            >>> panel = Panel(2, (3,), [2])
            >>> [panel.due(step, 4) for step in range(1, 7)]
            [[], [1], [], [0], [], [1]]
        """
        return [m for m in range(len(self)) if (step + m * every // len(self)) % every == 0]

    @torch.no_grad()
    def restart(self, number: int) -> None:
        """Draw a member anew, in place; what an optimizer remembers of it fades in its next steps."""
        self.members[number].load_state_dict(self._fresh(number).state_dict())

    def _fresh(self, number: int) -> nn.ModuleList:
        kind = KINDS[number % len(KINDS)]
        return nn.ModuleList(build_adversary(kind, self._shape, classes) for classes in self._classes)

    def _ask(self, z: Tensor, *, held: bool) -> list[list[Tensor]]:
        answers: list[list[Tensor]] = [[] for _ in self._classes]
        for member in self.members:
            assert isinstance(member, nn.ModuleList)
            for own, adversary in zip(answers, member, strict=True):
                own.append(held_constant(adversary, adversary, z) if held else adversary(z))
        return answers


def held_constant(layers: nn.Module, owner: nn.Module, z: Tensor) -> Tensor:
    """What ``layers`` make of ``z`` with the parameters of ``owner`` as constants; gradients reach ``z``.

    Args:
        layers: ``owner`` itself, or a copy of it that no hook sees.
        owner: Whose parameters are current.
        z: ``(B, *feature_shape)``.
    """
    frozen: Mapping[str, Tensor] = {name: p.detach() for name, p in owner.named_parameters()}
    answer: Tensor = functional_call(layers, dict(frozen), (z,))
    return answer


def _flat(feature_shape: Sequence[int]) -> tuple[list[nn.Module], int]:
    """Layers that make a vector of a release, and its width."""
    if len(feature_shape) == 1:
        return [], feature_shape[0]
    channels, height, width = feature_shape
    pool, height, width = _pooled(height, width, _SIDE)
    return [*pool, nn.Flatten()], channels * height * width


def _cnn(feature_shape: Sequence[int], n_classes: int) -> nn.Sequential:
    channels, height, width = feature_shape
    layers: list[nn.Module] = []
    for made in (CHANNELS, 2 * CHANNELS):
        stride = 2 if min(height, width) >= 8 else 1
        layers += [nn.Conv2d(channels, made, 3, stride=stride, padding=1), group_norm(made), nn.ReLU()]
        channels, height, width = made, -(-height // stride), -(-width // stride)
    pool, height, width = _pooled(height, width, _POOLED)
    return nn.Sequential(*layers, *pool, nn.Flatten(), nn.Linear(channels * height * width, n_classes))


def _pooled(height: int, width: int, side: int) -> tuple[list[nn.Module], int, int]:
    """Averaging to at most ``side`` by ``side``, deterministic on every device."""
    kernel = math.ceil(max(height, width) / side)
    layers: list[nn.Module] = []
    if kernel > 1:
        layers.append(nn.AvgPool2d(kernel, ceil_mode=True, count_include_pad=False))
    return layers, math.ceil(height / kernel), math.ceil(width / kernel)
