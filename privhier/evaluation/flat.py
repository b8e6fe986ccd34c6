"""Configurations and results as flat ``name -> value`` pairs, under names that trackers take."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from privhier.evaluation.headline import AREAS, GUESSING, certified_value, counted, headline
from privhier.evaluation.leakage_parts import Excess
from privhier.evaluation.result import (
    AttackScores,
    AttributeLeakage,
    Reconstruction,
    ReferenceRun,
    Result,
    Score,
    WorstAttack,
)
from privhier.evaluation.warnings import loud
from privhier.privacy.guarantees import OWN_RELEASES

_OPERATORS = (("==", "_eq_"), ("!=", "_ne_"), (">=", "_ge_"), ("<=", "_le_"), (">", "_gt_"), ("<", "_lt_"))


def clean_name(name: str) -> str:
    """A name MLflow takes: ``race==0`` becomes ``race_eq_0``, other odd characters ``_``.

    Example:
        >>> clean_name("leakage/race==0/auc"), clean_name("utility/bin(age, 20, 40)")
        ('leakage/race_eq_0/auc', 'utility/bin_age_20_40')
    """
    for sign, word in _OPERATORS:
        name = name.replace(sign, word)
    parts = (re.sub(r"[^A-Za-z0-9.\-]+", "_", part).strip("_") or "_" for part in name.split("/"))
    return "/".join(parts)[:250]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested plain data as ``a.b.c`` to text; lists are written as JSON."""
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = json.dumps(value, default=str) if isinstance(value, Mapping | list | tuple) else str(value)
            flat[f"{prefix}{key}"] = text
    return flat


def attack_metrics(scores: AttackScores | WorstAttack | Excess) -> dict[str, float]:
    """An attacker's scores with ``_low`` and ``_high``; those on training records as ``training/...``."""
    metrics: dict[str, float] = {}
    for name in ("auc", "balanced_accuracy", "top1", "verification_auc", "matched_verification_auc"):
        _add(metrics, name, getattr(scores, name))
    for name, score in scores.training_records.items():
        _add(metrics, f"training/{name}", score)
    if isinstance(scores, AttackScores):
        metrics |= {"queries": float(scores.queries)}
        if scores.validation is not None:
            metrics["validation"] = scores.validation
    return metrics


def headline_metrics(leakage: AttributeLeakage) -> dict[str, float]:
    """What an attribute is judged by: ``headline/score``, with ``floor`` and ``excess`` where there are any.

    Then ``certified/...``, which no attacker exceeds, where there is a certificate, and all scores of
    ``floor``, ``answers`` and ``excess``, as ``attack_metrics`` names them.
    """
    metrics: dict[str, float] = {}
    top = headline(leakage)
    if top is not None:
        for name in ("score", "floor", "excess"):
            _add(metrics, f"headline/{name}", getattr(top, name))
    if leakage.certified is not None:
        for name in ("auc", "balanced_accuracy", "verification_auc", "top1"):
            if (bound := getattr(leakage.certified, name)) is not None:
                metrics[f"certified/{name}"] = bound
    for name in ("floor", "answers", "excess"):
        beside = getattr(leakage, name)
        if beside is not None:
            metrics |= {f"{name}/{key}": value for key, value in attack_metrics(beside).items()}
    return metrics


def headline_tags(result: Result) -> dict[str, str]:
    """Who reaches each attribute's headline, and on which records, under names MLflow takes."""
    tops = {attribute: headline(leakage) for attribute, leakage in result.leakage.items()}
    return {
        clean_name(f"{key}/{attribute}"): text
        for attribute, top in tops.items()
        if top is not None
        for key, text in (("worst_attack", top.attack), ("worst_records", top.records))
    }


def reconstruction_metrics(scores: Reconstruction) -> dict[str, float]:
    """The scores of a reconstruction attack that apply, with ``_low`` and ``_high``."""
    metrics: dict[str, float] = {}
    for name in Reconstruction.model_fields:
        value = getattr(scores, name)
        if isinstance(value, int):
            metrics[name] = float(value)
        else:
            _add(metrics, name, value)
    return metrics


def top_metrics(result: Result) -> dict[str, float]:
    """What a page of many runs is read by: ``utility``, ``leakage``, ``excess``, ``certified``, ``epsilon``.

    Of several secrets the largest each: headlines that are areas under a curve (a top-1 accuracy is another
    scale), and a certificate only where every secret has one. An epsilon only where there is one. ``leakage``
    is what pages of runs are sorted by: below guessing it counts as guessing.
    """
    tops = {name: headline(leakage) for name, leakage in result.leakage.items()}
    areas = {name: top for name, top in tops.items() if top is not None and top.metric in AREAS}
    found: dict[str, float | None] = {
        "utility": None if result.utility_mean.auc is None else result.utility_mean.auc.value,
        "leakage": max((counted(top.score.value, GUESSING) for top in areas.values()), default=None),
        "excess": max((top.excess.value for top in areas.values() if top.excess is not None), default=None),
        "epsilon": next((row.epsilon for row in result.guarantees if row.name == OWN_RELEASES), None),
    }
    bounds = [certified_value(result.leakage[name], top.metric) for name, top in areas.items()]
    known = [bound for bound in bounds if bound is not None]
    found["certified"] = max(known) if known and len(known) == len(result.leakage) else None
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def result_metrics(result: Result) -> dict[str, float]:
    """The headline numbers of a result under names MLflow takes."""
    metrics: dict[str, float] = {}
    parts: dict[str, Result | ReferenceRun] = {"": result}
    parts |= {f"references/{name}/": reference for name, reference in result.references.items()}
    for prefix, part in parts.items():
        for name in ("auc", "balanced_accuracy"):
            _add(metrics, f"{prefix}utility_mean/{name}", getattr(part.utility_mean, name))
            for task, utility in part.utility.items():
                _add(metrics, f"{prefix}utility/{task}/cloud/{name}", getattr(utility.cloud, name))
                _add(metrics, f"{prefix}utility/{task}/edge_exit/{name}", getattr(utility.edge_exit, name))
        _add(metrics, f"{prefix}utility_mean/cloud_gain", part.utility_mean.cloud_gain)
        for task, utility in part.utility.items():
            _add(metrics, f"{prefix}utility/{task}/cloud_gain", utility.cloud_gain)
        for attribute, leakage in part.leakage.items():
            for name, value in headline_metrics(leakage).items():
                metrics[f"{prefix}leakage/{attribute}/{name}"] = value
            for name, value in attack_metrics(leakage.worst).items():
                metrics[f"{prefix}leakage/{attribute}/worst/{name}"] = value
            metrics[f"{prefix}leakage/{attribute}/majority"] = leakage.majority
            if leakage.raw_image_attack is not None:
                for name, value in attack_metrics(leakage.raw_image_attack).items():
                    metrics[f"{prefix}leakage/{attribute}/raw_image/{name}"] = value
        for attack, scores in part.reconstruction.items():
            for name, value in reconstruction_metrics(scores).items():
                metrics[f"{prefix}reconstruction/{attack}/{name}"] = value
    for attribute, leakage in result.leakage.items():
        if leakage.worst_with_labels is not None:
            for name, value in attack_metrics(leakage.worst_with_labels).items():
                metrics[f"leakage/{attribute}/with_task_labels/{name}"] = value
    for task, leakage in result.label_inference.items():
        for name, value in attack_metrics(leakage.worst).items():
            metrics[f"label_inference/{task}/worst/{name}"] = value
    for attribute, estimates in result.property_inference.items():
        for estimate in estimates:
            _add(metrics, f"property/{attribute}/{estimate.attack}/error", estimate.error)
    for place, attacks in (result.membership.parts if result.membership else {}).items():
        for attack, found in attacks.items():
            for name in ("auc", "tpr_at_fpr_001", "tpr_at_fpr_01"):
                _add(metrics, f"membership/{place}/{attack}/{name}", getattr(found, name))
    for row in result.guarantees:
        if row.nats is not None:
            metrics["maximal_leakage_nats"] = row.nats
        if row.epsilon is not None:
            metrics[f"epsilon/{row.name}"] = row.epsilon
            if row.allows is not None:
                metrics[f"allows/{row.name}"] = row.allows
    metrics["uplink/bytes_per_record"] = result.uplink.bytes_per_record
    if result.uplink.payload_bytes_per_record is not None:
        metrics["uplink/payload_bytes_per_record"] = result.uplink.payload_bytes_per_record
    metrics["uplink/releases_per_record"] = float(result.uplink.releases_per_record)
    metrics["uplink/total_bytes"] = float(result.uplink.total_bytes)
    metrics |= {f"timing/{name}": seconds for name, seconds in result.timing.items()}
    return {clean_name(name): value for name, value in metrics.items()}


def result_tags(result: Result) -> dict[str, str]:
    """What a tracker shows beside the name: ``headline_tags``, and ``warning`` where there is a loud one.

    ``additions`` names the attacks that were added once the run was finished.
    """
    urgent = loud(result.warnings)
    added = "; ".join(f"{one.described}, {one.date}" for one in result.additions)
    extra = {"warning": "\n".join(urgent), "additions": added}
    return headline_tags(result) | {name: text for name, text in extra.items() if text}


def _add(metrics: dict[str, float], name: str, score: Score | None) -> None:
    if score is not None:
        metrics |= with_interval(name, score)


def with_interval(name: str, score: Score) -> dict[str, float]:
    """A score under ``name``, its interval under ``name_low`` and ``name_high``."""
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
