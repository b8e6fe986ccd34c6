"""Who attacks whom: the victims, the auxiliary records and the attackers of a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from privhier.assessment.lpips_weights import alexnet_state
from privhier.attacks.base import Attack, Kind
from privhier.attacks.build import build_attack
from privhier.attacks.embedders.build import build_embedder
from privhier.attacks.membership.build import build_membership_attacks
from privhier.attacks.refusals import MIN_RECORDS
from privhier.config import Choice, RunConfig
from privhier.datasets.base import IntArray
from privhier.errors import ConfigError, DataError
from privhier.seeding import numpy_stream
from privhier.training.prepare import Prepared
from privhier.training.trained import build_model

VIEW_BYTES = 3 * 2**30
"""Most that an attacker holds of the releases of one set of records (its own, or those attacked), float32. Of
sets that would take more, fewer records are used, and the result says so."""


@dataclass(frozen=True)
class Victims:
    """Rows of the data set whose secrets the bench attacks.

    Attributes:
        test: Records the edge was never trained on; positions in the test split are ``test_rows``.
        training: Training records, attacked through the releases the cloud really received.
        aux: The attacker's records.
        pictured: Positions among ``test``, in a drawn order: an attack that reconstructs n victims gets the
            first n of these (rows lie in the order of file names, which say age or person).
        notes: Where fewer records are used than the configuration names: how many, and why.
    """

    test: IntArray
    test_rows: IntArray
    training: IntArray
    aux: IntArray
    pictured: IntArray
    notes: tuple[str, ...] = ()


def check_auxiliary(config: RunConfig, prepared: Prepared, victims: Victims) -> None:
    """Refuse a run whose attackers would own too few labelled records for any of them to be trained.

    Raises:
        DataError: An attribute that is to be hidden has fewer than ``MIN_RECORDS`` labels among theirs.
    """
    for name in config.dataset.sensitive:
        known = int((prepared.labels[name].values[victims.aux] >= 0).sum())
        if name != "identity" and known < MIN_RECORDS:
            raise DataError(
                key="dataset.splits.aux",
                value=config.dataset.splits.aux,
                rule=f"leaves the attackers {known} records with a label of {name}; {MIN_RECORDS} are needed",
                remedy="Bring more images, a larger share or attacks.auxiliary; where pictures look alike by "
                "nature, dataset.options.near_doubles=false (versions of one photo share a split)",
            )


def choose_victims(config: RunConfig, prepared: Prepared) -> Victims:
    """Draw victims and auxiliary records, whole groups at a time, with streams of the run's seed.

    No more of them than ``VIEW_BYTES`` holds.
    """
    splits, attacks = prepared.data.splits, config.attacks
    known = config.dataset.identity_protocol == "known_people"
    groups = prepared.dataset.duplicate_group if known else prepared.dataset.group

    fits, notes = VIEW_BYTES // bytes_of(config, prepared), list[str]()

    def some(name: str, records: IntArray, limit: int | None) -> IntArray:
        wanted = len(records) if limit is None else min(limit, len(records))
        if wanted > fits:
            limit = max(_LEAST, fits)
            notes.append(
                f"{_SETS[name]}: about {min(limit, wanted)} of {wanted} records are used: an attacker would "
                f"hold more than {VIEW_BYTES / 2**30:g} GiB of the releases of all"
            )
        return _whole_groups(records, groups[records], limit, numpy_stream(config.seed, "victims", name))

    test = some("test", splits.test, attacks.victims)
    training = some("train", splits.train, attacks.training_victims)
    aux = some("aux", splits.aux, attacks.auxiliary)
    return Victims(
        test=test,
        test_rows=np.searchsorted(splits.test, test),
        training=training,
        aux=aux,
        pictured=numpy_stream(config.seed, "victims", "pictured").permutation(len(test)),
        notes=tuple(notes),
    )


def bytes_of(config: RunConfig, prepared: Prepared) -> int:
    """What an attacker holds of one record, in bytes: all its releases, or its raw image, as float32."""
    shape: tuple[int, ...]
    bottleneck = config.model.bottleneck
    if bottleneck.alphabet is not None:
        shape = (bottleneck.groups * bottleneck.alphabet,)
    elif bottleneck.kind == "dimension" and bottleneck.size is not None:
        shape = (bottleneck.size,)
    else:
        shape = build_model(config, prepared.data, pretrained=False)[0].release_shape
    pixels = 3 * prepared.data.image_size**2 if config.attacks.raw_image else 0
    return 4 * max(config.schedule.releases_per_record * math.prod(shape), pixels)


_LEAST = 20
"""Records that are used however much they hold: as few as the configuration may name."""
_SETS = {"test": "victims", "train": "training victims", "aux": "the attacker's auxiliary set"}


def build_attacks(config: RunConfig) -> dict[str, list[tuple[str, Attack]]]:
    """Every attack the configuration names, by sensitive attribute, ``reconstruction``, ``property NAME``.

    Raises:
        ConfigError: Unknown attack or option, before anything is trained.
    """
    chosen = config.attackers
    known = config.dataset.identity_protocol == "known_people"
    plan: dict[str, list[tuple[str, Attack]]] = {}
    for name in config.dataset.sensitive:
        if name == "identity" and not known:
            plan[name] = _build(chosen.verification, "verification", "identity")
        else:
            plan[name] = _build(chosen.attribute, "attribute", name)
    plan["reconstruction"] = _build(chosen.reconstruction, "reconstruction", "")
    for name in config.dataset.sensitive:
        if name != "identity":
            plan[f"property {name}"] = _build(chosen.property, "property", name)
    return plan


def check_bench(config: RunConfig) -> None:
    """Refuse what no registry knows, and weights that are not there, before anything is trained.

    Raises:
        ConfigError: Unknown attack, embedder or option; a weights file that is missing or no such file.
    """
    for named in build_attacks(config).values():
        for name, attack in named:
            if attack.white_box and "white_box" not in config.attackers.threat_models:
                raise ConfigError(
                    key="attacks",
                    value=name,
                    rule=f"needs the edge's weights; attacks.threat_models is {config.attacks.threat_models}",
                    remedy="Add white_box to attacks.threat_models, or leave the attack out",
                )
    build_membership_attacks(config.attacks.membership)
    for choice in config.attacks.embedders:
        build_embedder(choice).prepare()
    weights = config.evaluation.lpips_weights
    if weights is not None and not (Path(weights).is_file() and find_spec("lpips")):
        raise ConfigError(
            key="evaluation.lpips_weights",
            value=weights,
            rule="needs a file of AlexNet weights and the package lpips",
            remedy="Give the path of torchvision's AlexNet state dict, and pip install 'privhier[lpips]'",
        )
    alexnet_state(weights)


def attribute_plan(config: RunConfig, target: str) -> list[tuple[str, Attack]]:
    """The configured attribute attackers with another target, e.g. a task whose labels were randomized."""
    return _build(config.attackers.attribute, "attribute", target)


def _build(choices: Sequence[Choice], kind: Kind, target: str) -> list[tuple[str, Attack]]:
    built, seen = [], dict[str, int]()
    for choice in choices:
        seen[choice.name] = seen.get(choice.name, 0) + 1
        name = choice.name if seen[choice.name] == 1 else f"{choice.name}#{seen[choice.name]}"
        built.append((name, build_attack(choice, kind=kind, target=target)))
    return built


def _whole_groups(
    records: IntArray, groups: IntArray, limit: int | None, rng: np.random.Generator
) -> IntArray:
    """About ``limit`` records (never more than one group above), groups kept whole, sorted."""
    if limit is None or len(records) <= limit:
        return records
    unique, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(unique))
    taken = order[: int(np.searchsorted(np.cumsum(counts[order]), limit)) + 1]
    return records[np.isin(inverse, taken)]
