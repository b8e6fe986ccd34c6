"""How a record becomes a release, in numbers: what a charge, a claim and a release must agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from privhier.config.network import MOST_LETTERS
from privhier.errors import ConfigError, NonFiniteError, ReleaseError
from privhier.privacy.channels import CHANNELS, Channel, build_channel

Name = Literal[
    "none", "gaussian", "laplace", "randomized_response", "subset_selection", "truncated_geometric"
]
"""As ``release.mechanism`` knows them."""

_SHRINK = 1 - 2**-20
"""Rounding to float32 moves a norm by less than 2**-22 of itself; aiming below C keeps it within C."""
_FLOAT16_MAX = 65504.0
_LIMITS = {"int8": 127, "int4": 7}
"""Largest integers of the grids of ``privhier.uplink.grid``, which rounds alike."""
_UPSTREAM = "Nothing was released; look for the cause upstream"


class Code(Protocol):
    """Features to letters and back: the part of the edge that a release of letters needs."""

    groups: int
    letters: int

    def letters_of(self, z: torch.Tensor) -> torch.Tensor:
        """The letters of features ``(B, M * d)``: int64 ``(B, M)``."""
        ...

    def straight_through(self, z: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        """Values of letters, float32 ``(B, M * d)``, with the gradient of z passed straight to it."""
        ...


@dataclass(frozen=True)
class Mechanism:
    """The numbers of a release mechanism.

    ``gaussian``: clip the whole tensor to L2 norm C, add N(0, sigma^2) to every value.
    ``laplace``: clip to L1 norm C, add Laplace(b = sigma). ``none``: raw features, or true letters; no
    guarantee. Replace-one: two records' clipped features differ by at most 2C in that norm. The channels
    (``privhier.privacy.channels``): a record's M letters are answered at random, each for itself.

    Args:
        mechanism: As the configuration names it.
        clip: C in feature units, in [1e-12, 1e12]; a public constant, never read off data.
        sigma: Standard deviation (gaussian) or scale b (laplace) in feature units; 0: clip only.
        quantize: How values go over the wire. Rounding is a function of one record's noised release, so it
            costs no privacy (post-processing: Dwork and Roth, 2014, proposition 2.1). ``"float16"``
            saturates at 65504 in size; ``"int8"`` and ``"int4"`` are integers in [-127, 127] and [-7, 7]
            times one power of two a record, at most 1/63 and 1/3 of its largest value.
        letters: K, 2 to 4,096, where a release is made of letters; 0: it is made of values.
        groups: M, letters of a record.
        epsilon: Pure, replace-one, of one answer; 0 unless letters are answered at random.

    Raises:
        ConfigError: A field breaks its rule.
    """

    mechanism: Name = "none"
    clip: float = 1.0
    sigma: float = 0.0
    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    letters: int = 0
    groups: int = 1
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.mechanism not in ("none", "gaussian", "laplace", *CHANNELS):
            known = ", ".join(("none", "gaussian", "laplace", *CHANNELS))
            raise _config("mechanism", self.mechanism, f"must be one of {known}")
        if not 1e-12 <= self.clip <= 1e12:
            raise _config("clip", self.clip, "must lie in [1e-12, 1e12], so that float32 carries it")
        if not 0 <= self.sigma <= 1e30:
            raise _config("sigma", self.sigma, "must lie in [0, 1e30]")
        if self.mechanism not in ("gaussian", "laplace") and self.sigma != 0:
            raise _config("sigma", self.sigma, f"must be 0 for mechanism {self.mechanism!r}")
        if self.quantize not in ("float32", "float16", "int8", "int4"):
            raise _config("quantize", self.quantize, "must be float32, float16, int8 or int4")
        self._check_letters()

    def _check_letters(self) -> None:
        answered = self.mechanism in CHANNELS
        if type(self.letters) is not int or not (self.letters == 0 or 2 <= self.letters <= MOST_LETTERS):
            raise _config("letters", self.letters, f"must be 0, or an integer from 2 to {MOST_LETTERS}")
        if type(self.groups) is not int or self.groups < 1 or (not self.letters and self.groups != 1):
            raise _config("groups", self.groups, "must be an integer, at least 1; 1 where no letters are")
        if answered and not self.letters:
            raise _config("letters", self.letters, f"must be given for mechanism {self.mechanism!r}")
        if self.letters and self.mechanism in ("gaussian", "laplace"):
            raise _config("letters", self.letters, f"cannot be released by mechanism {self.mechanism!r}")
        if answered != (0 < self.epsilon < math.inf) or (not answered and self.epsilon != 0):
            raise _config("epsilon", self.epsilon, "must be above 0 for a channel on letters, else 0")
        if self.letters and (self.clip, self.quantize) != (1.0, "float32"):
            raise _config("clip", self.clip, "letters are neither clipped nor quantized")

    @property
    def deterministic(self) -> bool:
        """Whether the same features give the same release again: no noise, so no guarantee."""
        return self.mechanism == "none" or (not self.letters and self.sigma == 0)

    @property
    def wire(self) -> str:
        """How its releases go up: ``letters``, or as ``quantize`` says."""
        return "letters" if self.letters else self.quantize

    @property
    def terms(self) -> dict[str, Any]:
        """What is charged: everything but the wire."""
        names = ("letters", "groups", "epsilon") if self.letters else ("clip", "sigma")
        return {name: getattr(self, name) for name in ("mechanism", *names)}

    @cached_property
    def channel(self) -> Channel | None:
        """How letters are answered; None: true letters, or none."""
        if self.mechanism not in CHANNELS:
            return None
        return build_channel(self.mechanism, self.letters, self.epsilon)

    def clip_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scale every record's whole tensor to norm at most C; differentiable. Letters have no norm bound.

        Args:
            z: ``(B, *shape)``, any float type.

        Returns:
            float32 ``(B, *shape)``. The norm of every record, summed exactly, is at most C. A record
            within C is returned unchanged (one within a millionth below C may be scaled by that).

        Raises:
            ReleaseError: A value is not finite in float32, or z has no record axis and value axis.
        """
        if z.ndim < 2 or not z.is_floating_point():
            raise refused(f"{z.dtype} {tuple(z.shape)}", "features must be floating point (B, ...)")
        z = z.float()
        if z.numel() == 0:
            return z
        order = 1 if self.mechanism == "laplace" else 2
        # float64 holds the squares of every float32: no overflow, no underflow, one look for inf and nan.
        norm = torch.linalg.vector_norm(z.flatten(1), order, dim=1, dtype=torch.float64)
        largest = float(norm.detach().max())
        if not math.isfinite(largest):
            raise _non_finite(int((~torch.isfinite(norm)).sum()), len(z))
        if self.mechanism not in ("gaussian", "laplace"):
            return z
        bound = self.clip * _SHRINK
        scale = (bound / norm.clamp_min(bound)).reshape(-1, *[1] * (z.ndim - 1))
        if bound < 1e-30 * largest:  # the scale itself would lose its digits in float32
            clipped: torch.Tensor = (z.double() * scale).float()
        else:
            clipped = z * scale.float()
        return clipped

    def quantized(self, release: torch.Tensor) -> torch.Tensor:
        """Round to what the wire carries; the gradient passes straight through.

        Every record is rounded by itself, to nearest, ties to even. float16 saturates at 65504 in size;
        int8 and int4 round to ``privhier.uplink.grid``, where values within one step of float32's largest
        may saturate. A value that is not finite does not become one.

        Args:
            release: float32 ``(B, *shape)``.

        Returns:
            float32 ``(B, *shape)``; rounding it again changes nothing.
        """
        if self.quantize == "float32" or release.numel() == 0:
            return release
        detached = release.detach()
        if self.quantize == "float16":
            rounded = detached.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half().float()
        else:
            rounded = _on_grid(detached, _LIMITS[self.quantize])
        # The bracket is exactly 0 and carries the gradient; adding it also leaves no negative zero.
        return rounded + (release - detached)


def refused(value: str, rule: str) -> ReleaseError:
    """What cannot be released, in the words of every message about it."""
    return ReleaseError(key="release", value=value, rule=rule, remedy=_UPSTREAM)


def _non_finite(bad: int, count: int) -> NonFiniteError:
    return NonFiniteError(
        key="release", value=f"{bad} of {count} records", rule="features must be finite", remedy=_UPSTREAM
    )


def _on_grid(values: torch.Tensor, limit: int) -> torch.Tensor:
    """What ``privhier.uplink.grid.rounded`` gives, bit for bit but for the sign of zeros, on any device."""
    bits = limit.bit_length()
    flat = values.flatten(1).double()
    largest = flat.abs().amax(dim=1, keepdim=True)
    mantissa, exponent = torch.frexp(largest)
    exponent = exponent.long() - bits + (mantissa * 2**bits >= limit + 0.5).long()
    # The bits of a float64 power of two: exact, which a device's own exp2 need not be.
    step = ((exponent.clamp(-128, 128 - bits) + 1023) << 52).view(torch.float64)
    step = torch.where(largest.isfinite(), step, torch.nan)
    whole = (flat / step).round().clamp(-limit, limit)
    return (whole * step).float().reshape(values.shape)


def _config(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"release.{field}", value=value, rule=rule, remedy=f"Mend release.{field}")
