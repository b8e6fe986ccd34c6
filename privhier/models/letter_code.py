"""The code inside an edge: features to letters, letters to values, with gradients straight through."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from privhier.errors import ConfigError, ReleaseError
from privhier.models.codebook import nearest_letters
from privhier.models.exits import Exit


class LetterCode(nn.Module):
    """A codebook as a part of a network: fitted once and kept, or parameters that are trained.

    A fitted one is there from the start, so that weights always fit, but says nothing until it is settled.
    Letters are cells of the features, or of what the task exits made of them when the code was settled: then
    two records have one letter if the exits judge them alike (near in Hellinger's distance), whatever else
    their features say.

    Args:
        groups: M, letters of a record.
        letters: K.
        size: d, values of a letter.
        learned: Whether codes are parameters; these are drawn from torch's generator, which the caller has
            seeded and isolated.
        exits: The task exits, of which copies are kept, where letters are cells of their posteriors (M = 1).
    """

    codes: Tensor | nn.Embedding
    settled: Tensor
    centers: Tensor

    def __init__(
        self, *, groups: int, letters: int, size: int, learned: bool, exits: Sequence[Exit] = ()
    ) -> None:
        super().__init__()
        self.groups, self.letters, self.size, self.learned = groups, letters, size, learned
        if learned:
            self.codes = nn.Embedding(groups * letters, size)
        else:
            self.register_buffer("codes", torch.zeros(groups, letters, size))
        self.register_buffer("settled", torch.tensor(learned))
        if exits:
            # float64: a letter must not hang on the records that were judged beside it.
            self.judges = nn.ModuleList(copy.deepcopy(head).double() for head in exits).requires_grad_(False)
            width = sum(head.n_classes for head in exits)
            self.register_buffer("centers", torch.zeros(groups, letters, width))

    @property
    def by_posteriors(self) -> bool:
        """Whether letters are cells of the exits' posteriors."""
        return hasattr(self, "judges")

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
    def places(self) -> Tensor:
        """Where the letters lie among what ``seen_as`` gives: ``(M, K, e)``; raises as ``values`` does."""
        values = self.values
        return self.centers if self.by_posteriors else values

    def settle(self, values: Tensor, *, centers: Tensor | None = None) -> None:
        """Take fitted codes over; a learned code takes them as a start.

        Args:
            values: float32 ``(M, K, d)``, finite.
            centers: float32 ``(M, K, e)``, the letters among what ``seen_as`` gives, where they are cells of
                posteriors; ``judge_as`` comes first.

        Raises:
            ConfigError: Codes of another shape.
        """
        wanted = (self.groups, self.letters, self.size)
        if tuple(values.shape) != wanted or self.by_posteriors != (centers is not None):
            raise ConfigError(
                key="model.bottleneck",
                value=tuple(values.shape),
                rule=f"the codes must be {wanted}: groups, letters, values; centers for posteriors",
                remedy="Fit the codes with the configured groups and letters",
            )
        codes = self.codes.weight if isinstance(self.codes, nn.Embedding) else self.codes
        with torch.no_grad():
            codes.copy_(values.view_as(codes))
            if centers is not None:
                self.centers.copy_(centers)
        self.settled.fill_(True)

    def judge_as(self, exits: Sequence[Exit]) -> None:
        """Take the task exits over as they judge now."""
        for judge, head in zip(self.judges, exits, strict=True):
            judge.load_state_dict(head.state_dict())

    def seen_as(self, z: Tensor) -> Tensor:
        """Features ``(B, M * d)`` as letters are told apart by: ``(B, M, e)``, differentiable.

        The features themselves, or square roots of the judges' posteriors, side by side: Euclid's distance
        of these is Hellinger's of the judgements.
        """
        if not self.by_posteriors:
            return z.view(len(z), self.groups, self.size)
        roots = [torch.softmax(judge(z.double()), dim=1).clamp_min(1e-300).sqrt() for judge in self.judges]
        return torch.cat(roots, dim=1)[:, None]

    @torch.no_grad()
    def letters_of(self, z: Tensor) -> Tensor:
        """The nearest letters of features ``(B, M * d)``: int64 ``(B, M)``; raises as ``values`` does.

        On the device of z, wherever the code is.
        """
        places = self.places
        if not self.by_posteriors:
            return nearest_letters(z, places)
        seen = self.seen_as(z.to(places.device)).flatten(1)
        return nearest_letters(seen, places).to(z.device)

    def values_of(self, letters: Tensor) -> Tensor:
        """Values of letters int64 ``(B, M)``: float32 ``(B, M * d)``, in the graph of learned codes.

        On the device of the letters, wherever the code is.
        """
        rows = (letters + self._first(letters)).to(self.settled.device)
        if isinstance(self.codes, nn.Embedding):
            found: Tensor = self.codes(rows)
        else:
            found = self.values.reshape(-1, self.size)[rows]
        return found.flatten(1).to(letters.device)

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
