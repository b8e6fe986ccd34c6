"""A run's headline in a few lines of plain text."""

from __future__ import annotations

from collections.abc import Iterator

from privhier.evaluation.headline import METRIC_NAMES, certified_bounds, headline, telling
from privhier.evaluation.leakage_parts import Certified
from privhier.evaluation.result import AttributeLeakage, Result, Score, WorstAttack
from privhier.evaluation.verdict import verdicts
from privhier.evaluation.warnings import loud
from privhier.privacy.leakage_guarantee import factor
from privhier.privacy.shown import TWO_PROMISES, allowance, claim, mixed_promises

_SHORT = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "top1": "top-1",
    "matched_verification_auc": "matched verification AUC",
    "verification_auc": "verification AUC",
}
"""Names of scores in these lines, in their order."""


def summarize(result: Result) -> Iterator[str]:
    """Utility, worst leakage, reconstruction, references and guarantees, one line each."""
    for task, utility in result.utility.items():
        yield f"task {task}: cloud AUC {show(utility.cloud.auc)}, balanced accuracy " + show(
            utility.cloud.balanced_accuracy
        )
    if result.utility and result.utility_mean.cloud_gain is not None:
        yield f"cloud gain (cloud minus edge exit, AUC): {show_gain(result.utility_mean.cloud_gain)}"
    if len(result.utility) > 1:
        yield f"task mean: cloud AUC {show(result.utility_mean.auc)}"
    for name, leakage in result.leakage.items():
        if leakage.certified is not None:
            yield f"certified {name}: {certified_text(leakage.certified)}"
        yield f"leakage {name}: {headline_text(leakage)}"
        yield f"leakage {name}, test records: {_worst(leakage)}"
        if leakage.worst_with_labels is not None:
            with_labels = leakage.worst_with_labels
            yield f"leakage {name}, task label known: {with_labels.attack}, {_scores(with_labels)}"
    for attack, scores in result.reconstruction.items():
        if scores.ssim is not None:
            found = (
                f"; rank 1 of {scores.reid_gallery}: {show(scores.reid_rank1)}" if scores.reid_rank1 else ""
            )
            yield f"reconstruction {attack}: SSIM {show(scores.ssim)}{found}"
    for attribute, estimates in result.property_inference.items():
        for estimate in estimates:
            yield f"property {attribute}: {estimate.attack} errs by {show(estimate.error)}"
    for part, attacks in (result.membership.parts if result.membership else {}).items():
        for attack, member in attacks.items():
            rate = "-" if member.tpr_at_fpr_01 is None else show(member.tpr_at_fpr_01)
            yield f"membership {part}: {attack} AUC {show(member.auc)}, TPR at FPR 1 % {rate}"
    for name, reference in result.references.items():
        yield f"reference {name}: mean task AUC {show(reference.utility_mean.auc)}"
        for attribute, leakage in reference.leakage.items():
            yield f"reference {name}: leakage {attribute}: {headline_text(leakage)}"
    for one in result.additions:
        yield f"added on {one.date[:10]}, once the run was finished: {one.described}"
    yield f"uplink: {uplink_text(result)}"
    for row in result.guarantees:
        epsilon = "none"
        if row.epsilon is not None:
            epsilon = f"epsilon {claim(row.epsilon)} at delta {claim(row.delta or 0.0)}"
            if row.allows is not None:
                epsilon += f", {allowance(row.allows)}"
        elif row.nats is not None:
            epsilon = f"P(guess) at most {factor(row.nats)} times a blind guess, whatever the secret"
        yield f"guarantee, {row.name}: {epsilon}{' (' + row.note + ')' if row.note else ''}"
    if mixed_promises(row.delta for row in result.guarantees if row.epsilon):
        yield f"note: {TWO_PROMISES}"
    urgent = loud(result.warnings)
    yield from (f"verdict: {verdict.what} To mend it: {verdict.remedy}." for verdict in verdicts(result))
    yield from (f"warning: {warning}" for warning in result.warnings if warning not in urgent)
    yield from (f"WARNING: {warning}" for warning in urgent)  # last: next to the prompt


def show(score: Score) -> str:
    """``value [low, high]`` with three decimals, and n."""
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] (n={score.n})"


def headline_text(leakage: AttributeLeakage) -> str:
    """The headline with its floor and its excess, and who reaches it on which records."""
    top = headline(leakage)
    if top is None:
        return "not scored"
    text = f"{METRIC_NAMES[top.metric]} {show(top.score)}, by {top.attack} on {top.records} records"
    if top.floor is not None:
        text += f"; floor {show(top.floor)}"
    if top.excess is not None:
        text += f"; excess {show(top.excess)}"
    return text


def certified_text(certified: Certified) -> str:
    """What no attacker on one record's letters exceeds, rounded up."""
    bounds = {m: bound for m, bound in certified_bounds(certified).items() if telling(bound) is not None}
    if not bounds:
        return f"nothing: no bound below 1 ({certified.n} untouched test records)"
    stated = ", ".join(f"{_SHORT[metric]} at most {claim(bound)}" for metric, bound in bounds.items())
    sure = f"{certified.confidence:.0%} confidence, {certified.n} untouched test records"
    return f"any attacker on one record's letters: {stated} ({sure})"


def uplink_text(result: Result) -> str:
    """What one release costs on the line: alone, and with all that its messages carry beside it."""
    up, letters = result.uplink, result.release.get("letters")
    times = f"{up.releases_per_record} release{'s' if up.releases_per_record != 1 else ''} a record"
    whole = f"{_bytes(up.bytes_per_record)} bytes"
    if up.payload_bytes_per_record is None:
        return f"{whole} a release as sent; {times}"
    alone = up.payload_bytes_per_record
    what = f"{8 * alone:g} bits of letters" if letters else f"{_bytes(alone)} bytes of values"
    beside = "record numbers, labels and headers"
    return f"{what} a release, {whole} as sent with {beside}; {times}"


def _bytes(count: float) -> str:
    return f"{count:.0f}" if count >= 100 else f"{count:.3g}"


def show_gain(gain: Score) -> str:
    """``+value [low, high]``, and what it means."""
    if gain.low > 0:
        means = "the cloud adds to the edge"
    else:
        means = "the edge exit does better" if gain.high < 0 else "not told apart from nothing"
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {means}"


def _worst(leakage: AttributeLeakage) -> str:
    text = f"worst is {leakage.worst.attack}, {_scores(leakage.worst)}"
    if leakage.raw_image_attack is not None:
        text += f"; raw images: {_scores(leakage.raw_image_attack)}"
    return text


def _scores(worst: WorstAttack) -> str:
    named = {name: getattr(worst, metric) for metric, name in _SHORT.items()}
    return ", ".join(f"{name} {show(score)}" for name, score in named.items() if score is not None)
