"""Guarantees of a training record whose edge was trained under DP-SGD, in words."""

from __future__ import annotations

from typing import Literal

from privhier.privacy.allowed import everything_allows, responses_allow, steps_allow
from privhier.privacy.composition import compose, person_epsilon
from privhier.privacy.distinguishing import approximate_accuracy
from privhier.privacy.guarantee import (
    CURIOUS_CLOUD,
    EDGE_WEIGHTS,
    TASK_LABELS,
    Account,
    Guarantee,
    note_on,
    number,
)
from privhier.privacy.shown import claim

_CLOUD = "honest but curious cloud: all releases of all records, task labels as sent, the tail"


_WORST_PAIR: dict[str, list[str]] = {
    "replace_one": [
        "a proof that two opposite gradients are the worst pair under Poisson sampling: dp-accounting's "
        "relation takes it so"
    ],
    "add_remove": [],
}


def edge_rows(account: Account) -> list[Guarantee]:
    """What the edge's weights say of one training record, under both adjacencies."""
    if not account.steps.steps:
        return []
    chosen = account.of("train").clip_epsilon  # pure under both adjacencies
    relations: list[tuple[Literal["replace_one", "add_remove"], str]] = [
        ("replace_one", "replace one training record by any other (dp-accounting, PLD)"),
        (
            "add_remove",
            "add or remove one training record, its place in the disjoint batches of joint epochs and in the "
            "order of releases left empty (Opacus, PRV)",
        ),
    ]
    rows = []
    for relation, words in relations:
        epsilon, delta, note = number(
            account,
            account.steps.epsilon(account.delta, relation) + chosen,
            "none: so little noise that no number is worth printing",
        )
        rows.append(
            Guarantee(
                name=f"{EDGE_WEIGHTS}, {relation.replace('_', '-')}",
                adversary="sees the edge's weights after every step, exits included, and every other "
                "record's releases; not the record's own, nor which records a pre-training step drew",
                adjacency=words,
                unit="record",
                epsilon=epsilon,
                delta=delta,
                covers=[
                    "all DP-SGD epochs together: pre-training with Poisson sampling; a joint epoch as one "
                    "full-participation step, without amplification, since the cloud sees which records "
                    "share a batch",
                    "all parameters of the edge: trunk, bottleneck, task exits, adversarial exits",
                    "image, task labels and sensitive labels of the record",
                    *([f"the clip bound, drawn as a quantile (pure, {claim(chosen)})"] if chosen else []),
                ],
                does_not_cover=[
                    "the record's own releases: see the curious-cloud row",
                    *_WORST_PAIR[relation],
                    *account.open_ends,
                ],
                note=note,
                allows=None if epsilon is None else steps_allow(account.steps, relation, chosen),
            )
        )
    return rows


def curious_cloud(account: Account) -> Guarantee:
    """Everything together: the edge's weights, the record's own releases and its task labels."""
    if not account.steps.steps:
        return Guarantee(
            name=CURIOUS_CLOUD,
            adversary=_CLOUD,
            adjacency="replace one training record by any other",
            unit="record",
            epsilon=None,
            delta=None,
            covers=[],
            does_not_cover=["everything a training record put into the edge's weights", *account.open_ends],
            note="none: other records' releases pass through edge weights that were trained on the record, "
            "without DP-SGD on every edge parameter that private data touched, adversarial exits included",
        )
    own, with_labels = account.of("train"), bool(account.responses.answers)
    epsilon, delta, note = number(
        account,
        compose(account.steps, own, account.mechanism, account.responses, account.delta),
        "none: releases without noise are among them, or so little noise that no number is worth printing",
    )
    labels = " and the randomized responses on its task labels" if with_labels else ""
    return Guarantee(
        name=CURIOUS_CLOUD,
        adversary=f"{_CLOUD}; the edge's weights as well",
        adjacency="replace one training record, image and all its labels, by any other"
        if with_labels
        else "replace the image and the sensitive labels of one training record by any others; its task "
        "labels stay and count as public",
        unit="record",
        epsilon=epsilon,
        delta=delta,
        covers=[
            f"the edge's weights (DP-SGD), all {own.releases} releases of the record{labels}, composed as "
            "one adaptive sequence",
            "whatever is computed from those: cloud tails, attacks, decoders",
            *(
                [f"the clip bound, drawn as a quantile (pure, {claim(own.clip_epsilon)})"]
                if own.clip_epsilon
                else []
            ),
        ]
        if epsilon is not None
        else [],
        does_not_cover=[*_WORST_PAIR["replace_one"], *account.open_ends],
        note=note,
        allows=None
        if epsilon is None
        else everything_allows(account.steps, own, account.mechanism, account.responses),
    )


def label_rows(account: Account) -> list[Guarantee]:
    """The randomized responses alone."""
    if not account.responses.answers:
        return []
    epsilon = account.responses.epsilon
    return [
        Guarantee(
            name=TASK_LABELS,
            adversary="sees only the labels sent with the record's releases",
            adjacency="replace the task labels of one training record by any others",
            unit="record",
            epsilon=epsilon,
            delta=0.0,
            covers=[
                f"{len(account.responses.answers)} randomized response(s), drawn once and sent again in "
                "every epoch"
            ],
            does_not_cover=[
                "what the record's features say about its labels: see the curious-cloud row",
                "several records of one person: their epsilons add up",
                *account.open_ends,
            ],
            note=note_on(epsilon, account.noise_source),
            allows=responses_allow(account.responses),
        )
    ]


def person_row(account: Account, k: int) -> Guarantee:
    """One person's k training records: half of delta to the weights, half to the releases."""
    half = account.delta / 2
    epsilon, delta, note = number(
        account,
        person_epsilon(account.steps, half, k)
        + account.of("train").spent(account.mechanism, half, k)
        + k * account.responses.epsilon,
        "none: no finite epsilon was found for this many records of one person at this delta",
    )
    return Guarantee(
        name="training records of one person against the curious cloud",
        adversary=f"{_CLOUD}; the edge's weights as well",
        adjacency=f"replace all {k} training records of one person by any others, the most that anyone has"
        + ("" if account.responses.answers else "; their task labels stay and count as public"),
        unit="person",
        epsilon=epsilon,
        delta=delta,
        covers=["weights, own releases and labels, added up (an upper bound that is not tight)"]
        if epsilon is not None
        else [],
        does_not_cover=["records of the same person in other splits", *account.open_ends],
        note=note,
        allows=None if epsilon is None or delta is None else approximate_accuracy(epsilon, delta),
    )
