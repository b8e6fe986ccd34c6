"""Erasure at release: a closed form, fitted after training, takes the secret out of what leaves the edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.projections import (
    between_persons,
    covariance_differences,
    leace,
    one_hot,
    splince,
)
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment

WIDEST = 4096
"""Values erased together, at most; wider maps are erased place by place. WIDEST squared numbers, 64 MiB, are
the most an eraser may hold."""


class EraseOptions(DefenseOptions):
    """Options of erasure."""

    method: Literal["leace", "splince", "quadratic", "person"] = "leace"
    """What is taken out: the secret's class means (leace), the same but not what the task needs (splince),
    also where classes' covariances differ (quadratic), what tells persons apart (person)."""
    rank: int = Field(4, ge=1)
    """Directions that ``quadratic`` projects away beside the class means, and ``person`` in all."""


class Eraser(nn.Module):
    """The affine map ``x -> P (x - m) + m`` of every record; the identity until it is fitted.

    Up to ``WIDEST`` values are mapped together. A wider map ``(C, h, w)`` is mapped place by place, each with
    a matrix of its own: no covariance with the secret is left all the same, but more of the rest is lost.

    Args:
        shape: ``(d,)`` or ``(C, h, w)``.

    Raises:
        ConfigError: Too wide to be erased in memory.
    """

    projection: Tensor
    center: Tensor
    fitted: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        values = int(torch.Size(shape).numel())
        places, width = 1, values
        if values > WIDEST and len(shape) == 3:
            places, width = values // shape[0], shape[0]
        if places * width**2 > WIDEST**2:
            raise ConfigError(
                key="model.bottleneck",
                value=f"releases of {' x '.join(map(str, shape))}",
                rule=f"are too wide for the defense 'erase', which holds {WIDEST**2} numbers at most: "
                f"{WIDEST} values together, or a matrix for every place of a map",
                remedy="Choose fewer values or channels, e.g. with model.bottleneck.kind=dimension",
            )
        self.places, self.width = places, width
        self.register_buffer("projection", torch.eye(width).repeat(places, 1, 1))
        self.register_buffer("center", torch.zeros(places, width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def grouped(self, x: Tensor) -> Tensor:
        """Features ``(B, *shape)`` as ``(B, places, width)``."""
        return x.flatten(1)[:, None] if self.places == 1 else x.flatten(2).mT

    def set(self, place: int, projection: Tensor, center: Tensor) -> None:
        """The map of one place, ``(width, width)`` and ``(width,)``; from now on it is no identity."""
        self.projection[place] = projection.to(self.projection)
        self.center[place] = center.to(self.center)
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, *shape)`` to the same."""
        if not bool(self.fitted):
            return x
        centered = self.grouped(x) - self.center
        mapped = torch.einsum("pij,bpj->bpi", self.projection, centered) + self.center
        return (mapped if self.places == 1 else mapped.mT).reshape(x.shape)


@defenses.register("erase")
class Erase(Defense):
    r"""The edge learns its task alone; then an affine map takes the secret out of its features.

    :math:`x \mapsto P (x - m) + m` with m the training mean and P fitted on all training records:

    - ``leace`` (Belrose and others, 2023, "LEACE: perfect linear concept erasure in closed form", through
      ``concept-erasure``): :math:`P\,\mathrm{Cov}(x, s) = 0`, moving x least. The classes of all sensitive
      attributes stand side by side in s.
    - ``splince`` (Holstege, Ravfogel and Wouters, 2025): also
      :math:`P\,\mathrm{Cov}(x, y) = \mathrm{Cov}(x, y)` for the task labels y.
    - ``quadratic``: LEACE, then the ``rank`` directions in which classes' covariances differ most.
    - ``person``: the ``rank`` directions that tell persons apart best (between-person against within-person
      scatter), whatever the sensitive attributes.

    A record with an unknown label counts for the other attributes only (``projections.one_hot``).

    Limits. LEACE and SPLINCE stop every *linear* reader of the features, on the records they were fitted on,
    and no other: a reader of squares or a network still finds what lies in covariances or beyond. The clip
    (and the cut into letters) comes after the map and is not affine: where it acts, norms may carry the
    secret back, so what is erased before it need not be erased after it. Only fresh attackers tell.

    Args:
        options: See ``EraseOptions``.
    """

    Options: ClassVar[type[DefenseOptions]] = EraseOptions
    options: EraseOptions
    finishes: ClassVar[bool] = True

    def outlet(self, feature_shape: Sequence[int]) -> Eraser:
        """What ``finish`` fits; buffers, no parameters."""
        return Eraser(feature_shape)

    def check(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Refuse what would erase everything, or cannot be fitted.

        Raises:
            ConfigError: No direction would be left, or there are no persons to tell apart.
        """
        chosen, outlet = self.options, _eraser(edge)
        linear = sum(count - 1 for count in data.sensitive_classes)
        erased = {"quadratic": linear + chosen.rank, "person": chosen.rank}.get(chosen.method, linear)
        if erased >= outlet.width:
            where = "values" if outlet.places == 1 else "channels at every place of the map"
            raise ConfigError(
                key="defense.options.method",
                value=chosen.method,
                rule=f"would erase {erased} directions of {outlet.width} {where}, and leave nothing",
                remedy="Widen model.bottleneck, lower defense.options.rank, name fewer or smaller "
                "dataset.sensitive, or use method person against identity",
            )
        known = data.persons[data.persons != -1]
        if chosen.method == "person" and not bool((torch.unique(known, return_counts=True)[1] >= 2).any()):
            raise ConfigError(
                key="defense.options.method",
                value=chosen.method,
                rule="needs training people with two images or more, and there are none",
                remedy="Choose a data set with identities, or method leace",
            )

    def finish(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Fit the map on the training records' features."""
        outlet, features = _eraser(edge), data.features()
        groups = outlet.grouped(features)
        secret = one_hot(data.sensitive_labels, data.sensitive_classes)
        task = one_hot(data.task_labels, data.task_classes)
        for place in range(outlet.places):
            x = groups[:, place].double()
            center = x.mean(dim=0)
            outlet.set(place, self._projection(x - center, secret, task, data), center)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, and the adversarial exits' own on detached features: ``(B,)``."""
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)

    def _projection(self, x: Tensor, secret: Tensor, task: Tensor, data: DefenseData) -> Tensor:
        """P ``(c, c)`` for centered features ``(n, c)``, float64."""
        method, rank = self.options.method, self.options.rank
        if method == "person":
            return between_persons(x, data.persons, rank)
        if method == "splince":
            return splince(x, secret, task)
        linear = leace(x, secret)
        if method == "quadratic":
            return covariance_differences(x @ linear.mT, data.sensitive_labels, rank) @ linear
        return linear


def _eraser(edge: EdgeSegment) -> Eraser:
    assert isinstance(edge.outlet, Eraser)
    return edge.outlet
