"""The audit of releases that are letters: draws through the run's own code, held against the claimed channel.

Answers have finitely many outcomes of known chances, so nearly every row is a test of counts; one bounds
epsilon from below, as for noised values. What refutes is the alarm, at confidence 1 - 1e-6 over everything
that one call looks at. An audit refutes, it never proves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from privhier.audit.bounds import pure_lower_bound
from privhier.audit.fits import Fit, fitted_row
from privhier.audit.judge import Judge
from privhier.audit.letter_claim import ClaimedLetters, IntArray
from privhier.audit.letter_looks import Epochs, by_epoch, channel, fresh, other_groups, others, own_batches
from privhier.audit.letter_trials import LetterTrials
from privhier.audit.release import ALARM, non_finite
from privhier.audit.row import AuditRow
from privhier.audit.trials import ReleaseFunction
from privhier.audit.views import View
from privhier.errors import ConfigError
from privhier.models.letter_code import LetterCode
from privhier.privacy.shown import lower_bound
from privhier.seeding import numpy_stream

_MOST_WORK, _WAY_UP = 1.5e9, 1000
"""Of the main row at most, in distances of values, and what a record's way up costs beside those."""
_FEWEST = 4_000
_GROSS_DRAWS = 200_000
_CHANNEL = "none: answers must follow the claimed channel"


def audit_letters(
    release: ReleaseFunction,
    claimed: ClaimedLetters,
    *,
    code: LetterCode,
    draws: int = 1_000_000,
    seed: int = 0,
    name: str = "release",
    batches: Sequence[tuple[int, int]] = (),
) -> list[AuditRow]:
    """Audit a release of letters against its claim.

    Args:
        release: The run's own code path: features ``(B, M * d)`` in, answers ``(B, M)`` out.
        claimed: What is held against it.
        code: The edge's letters.
        draws: Trials of the main row, both inputs together, at least 1,000; many letters get fewer.
        seed: Which letters go in, and where the batch numbers start.
        name: Put before every row's name.
        batches: Epoch and number of records of the batches that the run itself releases, each kind once.

    Returns:
        ``releases`` (the claim itself), ``channel``, ``alphabet``, ``fresh noise``, ``other records``,
        ``other groups`` (where a record has several), ``own batches`` (where ``batches`` are given) and
        ``non-finite features``.

    Raises:
        ConfigError: Too few draws.
        ReleaseError: The code refused ordinary features, e.g. since its noise is no noise.
    """
    if draws < 1000:
        rule, remedy = "must be at least 1000", "Use 1000000, the default"
        raise ConfigError(key="--draws", value=draws, rule=rule, remedy=remedy)
    trials = LetterTrials(
        release,
        claimed,
        code,
        rng=numpy_stream(seed, "audit", "letters"),
        first_batch=(seed + 1) * 2**20,
        draws=draws,
    )
    work = claimed.releases * (_WAY_UP + claimed.groups * claimed.letters * code.size)
    main = int(min(draws, max(_FEWEST, _MOST_WORK / work)))
    gross = min(main, _GROSS_DRAWS)
    epochs = by_epoch(trials, main // 2)
    counted = [
        ("channel", "every letter that features have, by group and by epoch", channel(trials, epochs)),
        ("fresh noise", "a record answered twice, in one epoch and in two", fresh(trials, gross // 4)),
        ("other records", "records with the same letters, and beside other ones", others(trials, gross)),
    ]
    if claimed.groups > 1:
        counted.append(("other groups", "groups with the same letters", other_groups(trials, gross)))
    if batches:
        own = own_batches(trials, gross, batches)
        counted.append(("own batches", "batches as large as the run's own", own))
    level = ALARM / 2 / (1 + sum(len(fits) for *_, fits in counted))
    first, *rest = _counted_rows(counted, level, name)
    return [
        _releases(trials, main, f"{name}: releases"),
        _with_limits(first, trials, epochs),
        _alphabet(trials, epochs, level, f"{name}: alphabet"),
        *rest,
        non_finite(release, (claimed.groups * code.size,), 1.0, f"{name}: non-finite features"),
    ]


def too_few_changed(claimed: ClaimedLetters, among: IntArray, answers: int) -> str:
    """That answers left as they are would look the same, where so few should be changed; else nothing."""
    changed = answers * claimed.changed(among)
    if changed >= 2 * math.log(1 / ALARM):
        return ""
    return f"; about {changed:.2g} of {answers:,} answers should be changed, too few to notice if none were"


def _counted_rows(counted: Sequence[tuple[str, str, list[Fit]]], level: float, name: str) -> list[AuditRow]:
    claims = {
        "fresh noise": "none: every answer must be drawn anew",
        "other records": "none: an answer must depend on no other record",
        "other groups": "none: every letter of a record must be answered for itself",
    }
    return [
        fitted_row(f"{name}: {title}", what, claims.get(title, _CHANNEL), fits, level)
        for title, what, fits in counted
    ]


def _with_limits(row: AuditRow, trials: LetterTrials, epochs: Epochs) -> AuditRow:
    """The channel's row: its matrix is held against the claim as well, and what was not seen is said."""
    claimed = trials.claimed
    note = row.note + too_few_changed(claimed, trials.common, sum(found.size for _, found in epochs))
    missing = sum(claimed.letters - len(found) for found in trials.reachable)
    if missing:
        note += f"; {missing} of {claimed.letters * claimed.groups} letters stand for no features: not tried"
    beyond = claimed.worth > claimed.epsilon * (1 + 1e-9) + claimed.rounding
    if beyond:
        note = f"refuted by: its matrix is worth epsilon {claimed.worth:.4g} an answer; {note}"
    return row.model_copy(update={"refuted": row.refuted or beyond, "note": note})


def _alphabet(trials: LetterTrials, epochs: Epochs, level: float, name: str) -> AuditRow:
    """No answer beyond the alphabet, and none that never comes."""
    claimed = trials.claimed
    answers = np.concatenate([found for _, found in epochs])
    enough = math.log(claimed.letters * claimed.groups / level)  # so many are never missed all together
    problems, due = [], 0
    for group, among in enumerate(trials.reachable):
        counts = np.bincount(answers[:, group], minlength=claimed.letters + 1)
        often = claimed.matrix[among].mean(axis=0) * len(answers) >= enough
        due += int(often.sum())
        missed = np.flatnonzero(often & (counts == 0))
        problems += [f"letter {letter} of group {group} is never answered" for letter in missed[:3]]
        if counts[-1]:
            problems.append(
                f"{counts[-1]:,} answers of group {group} are none of its {claimed.letters} letters"
            )
    whole = claimed.letters * claimed.groups
    return AuditRow(
        name=name,
        what="answers must be letters, and every letter must be answered",
        adjacency="none: the alphabet is public",
        draws=answers.size,
        refuted=bool(problems),
        note="; ".join(problems)
        if problems
        else f"no other answer; {due} of {whole} letters were due, and came",
    )


def _releases(trials: LetterTrials, draws: int, name: str) -> AuditRow:
    """What likelihood ratios prove of epsilon, and what so many draws could prove at most."""
    claimed = trials.claimed
    pairs = [claimed.worst_pair(among, trials.rng) for among in trials.reachable]
    one = trials.telling(pairs, 0)
    scale = claimed.whole / claimed.epsilon
    views = [View("one answer", claimed.epsilon, scale, one, many=claimed.groups)]
    for count in sorted({1, claimed.releases}):
        if (answers := count * claimed.groups) > 1:
            label = f"{count} release{'s' if count > 1 else ''} of {claimed.groups} letters together"
            allowed = answers * claimed.epsilon
            views.append(View(label, allowed, claimed.whole / allowed, trials.telling(pairs, count)))
    judge = Judge("letters", 0.0, 1 - ALARM / 2 / (len(views) + 1))
    what = "the two letters that an answer tells apart best, likelihood-ratio test"
    row = judge.row(name, what, "one record, replaced by any other", claimed.whole, views, draws)
    chosen = next(view for view in views if view.name == row.view)
    each, single = row.draws // 2, draws * claimed.groups / 4
    most = chosen.scale * float(pure_lower_bound(each, each, 0, each, 0.95))
    true, false = (single * chance for chance in claimed.told(*pairs[0]))
    usual = scale * float(pure_lower_bound(true, single, false, single, 0.95))
    sees = f"so many draws prove about {max(0.0, usual):.3g} of a sound claim, and no more than "
    sees += lower_bound(most)
    return row.model_copy(update={"note": f"{row.note}; {sees}" if row.note else sees})
