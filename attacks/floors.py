"""Floors: what an attacker reads who never sees a release, only what the task itself gives away.

A floor is a view whose releases are the victims' true task labels, one-hot (or the cloud's own answers), in
which nothing else of a victim is left. Every black-box attack runs on it unchanged: trained from nothing on
the auxiliary set's true labels, chosen on its own validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from privhier.attacks.base import Attack, attacks
from privhier.attacks.refusals import Kind
from privhier.attacks.view import Alphabet, FloatArray, IntArray, View, frozen
from privhier.config import Choice
from privhier.config.choices import build

LABELS, ANSWERS = "labels", "answers"
"""Names of the two views."""
MOST_DRAWS = 4
"""Draws of an auxiliary record that the tail answers: each costs its forward pass."""
FLOOR_ATTACKS: dict[Kind, tuple[tuple[str, dict[str, object]], ...]] = {
    "attribute": (
        ("table", {}),
        ("logistic_regression", {"penalties": [0.1, 10.0], "trials": 0}),
        (
            "gradient_boosting",
            {"learning_rates": [0.1], "leaves": [7], "trials": 0, "iterations": 40},
        ),
    ),
    "verification": (("metric", {"epochs": 0}),),
}
"""Which attackers, with which options: those on tables and on columns, small, since so are the columns."""


def floor_attacks(kind: Kind, target: str) -> list[tuple[str, Attack]]:
    """Fresh attackers of a floor.

    Args:
        kind: ``attribute`` or ``verification``.
        target: The attribute under attack.
    """
    among = [name for name, _ in FLOOR_ATTACKS[kind]]
    return [
        (
            name,
            build(
                attacks, Choice(name=name, options=options), key="attacks.floor", among=among, target=target
            ),
        )
        for name, options in FLOOR_ATTACKS[kind]
    ]


def labels_view(view: View, *, victims: IntArray, auxiliary: IntArray, classes: Sequence[int]) -> View:
    """What whoever knows the true task labels knows, and nothing else: the releases are gone.

    Args:
        view: Whose auxiliary set and seed are taken.
        victims: int64 ``(n, tasks)``, true labels of the victims.
        auxiliary: int64 ``(n_aux, tasks)``, true labels of the auxiliary records.
        classes: Classes of every task; as letters all have as many as the largest.
    """
    alphabet = Alphabet(letters=max(classes), groups=len(classes))
    own = alphabet.one_hot(np.asarray(auxiliary, dtype=np.int64))[:, None]
    return replace(
        _nothing_else(
            view,
            LABELS,
            alphabet.one_hot(np.asarray(victims, dtype=np.int64))[:, None],
            lambda _draw: own,
            1,
        ),
        alphabet=alphabet,
    )


def answers_view(view: View, *, victims: FloatArray, auxiliary: Callable[[int], FloatArray]) -> View:
    """What whoever hears the cloud's answers knows, and nothing else.

    Args:
        view: Whose auxiliary set, draws and seed are taken; at most ``MOST_DRAWS`` draws.
        victims: float32 ``(n, q)``: probabilities of all tasks and predicted classes (one-hot) side by side.
        auxiliary: The same of draw k of the auxiliary records, ``(n_aux, q)``.
    """
    made: dict[int, FloatArray] = {}

    def releases(draw: int) -> FloatArray:
        if draw not in made:
            made[draw] = frozen(auxiliary(draw)[:, None])
        return made[draw]

    return _nothing_else(view, ANSWERS, victims[:, None], releases, min(view.aux.draws, MOST_DRAWS))


def _nothing_else(
    view: View, name: str, victims: FloatArray, releases: Callable[[int], FloatArray], draws: int
) -> View:
    """The view's auxiliary records and seed with other "releases": no tail, weights or labels as sent."""
    if len(victims) != len(view.releases):
        raise ValueError(f"one row for each of {len(view.releases)} victims, got {len(victims)}")
    return replace(
        view,
        threat_model=name,
        releases=frozen(victims),
        aux=replace(view.aux, releases=releases, draws=draws, task_labels=None),
        tail=None,
        white_box=None,
        task_labels=None,
        task_classes=(),
        populations=(),
        alphabet=None,
    )
