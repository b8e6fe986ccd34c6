"""Inversion of releases, per image: ours against what ART and breaching offer.

All own the same auxiliary images, descend on the same releases through the same edge, and are given the
fewest steps (of a ladder) after which the releases are explained equally well. Peers begin at the mean of
those images, ours at its linear guess: that guess is fitted anew every time, and the fit is timed with the
descent. Everybody is given the best of a few settings and our batch, found untimed; as its package ships a
peer stands in a row of its own.

- ART ``MIFace`` inverts a class of a classifier. Here class k is "the release of victim k", with one minus
  the misfit as its score. One image at a time, as it ships.
- ART ``FeatureAdversariesPyTorch`` moves an image until its features are those of another: the optimizer
  that fits. It wants that other image and recomputes its features at every step.
- breaching matches gradients. Its loop (step size, signs, schedule, box) is run on an objective that
  matches releases, which its registry takes.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Contender, MissingError, Outcome, Report, Row, Rule, compare, smallest
from pages import versions_of
from scene import Scene, digest_of, inversion_scene
from torch import Tensor, nn

from privhier.attacks.inversion import InversionAttack
from privhier.attacks.parts.decoders import window_ssim
from privhier.attacks.parts.descent import Optimizer
from privhier.attacks.parts.matching import own_cases
from privhier.attacks.parts.ridge_start import RidgeStart
from privhier.models.inputs import normalize

NETWORKS = (("resnet18", "layer1", 16), ("small_cnn", "stage1", 16), ("small_cnn", "stage1", 64))
"""Backbone, cut, victims. A run inverts 64 (``attacks.optimization_victims``) and fits its guess once."""
SIZE = 32
REACHED = 0.01
"""Of the releases' variance: what is left unexplained. About 0.9 of structural similarity on these."""
LADDER = (5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 85, 100, 120, 140, 170, 200)
FEW = 50
"""Steps after which the settings of one method are compared."""
WEIGHT = 10.0
WANTED = 3.0
Descent = Callable[[int], Tensor]
"""From steps to images ``(n, 3, H, W)`` in [0, 1]."""


@dataclass(frozen=True)
class Method:
    """A way to invert, with its settings: each is tried, the one that needs fewest steps is timed."""

    name: str
    versions: str
    settings: tuple[dict[str, Any], ...]
    descent: Callable[..., Descent]


def ours(scene: Scene, *, optimizer: Optimizer) -> Descent:
    """A descent of our attack from its linear guess, the fit of that included; the prior's weight given."""

    def descend(steps: int) -> Tensor:
        view, misfit, releases = scene.view, scene.misfit, scene.releases
        start = RidgeStart(view, "inversion", own_cases(view, "inversion"))(releases)
        return InversionAttack().invert(
            view, misfit, releases, [start], weight=WEIGHT, steps=steps, stop=steps, optimizer=optimizer
        )[0]

    return descend


class _Predicting(nn.Module):
    """Images in [0, 1] to flat features, through the edge itself."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.edge = scene.edge

    def forward(self, x: Tensor) -> Tensor:
        return self.edge(normalize(x * 255)).flatten(1)


class _Explaining(_Predicting):
    """Images in [0, 1] to a score for every victim, ``(b, n)``: one minus the misfit of its release."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.wanted, self.spread = scene.releases.flatten(1), scene.misfit.spread

    def forward(self, x: Tensor) -> Tensor:
        missed = (super().forward(x)[:, None] - self.wanted).square().mean(dim=2)
        return 1 - missed / self.spread


def _estimator(network: nn.Module, scene: Scene, classes: int) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        network,
        loss=nn.MSELoss(),
        input_shape=tuple(scene.truth.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _starts(scene: Scene) -> np.ndarray:
    return np.repeat(scene.start[None].numpy(), len(scene.truth), axis=0)


def feature_adversaries(scene: Scene, *, lr: float) -> Descent:
    """ART's, with Adam."""
    from art.attacks.evasion import FeatureAdversariesPyTorch

    estimator = _estimator(_Predicting(scene), scene, 2)

    def descend(steps: int) -> Tensor:
        attack = FeatureAdversariesPyTorch(
            estimator,
            delta=1.0,
            optimizer=torch.optim.Adam,
            optimizer_kwargs={"lr": lr},
            max_iter=steps,
            verbose=False,
        )
        return torch.from_numpy(attack.generate(_starts(scene), scene.truth.numpy()))

    return descend


def mi_face(scene: Scene, *, lr: float, batch: int) -> Descent:
    """ART's model inversion: gradient ascent on the class that is a victim's release."""
    from art.attacks.inference.model_inversion import MIFace

    estimator = _estimator(_Explaining(scene), scene, len(scene.truth))

    def descend(steps: int) -> Tensor:
        # Its stopping rule goes on while the cost is below the threshold: nothing stops it before the end.
        attack = MIFace(
            estimator, max_iter=steps, threshold=1e9, learning_rate=lr, batch_size=batch, verbose=False
        )
        return torch.from_numpy(attack.infer(_starts(scene), np.arange(len(scene.truth))))

    return descend


def breaching_loop(scene: Scene, *, lr: float, signed: str | None, decay: str) -> Descent:
    """The loop for "inverting gradients" of breaching, on releases in place of gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra's, about its own future
        from breaching import get_attack_config
        from breaching.attacks.auxiliaries.objectives import GradientLoss, objective_lookup
        from breaching.attacks.optimization_based_attack import OptimizationBasedAttacker

        settings = get_attack_config("invertinggradients")

    class Releases(GradientLoss):  # type: ignore[misc]
        """Half the squared distance of features to releases."""

        def __init__(self, **_: Any) -> None:
            super().__init__()

        def forward(self, model: Any, data: Any, candidate: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            loss = 0.5 * (model(candidate) - data[0]).square().sum()
            return loss, loss.detach()

        def __repr__(self) -> str:
            return "releases"

    objective_lookup["releases"] = Releases
    n, shape = len(scene.truth), tuple(scene.truth.shape[1:])
    half = (0.5, 0.5, 0.5)
    metadata = SimpleNamespace(shape=shape, mean=half, std=half, modality="vision")
    state = {"parameters": list(scene.edge.parameters()), "buffers": list(scene.edge.buffers())}
    known = {"num_data_points": n, "labels": torch.zeros(n, dtype=torch.long), "local_hyperparams": None}

    def descend(steps: int) -> Tensor:
        chosen = settings.copy()
        chosen.objective.type = "releases"
        chosen.regularization.total_variation.scale = 0.0
        chosen.optim.max_iterations, chosen.optim.step_size = steps, lr
        chosen.optim.signed, chosen.optim.step_size_decay = signed, decay
        setup = {"dtype": torch.float, "device": torch.device("cpu")}
        attacker = OptimizationBasedAttacker(scene.edge, nn.MSELoss(), chosen, setup)
        shared = [{"gradients": [scene.releases[:, 0]], "buffers": None, "metadata": known}]
        models, labels, stats = attacker.prepare_attack([state | {"metadata": metadata}], shared)
        start = (scene.start.expand(n, *shape) * 2 - 1).contiguous()
        return attacker._run_trial(models, shared, labels, stats, 0, initial_data=start) / 2 + 0.5

    return descend


def methods() -> Iterator[Method]:
    """The peers, each with the settings that are tried."""
    art = ("adversarial-robustness-toolbox",)
    yield Method(
        "ART FeatureAdversariesPyTorch, best step size",
        *(versions_of(*art), tuple({"lr": lr} for lr in (0.02, 0.05, 0.1)), feature_adversaries),
    )
    yield Method(
        "ART MIFace, one image at a time, best step size",
        *(versions_of(*art), tuple({"lr": lr, "batch": 1} for lr in (10.0, 100.0, 1000.0)), mi_face),
    )
    shipped = {"lr": 0.1, "signed": "hard", "decay": "step-lr"}
    peer = versions_of("breaching")
    yield Method("breaching, as it ships", peer, (shipped,), breaching_loop)
    tried = itertools.product((0.1, 0.2), (("soft", "cosine-decay"), ("hard", "cosine-decay")))
    grid = tuple({"lr": lr, "signed": signed, "decay": decay} for lr, (signed, decay) in tried)
    yield Method("breaching, best step size and schedule", peer, grid, breaching_loop)


def quickest(scene: Scene, descents: list[tuple[str, Descent]]) -> tuple[str, Descent, int]:
    """Of the descents the one that comes closest in a few steps, and the fewest in which it gets there."""
    if len(descents) > 1:
        descents = [min(descents, key=lambda one: scene.loss(one[1](FEW)))]
    ((said, descent),) = descents
    return said, descent, smallest(LADDER, lambda steps: scene.loss(descent(steps)) <= REACHED)


def contender(name: str, scene: Scene, descent: Descent, steps: int, how: str = "") -> Contender:
    """Somebody who inverts the scene in so many steps."""

    def start() -> Callable[[], Report]:
        network, data = digest_of(scene.edge), scene.data

        def work() -> Report:
            images = descent(steps)

            def report() -> Outcome:
                alike = float(window_ssim(images.clamp(0, 1), scene.truth).mean())
                loss = scene.loss(images)
                return Outcome(network, data, loss, len(images), f"{how}{steps} steps, SSIM {alike:.3f}")

            return report

        return work

    return Contender(name, start)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Row]:
    """Every network, every peer."""
    for backbone, cut, victims in NETWORKS:
        scene = inversion_scene(backbone, cut, size=SIZE, victims=victims)
        what = f"inversion, {backbone} cut after {cut}, {SIZE}x{SIZE}, {victims} images"
        optimizers: tuple[Optimizer, ...] = ("adam", "lbfgs")
        said, descent, steps = quickest(scene, [(one, ours(scene, optimizer=one)) for one in optimizers])
        mine = contender("ours", scene, descent, steps, f"{said}, ")
        for method in methods():
            made = [
                (", ".join(f"{key} {value}" for key, value in one.items()), method.descent(scene, **one))
                for one in method.settings
            ]
            try:
                said, theirs, count = quickest(scene, made)
            except MissingError as error:
                skip(f"{what}: {method.name}: {error}; ours takes {steps}")
                continue
            yield compare(
                what,
                mine,
                contender(f"{method.name} ({said})", scene, theirs, count),
                versions=method.versions,
                unit="seconds an image",
                pairs=pairs,
                rule=Rule(reached=REACHED),
                wanted=WANTED,
                warm=False,  # the search has
            )
