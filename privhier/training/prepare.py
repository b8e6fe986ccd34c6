"""From a data set and a configuration to what the edge trains on; refuses what cannot be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from privhier.config import RunConfig
from privhier.config.privacy import ClipQuantile
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.base import AttributeLabels, FaceDataset, IntArray
from privhier.datasets.relations import refuse_same_attributes
from privhier.datasets.splits import split_dataset
from privhier.errors import ConfigError, DataError
from privhier.privacy.accounting import solve_answer, solve_sigma
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData
from privhier.training.compiled import check_compiles


@dataclass(frozen=True)
class Prepared:
    """Data ready for training and attack.

    Attributes:
        data: What the edge trains on.
        labels: Every task and sensitive attribute's labels on all records.
        dataset: Where they come from.
    """

    data: TrainingData
    labels: Mapping[str, AttributeLabels]
    dataset: FaceDataset


def prepare(config: RunConfig, dataset: FaceDataset) -> Prepared:
    """Evaluate the attributes, split, and lay out labels.

    Under the unknown-people protocol the identity exit knows the training people only; everyone
    else carries -1 there.

    Raises:
        DataError: Unknown attribute, an attribute with one class (in the data set or in the training
            split), two attributes that are one, a task that tells a secret, identities where there are
            none, or too few groups.
    """
    chosen = config.dataset
    labels = {name: evaluate_attribute(name, dataset) for name in (*chosen.task, *chosen.sensitive)}
    refuse_same_attributes(labels, chosen.task, chosen.sensitive)
    splits = split_dataset(dataset, chosen.splits, protocol=chosen.identity_protocol, seed=config.seed)
    for name, attribute in labels.items():
        for split in ("train", "test"):
            present = np.unique(attribute.values[getattr(splits, split)])
            if len(present) < 2:
                raise DataError(
                    key=name,
                    value=f"{len(present)} class in the {split} split",
                    rule="an attribute needs at least two classes in every split",
                    remedy="Choose another attribute, more images or larger splits",
                )
    columns = {name: labels[name].values for name in chosen.sensitive}
    classes = {name: len(labels[name].classes) for name in chosen.sensitive}
    if "identity" in columns and chosen.identity_protocol == "unknown_people":
        columns["identity"], classes["identity"] = _known_to_edge(columns["identity"], splits.train)
    data = TrainingData(
        images=dataset.images,
        task=torch.from_numpy(np.stack([labels[name].values for name in chosen.task], axis=1)),
        sensitive=torch.from_numpy(np.stack([columns[name] for name in chosen.sensitive], axis=1)),
        task_classes={name: len(labels[name].classes) for name in chosen.task},
        sensitive_classes=classes,
        splits=splits,
        task_class_names={name: list(labels[name].classes) for name in chosen.task},
        persons=None if dataset.identity is None else torch.from_numpy(dataset.identity),
    )
    return Prepared(data=data, labels=labels, dataset=dataset)


def _known_to_edge(identity: IntArray, train: IntArray) -> tuple[IntArray, int]:
    people = np.unique(identity[train])
    position = np.searchsorted(people, identity)
    position[position == len(people)] = 0
    known = people[position] == identity
    return np.where(known, position, -1).astype(np.int64), len(people)


def build_mechanism(config: RunConfig, n_train: int, *, drawn: float | None = None) -> ReleaseMechanism:
    """The release mechanism, with its noise solved for ``target_epsilon`` and the schedule's releases.

    Args:
        config: The run.
        n_train: Training records, for ``privacy.delta: auto``.
        drawn: The bound that was drawn, where ``release.clip`` is a quantile; None: its lower end, for
            checks before anything is drawn.
    """
    release = config.release
    if config.model.bottleneck.alphabet is not None:
        return _letters(config, config.model.bottleneck.alphabet)
    target = release.target_epsilon
    if isinstance(release.clip, ClipQuantile):
        assert target is not None
        clip, target = drawn or release.clip.lowest, target - release.clip.epsilon
    else:
        clip = release.clip
    sigma = release.sigma if release.sigma is not None else 0.0
    if release.mechanism in ("gaussian", "laplace") and target is not None:
        sigma = solve_sigma(
            mechanism=release.mechanism,
            target_epsilon=target,
            delta=config.privacy.delta_for(n_train),
            clip=clip,
            releases=config.schedule.releases_per_record,
        )
    return ReleaseMechanism(mechanism=release.mechanism, clip=clip, sigma=sigma, quantize=release.quantize)


def _letters(config: RunConfig, letters: int) -> ReleaseMechanism:
    """How letters are answered; the record's answers share the target."""
    groups, target = config.model.bottleneck.groups, config.release.target_epsilon
    epsilon = 0.0
    if target is not None:
        epsilon = solve_answer(target, groups, config.schedule.releases_per_record)
    return ReleaseMechanism(config.release.mechanism, letters=letters, groups=groups, epsilon=epsilon)


def cpu_has_bfloat16() -> bool:
    """Whether this machine's CPU multiplies in bfloat16 itself (AVX512-BF16 or AMX)."""
    able: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # torch 2.11's first releases may lack it
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def pick_device(config: RunConfig) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: ``cuda`` where there is none, bfloat16 on a CPU that does not compute in it, or a device
            that compiles nothing.
    """
    wanted = config.runtime.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            key="runtime.device",
            value="cuda",
            rule="needs a CUDA device that torch can see",
            remedy="Set runtime.device=auto or cpu",
        )
    name = "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
    if config.runtime.precision == "bfloat16" and name == "cpu" and not cpu_has_bfloat16():
        raise ConfigError(
            key="runtime.precision",
            value="bfloat16",
            rule="needs CUDA, or a CPU with AVX512-BF16 or AMX: on another it is many times slower",
            remedy="Set runtime.precision=float32",
        )
    device = torch.device(name)
    if config.runtime.compile:
        check_compiles(device)
    return device
