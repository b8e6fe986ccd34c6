"""What stands beside a leakage in ``result.json``: excess over the floor, certificate, headline, labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from privhier.evaluation.score import Part, Score

Metric = Literal["auc", "matched_verification_auc", "verification_auc", "top1", "balanced_accuracy"]
Records = Literal["test", "training"]


class Excess(Part):
    """What the worst attacker reads beyond the floor: worst - floor, score by score.

    It may be negative: a poor release says less than the true task labels do. The interval is that of the
    difference of two maxima on the same resamples.
    """

    auc: Score | None = None
    balanced_accuracy: Score | None = None
    top1: Score | None = None
    verification_auc: Score | None = None
    matched_verification_auc: Score | None = None
    training_records: dict[str, Score] = Field(default_factory=dict)
    """The same differences on training records, by name."""


class Certified(Part):
    """An upper bound, at a stated confidence, on any attacker who holds one record's letters of one code.

    Bounds that do not apply are null.
    """

    balanced_accuracy: float | None = None
    """Mean recall over the classes."""
    auc: float | None = None
    """Of every one-vs-rest AUC."""
    verification_auc: float | None = None
    """Of pairs of different people who agree in the task labels."""
    top1: float | None = None
    """Of naming one of so many people; needs no confidence."""
    confidence: float = Field(gt=0, lt=1)
    """Of all bounds together."""
    n: int = Field(ge=0)
    """Untouched test records (for people: pairs) behind it."""
    people: int = Field(ge=0)
    """Different people among them."""


class Headline(Part):
    """The one number a leakage is judged by: the worst over test and training records and threat models.

    Its interval is that of the maximum over all of them, taken anew in every resample.
    """

    metric: Metric
    """Which score it is."""
    records: Records
    """Whose records it was reached on."""
    attack: str
    """Who reached it."""
    threat_model: str = "curious_cloud"
    """What that attacker held."""
    score: Score
    """What was reached."""
    floor: Score | None = None
    """The same score of attackers who are given the true task labels only, on the same records."""
    excess: Score | None = None
    """score - floor, paired."""


class LabelCounts(Part):
    """How many test victims have each cell of task labels and each class of the secret."""

    tasks: list[str]
    sizes: list[int]
    """Classes of every task; a row of ``counts`` is a cell, the first task's label counting most."""
    counts: list[list[int]]
    """A row for each cell, a column for each class of the secret."""

    @model_validator(mode="after")
    def _whole(self) -> LabelCounts:
        cells = 1
        for size in self.sizes:
            cells *= size
        widths = {len(row) for row in self.counts}
        if len(self.tasks) != len(self.sizes) or len(self.counts) != cells or len(widths) != 1:
            raise ValueError(f"counts must have {cells} equally long rows for {self.sizes} classes")
        if min(min(row, default=-1) for row in self.counts) < 0:
            raise ValueError("counts must be 0 or more, one for each class")
        return self
