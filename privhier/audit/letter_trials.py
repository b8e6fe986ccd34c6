"""Trials of an audit of letters: a chosen letter goes in, the answer comes out, and both are counted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from privhier.audit.bounds import FloatArray
from privhier.audit.fits import Fit, lumped
from privhier.audit.letter_claim import ClaimedLetters, IntArray
from privhier.audit.trials import Draw, ReleaseFunction, Scores, collected
from privhier.models.letter_code import LetterCode

_ROWS, _FEWEST_ROWS = 4096, 512


class LetterTrials:
    """Makes draws of one release function.

    Args:
        release: The code under audit: features ``(B, M * d)`` in, answers ``(B, M)`` out.
        claimed: What is held against it.
        code: The edge's letters; a letter comes out of its own values.
        rng: Which letters go in.
        first_batch: Number of the first batch; every call takes the next one.
        draws: How many trials are planned; few draws take smaller batches.

    Attributes:
        rows: Records of a batch, a multiple of 512.
        reachable: For every group the letters that some features have.
        common: Those that are reachable in every group, at least one.
    """

    def __init__(
        self,
        release: ReleaseFunction,
        claimed: ClaimedLetters,
        code: LetterCode,
        *,
        rng: np.random.Generator,
        first_batch: int,
        draws: int,
    ) -> None:
        self.release, self.claimed, self.code, self.rng = release, claimed, code, rng
        self.rows = min(_ROWS, max(_FEWEST_ROWS, draws // 16 // _FEWEST_ROWS * _FEWEST_ROWS))
        self._batches = itertools.count(first_batch)
        every = np.arange(claimed.letters)[:, None].repeat(claimed.groups, axis=1)
        found = code.letters_of(self.features(every)).cpu().numpy() == every
        self.reachable: list[IntArray] = [np.flatnonzero(column) for column in found.T]
        self.common: IntArray = np.flatnonzero(found.all(axis=1))
        self._turns: dict[bytes, FloatArray] = {}

    def features(self, letters: IntArray) -> torch.Tensor:
        """Features ``(B, M * d)`` whose letters are these, ``(B, M)``."""
        return self.code.values_of(torch.from_numpy(letters)).detach()

    def batch(self) -> int:
        """The next batch number."""
        return next(self._batches)

    def answers(self, letters: IntArray, epoch: int = 0, batch: int | None = None) -> IntArray:
        """Answers to letters, both ``(B, M)``, in one call; K stands for whatever is no letter."""
        number = self.batch() if batch is None else batch
        released = self.release(self.features(letters), epoch=epoch, batch=number).detach().cpu().double()
        whole = (released == released.round()) & (released >= 0) & (released < self.claimed.letters)
        found = torch.where(whole, released, torch.full_like(released, self.claimed.letters))
        return np.asarray(found.long().numpy())

    def some(self, rows: int, *, common: bool = True) -> IntArray:
        """Letters ``(rows, M)``, each drawn for itself: of ``common``, or of all that its group has."""
        choices = [self.common] * len(self.reachable) if common else self.reachable
        return np.stack([self.rng.choice(choice, rows) for choice in choices], axis=1)

    def sample(
        self, records: int, epoch: int = 0, *, size: int | None = None, common: bool = True
    ) -> tuple[IntArray, IntArray]:
        """Letters and their answers, at least ``records`` of each in batches of ``size``: both ``(n, M)``."""
        size = size or self.rows
        parts = []
        for _ in range(max(1, -(-records // size))):
            letters = self.some(size, common=common)
            parts.append((letters, self.answers(letters, epoch)))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def telling(self, pairs: Sequence[tuple[int, int]], releases: int) -> Draw:
        """The likelihood ratio of every group's two letters, record by record in turn.

        Args:
            pairs: Of every group.
            releases: Of a record's answers in so many epochs together; 0: of each answer for itself.
        """
        ratios = np.stack([self.claimed.log_ratio(*pair) for pair in pairs])
        groups, which = np.arange(len(pairs)), np.arange(self.rows) % 2
        letters = np.array(pairs).T[which]

        def chunk() -> Scores:
            score = np.zeros((self.rows, len(pairs)))
            for epoch in range(max(1, releases)):
                score += ratios[groups, self.answers(letters, epoch)]
            score = score.sum(axis=1, keepdims=True) if releases else score
            return score[which == 0].reshape(-1), score[which == 1].reshape(-1)

        return collected(chunk)

    def by_letter(self, letters: IntArray, answers: IntArray) -> list[Fit]:
        """The answers to each letter, all groups together."""
        order = np.argsort(letters, axis=None, kind="stable")
        inputs, outputs = letters.reshape(-1)[order], answers.reshape(-1)[order]
        found, starts = np.unique(inputs, return_index=True)
        return [
            lumped(
                f"answers to letter {letter}",
                np.bincount(part, minlength=self.claimed.letters + 1),
                self.claimed.matrix[letter],
            )
            for letter, part in zip(found, np.split(outputs, starts[1:]), strict=True)
        ]

    def turned(self, name: str, letters: IntArray, answers: IntArray, among: IntArray | None = None) -> Fit:
        """How far answers are from letters drawn from ``among`` (None: from ``common``); any shape."""
        among = self.common if among is None else among
        if among.tobytes() not in self._turns:
            self._turns[among.tobytes()] = self.claimed.turns(among)
        count = self.claimed.letters
        turns = np.where(answers < count, (answers - letters) % count, count)
        return lumped(name, np.bincount(turns.reshape(-1), minlength=count + 1), self._turns[among.tobytes()])

    def twice(self, name: str, letters: IntArray, first: IntArray, second: IntArray) -> Fit:
        """What two answers to one letter, drawn from ``common``, are to each other; any shape."""
        favored = self.claimed.favored
        one, other, equal = favored[letters, first], favored[letters, second], first == second
        cells = np.where(one & other, np.where(equal, 0, 1), np.where(one | other, 2, np.where(equal, 3, 4)))
        return Fit(name, np.bincount(cells.reshape(-1), minlength=5), self._pairs, joint=True)

    @cached_property
    def _pairs(self) -> FloatArray:
        return self.claimed.pairs(self.common)
