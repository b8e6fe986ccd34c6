"""The release: refuse, clip, noise, quantize; or answer letters. The same in training and in evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from privhier.privacy.made import Release, as_releases, make
from privhier.privacy.mechanism import Code, Mechanism, refused
from privhier.privacy.noise import NoiseSource

__all__ = ["Code", "Mechanism", "Release", "ReleaseMechanism", "as_releases"]

_SILENT = 1e-6
"""Two standard values or more are all nearer to 0 with probability below 1e-11."""
_NOISE_TRIAL = 256
"""Values from which on the scale of a draw is checked (a false alarm has probability below 1e-13)."""


class ReleaseMechanism(Mechanism):
    """How one record's features become a release; its numbers are those of ``Mechanism``.

    Example:
        >>> import torch
        >>> from privhier.privacy.noise import SystemNoise
        >>> mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=0.3)
        >>> release = mechanism.sanitize(torch.randn(4, 8), SystemNoise())
        >>> release.values.shape
        torch.Size([4, 8])
    """

    def sanitize(self, z: torch.Tensor, noise: NoiseSource, code: Code | None = None) -> Release:
        """One fresh release of every record; differentiable with respect to z.

        Values: clip, noise, quantize. Letters: the nearest one, answered at random.

        Args:
            z: ``(B, *shape)`` features; ``(B, M * d)`` for letters.
            noise: Where the noise is drawn, on the CPU whatever z's device.
            code: What letters there are; exactly where the mechanism releases letters.

        Returns:
            The one thing an uplink takes. Its ``values`` are float32 ``(B, *shape)``, still in the graph
            of z; the uplink carries them as ``quantize`` without loss. Of letters they are the values of the
            answers, with the gradient passed straight to z, and the answers themselves go up.

        Raises:
            ReleaseError: Non-finite features, noise that is not fresh standard noise, or a code that is not
                the mechanism's.
        """
        if (code is None) != (self.letters == 0):
            rule = "letters need the code that they come from, and values have none"
            raise refused(f"letters {self.letters}, code {code}", rule)
        letters = None
        if code is None:
            values = self._randomized(z, noise)
        else:
            finite = self.clip_features(z)
            letters = self._answers(finite, noise, code)
            values = code.straight_through(finite, letters)
        if values.dtype != torch.float32 or values.shape != z.shape:
            raise refused(f"{values.dtype} {tuple(values.shape)}", f"must be float32 {tuple(z.shape)}")
        return make(values, letters, replace(self), noise.kind)

    def _randomized(self, z: torch.Tensor, noise: NoiseSource) -> torch.Tensor:
        """The values of one fresh release."""
        release = self.clip_features(z)
        if not self.deterministic and release.numel():
            shape = tuple(release.shape)
            draw = noise.laplace(shape) if self.mechanism == "laplace" else noise.gaussian(shape)
            self._check_noise(draw, shape)
            release = release + self.sigma * draw.to(release.device)
        return self.quantized(release)

    def _answers(self, z: torch.Tensor, noise: NoiseSource, code: Code) -> torch.Tensor:
        """One fresh answer for every letter of every record, int64 ``(B, M)``."""
        if (code.letters, code.groups) != (self.letters, self.groups):
            found, wanted = (code.letters, code.groups), (self.letters, self.groups)
            raise refused(f"a code of {found}", f"must have the mechanism's letters and groups, {wanted}")
        clean = self._in_alphabet(code.letters_of(z.detach()), len(z))
        return self._in_alphabet(self._answered(clean, noise), len(z))

    def _in_alphabet(self, letters: torch.Tensor, records: int) -> torch.Tensor:
        """Letters of so many records, or answers to them, unless they are none of this alphabet."""
        if letters.dtype != torch.int64 or tuple(letters.shape) != (records, self.groups):
            raise refused(f"{letters.dtype} {tuple(letters.shape)}", "letters must be int64 (B, M)")
        if letters.numel() and not 0 <= int(letters.min()) <= int(letters.max()) < self.letters:
            found = f"letters {int(letters.min())} to {int(letters.max())}"
            raise refused(found, f"must lie in [0, {self.letters})")
        return letters

    def _answered(self, letters: torch.Tensor, noise: NoiseSource) -> torch.Tensor:
        """The answers to letters int64 ``(B, M)``."""
        channel = self.channel
        if channel is None or letters.numel() == 0:
            return letters
        answers = channel.sample(letters, _Checked(noise))
        return torch.as_tensor(answers)

    def _check_noise(self, draw: torch.Tensor, shape: tuple[int, ...]) -> None:
        """Refuse what cannot be standard noise: wrong shape, shared between records, wrong scale."""
        if draw.dtype != torch.float32 or tuple(draw.shape) != shape:
            raise refused(f"{draw.dtype} {tuple(draw.shape)}", f"noise must be float32 {shape}")
        few = draw[:8]
        if few[1:].numel() >= 4 and bool((few[1:] == few[:1]).all()):
            raise refused("equal noise in every record", "noise must be drawn for every record anew")
        if draw.numel() >= 2 and float(draw.abs().max()) < _SILENT:
            raise refused("noise next to nothing", "noise must have unit scale")
        if draw.numel() >= _NOISE_TRIAL:
            # E x^2 = 1 (gaussian) and E |x| = 1 (laplace); ten standard errors either way.
            size = float(draw.abs().mean() if self.mechanism == "laplace" else draw.square().mean())
            variance = 1 if self.mechanism == "laplace" else 2
            if not abs(size - 1) <= 10 * math.sqrt(variance / draw.numel()):
                raise refused(f"mean size {size:.4g}", "noise must have unit scale")


class _Checked:
    """Uniform values of another source, refused where they cannot be fresh ones.

    Args:
        source: Where they come from.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source, self.kind = source, source.kind

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """As the source gives them."""
        return self._source.gaussian(shape)

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """As the source gives them."""
        return self._source.laplace(shape)

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64: of this shape, not shared by records, with the right mean."""
        draw = self._source.uniform(shape)
        if draw.dtype != torch.float64 or tuple(draw.shape) != shape:
            raise refused(f"{draw.dtype} {tuple(draw.shape)}", f"uniform values must be float64 {shape}")
        if draw.numel() and not 0 <= float(draw.min()) <= float(draw.max()) < 1:
            raise refused(f"{float(draw.min())} to {float(draw.max())}", "must lie in [0, 1)")
        # Two equal doubles of 53 random bits have probability below 1e-15.
        if len(draw) > 1 and bool((draw[1:8] == draw[:1]).all()):
            raise refused("equal draws in every record", "answers must be drawn for every record anew")
        if draw.numel() >= _NOISE_TRIAL:
            mean, square = float(draw.mean()), float(draw.square().mean())
            within = 7 * 0.3 / math.sqrt(draw.numel())  # seven standard errors of either
            if not (abs(mean - 1 / 2) <= within and abs(square - 1 / 3) <= within):
                raise refused(f"mean {mean:.4g}", "uniform values must fill [0, 1)")
        return draw
