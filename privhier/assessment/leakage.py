"""Leakage of a sensitive attribute: every attacker of every threat model, scored once, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from privhier.assessment.context import Context, described, finished, fits, full_name, outcome, shown_ceiling
from privhier.attacks.base import Attack
from privhier.attacks.bench import BenchEntry
from privhier.attacks.view import View
from privhier.errors import ConfigError, DataError
from privhier.evaluation.result import AttackScores, AttributeLeakage, AuxiliaryPoint, WorstAttack
from privhier.evaluation.scores import Outcome, classification_leakage

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


def leakage(context: Context, name: str, plan: Plan, views: Mapping[str, View]) -> AttributeLeakage:
    """Run the attackers of one attribute under every threat model and score them, worst first.

    Raises:
        ConfigError: No attacker applies.
        GuaranteeError: A score whose 99.99 % lower bound lies above its ceiling.
    """
    said, refused = _attack(context, name, plan, views)
    if plan[0][1].kind == "verification":
        return _verification(context, name, said, refused)
    labels = context.prepared.labels[name]
    classes = len(labels.classes)
    test = context.sample(context.victims.test, labels.values, classes, "victims")
    training = context.sample(context.victims.training, labels.values, classes, "training")
    identity = name == "identity"
    blind = [(one, _outcome(one)) for one in said if one.view.task_labels is None]
    reading = [(one, _outcome(one)) for one in said if one.view.task_labels is not None]
    worst, attacks = classification_leakage(test, training, [o for _, o in blind], identity=identity)
    with_labels, readers = None, list[AttackScores]()
    if reading:
        heard = [spoken for _, spoken in reading]
        with_labels, readers = classification_leakage(test, training, heard, identity=identity)
    models = {one.name: one.view.threat_model for one, _ in (*blind, *reading)}
    context.groups.attack(name, test, next(o.predictions for _, o in blind if o.name == worst.attack))
    n = len(test.truth)
    raw = all(one.view.threat_model == "raw_image" for one in said)
    for one, spoken in blind:
        limit = None if raw else context.ceiling(test, one.view.releases.shape[1])
        context.check(
            f"{spoken.name} on {name}", limit, test, spoken.probabilities[:n], spoken.predictions[:n]
        )
    releases = context.config.schedule.releases_per_record
    limit = None if raw else context.ceiling(test, releases)
    return AttributeLeakage(
        classes=list(labels.classes) if not identity else [],
        worst=worst,
        attacks=[attack.model_copy(update={"threat_model": models[attack.attack]}) for attack in attacks],
        attacks_with_labels=[row.model_copy(update={"threat_model": models[row.attack]}) for row in readers],
        refused=refused,
        majority=test.majority,
        ceiling=shown_ceiling(limit, releases),
        worst_with_labels=with_labels,
    )


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


def _outcome(one: _Said) -> Outcome:
    return replace(outcome(one.entry), name=one.name)


def _verification(
    context: Context, name: str, said: Sequence[_Said], refused: dict[str, str]
) -> AttributeLeakage:
    identity = context.prepared.labels[name].values
    n = len(context.victims.test)
    test = context.pairs(identity[context.victims.test], "victims")
    training = context.pairs(identity[context.victims.training], "training")
    if test is None:
        raise DataError(
            key="attacks.victims",
            value=n,
            rule="no person among the test victims has two images",
            remedy="Raise attacks.victims or dataset.min_images_per_identity",
        )
    attacks: list[AttackScores] = []
    curves, trained = {}, {}
    for one in said:
        embeddings = finished(one.entry).embeddings
        if embeddings is None:
            raise TypeError(f"{one.name} gave no embeddings")
        curves[one.name] = test.curve(embeddings[:n])
        scores = {}
        if training is not None:
            trained[one.name] = training.curve(embeddings[n:])
            scores["verification_auc"] = training.score(trained[one.name])
        row = described(one.entry, test.score(curves[one.name]), scores)
        attacks.append(row.model_copy(update={"attack": one.name, "threat_model": one.view.threat_model}))
    attacks.sort(key=lambda attack: -curves[attack.attack].value)
    worst = WorstAttack(
        attack=attacks[0].attack,
        verification_auc=test.worst(list(curves.values())),
        training_records=(
            {"verification_auc": training.worst(list(trained.values()))} if training is not None else {}
        ),
    )
    return AttributeLeakage(classes=[], worst=worst, attacks=attacks, refused=refused, majority=0.5)
