"""What every registered attack must do, on views small enough to build by hand."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from privhier.attacks.base import Attack, attacks
from privhier.attacks.build import build_attack, names_of
from privhier.attacks.cnn import CnnAttack
from privhier.attacks.decoder import DecoderAttack
from privhier.attacks.mlp import MlpAttack
from privhier.attacks.tabular import GradientBoostingAttack, LogisticRegressionAttack
from privhier.attacks.verification import MetricAttack
from privhier.attacks.view import AuxiliarySet, View

# One row an attack: the registered name, and how to make it small. A new attack adds its row here.
CASES = {
    "logistic_regression": LogisticRegressionAttack(target="gender"),
    "gradient_boosting": GradientBoostingAttack(target="gender", iterations=20),
    "mlp": MlpAttack(target="gender", epochs=8),
    "cnn": CnnAttack(target="gender", epochs=8, width=8),
    "metric": MetricAttack(target="identity", epochs=3),
    "decoder": DecoderAttack(epochs=3, width=8, blocks=1),
}
ATTRIBUTE = [name for name, attack in CASES.items() if attack.kind == "attribute"]


def frozen(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


class World:
    """160 auxiliary records of 40 people, victims of other people, and their truth, kept apart."""

    def __init__(self, *, maps, leak, n_victims=200, draws=2, t=2, seed=0):
        rng = np.random.default_rng(seed)
        people = rng.standard_normal((40 + n_victims // 4 + 1, 8))
        who = np.concatenate([np.repeat(np.arange(40), 4), 40 + np.arange(n_victims) // 4])
        gender = (people[who, 0] > 0).astype(np.int64)
        hidden = people[who] + 0.3 * rng.standard_normal((len(who), 8))
        # Each quarter of the image shows two of the eight values, as a feature map would.
        mixing = rng.standard_normal((2, 3))
        coarse = np.einsum("nkhw,kc->nchw", hidden.reshape(-1, 2, 2, 2), mixing) * 30 + 128
        images = np.clip(coarse.repeat(6, axis=2).repeat(6, axis=3), 0, 255).astype(np.uint8)
        hidden[:, 0] += 1.5 * (2 * gender - 1)
        if not leak:
            hidden = rng.standard_normal(hidden.shape)
        shape = (2, 6, 6) if maps else (8,)
        clean = hidden
        if maps:
            clean = np.repeat(np.repeat(hidden.reshape(-1, 2, 2, 2), 3, axis=2), 3, axis=3)

        def release(rows, draw):
            noise = np.random.default_rng((seed, draw)).standard_normal((len(rows), t, *shape))
            return frozen((clean[rows][:, None] + 0.5 * noise).astype(np.float32))

        aux, victims = np.arange(160), np.arange(160, 160 + n_victims)
        self.gender, self.who, self.images = gender[victims], who[victims], images[victims]
        self.view = View(
            threat_model="toy",
            releases=release(victims, 10_000),
            image_shape=(3, 12, 12),
            aux=AuxiliarySet(
                images=frozen(images[aux]),
                labels={"gender": frozen(gender[aux]), "identity": frozen(who[aux])},
                n_classes={"gender": 2, "identity": 40},
                groups=frozen(who[aux]),
                draws=draws,
                releases=lambda k: release(aux, k),
            ),
            seed=3,
        )

    def score(self, result):
        """In [0, 1] by kind: AUC, verification AUC, or share of the mean image's error removed."""
        if result.probabilities is not None:
            return auc(result.probabilities[:, 1], self.gender)
        if result.embeddings is not None:
            similar = result.embeddings @ result.embeddings.T
            upper = np.triu_indices(len(self.who), 1)
            return auc(similar[upper], (self.who[:, None] == self.who)[upper].astype(int))
        truth = self.images / 255
        error = ((result.reconstructions - truth) ** 2).mean()
        constant = ((self.view.aux.images.mean(axis=0) / 255 - truth) ** 2).mean()
        return 1 - error / constant


def auc(scores, labels):
    """By counting pairs, ties half: independent of the attackers' own."""
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return below.mean() / 2 / len(negative)


def needs_maps(attack):
    return isinstance(attack, CnnAttack)


def arrays(result):
    names = ("probabilities", "predictions", "embeddings", "reconstructions", "own_loss")
    return {name: getattr(result, name) for name in names if getattr(result, name) is not None}


every = pytest.mark.parametrize("attack", CASES.values(), ids=repr)


def test_every_registered_attack_has_a_row_here():
    assert sorted(CASES) == attacks.names()
    assert sorted(CASES) == sorted(
        names_of("attribute") + names_of("verification") + names_of("reconstruction")
    )
    for name, attack in CASES.items():
        assert type(attack) is attacks.get(name)
        assert isinstance(attack, Attack)
        assert fields(attack)[0].name == "target"


@every
@pytest.mark.parametrize("maps", [False, True], ids=["vector", "maps"])
def test_a_leaky_release_is_read(attack, maps):
    world = World(maps=maps, leak=True)
    if needs_maps(attack) and not maps:
        assert "vector" in attack.refuses(world.view)
        return
    assert attack.refuses(world.view) is None
    result = attack.run(world.view)
    assert world.score(result) > {"reconstruction": 0.3}.get(attack.kind, 0.8)
    assert result.queries == 160 * 2 * 2
    assert result.seconds > 0
    assert np.isfinite(result.validation)


@every
def test_pure_noise_gives_nothing(attack):
    world = World(maps=True, leak=False)
    result = attack.run(world.view)
    if attack.kind == "reconstruction":
        assert world.score(result) < 0.1
        return
    if attack.kind == "verification":
        assert abs(world.score(result) - 0.5) < 0.05
        return
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(300):
        people = rng.choice(np.unique(world.who), len(np.unique(world.who)))
        rows = np.concatenate([np.flatnonzero(world.who == person) for person in people])
        resampled.append(auc(result.probabilities[rows, 1], world.gender[rows]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert low <= 0.5 <= high


@every
def test_the_result_has_exactly_the_fields_of_its_kind(attack):
    world = World(maps=True, leak=True, n_victims=13)
    made = arrays(attack.run(world.view))
    if attack.kind == "attribute":
        assert set(made) == {"probabilities", "predictions"}
        assert made["probabilities"].shape == (13, 2)
        assert made["probabilities"].dtype == np.float32
        np.testing.assert_allclose(made["probabilities"].sum(axis=1), 1, atol=1e-5)
        assert made["predictions"].shape == (13,)
        assert made["predictions"].dtype == np.int64
    elif attack.kind == "verification":
        assert set(made) == {"embeddings"}
        assert made["embeddings"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(made["embeddings"], axis=1), 1, atol=1e-4)
    else:
        assert set(made) == {"reconstructions", "own_loss"}
        assert made["reconstructions"].shape == (13, 3, 12, 12)
        assert made["reconstructions"].dtype == made["own_loss"].dtype == np.float32
        assert made["reconstructions"].min() >= 0
        assert made["reconstructions"].max() <= 1
        assert made["own_loss"].shape == (13,)


@every
def test_one_victim_is_enough(attack):
    world = World(maps=True, leak=True, n_victims=1)
    for array in arrays(attack.run(world.view)).values():
        assert len(array) == 1
        assert np.isfinite(array).all()


@every
def test_each_victim_is_attacked_alone(attack):
    """What is said of one victim does not depend on the other victims: nothing is fitted on them."""
    world = World(maps=True, leak=True, n_victims=12)
    few = replace(world.view, releases=world.view.releases[:5])
    everyone, some = arrays(attack.run(world.view)), arrays(attack.run(few))
    for name, array in some.items():
        np.testing.assert_allclose(array, everyone[name][:5], atol=1e-4)


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
def test_same_seed_same_numbers_and_nothing_else_is_touched(attack):
    world = World(maps=True, leak=True, n_victims=20)
    labels = OwnLabels(world.view.aux.labels, {attack.target})
    strict = Strict(**{f.name: getattr(world.view, f.name) for f in fields(View) if f.init})
    object.__setattr__(strict, "aux", replace(world.view.aux, labels=labels))
    before = world.view.releases.copy(), world.view.aux.images.copy(), world.view.aux.labels["gender"].copy()
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = arrays(attack.run(strict))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    second = arrays(attack.run(world.view))
    for name, array in first.items():
        assert np.array_equal(array, second[name])
    after = world.view.releases, world.view.aux.images, world.view.aux.labels["gender"]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@every
def test_another_seed_is_another_attacker(attack):
    """At least its own split is another one, and with it its own score."""
    world = World(maps=True, leak=False, n_victims=20)
    assert attack.run(world.view).validation != attack.run(replace(world.view, seed=4)).validation


@every
def test_equal_hyper_parameters_have_equal_reprs_and_none_can_change(attack):
    assert repr(attack) == repr(replace(attack))
    assert attack == replace(attack)
    assert repr(attack) != repr(replace(attack, target="other"))
    with pytest.raises(FrozenInstanceError):
        attack.target = "other"


@pytest.mark.parametrize("name", sorted(CASES))
def test_defaults_come_from_the_configuration(name):
    from privhier.config import Choice

    kind = CASES[name].kind
    made = build_attack(Choice(name=name), kind=kind, target=CASES[name].target)
    assert type(made) is type(CASES[name])


@pytest.mark.parametrize("name", ATTRIBUTE)
def test_labels_that_say_nothing_are_refused(name):
    world = World(maps=True, leak=True, n_victims=2)
    aux = world.view.aux
    attack = CASES[name]
    one_class = replace(world.view, aux=replace(aux, labels={"gender": np.zeros(160, np.int64)}))
    assert "two classes" in attack.refuses(one_class)
    assert "no labels" in attack.refuses(replace(world.view, aux=replace(aux, labels={})))
    unknown = np.full(160, -1)
    unknown[:5] = aux.labels["gender"][:5]
    assert "5 auxiliary records" in attack.refuses(
        replace(world.view, aux=replace(aux, labels={"gender": unknown}))
    )


@pytest.mark.parametrize("name", ATTRIBUTE)
def test_five_classes_one_of_them_absent_and_some_labels_unknown(name):
    world = World(maps=True, leak=True, n_victims=9)
    labels = world.view.aux.labels["gender"] * 2 + (np.arange(160) // 4) % 2
    labels[:10] = -1
    aux = replace(world.view.aux, labels={"gender": labels}, n_classes={"gender": 5})
    result = CASES[name].run(replace(world.view, aux=aux))
    assert result.probabilities.shape == (9, 5)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (result.predictions < 4).all()
