"""The code inside an edge: features to letters, letters to values, with gradients straight through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from privhier.errors import ConfigError, ReleaseError
from privhier.models.codebook import Codebook, nearest_letters


class LetterCode(nn.Module):
    """A codebook as a part of a network: fitted once and kept, or parameters that are trained.

    A fitted one is there from the start, so that weights always fit, but says nothing until it is settled.

    Args:
        groups: M, letters of a record.
        letters: K.
        size: d, values of a letter.
        learned: Whether codes are parameters; these are drawn from torch's generator, which the caller has
            seeded and isolated.
    """

    codes: Tensor | nn.Embedding
    settled: Tensor

    def __init__(self, *, groups: int, letters: int, size: int, learned: bool) -> None:
        super().__init__()
        self.groups, self.letters, self.size, self.learned = groups, letters, size, learned
        if learned:
            self.codes = nn.Embedding(groups * letters, size)
        else:
            self.register_buffer("codes", torch.zeros(groups, letters, size))
        self.register_buffer("settled", torch.tensor(learned))

    @property
    def values(self) -> Tensor:
        """The codes, detached: float32 ``(M, K, d)``.

        Raises:
            ReleaseError: Nothing was fitted yet.
        """
        if not bool(self.settled):
            raise ReleaseError(
                key="release",
                value="no codebook",
                rule="letters are found after pre-training; before it there are none to release",
                remedy="Settle the code first",
            )
        codes = self.codes.weight if isinstance(self.codes, nn.Embedding) else self.codes
        return codes.detach().view(self.groups, self.letters, self.size)

    @property
    def codebook(self) -> Codebook:
        """A copy of the codes on the CPU; raises as ``values`` does."""
        return Codebook(self.values.cpu().clone())

    def settle(self, codebook: Codebook) -> None:
        """Take fitted codes over; a learned code takes them as a start.

        Raises:
            ConfigError: A codebook of another shape.
        """
        shape, wanted = tuple(codebook.values.shape), (self.groups, self.letters, self.size)
        if shape != wanted:
            raise ConfigError(
                key="model.bottleneck",
                value=shape,
                rule=f"the codebook must be {wanted}: groups, letters, values",
                remedy="Fit the codebook with the configured groups and letters",
            )
        codes = self.codes.weight if isinstance(self.codes, nn.Embedding) else self.codes
        with torch.no_grad():
            codes.copy_(codebook.values.view_as(codes))
        self.settled.fill_(True)

    def letters_of(self, z: Tensor) -> Tensor:
        """The nearest letters of features ``(B, M * d)``: int64 ``(B, M)``; raises as ``values`` does."""
        return nearest_letters(z, self.values)

    def values_of(self, letters: Tensor) -> Tensor:
        """Values of letters int64 ``(B, M)``: float32 ``(B, M * d)``, in the graph of learned codes."""
        rows = letters + self._first(letters)
        if isinstance(self.codes, nn.Embedding):
            found: Tensor = self.codes(rows)
            return found.flatten(1)
        return self.values.reshape(-1, self.size)[rows].flatten(1)

    def _first(self, beside: Tensor) -> Tensor:
        """The row of every group's first code."""
        return torch.arange(self.groups, device=beside.device) * self.letters

    def straight_through(self, z: Tensor, letters: Tensor) -> Tensor:
        """The values of letters, with the gradient of z passed straight to it (Bengio and others, 2013).

        Args:
            z: Features ``(B, M * d)``.
            letters: int64 ``(B, M)``, whatever was answered of them.
        """
        return self.values_of(letters) + (z - z.detach())

    def distortion(self, z: Tensor, commitment: float = 0.25) -> Tensor:
        """What a learned code adds to a record's loss, ``(B,)``: features keep near their codes.

        ``commitment`` times the squared distance to the nearest code (van den Oord and others, 2017, equation
        3, third term). The codes themselves are trained by what is made of them: looked up once a record,
        so that DP-SGD has one gradient of each. A record's part depends on no other record.
        """
        nearest = self.values.reshape(-1, self.size)[self.letters_of(z) + self._first(z)].flatten(1)
        return commitment * (z - nearest).square().sum(dim=1)

    def forward(self, z: Tensor) -> Tensor:
        """Same as ``letters_of``."""
        return self.letters_of(z)
