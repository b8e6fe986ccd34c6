"""What a run allows one to say, in three plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from privhier.evaluation.additions import Addition, addition_of
from privhier.evaluation.headline import METRIC_NAMES, certified_value, headline, telling
from privhier.evaluation.leakage_parts import Headline
from privhier.evaluation.result import AttributeLeakage, Result, Score
from privhier.evaluation.verdict import failing_on_images, not_learned
from privhier.evaluation.warnings import unquotable
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.shown import allowance, claim

_NO_PROOF = "; that is what these attackers found, and no proof about others"


def may_say(result: Result) -> list[str]:
    """Utility, leakage, guarantee: a sentence each, which together are what may be quoted of a run.

    Where a loud warning stands or the task was not learned, the first sentence says so, and the second that
    leakage says nothing; it says so of an attribute alone whose attackers fail on the raw images.
    """
    return [_utility(result), _leakage(result), _guarantee(result)]


def _utility(result: Result) -> str:
    barred = unquotable(result.warnings)
    if barred:
        return f"Nothing may be quoted of this run before its warnings are mended: {barred[0]}."
    if not_learned(result):
        return "Nothing may be quoted of this run: its task was not learned."
    scores = [f"{task} with AUC {_shown(utility.cloud.auc)}" for task, utility in result.utility.items()]
    return f"From releases alone, the cloud predicts {_listed(scores)} on records it was not trained on."


def _leakage(result: Result) -> str:
    tops = {name: headline(leakage) for name, leakage in result.leakage.items()}
    known = {name: top for name, top in tops.items() if top is not None}
    if unquotable(result.warnings) or not_learned(result) or not known:
        return "What its attackers found says nothing."
    weak = [name for name in failing_on_images(result) if name in known]
    said = [
        _of_one(name, top, result.leakage[name], result.additions)
        for name, top in known.items()
        if name not in weak
    ]
    strong = [result.leakage[name] for name in known if name not in weak]
    proof = "" if all(leakage.certified for leakage in strong) else _NO_PROOF
    parts = [f"The strongest of the attackers that were run reaches {'; '.join(said)}{proof}"] if said else []
    parts += [_of_weak(name, known[name], result.leakage[name]) for name in weak]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _of_one(name: str, top: Headline, leakage: AttributeLeakage, additions: Sequence[Addition]) -> str:
    added = addition_of(additions, top.attack)
    whose = top.attack if added is None else f"{top.attack}, added on {added.date[:10]}"
    text = f"{METRIC_NAMES[top.metric]} {_shown(top.score)} at {name} (by {whose}, {top.records} records)"
    if top.excess is not None:
        text += f", {top.excess.value:+.3f} over what the true task labels alone tell"
    return text + _certified(top, leakage)


def _of_weak(name: str, top: Headline, leakage: AttributeLeakage) -> str:
    """Of an attribute that the attackers do not find on the raw images either."""
    return (
        f"what the attackers found at {name} says nothing, since they fail on the raw images as well"
        + _certified(top, leakage)
    )


def _certified(top: Headline, leakage: AttributeLeakage) -> str:
    bound = telling(certified_value(leakage, top.metric))
    if bound is None or leakage.certified is None:
        return ""
    sure = f"{leakage.certified.confidence:.0%} confidence"
    return f", and no attacker at all can exceed {claim(bound)} on test records ({sure})"


def _guarantee(result: Result) -> str:
    row = next((one for one in result.guarantees if one.name == OWN_RELEASES), None)
    if row is None or row.epsilon is None:
        return "No differential-privacy guarantee covers what one record's own releases say."
    delta = "" if not row.delta else f" at delta {claim(row.delta)}"
    text = f"One record's own releases are covered by {'a pure' if not row.delta else 'an'} epsilon of "
    text += f"{claim(row.epsilon)}{delta}"
    text += f", which {allowance(row.allows)}" if row.allows is not None else ""
    note = row.note.partition(";")[0]
    return f"{text}{f' ({note})' if note else ''}; what it does not cover is listed with it."


def _shown(score: Score | None) -> str:
    return "not scored" if score is None else f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
