"""What every registered attack must do, on views small enough to build by hand."""

import copy
import threading
from contextlib import chdir
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.attacks.averaging import AveragingAttack
from privhier.attacks.base import Attack, attacks
from privhier.attacks.build import build_attack, names_of
from privhier.attacks.cnn import CnnAttack
from privhier.attacks.decensor import DecensorAttack
from privhier.attacks.decoder import DecoderAttack
from privhier.attacks.deep_prior import DeepPriorAttack
from privhier.attacks.embed_reconstructions import EmbedReconstructionsAttack
from privhier.attacks.embedders.base import FaceEmbedder, embedders, resized
from privhier.attacks.fine_tune import FineTuneAttack
from privhier.attacks.fine_tune_metric import FineTuneMetricAttack
from privhier.attacks.generative import GenerativeAttack
from privhier.attacks.gradient_boosting import GradientBoostingAttack
from privhier.attacks.inversion import InversionAttack
from privhier.attacks.logistic_regression import LogisticRegressionAttack
from privhier.attacks.mlp import MlpAttack
from privhier.attacks.nearest_neighbors import NearestNeighbors
from privhier.attacks.property import MixtureAttack
from privhier.attacks.rbf_kernel import RbfKernelAttack
from privhier.attacks.substitute import SubstituteAttack
from privhier.attacks.table import TableAttack
from privhier.attacks.threat_models import with_task_labels
from privhier.attacks.verification import MetricAttack
from privhier.attacks.view import View
from privhier.config import Choice


@embedders.register("contract_quarters")
class Quarters(FaceEmbedder):
    """The colors of an image's quarters, which in ``World`` say who it is; a face embedder needs a file."""

    @property
    def needs_file(self):
        return False

    def _vectors(self, images):
        return resized(images, 2, 2).reshape(len(images), -1) - 0.5


# One row an attack: the registered name, and how to make it small. A new attack adds its row here.
CASES = {
    "logistic_regression": LogisticRegressionAttack(target="gender"),
    "gradient_boosting": GradientBoostingAttack(target="gender", iterations=20),
    "mlp": MlpAttack(target="gender", epochs=8),
    "cnn": CnnAttack(target="gender", epochs=8, width=8),
    "rbf_kernel": RbfKernelAttack(target="gender", trials=3),
    "nearest_neighbors": NearestNeighbors(target="gender"),
    "table": TableAttack(target="gender"),
    "averaging": AveragingAttack(target="gender", epochs=6),
    "fine_tune": FineTuneAttack(target="gender", epochs=10, width=8, teacher_epochs=3),
    "decensor": DecensorAttack(target="gender", epochs=10, retrain_epochs=6, width=8),
    "mixture": MixtureAttack(target="gender", mixtures=20),
    "metric": MetricAttack(target="identity", epochs=3),
    "fine_tune_metric": FineTuneMetricAttack(target="identity", draws=6, epochs=3, width=8),
    "decoder": DecoderAttack(epochs=3, width=8, blocks=1),
    "inversion": InversionAttack(steps=40),
    "deep_prior": DeepPriorAttack(steps=60, width=8, levels=2),
    "generative": GenerativeAttack(latent=8, width=8, epochs=10, steps=30),
    "substitute": SubstituteAttack(steps=20, width=8),
    "embed_reconstructions": EmbedReconstructionsAttack(
        target="identity", embedder="contract_quarters", epochs=3, width=8, blocks=1
    ),
}
ATTRIBUTE = [name for name, attack in CASES.items() if attack.kind == "attribute"]


MAPS_ONLY = (CnnAttack,)
"""Attacks that make no sense of a vector, and say so."""
LETTERS_ONLY = (TableAttack,)
"""Attacks that count letters, and say of other releases that there is nothing to count."""
LEAK = {"reconstruction": 0.3, "property": 0.6}
# Two releases of 16 noisy values leave little to optimize a picture by; a prior alone adds nothing to it.
OF_VECTORS = {InversionAttack: 0.05, DeepPriorAttack: -0.1}
"""What is read off a leaky release, at least, in the units of ``World.score``; 0.8 for AUCs."""


def is_joint(attack):
    return getattr(attack, "joint", False)


def arrays(result):
    names = ("probabilities", "predictions", "embeddings", "reconstructions", "own_loss", "shares")
    return {name: getattr(result, name) for name in names if getattr(result, name) is not None}


every = pytest.mark.parametrize("attack", CASES.values(), ids=repr)
HALVES = np.arange(5), np.arange(5, 20)
"""Rows of the two populations of 20 victims."""


def surroundings():
    """What an attack must leave as it was: files where it runs, threads, torch's settings."""
    return {
        "files": {path.name for path in Path().iterdir()},
        "threads": torch.get_num_threads(),
        "workers": set(threading.enumerate()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture(scope="module")
def said(world_for, tmp_path_factory):
    """An attack's answer in a world, computed once and read by every test that asks for no other.

    ``said(attack, leak=True)`` gives world, result and the surroundings before and after: of 20 victims in
    two populations where releases say something, and of as many as it is judged by where they say nothing.
    """

    @cache
    def answer(attack, leak):
        world = world_for(attack, leak=leak, **({"n_victims": 20} if leak else {}))
        if leak:
            world.view = replace(world.view, populations=HALVES)
        with chdir(tmp_path_factory.mktemp("empty")):
            before = surroundings()
            result = attack.run(world.view)
            return world, result, before, surroundings()

    return answer


def test_every_registered_attack_has_a_row_here():
    assert sorted(CASES) == attacks.names()
    kinds = ("attribute", "verification", "reconstruction", "property")
    assert sorted(CASES) == sorted(name for kind in kinds for name in names_of(kind))
    for name, attack in CASES.items():
        assert type(attack) is attacks.get(name)
        assert isinstance(attack, Attack)
        assert fields(attack)[0].name == "target"


@every
@pytest.mark.parametrize("maps", [False, True], ids=["vector", "maps"])
def test_a_leaky_release_is_read(attack, maps, world_for):
    world = world_for(attack, maps=maps, letters=False)
    if isinstance(attack, MAPS_ONLY) and not maps:
        assert "vector" in attack.refuses(world.view)
        return
    if isinstance(attack, LETTERS_ONLY):
        assert "no letters" in attack.refuses(world.view)
        return
    assert attack.refuses(world.view) is None
    result = attack.run(world.view)
    assert result.seconds > 0
    assert np.isfinite(result.validation)
    if is_joint(attack):  # it owns no release at all; what it reads is tested where the set is large enough
        assert result.queries == 0
        return
    least = LEAK.get(attack.kind, 0.8)
    assert world.score(result) > (least if maps else OF_VECTORS.get(type(attack), least))
    # A black-box attacker has two draws of two releases of 160 records, whoever holds the weights more.
    assert result.queries > 0 if attack.white_box else result.queries == 160 * 2 * 2


@pytest.mark.parametrize("attack", [a for a in CASES.values() if not a.white_box], ids=repr)
def test_a_release_of_letters_is_read(attack, world_for):
    """One-hot letters are releases like others; only convolutions make no sense of them."""
    world = world_for(attack, letters=True)
    if isinstance(attack, MAPS_ONLY):
        assert "vector" in attack.refuses(world.view)
        return
    assert attack.refuses(world.view) is None
    result = attack.run(world.view)
    assert np.isfinite(result.validation)
    if is_joint(attack):  # see above
        assert result.queries == 0
        return
    assert world.score(result) > LEAK.get(attack.kind, 0.8)
    assert result.queries == 160 * 2 * 2


@every
def test_pure_noise_gives_nothing(attack, said):
    world, result, *_ = said(attack, leak=False)
    if attack.kind == "reconstruction":
        assert world.score(result) < 0.1
        return
    if attack.kind == "verification":
        assert abs(world.score(result) - 0.5) < 0.05
        return
    if attack.kind == "property":
        np.testing.assert_allclose(result.shares[:, 1], world.view.aux.labels["gender"].mean(), atol=0.15)
        return
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(300):
        people = rng.choice(np.unique(world.who), len(np.unique(world.who)))
        rows = np.concatenate([np.flatnonzero(world.who == person) for person in people])
        resampled.append(world.auc(result.probabilities[rows, 1], world.gender[rows]))
    # Bad luck below one half is no knowledge; an attacker's sign is not turned on it.
    assert np.quantile(resampled, 0.025) <= 0.5


@every
def test_the_result_has_exactly_the_fields_of_its_kind(attack, said):
    made = arrays(said(attack, leak=True)[1])
    if attack.kind == "attribute":
        assert set(made) == {"probabilities", "predictions"}
        assert made["probabilities"].shape == (20, 2)
        assert made["probabilities"].dtype == np.float32
        np.testing.assert_allclose(made["probabilities"].sum(axis=1), 1, atol=1e-5)
        assert made["predictions"].shape == (20,)
        assert made["predictions"].dtype == np.int64
    elif attack.kind == "verification":
        assert set(made) == {"embeddings"}
        assert made["embeddings"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(made["embeddings"], axis=1), 1, atol=1e-4)
    elif attack.kind == "property":
        assert set(made) == {"shares"}
        assert made["shares"].shape == (2, 2)
        assert made["shares"].dtype == np.float32
        assert made["shares"].min() >= 0
        np.testing.assert_allclose(made["shares"].sum(axis=1), 1, atol=1e-5)
    else:
        assert set(made) == {"reconstructions", "own_loss"}
        assert made["reconstructions"].shape == (20, 3, 12, 12)
        assert made["reconstructions"].dtype == made["own_loss"].dtype == np.float32
        assert made["reconstructions"].min() >= 0
        assert made["reconstructions"].max() <= 1
        assert made["own_loss"].shape == (20,)


@pytest.fixture(scope="module")
def of_one(said):
    """What an attack of another seed says of one victim, where releases say nothing; computed once."""

    @cache
    def answer(attack):
        world, *_ = said(attack, leak=False)
        releases = world.view.releases[:1]
        return attack.run(replace(world.view, releases=releases, populations=(np.arange(1),), seed=4))

    return answer


@every
def test_one_victim_is_enough(attack, of_one):
    for array in arrays(of_one(attack)).values():
        assert len(array) == 1
        assert np.isfinite(array).all()


@pytest.mark.parametrize("attack", [a for a in CASES.values() if not is_joint(a)], ids=repr)
def test_each_victim_is_attacked_alone(attack, said):
    """What is said of one victim (of one population) does not depend on the others: nothing is fitted on
    them."""
    world, everyone, *_ = said(attack, leak=True)
    few = replace(world.view, releases=world.view.releases[:5], populations=HALVES[:1])
    all_said, some = arrays(everyone), arrays(attack.run(few))
    for name, array in some.items():
        np.testing.assert_allclose(array, all_said[name][: len(array)], atol=1e-4)


class Strict(View):
    """A view that lets nothing be read but the fields of a view."""

    def __getattribute__(self, name):
        if not name.startswith("__") and name not in {field.name for field in fields(View)}:
            raise AssertionError(f"an attack reached for {name!r}")
        return super().__getattribute__(name)


class OwnLabels(dict):
    """Labels that may be read for the target only."""

    def __init__(self, labels, allowed):
        super().__init__(labels)
        self.allowed = allowed

    def __getitem__(self, name):
        assert name in self.allowed, f"an attack reached for the labels of {name!r}"
        return super().__getitem__(name)

    def get(self, name, default=None):
        assert name in self.allowed, f"an attack reached for the labels of {name!r}"
        return super().get(name, default)


@every
def test_same_seed_same_numbers_and_nothing_else_is_touched(attack, said):
    world, again, *_ = said(attack, leak=True)
    labels = OwnLabels(world.view.aux.labels, {attack.target})
    strict = Strict(**{f.name: getattr(world.view, f.name) for f in fields(View) if f.init})
    object.__setattr__(strict, "aux", replace(world.view.aux, labels=labels))
    before = world.view.releases.copy(), world.view.aux.images.copy(), world.view.aux.labels["gender"].copy()
    states = world.view.white_box.edges if attack.white_box else ()
    edges_before = [copy.deepcopy(edge.state_dict()) for edge in states]
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = arrays(attack.run(strict))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    second = arrays(again)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(array, second[name])
    for edge, old in zip(states, edges_before, strict=True):
        assert not edge.training
        assert not any(
            parameter.requires_grad or parameter.grad is not None for parameter in edge.parameters()
        )
        assert all(torch.equal(value, old[key]) for key, value in edge.state_dict().items())
    after = world.view.releases, world.view.aux.images, world.view.aux.labels["gender"]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@every
def test_another_seed_is_another_attacker(attack, said, of_one):
    """At least its own split is another one, and with it its own score."""
    _, result, *_ = said(attack, leak=False)
    assert result.validation != of_one(attack).validation


@every
def test_equal_hyper_parameters_have_equal_reprs_and_none_can_change(attack):
    assert repr(attack) == repr(replace(attack))
    assert attack == replace(attack)
    assert repr(attack) != repr(replace(attack, target="other"))
    with pytest.raises(FrozenInstanceError):
        attack.target = "other"


@pytest.mark.parametrize("name", sorted(CASES))
def test_defaults_come_from_the_configuration(name):
    kind = CASES[name].kind
    made = build_attack(Choice(name=name), kind=kind, target=CASES[name].target)
    assert type(made) is type(CASES[name])


@pytest.mark.parametrize("name", ATTRIBUTE)
def test_labels_that_say_nothing_are_refused(name, world_for):
    attack = CASES[name]
    world = world_for(attack, n_victims=2)
    aux = world.view.aux
    one_class = replace(world.view, aux=replace(aux, labels={"gender": np.zeros(160, np.int64)}))
    assert "two classes" in attack.refuses(one_class)
    assert "no labels" in attack.refuses(replace(world.view, aux=replace(aux, labels={})))
    unknown = np.full(160, -1)
    unknown[:5] = aux.labels["gender"][:5]
    assert "5 auxiliary records" in attack.refuses(
        replace(world.view, aux=replace(aux, labels={"gender": unknown}))
    )


@pytest.mark.parametrize("name", ATTRIBUTE)
def test_five_classes_one_of_them_absent_and_some_labels_unknown(name, world_for):
    world = world_for(CASES[name], n_victims=9)
    labels = world.view.aux.labels["gender"] * 2 + (np.arange(160) // 4) % 2
    labels[:10] = -1
    aux = replace(world.view.aux, labels={"gender": labels}, n_classes={"gender": 5})
    result = CASES[name].run(replace(world.view, aux=aux))
    assert result.probabilities.shape == (9, 5)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (result.predictions < 4).all()


@pytest.mark.parametrize("attack", [a for a in CASES.values() if a.white_box], ids=repr)
def test_an_attack_that_needs_the_weights_says_so_without_them(attack, world_for):
    world = world_for(attack, n_victims=2)
    assert attack.refuses(world.view) is None
    assert "weights" in attack.refuses(replace(world.view, white_box=None))


@every
def test_task_labels_are_used_or_refused(attack, world_for):
    """Where releases say nothing and labels all, a user of labels says what the labels say."""
    world = world_for(attack, maps=False, leak=False)
    labels = {"victims": world.gender[:, None], "auxiliary": world.view.aux.labels["gender"][:, None]}
    view = with_task_labels(world.view, **labels, classes=[2])
    refusal = attack.refuses(view)
    if refusal is not None:
        assert type(attack) not in (LogisticRegressionAttack, GradientBoostingAttack, MlpAttack)
        assert "task labels" in refusal
        return
    assert world.score(attack.run(view)) > LEAK.get(attack.kind, 0.8)


@every
def test_nothing_is_left_behind(attack, said):
    _, _, before, after = said(attack, leak=True)
    assert not before["files"]
    assert after["workers"] <= before["workers"]
    assert after | {"workers": None} == before | {"workers": None}
