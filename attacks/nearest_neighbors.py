"""Attribute attacker on columns: the classes of a release's nearest neighbors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from sklearn.neighbors import KNeighborsClassifier

from privhier.attacks.base import attacks
from privhier.attacks.parts.column_scores import Classifier, ColumnAttack, Setting
from privhier.attacks.refusals import label_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option


@attacks.register("nearest_neighbors")
@dataclass(frozen=True)
class NearestNeighbors(ColumnAttack):
    """Shares of the classes among the nearest auxiliary releases; how many of them is selected.

    Attributes:
        target: Attribute under attack.
        neighbors: Numbers of neighbors that are tried; more than there are rows means all of them.
        max_columns: Principal components kept of a wider release: distances blur in many dimensions.
    """

    stream: ClassVar[str] = "nearest_neighbors"
    neighbors: tuple[int, ...] = option((5, 15, 45, 135), low=1)
    max_columns: int = option(64, low=2)

    def refuses(self, view: View) -> str | None:
        """Task labels too: among many columns of a distance they would hardly count."""
        return label_refusal(view) or super().refuses(view)

    def settings(self, view: View) -> Iterator[Setting]:
        """One candidate for each number of neighbors."""
        yield from ({"neighbors": count} for count in self.neighbors)

    def fit(self, view: View, columns: FloatArray, labels: IntArray, setting: Setting) -> Classifier:
        """See ``ColumnAttack``."""
        model: Classifier = KNeighborsClassifier(min(setting["neighbors"], len(labels))).fit(columns, labels)
        return model
