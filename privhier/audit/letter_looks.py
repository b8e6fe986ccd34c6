"""What an audit of letters counts: each function draws, and returns counts beside their claimed shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from privhier.audit.fits import Fit
from privhier.audit.letter_claim import IntArray
from privhier.audit.letter_trials import LetterTrials
from privhier.audit.trials import BATCH

Epochs = list[tuple[IntArray, IntArray]]
"""Letters and answers ``(n, M)`` of every epoch that was looked at."""
_CALL = 64
"""Rows that cost as much as a call of the release function."""
_BLOCK = 128
"""Half of the batches in which whole splits are released."""


def by_epoch(trials: LetterTrials, records: int) -> Epochs:
    """Every letter in the epochs of the claim, in as many of them as there is room for."""
    room = max(1, records // trials.rows)
    epochs = np.unique(np.linspace(0, trials.claimed.releases - 1, room).round().astype(int))
    return [trials.sample(math.ceil(records / len(epochs)), int(epoch), common=False) for epoch in epochs]


def channel(trials: LetterTrials, epochs: Epochs) -> list[Fit]:
    """Answers by letter, by group and by epoch."""
    letters = np.concatenate([part for part, _ in epochs])
    answers = np.concatenate([part for _, part in epochs])
    fits = trials.by_letter(letters, answers)
    for group, among in enumerate(trials.reachable):
        name = f"answers of group {group}"
        fits.append(trials.turned(name, letters[:, group], answers[:, group], among))
    for number, (own, found) in enumerate(epochs):
        shared = np.isin(own, trials.common)  # these all groups draw alike
        fits.append(trials.turned(f"answers of epoch {number}", own[shared], found[shared]))
    return fits


def fresh(trials: LetterTrials, records: int) -> list[Fit]:
    """The same records twice, at the same places of a batch: in one epoch, and in two."""
    last = max(1, trials.claimed.releases - 1)
    fits = []
    for one, other in [(0, 0), *sorted({(0, 1), (0, last)})]:
        parts = []
        for _ in range(max(1, records // trials.rows)):
            letters, here = trials.some(trials.rows), trials.batch()
            there = here if one != other else trials.batch()
            parts.append((letters, trials.answers(letters, one, here), trials.answers(letters, other, there)))
        where = f"in epochs {one} and {other}" if one != other else "in one epoch"
        found = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        fits.append(trials.twice(f"pairs of answers to a record {where}", *found))
    return fits


def others(trials: LetterTrials, draws: int) -> list[Fit]:
    """Records of one batch with the same letters, and small batches in which one record has another one."""
    half, groups, fits = trials.rows // 2, trials.claimed.groups, []
    for apart in sorted({1, half} | ({_BLOCK} if half % _BLOCK == 0 else set())):
        parts = []
        for _ in range(max(1, draws // 8 // trials.rows)):
            letters = trials.some(half).reshape(-1, 1, apart, groups).repeat(2, axis=1)
            answers = trials.answers(letters.reshape(trials.rows, groups)).reshape(letters.shape)
            parts.append((letters[:, 0], answers[:, 0], answers[:, 1]))
        found = (
            np.concatenate([part.reshape(-1) for part in columns]) for columns in zip(*parts, strict=True)
        )
        fits.append(trials.twice(f"pairs of answers to records {apart} apart", *found))
    ends = [int(trials.common[0]), int(trials.common[-1])]
    for own, beside in ((own, beside) for own in ends for beside in ends):
        letters = np.full((BATCH, groups), own)
        letters[0] = beside
        answers = np.stack([trials.answers(letters)[1:] for _ in range(max(4, draws // 8 // _CALL))])
        name = f"answers to letter {own} in small batches with letter {beside}"
        fits.append(trials.turned(name, np.array(own), answers, np.array([own])))
    return fits


def other_groups(trials: LetterTrials, draws: int) -> list[Fit]:
    """Any two groups of a record, with the same letter."""
    groups, fits = trials.claimed.groups, []
    batches = max(1, draws // (4 * groups) // trials.rows)
    for apart in range(1, groups):
        for turn in (0, 1):  # pairs that share no group are draws of their own
            left = np.array([g for g in range(groups - apart) if g // apart % 2 == turn], dtype=np.int64)
            parts = []
            for _ in range(batches if len(left) else 0):
                letters = trials.some(trials.rows)
                letters[:, left + apart] = letters[:, left]
                answers = trials.answers(letters)
                parts.append((letters[:, left], answers[:, left], answers[:, left + apart]))
            if parts:
                found = (np.concatenate(columns) for columns in zip(*parts, strict=True))
                fits.append(trials.twice(f"pairs of answers of groups {apart} apart", *found))
    return fits


def own_batches(trials: LetterTrials, draws: int, batches: Sequence[tuple[int, int]]) -> list[Fit]:
    """Batches of the very sizes that the run releases.

    Args:
        trials: Makes the draws.
        draws: Rows for all of them; a call costs as much as 64.
        batches: Epoch, and records of a batch in it.
    """
    fits = []
    for epoch, size in batches:
        calls = max(4, draws // len(batches) // max(size, _CALL))
        letters, answers = trials.sample(calls * size, epoch, size=size)
        fits.append(trials.turned(f"answers in batches of {size} in epoch {epoch}", letters, answers))
    return fits
