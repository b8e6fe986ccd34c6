"""The guarantee table: what the account's numbers promise, to whom, and what they leave open.

Takes numbers and knows nothing of how they were counted; ``Ledger.guarantees`` feeds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from privhier.privacy.allowed import releases_allow
from privhier.privacy.channels import CHANNELS
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount
from privhier.privacy.edge_guarantees import curious_cloud, edge_rows, label_rows, person_row
from privhier.privacy.events import LetterEvent
from privhier.privacy.guarantee import CURIOUS_CLOUD, OWN_RELEASES, VACUOUS_ABOVE, Account, Guarantee, note_on
from privhier.privacy.shown import claim

__all__ = ["CURIOUS_CLOUD", "OWN_RELEASES", "VACUOUS_ABOVE", "Guarantee", "write_guarantees"]


def write_guarantees(
    accounts: Mapping[str, ReleaseAccount],
    *,
    steps: StepAccount,
    responses: Responses,
    mechanism: str,
    noise_source: str,
    delta: float,
    largest_person: Mapping[str, int] | None,
    labels_in_clear: bool,
    also_not_covered: Sequence[str],
    alphabet: LetterEvent | None = None,
) -> list[Guarantee]:
    """The rows of the guarantee table, own releases first; see ``Ledger.guarantees``."""
    counts = ", ".join(f"{split} {account.releases}" for split, account in sorted(accounts.items()))
    worst = max(
        accounts.values(),
        key=lambda account: (account.spent(mechanism, delta), account.releases),
        default=ReleaseAccount(),
    )
    open_ends = _not_covered(noise_source, labels_in_clear, also_not_covered)
    account = Account(accounts, steps, responses, mechanism, noise_source, delta, open_ends)
    how, fitted = _how(mechanism, alphabet), [_FITTED] if alphabet is None else [_FITTED, _CODE]
    covers = [
        f"all {worst.releases} releases of one record together, in the split whose records spent most "
        f"(the largest number of releases any record has had: {counts or 'none'})",
        "whatever is computed from those releases and from nothing else that depends on the record",
        *([] if alphabet is None else [_letters_of(alphabet)]),
    ]
    if worst.clip_epsilon:
        covers.append(
            "the clip bound, drawn once as a quantile of training records' norms (pure, "
            f"{claim(worst.clip_epsilon)})"
        )
    number = partial(_number, mechanism=mechanism, alphabet=alphabet is not None)
    epsilon, spent_delta, note = number(worst, noise_source, delta, 1)
    rows = [
        Guarantee(
            name=OWN_RELEASES,
            adversary="sees only that record's releases; or sees everything, and the edge was never "
            "trained on that record",
            adjacency=f"replace one record by any other ({how})",
            unit="record",
            epsilon=epsilon,
            delta=spent_delta,
            covers=covers if epsilon is not None else [],
            does_not_cover=[
                "training records against whoever also sees other records' releases or the edge's "
                "weights: see the curious-cloud row",
                *fitted,
                "several records of one person: see the person rows"
                if largest_person
                else "several records of one person (this data set names no people)",
                *(["the randomized task labels sent with them: see their row"] if responses.answers else []),
                *open_ends,
            ],
            note=note,
            allows=None if epsilon is None else releases_allow(worst, mechanism),
        ),
        *edge_rows(account),
        curious_cloud(account),
        *label_rows(account),
    ]
    for split, k in sorted((largest_person or {}).items()):
        found = number(account.of(split), noise_source, delta, k)
        rows.append(_of_person(split, k, account, found, how=how, fitted=fitted))
        if split == "train" and steps.steps:
            rows.append(person_row(account, k))
    return rows


def _of_person(
    split: str,
    k: int,
    account: Account,
    found: tuple[float | None, float | None, str],
    *,
    how: str,
    fitted: Sequence[str],
) -> Guarantee:
    """All releases of the k records that one person has in a split; ``found`` as ``_number`` gives it."""
    own, responses = account.of(split), account.responses
    epsilon, delta, note = found
    return Guarantee(
        name=f"own releases of one person, {split} records",
        adversary="sees only the releases of that person's records; or sees everything, and the "
        "edge was never trained on any record of that person",
        adjacency=f"replace all {k} records of one person by any others, the most that anyone has "
        f"in this split ({how} each)",
        unit="person",
        epsilon=epsilon,
        delta=delta,
        covers=[f"all {own.releases} releases of each of the person's {k} records together"]
        if epsilon is not None
        else [],
        does_not_cover=[
            "training records against whoever also sees other people's releases or the edge's "
            "weights: see the curious-cloud row",
            *fitted,
            *([_labels_of(responses, k)] if split == "train" and responses.answers else []),
            "records of the same person in other splits",
            *account.open_ends,
        ],
        note=note,
        allows=None if epsilon is None else releases_allow(own, account.mechanism, k),
    )


def _number(
    account: ReleaseAccount, noise_source: str, delta: float, records: int, *, mechanism: str, alphabet: bool
) -> tuple[float | None, float | None, str]:
    """Epsilon, delta and the note on them."""
    if account.releases == 0 and not account.clip_epsilon:
        return 0.0, 0.0, "nothing was released"
    if mechanism == "none":
        return None, None, f"no guarantee: {'true letters' if alphabet else 'raw features'} were released"
    epsilon = account.spent(mechanism, delta, records)
    if math.isinf(epsilon):
        return None, None, "no guarantee: releases without noise are among them"
    return epsilon, (delta if mechanism == "gaussian" else 0.0), note_on(epsilon, noise_source)


def _how(mechanism: str, alphabet: LetterEvent | None) -> str:
    """What two records may differ by."""
    if mechanism in CHANNELS:
        return "pure: any letters by any others"
    if alphabet is not None:
        return "any letters by any others"
    return f"{'L1' if mechanism == 'laplace' else 'L2'} sensitivity 2C"


def _letters_of(alphabet: LetterEvent) -> str:
    """What a release is made of."""
    one = "one letter" if alphabet.groups == 1 else f"{alphabet.groups} letters"
    text = f"a release is {one} of {alphabet.letters}"
    if alphabet.mechanism not in CHANNELS:
        return text
    share = claim(alphabet.epsilon)
    return f"{text}, answered by {alphabet.mechanism.replace('_', ' ')}, epsilon {share} an answer"


_CODE = (
    "which letters there are: the code was fitted to training records' features and is part of the edge's "
    "function, as its weights are"
)
_FITTED = (
    "cloud tails, attackers and decoders fitted to training records' releases: for a training record, other "
    "people's releases are in them as well"
)


def _labels_of(responses: Responses, k: int) -> str:
    """What a person's randomized labels add to the releases they are sent with."""
    return (
        f"the randomized task labels sent with them: {claim(k * responses.epsilon)} more for {k} records "
        "(pure), see their row"
    )


def _not_covered(noise_source: str, labels_in_clear: bool, more: Sequence[str]) -> list[str]:
    labels = ["task labels, sent in the clear with each training release"] if labels_in_clear else []
    generator = {
        "seeded": "the random generators: a Mersenne twister with a seed of 32 bits, not cryptographic, for "
        "releases, DP-SGD, labels and the clip bound; for the edge's own draws one with 63 bits",
        "system": "the random generator: the operating system's, trusted and not proven",
    }
    return [
        *labels,
        "clip bounds (unless drawn as a charged quantile), normalization constants, class weights and the "
        "number of records, where they were read off the data",
        "splits, duplicate groups, dropped people and class lists: made from the data and the run's public "
        "seed, held fixed and counted as public; initial weights count as public",
        "other runs, seeds, sweep points and audits on the same records: their epsilons add up",
        "early stopping, hyper-parameters, thresholds and sweep points chosen on private results",
        "scores, curves and reference networks published in this report: computed on private records "
        "without noise",
        "record numbers, their order in joint epochs and releases, message sizes and their timing",
        "floating-point effects: noise is added and rounded in float32, not in exact arithmetic",
        generator.get(noise_source, "the random generator"),
        *more,
    ]
