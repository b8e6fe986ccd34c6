"""Leakage of a sensitive attribute: every attacker of every threat model, scored once, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from privhier.assessment.certificates import check_certified
from privhier.assessment.context import Context, described, finished, fits, full_name, outcome, shown_ceiling
from privhier.assessment.floors import floor_embeddings, floor_outcomes, label_counts, victim_cells
from privhier.attacks.base import Attack
from privhier.attacks.bench import BenchEntry
from privhier.attacks.floors import ANSWERS, LABELS
from privhier.attacks.view import View
from privhier.errors import ConfigError, DataError
from privhier.evaluation.excess import excess_of, headline_of
from privhier.evaluation.leakage_parts import Certified
from privhier.evaluation.pairs import score_verification
from privhier.evaluation.result import AttackScores, AttributeLeakage, AuxiliaryPoint
from privhier.evaluation.scores import Outcome, Scored, classification_leakage, score_attackers

Plan = Sequence[tuple[str, Attack]]
WITH_LABELS = "curious_cloud_labels"


@dataclass(frozen=True)
class _Said:
    """One attacker's entry under one threat model."""

    entry: BenchEntry
    view: View

    @property
    def name(self) -> str:
        return full_name(self.entry.name, self.view.threat_model)


def leakage(
    context: Context,
    name: str,
    plan: Plan,
    views: Mapping[str, View],
    floors: Mapping[str, View] | None = None,
    certified: Certified | None = None,
) -> AttributeLeakage:
    """Run the attackers of one attribute under every threat model and score them, worst first.

    Args:
        context: The run.
        name: The attribute.
        plan: Its attackers.
        views: Threat model to view.
        floors: As ``floor_views`` gives them; without, there is neither floor nor excess.
        certified: What any attacker can reach who sees only the releases; without, nothing is compared.

    Raises:
        ConfigError: No attacker applies.
        GuaranteeError: A score whose 99.99 % lower bound lies above its ceiling or the certificate, or a
            floor that sees more than labels.
    """
    said, refused = _attack(context, name, plan, views)
    if plan[0][1].kind == "verification":
        judged = _verification(context, name, said, refused, floors or {})
        return judged.model_copy(update={"certified": certified})
    labels = context.prepared.labels[name]
    classes = len(labels.classes)
    test = context.sample(context.victims.test, labels.values, classes, "victims")
    training = context.sample(context.victims.training, labels.values, classes, "training")
    identity = name == "identity"
    blind = [(one, _outcome(one)) for one in said if one.view.task_labels is None]
    reading = [(one, _outcome(one)) for one in said if one.view.task_labels is not None]
    scored = score_attackers(test, training, [o for _, o in blind], identity=identity)
    worst, attacks = scored.worst, scored.attacks
    heard: list[Scored] = []
    if reading:
        heard = [score_attackers(test, training, [o for _, o in reading], identity=identity)]
    models = {one.name: one.view.threat_model for one, _ in (*blind, *reading)}
    beneath = {
        floor: score_attackers(test, training, told, identity=identity)
        for floor, view in (floors or {}).items()
        if (told := floor_outcomes(context, name, view))
    }
    context.groups.attack(name, test, next(o.predictions for _, o in blind if o.name == worst.attack))
    n = len(test.truth)
    raw = all(one.view.threat_model == "raw_image" for one in said)
    for one, spoken in blind:
        limit = None if raw else context.ceiling(test, one.view.releases.shape[1])
        on = (f"{spoken.name} on {name}", limit, test, spoken.probabilities[:n], spoken.predictions[:n])
        context.check(*on)
        check_certified(context, on[0], None if raw else certified, *on[2:])
    releases = context.config.schedule.releases_per_record
    limit = None if raw else context.ceiling(test, releases)
    found = AttributeLeakage(
        classes=list(labels.classes) if not identity else [],
        worst=worst,
        attacks=_of_models(attacks, models),
        attacks_with_labels=_of_models([row for group in heard for row in group.attacks], models),
        refused=refused,
        majority=test.majority,
        ceiling=shown_ceiling(limit, releases),
        worst_with_labels=heard[0].worst if heard else None,
        label_counts=label_counts(context, name) if floors else None,
        certified=certified,
    )
    return _judged(found, [scored, *heard], models, beneath)


def leakage_by_auxiliary(
    context: Context, name: str, plan: Plan, views: Sequence[View], whole: AttributeLeakage, cloud: View
) -> AttributeLeakage:
    """Add the curve of leakage against the size of the auxiliary set; its last point is the whole set's.

    The whole set's point is the worst of the same attackers on the curious cloud's view.
    """
    if not views or name == "identity":
        return whole
    points = []
    for view in [*views, cloud]:
        try:
            found = leakage(context, name, plan, {view.threat_model: view})
        except ConfigError:  # so few records that nobody can be trained on them
            continue
        points.append(AuxiliaryPoint(auxiliary=len(view.aux.images), draws=view.aux.draws, worst=found.worst))
    return whole.model_copy(update={"by_auxiliary": points})


def label_leakage(context: Context, task: str, plan: Plan, view: View) -> AttributeLeakage | None:
    """True task labels of training victims from their releases and their randomized answers.

    Args:
        context: The run.
        task: The task under attack.
        plan: Attribute attackers with this target.
        view: The curious cloud's with labels; test victims first.

    Returns:
        None where no attacker makes use of the answers.
    """
    n, labels = len(context.victims.test), context.prepared.labels[task]
    assert view.task_labels is not None
    trained = replace(view, releases=view.releases[n:], task_labels=view.task_labels[n:])
    entries = context.run(plan, trained, f"label-{task}")
    truth = context.sample(context.victims.training, labels.values, len(labels.classes), "training")
    done = [outcome(entry) for entry in entries if entry.result is not None]
    if not done:
        context.notes.append(f"no configured attacker reads randomized labels of {task}")
        return None
    worst, attacks = classification_leakage(truth, None, done, identity=False)
    return AttributeLeakage(
        classes=list(labels.classes),
        worst=worst,
        attacks=[attack.model_copy(update={"threat_model": WITH_LABELS}) for attack in attacks],
        refused={entry.name: entry.refusal for entry in entries if entry.refusal is not None},
        majority=truth.majority,
    )


def _attack(
    context: Context, name: str, plan: Plan, views: Mapping[str, View]
) -> tuple[list[_Said], dict[str, str]]:
    said, refused = [], {}
    for view in views.values():
        fitting = [(own, attack) for own, attack in plan if fits(attack, view, views)]
        for entry in context.run(fitting, view, name):
            one = _Said(entry, view)
            if entry.refusal is not None:
                refused[one.name] = entry.refusal
            else:
                said.append(one)
    blind = [one for one in said if one.view.task_labels is None]
    if not blind:
        raise ConfigError(
            key="attacks",
            value=[own for own, _ in plan],
            rule=f"no attacker applies to {name}: {refused}",
            remedy="Name at least one attacker that applies to this release",
        )
    return said, refused


def _of_models(attacks: Sequence[AttackScores], models: Mapping[str, str]) -> list[AttackScores]:
    return [attack.model_copy(update={"threat_model": models[attack.attack]}) for attack in attacks]


def _judged(
    found: AttributeLeakage, scored: Sequence[Scored], models: Mapping[str, str], floors: Mapping[str, Scored]
) -> AttributeLeakage:
    """With the headline over all of ``scored``, and with what stands beneath the first of them."""
    labels, answers = floors.get(LABELS), floors.get(ANSWERS)
    return found.model_copy(
        update={
            "headline": headline_of(scored, models, labels),
            "floor": None if labels is None else labels.worst,
            "answers": None if answers is None else answers.worst,
            "excess": None if labels is None else excess_of(scored[0], labels),
        }
    )


def _outcome(one: _Said) -> Outcome:
    return replace(outcome(one.entry), name=one.name)


def _verification(
    context: Context,
    name: str,
    said: Sequence[_Said],
    refused: dict[str, str],
    floors: Mapping[str, View],
) -> AttributeLeakage:
    identity, victims = context.prepared.labels[name].values, context.victims
    n = len(victims.test)
    test = context.pairs(identity[victims.test], "victims")
    training = context.pairs(identity[victims.training], "training")
    if test is None:
        raise DataError(
            key="attacks.victims",
            value=n,
            rule="no person among the test victims has two images",
            remedy="Raise attacks.victims or dataset.min_images_per_identity",
        )
    cells, seed = victim_cells(context), context.config.seed
    pairs = {"verification_auc": test, "matched_verification_auc": test.matched(cells[:n], seed, "victims")}
    if training is not None:
        pairs["training/verification_auc"] = training
        pairs["training/matched_verification_auc"] = training.matched(cells[n:], seed, "training")
    known = {score: some for score, some in pairs.items() if some is not None}
    if "matched_verification_auc" not in known:
        context.notes.append("no two test victims agree in their task labels: impostor pairs are random ones")
    embeddings = {}
    for one in said:
        embedded = finished(one.entry).embeddings
        if embedded is None:
            raise TypeError(f"{one.name} gave no embeddings")
        embeddings[one.name] = embedded
    rows = {one.name: described(one.entry, one.name, one.view.threat_model) for one in said}
    scored = score_verification(known, embeddings, n, rows)
    beneath = {
        floor: score_verification(known, told, n)
        for floor, view in floors.items()
        if (told := floor_embeddings(context, name, view))
    }
    found = AttributeLeakage(
        classes=[], worst=scored.worst, attacks=scored.attacks, refused=refused, majority=0.5
    )
    return _judged(found, [scored], {one.name: one.view.threat_model for one in said}, beneath)
