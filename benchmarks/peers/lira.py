"""LiRA's scoring on the same shadow outputs: ours against PrivacyGuard's, SACRO-ML's and Privacy Meter's.

Time on drawn outputs of many candidates, strength on those of a run trained here. Ours is asked for the image
alone (no mirrored query), since that is what the peers are given. Privacy Meter's reference attack knows
models without the record only: it is held against our offline variant, each candidate with the models that
were not trained on it.
"""

from __future__ import annotations

import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
from harness import Array, Contender, Outcome, Report, Row, Rule, Strength, compare, strength
from pages import versions_of
from shadow_tables import PART, Case, Scorer, drawn_case, trained_case

from privhier.attacks.membership.lira import LiraAttack
from privhier.metrics.classification import auc
from privhier.metrics.roc import tpr_at_fpr

CANDIDATES, SHADOWS = 4000, 64
WITHIN = 0.05
"""Of one minus the AUC."""
LOW = 0.01


def ours(offline: bool) -> Scorer:
    """LiRA as it stands, on shadow models that are there already."""

    def score(case: Case) -> Array:
        attack = LiraAttack(shadows=len(case.shadows), mirrored=False, offline=offline)
        return attack.run(case.view).scores[PART]

    return score


def privacy_guard(fixed: bool) -> Scorer:
    """Its preparation of the tables, and its online attack."""
    from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
    from privacy_guard.attacks.lira_attack import LiraAttack as Peer
    from privacy_guard.shadow_model_training.training import prepare_lira_data

    def score(case: Case) -> Array:
        # Its interface parts members from the others before it scores them, each alone.
        shadows = [(None, inside) for inside in case.inside]
        train, test, *_ = prepare_lira_data(
            case.phi[:, None], case.shadows[:, :, None], (None, case.member), shadows
        )
        attack = Peer(
            train,
            test,
            AggregationType.NONE,
            use_fixed_variance=fixed,
            std_dev_type="mix",
            online_attack=True,
        )
        attack.run_attack()
        scores = np.empty(len(case.phi))
        scores[case.member] = attack.df_train_merge["score"]
        scores[~case.member] = attack.df_test_merge["score"]
        return scores

    return score


def sacro(fixed: bool) -> Scorer:
    """Its scores from the dictionaries of confidences that it makes of its shadow models."""
    from sacroml.attacks import utils
    from sacroml.attacks.likelihood_attack import LIRAAttack as Peer

    def score(case: Case) -> Array:
        n = len(case.phi)
        inside: dict[int, list[float]] = {i: [] for i in range(n)}
        outside: dict[int, list[float]] = {i: [] for i in range(n)}
        for said, chosen in zip(case.shadows, case.inside, strict=True):
            for i, confidence in enumerate(1 / (1 + np.exp(-said))):
                (inside if chosen[i] else outside)[i].append(utils.logit(confidence))
        with tempfile.TemporaryDirectory() as folder:
            attack = Peer(output_dir=folder, write_report=False, mode="online-carlini", fix_variance=fixed)
            scores, _ = attack._compute_scores(case.labels, case.predictions(case.phi), outside, inside)
        return np.array(scores)[:, 1]

    return score


def privacy_meter() -> Scorer:
    """Its reference attack with a hundred Gaussian thresholds, as many as it has by default.

    A score is how many of them a candidate passes.
    """
    # It imports tensorflow for models that are not used here.
    sys.modules.setdefault("tensorflow", types.ModuleType("tensorflow"))
    from privacy_meter.hypothesis_test import gaussian_threshold_func
    from privacy_meter.metric import ReferenceMetric

    class Source:
        """Hands out signals: smaller says "member"."""

        def __init__(self, tables: dict[str, Array]) -> None:
            self.models, self.tables = [None] * len(next(iter(tables.values()))), tables

        def get_signal(self, signal: Any, mapping: Any) -> list[Array]:
            return list(self.tables[mapping[0][1]])

    def score(case: Case) -> Array:
        member = case.member
        # Every candidate has as many models without it as any other: half of them.
        out = np.stack([said[~chosen] for said, chosen in zip(case.shadows.T, case.inside.T, strict=True)], 1)
        target = Source({"train": -case.phi[None, member], "test": -case.phi[None, ~member]})
        others = Source({"train": -out[:, member], "test": -out[:, ~member]})
        metric = ReferenceMetric(target, others, [None], gaussian_threshold_func)
        metric.prepare_metric()
        (result,) = metric.run_metric(np.linspace(0, 1, 102)[1:-1])
        passed = result.predicted_labels.sum(axis=0)
        scores = np.empty(len(case.phi))
        scores[member], scores[~member] = np.split(passed, [int(member.sum())])
        return scores

    return score


PEERS: tuple[tuple[str, str, Callable[[], Scorer], bool], ...] = (
    ("PrivacyGuard, own variances", "privacyguard-platform", lambda: privacy_guard(False), False),
    ("PrivacyGuard, one variance", "privacyguard-platform", lambda: privacy_guard(True), False),
    ("SACRO-ML, own variances", "sacroml", lambda: sacro(False), False),
    ("SACRO-ML, one variance", "sacroml", lambda: sacro(True), False),
    ("Privacy Meter, reference attack", "Privacy-Meter", privacy_meter, True),
)
"""Name, package, scorer, whether it knows only models without the record."""


def contender(name: str, case: Case, scorer: Scorer) -> Contender:
    """Somebody who scores a case."""

    def start() -> Callable[[], Report]:
        def work() -> Report:
            scores = scorer(case)
            return lambda: Outcome(case.data, case.data, 1 - auc(scores, case.member), 1)

        return work

    return Contender(name, start)


def low_end(scores: Array, member: Array) -> float:
    """True positives at one false positive in a hundred, or at one in all where they are fewer."""
    return tpr_at_fpr(scores, member, max(LOW, 1 / int((~member).sum())))


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Row | Strength]:
    """Times on drawn outputs, strengths on trained ones."""
    drawn, trained = drawn_case(CANDIDATES, SHADOWS), trained_case()
    for name, package, make, offline in PEERS:
        what = "LiRA's scoring" + (", offline" if offline else "")
        try:
            scorer, versions = make(), versions_of(package)
        except ModuleNotFoundError as error:
            skip(f"{what}: {name}: {error.name} is not installed (make peers)")
            continue
        if "one variance" not in name:  # with 64 shadow models ours has own ones
            yield compare(
                f"{what}, {CANDIDATES} candidates, {SHADOWS} shadow models",
                contender("ours", drawn, ours(offline)),
                contender(name, drawn, scorer),
                versions=versions,
                unit="seconds",
                pairs=pairs,
                rule=Rule(within=WITHIN),
            )
        mine, began = ours(offline)(trained), time.perf_counter()
        mine = ours(offline)(trained)
        middle = time.perf_counter()
        theirs = scorer(trained)
        seconds = (middle - began, time.perf_counter() - middle)
        scores: tuple[tuple[str, Callable[[Array, Array], float]], ...] = (
            ("AUC", auc),
            (f"TPR at FPR {LOW}", low_end),
        )
        for score, of in scores:
            yield strength(
                f"{what}, the same {len(trained.shadows)} shadow models",
                name,
                versions=versions,
                score=score,
                of=of,
                ours=mine,
                theirs=theirs,
                truth=trained.member,
                seconds=seconds,
            )
