"""People the attacker knows nothing of: its own split by person, and how well rows tell them apart."""

from __future__ import annotations

import numpy as np

from privhier.attacks.parts.selection import OwnSplit, own_split
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.metrics.classification import auc

_PER_PERSON = 10
"""Most validation photos a person: one with hundreds would decide the selection alone."""
_MAX_VALIDATION = 1500


def verification_auc(embeddings: FloatArray, people: IntArray) -> float:
    """AUC in [0, 1] of cosine similarity over all pairs of ``(n, E)``; 0.5 without both kinds of pairs."""
    unit = unit_rows(embeddings)
    upper = np.triu_indices(len(people), k=1)
    same = (people[:, None] == people[None, :])[upper]
    return auc((unit @ unit.T)[upper], same) if 0 < same.sum() < len(same) else 0.5


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows of length one."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def split_people(view: View, rng: np.random.Generator) -> OwnSplit:
    """Validation people are no training people, and share no group with them either.

    Only photos of people with two or more validate, at most ten a person.
    """
    people, groups = view.aux.labels["identity"], view.aux.groups
    known = np.flatnonzero(people >= 0)
    counts = np.bincount(people[known])
    # Class 1: people with a pair. Both sides need some.
    paired = np.where(people >= 0, counts[np.maximum(people, 0)] >= 2, -1).astype(np.int64)
    split = own_split(paired, people, rng, share=0.25)
    train = split.train[~np.isin(groups[split.train], groups[split.validation])]
    order = rng.permutation(split.validation[paired[split.validation] == 1])
    kept: list[int] = []
    seen: dict[int, int] = {}
    for index in order.tolist():
        person = int(people[index])
        if seen.get(person, 0) < _PER_PERSON and len(kept) < _MAX_VALIDATION:
            seen[person] = seen.get(person, 0) + 1
            kept.append(index)
    return OwnSplit(train, np.sort(np.asarray(kept, dtype=np.int64)))
