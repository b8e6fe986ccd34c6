"""A first configuration for a data set, from what is found in it: ``privhier new``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from privhier.config import DatasetConfig
from privhier.config.reference import inline
from privhier.datasets.attributes import MOST_CLASSES, column_of, evaluate_attribute
from privhier.datasets.base import FaceDataset, Problem
from privhier.datasets.listing import Column, Listing
from privhier.datasets.load import list_records
from privhier.datasets.relations import refuse_same_attributes
from privhier.errors import DataError


@dataclass(frozen=True)
class Starter:
    """What was found, and the configuration that is proposed.

    Attributes:
        lines: What was found, in words.
        task, sensitive: Attribute expressions.
        yaml: The configuration as text with comments.
        problems: Files and rows that gave no record.
    """

    lines: tuple[str, ...]
    task: tuple[str, ...]
    sensitive: tuple[str, ...]
    yaml: str
    problems: tuple[Problem, ...] = ()


def starter(
    config: DatasetConfig,
    *,
    name: str,
    seed: int = 0,
    task: Sequence[str] = (),
    sensitive: Sequence[str] = (),
) -> Starter:
    """Look at a data set's labels, decode nothing, and propose a task and a secret where none is given.

    Args:
        config: Name, root and options count; its task and secret do not.
        name: What the run is to be called.
        seed: Of the records that are drawn, for data sets that draw them.
        task, sensitive: Attribute expressions; none: the first that suits best.

    Raises:
        DataError: As ``load_dataset``; no record; fewer than two attributes that a run could use; a task or a
            secret that these labels do not give.
    """
    _, _, listing = list_records(config, seed=seed)
    usable = {
        column: choice
        for column, values in listing.attributes.items()
        if (choice := _choice(column, values, listing.value_names.get(column, {}))) is not None
    }
    if not len(listing) or len(usable) + (listing.identity is not None) < 2 or not usable:
        problems = "; ".join(f"{one.where} ({one.reason})" for one in listing.problems[:3])
        raise DataError(
            key="dataset",
            value=config.name,
            rule=f"has {len(listing)} labelled images and {len(usable)} attributes with two classes or more: "
            f"a run needs a task and a secret{f'; problems: {problems}' if problems else ''}",
            remedy="Check the root and the label file; privhier data check says more",
        )
    _refuse(config, listing, task, sensitive)
    # Classes before numbers, two before many, even before uneven ones, then the order of the columns.
    best = sorted(usable, key=lambda column: usable[column].rank)
    if not task:
        task = _first(usable, best, sensitive)
    if not sensitive:
        sensitive = _first(usable, best, task)
    lines = tuple(_found(config, listing, usable))
    text = _yaml(config, name, task, sensitive, lines)
    return Starter(lines, tuple(task), tuple(sensitive), text, listing.problems)


def _first(usable: Mapping[str, _Choice], best: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The first attribute of which nothing is said yet; who people are where there is no other."""
    columns = {column_of(expression, usable) for expression in taken}
    return [usable[column].expression for column in best if column not in columns][:1] or ["identity"]


def _refuse(config: DatasetConfig, listing: Listing, task: Sequence[str], sensitive: Sequence[str]) -> None:
    """Refuse expressions of which these labels make no two classes, and a task that tells a secret."""
    columns = [column_of(expression, listing.attributes) for expression in (*task, *sensitive)]
    lacking = {row for column in columns for row in listing.lacking.get(column, {})}
    known = listing.select(np.setdiff1d(np.arange(len(listing)), np.array(sorted(lacking), np.int64)))
    numbers = np.arange(len(known))
    faces = FaceDataset(
        name=config.name,
        images=np.empty((len(known), 3, 0, 0), np.uint8),
        attributes=known.attributes,
        identity=known.identity,
        group=numbers,
        duplicate_group=numbers,
        value_names=known.value_names,
        unavailable=known.unavailable,
    )
    labels = {one: evaluate_attribute(one, faces, key="dataset.task") for one in task}
    labels |= {one: evaluate_attribute(one, faces, key="dataset.sensitive") for one in sensitive}
    refuse_same_attributes(labels, task, sensitive)


@dataclass(frozen=True)
class _Choice:
    expression: str
    classes: int
    share: float
    """Of the smallest class, times the number of classes: 1 where all are alike."""
    text: str

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Lower is the better first choice."""
        return ">" in self.expression, self.classes != 2, -self.share


def _choice(column: str, values: Column, names: Mapping[int, str]) -> _Choice | None:
    found, counts = np.unique(values, return_counts=True)
    if len(found) < 2:
        return None
    if len(found) <= MOST_CLASSES:
        shown = [
            f"{names.get(value, value)}: {count:,}"
            for value, count in zip(found[:6].tolist(), counts[:6].tolist(), strict=True)
        ]
        more = ", ..." if len(found) > 6 else ""
        share = float(counts.min() * len(found) / counts.sum())
        return _Choice(column, len(found), share, f"{len(found)} classes ({', '.join(shown)}{more})")
    if values.dtype.kind not in "iuf":
        return None
    middle = float(np.median(values.astype(np.float64)))
    upper = float((values.astype(np.float64) > middle).mean())
    return _Choice(f"{column}>{middle:g}", 2, 2 * min(upper, 1 - upper), f"a number, its median {middle:g}")


def _found(config: DatasetConfig, listing: Listing, usable: Mapping[str, _Choice]) -> list[str]:
    people = ""
    if listing.identity is not None:
        people = f" of {len(np.unique(listing.identity)):,} people"
    lines = [f"{config.name}: {len(listing):,} labelled images{people}"]
    lines += [f"{column}: {choice.text}" for column, choice in usable.items()]
    lines += [f"{column}: of no use as it is" for column in listing.attributes if column not in usable]
    lines += ["identity: who it is, as a secret"] if listing.identity is not None else []
    return lines


def _yaml(
    config: DatasetConfig,
    name: str,
    task: Sequence[str],
    sensitive: Sequence[str],
    lines: tuple[str, ...],
) -> str:
    said = "\n".join(f"# {line}" for line in lines)
    root = f"  root: {inline(config.root)}\n" if config.root is not None else ""
    given = ", ".join(f"{key}: {inline(value)}" for key, value in config.options.items())
    options = f"  options: {{{given}}}\n" if given else ""
    size, letters = (1, 8) if len(task) == 1 else (4, 32)
    return f"""\
# Written by privhier new. What a key means: privhier config KEY
{said}
name: {name}
seed: 0
dataset:
  name: {config.name}
{root}{options}  image_size: 64
  # What the cloud is to predict, and what nobody may read off a release. Classes of a column: its name; of a
  # number: age>30, or bin(age, 20, 40); who it is: identity.
  task: {inline(list(task))}
  sensitive: {inline(list(sensitive))}
model:
  backbone: small_cnn # others: privhier list backbones
  cut: stage2 # the last stage that stays on the edge
  # One letter of {letters} goes up for every image, answered at random at a pure epsilon of 8: a finite
  # release, whose certificate bounds every attacker. size: so many numbers of the edge's last layer are made
  # into the one letter; it costs no epsilon. One task: size 1, letters 8. Several tasks: size 4, letters 32.
  bottleneck: {{kind: letters, size: {size}, letters: {letters}}}
schedule: {{pretrain_epochs: 16, cloud_epochs: 4}}
release: {{mechanism: randomized_response, target_epsilon: 8}}
defense: none # penalties against adversaries on the edge: privhier list defenses
attacks:
  attribute: [table, logistic_regression, gradient_boosting, mlp]
evaluation: {{references: [open]}} # an unprotected network, trained and attacked beside
"""
