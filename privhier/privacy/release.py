"""The release: refuse, clip, noise, quantize. The same in training and in evaluation; there is no switch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from privhier.errors import ConfigError, NonFiniteError, ReleaseError
from privhier.privacy.noise import NoiseSource

_SHRINK = 1 - 2**-20
"""Rounding to float32 moves a norm by less than 2**-22 of itself; aiming below C keeps it within C."""
_FLOAT16_MAX = 65504.0
_LIMITS = {"int8": 127, "int4": 7}
"""Largest integers of the grids of ``privhier.uplink.grid``, which rounds alike."""
_UPSTREAM = "Nothing was released; look for the cause upstream"
_SILENT = 1e-6
"""Two standard values or more are all nearer to 0 with probability below 1e-11."""
_NOISE_TRIAL = 256
"""Values from which on the scale of a draw is checked (a false alarm has probability below 1e-13)."""


@dataclass(frozen=True)
class ReleaseMechanism:
    """How one record's features become a release.

    ``gaussian``: clip the whole tensor to L2 norm C, add N(0, sigma^2) to every value.
    ``laplace``: clip to L1 norm C, add Laplace(b = sigma). ``none``: raw features, no guarantee.
    Replace-one: two records' clipped features differ by at most 2C in that norm.

    Args:
        mechanism: ``"none"``, ``"gaussian"`` or ``"laplace"``.
        clip: C in feature units, in [1e-12, 1e12]; a public constant, never read off data.
        sigma: Standard deviation (gaussian) or scale b (laplace) in feature units; 0: clip only.
        quantize: How values go over the wire. Rounding is a function of one record's noised release, so it
            costs no privacy (post-processing: Dwork and Roth, 2014, proposition 2.1). ``"float16"``
            saturates at 65504 in size; ``"int8"`` and ``"int4"`` are integers in [-127, 127] and [-7, 7]
            times one power of two a record, at most 1/63 and 1/3 of its largest value.

    Raises:
        ConfigError: A field breaks its rule.

    Example:
        >>> import torch
        >>> from privhier.privacy.noise import SystemNoise
        >>> mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=0.3)
        >>> release = mechanism.sanitize(torch.randn(4, 8), SystemNoise())
        >>> release.values.shape
        torch.Size([4, 8])
    """

    mechanism: Literal["none", "gaussian", "laplace"] = "none"
    clip: float = 1.0
    sigma: float = 0.0
    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"

    def __post_init__(self) -> None:
        if self.mechanism not in ("none", "gaussian", "laplace"):
            raise _config("mechanism", self.mechanism, "must be none, gaussian or laplace")
        if not 1e-12 <= self.clip <= 1e12:
            raise _config("clip", self.clip, "must lie in [1e-12, 1e12], so that float32 carries it")
        if not 0 <= self.sigma <= 1e30:
            raise _config("sigma", self.sigma, "must lie in [0, 1e30]")
        if self.mechanism == "none" and self.sigma != 0:
            raise _config("sigma", self.sigma, "must be 0 for mechanism 'none'")
        if self.quantize not in ("float32", "float16", "int8", "int4"):
            raise _config("quantize", self.quantize, "must be float32, float16, int8 or int4")

    @property
    def deterministic(self) -> bool:
        """Whether the same features give the same release again: no noise, so no guarantee."""
        return self.mechanism == "none" or self.sigma == 0

    def clip_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scale every record's whole tensor to norm at most C; differentiable.

        Args:
            z: ``(B, *shape)``, any float type.

        Returns:
            float32 ``(B, *shape)``. The norm of every record, summed exactly, is at most C. A record
            within C is returned unchanged (one within a millionth below C may be scaled by that).

        Raises:
            ReleaseError: A value is not finite in float32, or z has no record axis and value axis.
        """
        if z.ndim < 2 or not z.is_floating_point():
            raise _refuse(f"{z.dtype} {tuple(z.shape)}", "features must be floating point (B, ...)")
        z = z.float()
        if z.numel() == 0:
            return z
        order = 1 if self.mechanism == "laplace" else 2
        # float64 holds the squares of every float32: no overflow, no underflow, one look for inf and nan.
        norm = torch.linalg.vector_norm(z.flatten(1), order, dim=1, dtype=torch.float64)
        largest = float(norm.detach().max())
        if not math.isfinite(largest):
            bad = int((~torch.isfinite(norm)).sum())
            raise NonFiniteError(
                key="release",
                value=f"{bad} of {len(z)} records",
                rule="features must be finite",
                remedy=_UPSTREAM,
            )
        if self.mechanism == "none":
            return z
        bound = self.clip * _SHRINK
        scale = (bound / norm.clamp_min(bound)).reshape(-1, *[1] * (z.ndim - 1))
        if bound < 1e-30 * largest:  # the scale itself would lose its digits in float32
            clipped: torch.Tensor = (z.double() * scale).float()
        else:
            clipped = z * scale.float()
        return clipped

    def sanitize(self, z: torch.Tensor, noise: NoiseSource) -> Release:
        """One fresh release of every record: clip, noise, quantize; differentiable with respect to z.

        Args:
            z: ``(B, *shape)`` features.
            noise: Where the noise is drawn, on the CPU whatever z's device.

        Returns:
            The one thing an uplink takes. Its ``values`` are float32 ``(B, *shape)``, still in the graph
            of z; the uplink carries them as ``quantize`` without loss.

        Raises:
            ReleaseError: Non-finite features, or noise that is not fresh standard noise.
        """
        values = self._randomized(z, noise)
        if values.dtype != torch.float32 or values.shape != z.shape:
            raise _refuse(f"{values.dtype} {tuple(values.shape)}", f"must be float32 {tuple(z.shape)}")
        release = object.__new__(Release)
        _MADE[release] = _Made(values, values.detach().clone(), replace(self), noise.kind)
        return release

    def _randomized(self, z: torch.Tensor, noise: NoiseSource) -> torch.Tensor:
        """The values of one fresh release."""
        release = self.clip_features(z)
        if not self.deterministic and release.numel():
            shape = tuple(release.shape)
            draw = noise.laplace(shape) if self.mechanism == "laplace" else noise.gaussian(shape)
            self._check_noise(draw, shape)
            release = release + self.sigma * draw.to(release.device)
        return self.quantized(release)

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

    def _check_noise(self, draw: torch.Tensor, shape: tuple[int, ...]) -> None:
        """Refuse what cannot be standard noise: wrong shape, shared between records, wrong scale."""
        if draw.dtype != torch.float32 or tuple(draw.shape) != shape:
            raise _refuse(f"{draw.dtype} {tuple(draw.shape)}", f"noise must be float32 {shape}")
        few = draw[:8]
        if few[1:].numel() >= 4 and bool((few[1:] == few[:1]).all()):
            raise _refuse("equal noise in every record", "noise must be drawn for every record anew")
        if draw.numel() >= 2 and float(draw.abs().max()) < _SILENT:
            raise _refuse("noise next to nothing", "noise must have unit scale")
        if draw.numel() >= _NOISE_TRIAL:
            # E x^2 = 1 (gaussian) and E |x| = 1 (laplace); ten standard errors either way.
            size = float(draw.abs().mean() if self.mechanism == "laplace" else draw.square().mean())
            variance = 1 if self.mechanism == "laplace" else 2
            if not abs(size - 1) <= 10 * math.sqrt(variance / draw.numel()):
                raise _refuse(f"mean size {size:.4g}", "noise must have unit scale")


class Release:
    """Sanitized features of a batch of records: the only thing that an uplink takes.

    ``ReleaseMechanism.sanitize`` makes it and nobody else: there is no constructor, no subclass and no copy,
    and an instance holds nothing itself, so that one made past the constructor is empty. Arithmetic and
    torch's functions see its values and give plain tensors. What goes up is a copy taken when it was made;
    values that were changed in place since are refused.

    Example:
        >>> Release(torch.zeros(4, 8))
        Traceback (most recent call last):
        ...
        privhier.errors.ReleaseError: release: 'Tensor' - only ReleaseMechanism.sanitize makes ...
    """

    __slots__ = ("__weakref__",)

    def __new__(cls, *given: object, **named: object) -> Release:
        """Refused."""
        what = [type(value).__name__ for value in (*given, *named.values())]
        raise _not_made(what[0] if what else "nothing")

    def __init_subclass__(cls) -> None:
        """Refused."""
        raise _not_made("a subclass")

    @property
    def values(self) -> torch.Tensor:
        """float32 ``(B, *shape)``, in the graph of the features they were made from."""
        return _made(self).values

    @property
    def mechanism(self) -> ReleaseMechanism:
        """What made it."""
        return _made(self).mechanism

    @property
    def noise_source(self) -> str:
        """``NoiseSource.kind`` of the noise it was made with."""
        return _made(self).noise_source

    @property
    def shape(self) -> torch.Size:
        """``(B, *shape)``."""
        return self.values.shape

    def payload(self) -> npt.NDArray[np.float32]:
        """A copy of the values as they go up, float32 ``(B, *shape)``.

        Raises:
            ReleaseError: They were changed in place since it was made.
        """
        made = _made(self)
        if not torch.equal(made.values.detach().view(torch.int32), made.payload.view(torch.int32)):
            raise ReleaseError(
                key="release",
                value="values changed in place",
                rule="what goes up must be what ReleaseMechanism.sanitize made",
                remedy="Work on a copy: release.values.clone()",
            )
        return made.payload.cpu().numpy().copy()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's functions get the values."""
        return func(*_plain(args), **{name: _plain(value) for name, value in (kwargs or {}).items()})

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return self.values[rows]

    def __add__(self, other: Any) -> torch.Tensor:
        return torch.add(self.values, _plain(other))

    def __sub__(self, other: Any) -> torch.Tensor:
        return torch.sub(self.values, _plain(other))

    def __mul__(self, other: Any) -> torch.Tensor:
        return torch.mul(self.values, _plain(other))

    def __truediv__(self, other: Any) -> torch.Tensor:
        return torch.div(self.values, _plain(other))

    def __neg__(self) -> torch.Tensor:
        return -self.values

    def __rsub__(self, other: Any) -> torch.Tensor:
        return torch.rsub(self.values, _plain(other))

    __radd__, __rmul__ = __add__, __mul__

    def __copy__(self) -> NoReturn:
        raise _not_made("a copy")

    def __deepcopy__(self, memory: object) -> NoReturn:
        raise _not_made("a copy")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise _not_made("a pickle")

    def __repr__(self) -> str:
        made = _made(self)
        return f"Release(shape={tuple(self.shape)}, {made.mechanism!r}, noise_source={made.noise_source!r})"


@dataclass(frozen=True, eq=False)
class _Made:
    """What a release holds; kept outside of it, where no constructor and no pickle reaches."""

    values: torch.Tensor
    payload: torch.Tensor
    mechanism: ReleaseMechanism
    noise_source: str


_MADE: WeakKeyDictionary[Release, _Made] = WeakKeyDictionary()


def as_releases(value: object) -> list[Release]:
    """One release, or a list or tuple of them, as a list.

    Raises:
        ReleaseError: It is something else, or was not made by ``ReleaseMechanism.sanitize``.
    """
    found: list[Release] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if type(one) is not Release:
            raise _not_made(type(one).__name__)
        _made(one)
        found.append(one)
    return found


def _made(release: Release) -> _Made:
    made = _MADE.get(release)
    if made is None:
        raise _not_made("an empty Release")
    return made


def _plain(value: Any) -> Any:
    """The same with every release replaced by its values."""
    if isinstance(value, Release):
        return value.values
    if isinstance(value, tuple | list):
        return type(value)(_plain(one) for one in value)
    return value


def _not_made(value: str) -> ReleaseError:
    return ReleaseError(
        key="release",
        value=value,
        rule="only ReleaseMechanism.sanitize makes a release, and only a release can leave the edge",
        remedy="Pass the features through mechanism.sanitize(features, noise) and send what it returns",
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


def _refuse(value: str, rule: str) -> ReleaseError:
    return ReleaseError(key="release", value=value, rule=rule, remedy=_UPSTREAM)
