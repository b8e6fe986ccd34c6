"""Every defense on the worlds it is made for: task, a fresh attacker, theory's optimum, the distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from toy_training import CLIP, DEVICE, SIGMA, Kind, Toy, kinds, train
from toy_worlds import Discrete, Drawn, LinearGaussian

from privhier.defenses.base import defenses
from privhier.metrics.classification import balanced_accuracy, macro_auc
from privhier.models.features import edge_features
from privhier.seeding import numpy_stream, stream_seed

World = Literal["linear_gaussian", "discrete"]
Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

ADVERSARIAL = {"weight": 3.0, "adversary_steps": 3}
OPTIONS: dict[str, dict[str, Any]] = {
    "cell_means": {"weight": 3.0},
    "focal_entropy": {**ADVERSARIAL, "likely": 2},
    "gradient_reversal": ADVERSARIAL,
    "leak_budget": ADVERSARIAL,
    "letters_balance": {"weight": 3.0},
    "max_entropy": ADVERSARIAL,
    "min_max": ADVERSARIAL,
    "sum": {
        "parts": [
            {"name": "max_entropy", "options": ADVERSARIAL},
            {"name": "cell_means", "options": {"weight": 3.0}},
        ]
    },
}
"""Options under which a defense works here; who is not named takes its defaults."""
NO_CLAIM = {
    "none": "it is what the others are held against",
    "ceb": "it bounds what a release says beyond the task, and is not told the secret",
    "disco": "it prunes channels, of which an edge of one layer has none to spare",
    "gain": "it shapes the noise for the task, and is not told the secret",
    "reconstruction": "it hides pictures, and is not told the secret",
    "vib": "it bounds all that a release says, and is not told the secret",
}
"""Defenses that claim no suppression of a secret here, and why; names that are not registered say nothing."""
MARGIN = {"vector": 0.05, "map": 0.05, "letters": 0.05}
"""By how much who claims suppression must leak less than ``none`` does through the same kind of release."""
RECORDS = 4000
"""The attacker's own, and again as many victims."""


@dataclass(frozen=True)
class Row:
    """One defense on one world.

    Scores are AUC in the linear-Gaussian world, and balanced accuracy, which theory speaks of, in the other.

    Attributes:
        defense: Its name.
        world: Which.
        release: What its edge releases there.
        task: Of the task on new records: the task exit's, or the optimal reader's of the discrete world.
        leakage: The strongest fresh attacker's on new records, or the optimal one's of the discrete world.
        attacker: Which one that is.
        floor: What the true task label says of the secret.
        optimum_task: The task of the theory's release that keeps the task and hides what it can,
        optimum_leakage: and what that one must leak.
        best_task: The most that a release of the theory does for the task at this leakage.
    """

    defense: str
    world: World
    release: Kind
    task: float
    leakage: float
    attacker: str
    floor: float
    optimum_task: float
    optimum_leakage: float
    best_task: float

    @property
    def excess(self) -> float:
        """Leakage beyond the optimum's."""
        return self.leakage - self.optimum_leakage

    @property
    def distance(self) -> float:
        """From the theory's curve: the best task at this leakage, minus the task."""
        return self.best_task - self.task


def places(name: str) -> list[tuple[World, Kind]]:
    """Where a defense can be looked at; the first is where it is held to what it claims."""
    found: list[tuple[World, Kind]] = []
    for kind in kinds(defenses.get(name)):
        found += (
            [("discrete", kind)] if kind == "letters" else [("linear_gaussian", kind), ("discrete", kind)]
        )
    return found


def suppresses(row: Row, none: Row) -> bool:
    """Whether a defense leaks less than ``none`` by the margin, in the same world and release."""
    return row.leakage <= none.leakage - MARGIN[row.release]


def score(
    name: str, world: World, kind: Kind, *, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Row:
    """Train, release new records, attack them, and hold both scores against theory."""
    chosen = dict(OPTIONS.get(name, {}) if options is None else options)
    if world == "discrete":
        return _discrete(name, kind, train(Discrete(), kind, name, chosen, seed=seed), seed)
    return _linear_gaussian(name, kind, train(LinearGaussian(), kind, name, chosen, seed=seed), seed)


def _linear_gaussian(name: str, kind: Kind, toy: Toy, seed: int) -> Row:
    world, ((leaks, keeps), curve) = LinearGaussian(), _theory()
    own = world.draw(RECORDS, numpy_stream(seed, "toy", "attacker"))
    victims = world.draw(RECORDS, numpy_stream(seed, "toy", "victims"))
    released = toy.release(victims, "victims")
    x, attacked = (r.values.flatten(1).numpy() for r in (toy.release(own, "attacker"), released))
    found = _attacks(x, own.secret, attacked, victims.secret, seed)
    attacker = max(found, key=lambda one: found[one])
    allowed = curve[curve[:, 0] <= max(found[attacker], curve[:, 0].min()) + 1e-9]
    return Row(
        defense=name,
        world="linear_gaussian",
        release=kind,
        task=macro_auc(_two(toy.task_scores(released).numpy()), victims.task),
        leakage=found[attacker],
        attacker=attacker,
        floor=world.label_floor,
        optimum_task=keeps,
        optimum_leakage=leaks,
        best_task=float(allowed[:, 1].max()),
    )


def _discrete(name: str, kind: Kind, toy: Toy, seed: int) -> Row:
    world = Discrete()
    if kind == "letters":  # exact: letters are a function of x
        nobody = np.zeros(len(world.values), dtype=np.int64)
        letters = toy.release(Drawn(world.values, nobody, nobody), "values").letters
        assert letters is not None
        leakage, task = world.scores(np.eye(toy.mechanism.letters)[letters[:, 0].numpy()])
    else:
        leakage, task = _optimal_readers(world, toy, seed)
    leaks, keeps = _discrete_theory()
    return Row(
        defense=name,
        world="discrete",
        release=kind,
        task=task,
        leakage=leakage,
        attacker="optimal",
        floor=world.label_floor,
        optimum_task=keeps,
        optimum_leakage=leaks,
        best_task=world.best_task(leakage),
    )


def _optimal_readers(world: Discrete, toy: Toy, seed: int) -> tuple[float, float]:
    """Balanced accuracy of Bayes' rule on noised values, who knows the edge: secret, and task."""
    victims = world.draw(RECORDS, numpy_stream(seed, "toy", "victims"))
    z = toy.release(victims, "victims").values.flatten(1).double()
    rows = np.arange(len(world.values))
    centers = toy.mechanism.clip_features(edge_features(toy.edge, world.values, rows, device=DEVICE))
    distance = torch.cdist(z, centers.flatten(1).double()).square() / (2 * SIGMA**2)
    of_x = torch.softmax(-distance, dim=1).numpy()  # the values of x are equally likely
    scores = []
    for shares, truth in ((world.secret, victims.secret), (world.task, victims.task)):
        positive = of_x @ np.array(shares)
        scores.append(balanced_accuracy((positive > np.mean(shares)).astype(np.int64), truth, 2))
    return scores[0], scores[1]


@lru_cache
def _theory() -> tuple[tuple[float, float], FloatArray]:
    world = LinearGaussian()
    return world.optimum(sigma=SIGMA, clip=CLIP), world.curve(sigma=SIGMA, clip=CLIP, points=31)


@lru_cache
def _discrete_theory() -> tuple[float, float]:
    return Discrete().optimum()


def _attacks(x: Array, truth: Array, attacked: Array, secret: Array, seed: int) -> dict[str, float]:
    """AUC of fresh attackers of unlike kinds, trained on records of their own."""
    models = {
        "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(C=1e4, max_iter=500)),
        "quadratic": make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=1e-3)),
        "gradient_boosting": HistGradientBoostingClassifier(
            max_iter=60, random_state=stream_seed(seed, "toy", "boosting") % 2**32
        ),
    }
    with threadpool_limits(limits=1):
        return {
            name: macro_auc(_two(model.fit(x, truth).predict_proba(attacked)[:, 1]), secret)
            for name, model in models.items()
        }


def _two(positive: Array) -> Array:
    return np.stack([1 - positive, positive], axis=1)
