"""Certificates of identity: whether two records show one person, who it is, and what picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.errors import ConfigError
from privhier.privacy.certificates import JOINT_ALPHABET, Certificate, Shares, bounds, checked_records
from privhier.privacy.channel_bounds import checked_channel, joint_letters

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DisjointPairs:
    """Pairs of records in which nobody appears twice, so that pairs are independent.

    Attributes:
        first, second: int64 ``(m,)`` rows.
        same: bool ``(m,)``: both of one person.
    """

    first: IntArray
    second: IntArray
    same: npt.NDArray[np.bool_]


def disjoint_pairs(identity: Array, rng: np.random.Generator, matched: Array | None = None) -> DisjointPairs:
    """Share people out: some give a pair of their own records, the others are paired with one another.

    Of g pairs of one person and d pairs of two, the slack goes with 1/g + 1/d; g is chosen to make it
    smallest (about 0.41 of the people, as many as have two records). Who gives what, which records, and the
    order in a pair are drawn.

    Args:
        identity: integers ``(n,)``.
        rng: Where the draws come from: a public stream, fixed before the letters are looked at.
        matched: integers ``(n,)``, for instance the cell of the task labels: two people are paired only by
            records that agree in it (what a task gives away is then not counted as identity). Who finds no
            partner is left out. Where people with several records lie otherwise among the cells than
            people with one, that much is still counted.

    Returns:
        The pairs; of either kind there may be none.
    """
    identity = np.asarray(identity)
    order = rng.permutation(len(identity))
    _, member = np.unique(identity[order], return_inverse=True)
    grouped = order[np.argsort(member, kind="stable")]
    people = np.split(grouped, np.flatnonzero(np.diff(np.sort(member))) + 1)
    several = [number for number, rows in enumerate(people) if len(rows) > 1]
    wanted = min(len(several), round(len(people) * (np.sqrt(2) - 1)))
    genuine = set(rng.permutation(several)[:wanted].tolist())
    one = [(rows[0], rows[1]) for number, rows in enumerate(people) if number in genuine]
    rest = rng.permutation([rows[0] for number, rows in enumerate(people) if number not in genuine])
    cells = np.zeros(len(identity), np.int64) if matched is None else np.asarray(matched)
    two = []
    for cell in np.unique(cells):
        rows = rest[cells[rest.astype(np.int64)] == cell].astype(np.int64)
        two += list(zip(rows[0 : len(rows) - 1 : 2], rows[1::2], strict=True))
    pairs = np.array(one + two, dtype=np.int64).reshape(-1, 2)
    swap = rng.random(len(pairs)) < 0.5
    pairs[swap] = pairs[swap, ::-1]
    return DisjointPairs(pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < len(one))


def certify_verification(
    letters: Array,
    identity: Array,
    rng: np.random.Generator,
    *,
    n_letters: int,
    matched: Array | None = None,
    channel: Array | None = None,
    confidence: float = 0.95,
    shares: int = 1,
) -> Certificate:
    """The most that anyone who holds two records' letters can say about whether they show one person.

    The certificate of ``certify`` on the alphabet of unordered pairs of letters (a pair's order is drawn and
    says nothing), classes "two people" and "one person"; a pair of people is the independent unit, and
    a pair is drawn as ``disjoint_pairs`` draws it.

    Args:
        letters: As for ``certify``.
        identity: integers ``(n,)``.
        rng: As for ``disjoint_pairs``.
        n_letters: K.
        matched: As for ``disjoint_pairs``.
        channel: As for ``certify``.
        confidence: As for ``certify``.
        shares: As for ``certify``.

    Returns:
        ``n`` counts records, ``people`` pairs. No certificate, and why, without pairs of both kinds or
        where pairs of joint letters are more than ``JOINT_ALPHABET``.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: Letters or identities are not as described.
    """
    if not 0 < confidence < 1 or shares < 1 or n_letters < 1:
        raise ConfigError(
            key="certificate.confidence, shares, n_letters",
            value=(confidence, shares, n_letters),
            rule="must lie in (0, 1), be at least 1, and be at least 1",
            remedy="Mend the arguments",
        )
    letters, cells, identity = checked_records(
        letters, np.zeros(len(letters), np.int64) if matched is None else matched, identity, n_letters, 0
    )
    matrix = None if channel is None else checked_channel(channel, n_letters)
    pairs, per_pair = disjoint_pairs(identity, rng, cells), 2 * letters.shape[1]
    alphabet, leaving = n_letters**per_pair, n_letters if matrix is None else matrix.shape[1]
    kinds = np.bincount(pairs.same, minlength=2)
    reason = ""
    if kinds.min() == 0:
        reason = f"{kinds[1]} pairs of one person and {kinds[0]} of two can be made of these people"
    elif max(alphabet, leaving**per_pair) > JOINT_ALPHABET:
        reason = f"{n_letters}^{per_pair} pairs of joint letters are more than {JOINT_ALPHABET}"
    if reason:
        return Certificate(None, None, confidence, 2 * len(pairs.same), len(pairs.same), alphabet, reason)
    joint, single = joint_letters(letters, n_letters), n_letters ** letters.shape[1]
    code = joint[pairs.first] * single + joint[pairs.second]
    flat = np.bincount(pairs.same * alphabet + code, minlength=2 * alphabet).reshape(2, single, single)
    # Both orders of a pair are equally likely: averaging them leaves less to the plug-in's upward error.
    even = ((flat + flat.transpose(0, 2, 1)) / (2 * kinds[:, None, None])).reshape(2, alphabet)
    share = Shares.of(pairs.same.astype(np.int64), np.arange(len(pairs.same)), 2)
    recall, area = bounds(even, share, (1 - confidence) / shares, channel=matrix, letters_per_record=per_pair)
    return Certificate(float(recall), float(area), confidence, 2 * len(pairs.same), len(pairs.same), alphabet)


def top1_bound(
    people: int, n_letters: int, *, letters_per_record: int = 1, channel: Array | None = None
) -> float:
    r"""The most that anyone names the right one of N equally likely people from one record's letters.

    :math:`\sum_y \max_r P(r) P(y | r) \le \frac1N \sum_y \max_x W(y | x)`: K / N without a channel (a guess
    for every letter), whatever the code; :math:`K^M / N` for M letters. Exact, no confidence involved.

    Args:
        people: N, at least 1.
        n_letters: K.
        letters_per_record: M.
        channel: As for ``certify``.

    Returns:
        A value in [1/N, 1].
    """
    if people < 1 or n_letters < 1 or letters_per_record < 1:
        raise ConfigError(
            key="certificate.people, n_letters, letters_per_record",
            value=(people, n_letters, letters_per_record),
            rule="must be at least 1 each",
            remedy="Mend the arguments",
        )
    matrix = None if channel is None else checked_channel(channel, n_letters)
    guesses = float(n_letters) if matrix is None else float(matrix.max(axis=0).sum())
    return min(1.0, guesses**letters_per_record / people)


def distinct_pictures(n_letters: int, letters_per_record: int = 1) -> int:
    """How many different pictures any reconstruction can show over all records: one a joint letter."""
    return int(n_letters**letters_per_record)
