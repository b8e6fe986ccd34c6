"""Attacks that are added to a finished run: checked, and put beside those its configuration names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from privhier.assessment.context import Context, fits
from privhier.assessment.membership import refused_membership
from privhier.assessment.victims import build_attacks
from privhier.assessment.views import cloud_view, threat_views
from privhier.attacks.base import Attack, attacks
from privhier.attacks.membership.base import membership_attacks
from privhier.attacks.view import View
from privhier.config import Choice, RunConfig
from privhier.config.choices import build
from privhier.errors import ConfigError, UnknownNameError
from privhier.evaluation.additions import Addition, AttackSection
from privhier.registry import nearest

KEY = "--add"
REFERENCES_LACK: tuple[AttackSection, ...] = ("property", "membership")
"""What unprotected references are not attacked with, whoever names it."""
_AGAINST = {
    "attribute": "attackers of attributes",
    "verification": "attackers who tell whether two releases are of one person",
    "reconstruction": "attackers who rebuild images",
    "property": "estimators of the training set's make-up",
}


@dataclass(frozen=True)
class Asked:
    """An attack that somebody wants to add: its name is known and its options are right.

    Attributes:
        choice: Name and options.
        section: What it attacks.
        representation: The attack with every option; equal ones are the same attack.
    """

    choice: Choice
    section: AttackSection
    representation: str


def asked(choice: Choice) -> Asked:
    """Check name and options of an attack.

    Raises:
        UnknownNameError: No attack has this name; the nearest ones are named.
        ContractError: A plug-in of that name that cannot be used.
        ConfigError: An option that does not exist, of the wrong type or out of its range.
    """
    if choice.name in (*attacks.names(), *attacks.broken()):
        attack = build(attacks, choice, key=KEY, target="")
        return Asked(choice, attack.kind, repr(attack))
    if choice.name in (*membership_attacks.names(), *membership_attacks.broken()):
        return Asked(choice, "membership", repr(build(membership_attacks, choice, key=KEY)))
    known = [*attacks.names(), *membership_attacks.names()]
    raise UnknownNameError(
        key=KEY,
        value=choice.name,
        rule="must be one of the registered attacks",
        remedy=f"{nearest(choice.name, known)}; an attack of your own that was added from Python is known "
        "where its package is installed as a plug-in, or imported first",
    )


def named_by(config: RunConfig, one: Asked) -> bool:
    """Whether a run of this configuration is attacked with this very attack, options and all."""
    if one.section != "membership" and not any(
        attack.kind == one.section for plan in build_attacks(config).values() for _, attack in plan
    ):
        return False  # who tells people apart is named by default, also where people are no secret
    return one.representation in _representations(config, one.section)


def number_of(config: RunConfig, choice: Choice, section: AttackSection) -> str:
    """What one more attacker of this name is called in the scores of a run: ``mlp``, ``mlp#2``, ..."""
    before = sum(other.name == choice.name for other in _chosen(config, section))
    return f"{choice.name}#{before + 1}" if before else choice.name


def extended(
    config: RunConfig, additions: Sequence[Addition], *, but: Collection[AttackSection] = ()
) -> RunConfig:
    """The configuration as a run with additions is attacked; its hash is nobody's.

    Who holds the edge's weights brings the threat model ``white_box`` along.

    Args:
        config: What the run was configured with.
        additions: What was added to it.
        but: Sections of which nothing is added.

    Raises:
        UnknownNameError: An addition by a plug-in that is no longer installed.
    """
    more: dict[str, list[Choice]] = {}
    white_box = False
    for one in additions:
        if one.section in but:
            continue
        more.setdefault(one.section, []).append(Choice(name=one.attack, options=one.options))
        if one.section != "membership":
            white_box |= attacks.get(one.attack, key="additions.json").white_box
    if not more:
        return config
    joined = config.attackers.joined(more, white_box=white_box)
    return config.model_copy(update={"attacks": joined})


def check_applies(context: Context, additions: Sequence[Addition]) -> None:
    """Refuse additions that no view of the run can be attacked with, before any of them is run.

    Args:
        context: The run, its configuration ``extended`` by them.
        additions: Those that are new.

    Raises:
        ConfigError: The first that does not apply, and why.
    """
    cloud = cloud_view(context)
    views = threat_views(context, cloud)
    everybody = {"curious_cloud": replace(cloud, populations=(np.arange(len(cloud.releases)),))}
    membership: Mapping[str, str] = {}
    if any(one.section == "membership" for one in additions):
        membership = refused_membership(context.subject, context.trained)
    for one in additions:
        if one.section == "membership":
            reasons = [membership[one.name]] if one.name in membership else []
        else:
            reasons = _refusals(context, one, everybody if one.section == "property" else views)
        if reasons:
            raise ConfigError(
                key=KEY,
                value=one.attack,
                rule=f"does not apply to this run: {'; '.join(dict.fromkeys(reasons))}",
                remedy="Add another attack: `privhier list attacks` names them",
            )


def _refusals(context: Context, one: Addition, views: Mapping[str, View]) -> list[str]:
    """Why an attack applies to none of its targets; empty: it does apply to one."""
    reasons, met = [], False
    for attack in _planned(context.config, one):
        met = True
        for view in views.values():
            if one.section == "property" or fits(attack, view, views):
                reason = attack.refuses(view)
                if reason is None:
                    return []
                reasons.append(f"{reason} (threat model {view.threat_model})")
    if not met:
        dataset = context.config.dataset
        secrets = f"{', '.join(dataset.sensitive)} ({dataset.identity_protocol.replace('_', ' ')})"
        return [f"its secrets are {secrets}: nothing for {_AGAINST[one.section]}"]
    return reasons or ["no threat model of this run has what it needs"]


def _planned(config: RunConfig, one: Addition) -> Iterator[Attack]:
    """The attack, once for each of its targets."""
    for plan in build_attacks(config).values():
        for name, attack in plan:
            if name == one.name and attack.kind == one.section:
                yield attack


def _chosen(config: RunConfig, section: AttackSection) -> list[Choice]:
    found: list[Choice] = getattr(config.attackers, section)
    return found


def _representations(config: RunConfig, section: AttackSection) -> set[str]:
    return {asked(choice).representation for choice in _chosen(config, section)}
