"""Why an attack does not apply to a view: reasons for the report, None where it does."""

from __future__ import annotations

from typing import Literal

import numpy as np

from privhier.attacks.view import View

Kind = Literal["attribute", "verification", "reconstruction", "property"]
"""What an attack says of the victims: a class, who is the same person, their picture, or shares."""
MIN_RECORDS = 20
"""Auxiliary records with a label that an attack can be trained and validated on."""
MIN_PEOPLE = 8
"""Auxiliary people with two photos, for attacks on people whom the attacker does not know."""


def attribute_refusal(view: View, target: str) -> str | None:
    """Why no attribute attack can be trained on ``target`` from this view, or None."""
    if target not in view.aux.labels:
        return f"the auxiliary set has no labels for {target!r}"
    labels = view.aux.labels[target]
    known = labels >= 0
    if int(known.sum()) < MIN_RECORDS:
        return f"only {int(known.sum())} auxiliary records have a label, {MIN_RECORDS} are needed"
    usable = sum(len(np.unique(view.aux.groups[labels == k])) >= 2 for k in np.unique(labels[known]))
    if usable < 2:
        return f"fewer than two classes of {target!r} have two auxiliary groups, to train and to validate on"
    return None


def label_refusal(view: View) -> str | None:
    """Why an attack that makes no use of task labels skips a view that holds them, or None."""
    if view.task_labels is None:
        return None
    return "makes no use of the task labels: see it on the view without them"


def white_box_refusal(view: View) -> str | None:
    """Why an attack that needs the edge's weights does not apply, or None."""
    return (
        "needs the edge's weights, which this threat model does not have" if view.white_box is None else None
    )


def map_refusal(view: View) -> str | None:
    """Why convolutions do not apply to these releases, or None."""
    if view.releases.ndim != 5:
        return "the release is a vector, not a feature map (C, h, w)"
    if min(view.releases.shape[3:]) < 3:
        return "the feature map is smaller than 3x3"
    return None


def letters_refusal(view: View) -> str | None:
    """Why nothing can be counted in these releases, or None."""
    if view.alphabet is None:
        return "the releases are no letters: there is nothing to count"
    groups, letters = view.alphabet.groups, view.alphabet.letters
    if view.releases.shape[2:] != (groups * letters,):
        return f"the releases are not {groups} letters of {letters}, one-hot"
    return None


def people_refusal(view: View) -> str | None:
    """Why no attack on unknown people can be trained from this view, or None."""
    people = view.aux.labels.get("identity")
    if people is None:
        return "the auxiliary set names no people"
    pairs = int((np.bincount(people[people >= 0]) >= 2).sum()) if (people >= 0).any() else 0
    if pairs < MIN_PEOPLE:
        return f"only {pairs} auxiliary people have two photos, {MIN_PEOPLE} are needed"
    return None


def auxiliary_refusal(view: View) -> str | None:
    """Why a reconstruction attack cannot be trained and validated on this auxiliary set, or None."""
    if view.task_labels is not None:
        return label_refusal(view)
    if len(view.aux.images) < MIN_RECORDS:
        return f"only {len(view.aux.images)} auxiliary images, {MIN_RECORDS} are needed"
    if len(np.unique(view.aux.groups)) < 2:
        return "the auxiliary set is one group: nothing is left to validate on"
    return None


def population_refusal(view: View) -> str | None:
    """Why nobody's make-up can be asked for, or None."""
    if not view.populations:
        return "no population is named whose make-up could be asked for"
    if min(len(rows) for rows in view.populations) == 0:
        return "a population is empty"
    return None


def usual_refusal(view: View, kind: Kind, target: str, *, white_box: bool) -> str | None:
    """Why the view lacks what every attack of this kind is trained on, or None."""
    reason = white_box_refusal(view) if white_box else None
    if reason is None and kind == "verification":
        reason = people_refusal(view)
    elif reason is None and kind == "reconstruction":
        reason = auxiliary_refusal(view)
    elif reason is None:
        reason = (population_refusal(view) if kind == "property" else None) or attribute_refusal(view, target)
    return reason
