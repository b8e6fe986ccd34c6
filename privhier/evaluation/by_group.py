"""Who pays: task accuracy and exposure within each class of each sensitive attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from privhier.evaluation.result import GroupScores, Score
from privhier.evaluation.scores import IntArray, Sample, balanced_accuracy_curve, top1_curve


@dataclass
class GroupTally:
    """Keeps the predictions of an assessment until they are split by class.

    The truth is used once more, by the scorer; no attacker sees anything of this.
    """

    tasks: dict[str, tuple[Sample, IntArray]] = field(default_factory=dict)
    attacks: dict[str, tuple[Sample, IntArray]] = field(default_factory=dict)

    def task(self, name: str, sample: Sample, predictions: IntArray) -> None:
        """The cloud's ``predictions (n,)`` of task ``name`` on the test records of ``sample``."""
        self.tasks[name] = sample, predictions

    def attack(self, attribute: str, sample: Sample, predictions: IntArray) -> None:
        """The worst attacker's predictions; rows after those of ``sample`` (training) are left out."""
        self.attacks[attribute] = sample, predictions[: len(sample.truth)]

    def scores(
        self, attributes: Mapping[str, tuple[IntArray, Sequence[str]]]
    ) -> dict[str, dict[str, GroupScores]]:
        """By attribute and class.

        Args:
            attributes: Name to the class ``(n,)`` of every test record, and the names of the classes.
        """
        return {
            attribute: {name: self._group(attribute, values, k) for k, name in enumerate(classes)}
            for attribute, (values, classes) in attributes.items()
        }

    def _group(self, attribute: str, values: IntArray, k: int) -> GroupScores:
        inside = values == k
        accuracy = {name: _accuracy(*task, inside) for name, task in self.tasks.items()}
        return GroupScores(
            n=int(inside.sum()),
            task_accuracy={name: score for name, score in accuracy.items() if score is not None},
            attack_recall=_recall(*self.attacks[attribute], k) if attribute in self.attacks else None,
        )


def _accuracy(sample: Sample, predictions: IntArray, inside: np.ndarray) -> Score | None:
    """Balanced accuracy on the records ``inside``: mean recall over the task classes found there."""
    if not inside.any():
        return None
    part = _part(sample, inside)
    return balanced_accuracy_curve(part, predictions[inside]).score(part)


def _recall(sample: Sample, predictions: IntArray, k: int) -> Score | None:
    inside = sample.truth == k
    if not inside.any():
        return None
    part = _part(sample, inside)
    return top1_curve(part, predictions[inside]).score(part)


def _part(sample: Sample, inside: np.ndarray) -> Sample:
    return Sample(sample.truth[inside], sample.n_classes, sample.weights[:, inside], sample.confidence)
