"""A small world in which attackers' claims can be checked against the victims' truth."""

import numpy as np
import pytest

from privhier.attacks.table import TableAttack
from privhier.attacks.threat_models import white_box
from privhier.attacks.view import Alphabet, AuxiliarySet, View
from privhier.config import BottleneckConfig, ModelConfig
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism


def frozen(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


NOISE = {True: 0.3, False: 1e6}
"""Standard deviation of a white-box world's noise: beside features of size one, or with nothing left."""


class World:
    """160 auxiliary records of 40 people, victims of other people, and their truth, kept apart.

    ``edge``: images show the gender, and two states of a small edge release them (``leak``) or little
    but noise; the view holds the edge's weights. Otherwise releases are made without any network.
    ``letters``: each of eight noisy values is one of eight letters.
    """

    def __init__(self, *, maps, leak, edge=False, letters=False, n_victims=200, draws=2, t=2, seed=0):
        rng = np.random.default_rng(seed)
        people = rng.standard_normal((40 + n_victims // 4 + 1, 8))
        who = np.concatenate([np.repeat(np.arange(40), 4), 40 + np.arange(n_victims) // 4])
        gender = (people[who, 0] > 0).astype(np.int64)
        hidden = people[who] + 0.3 * rng.standard_normal((len(who), 8))
        if edge:
            hidden[:, 0] += 1.5 * (2 * gender - 1)
        # Each quarter of the image shows two of the eight values, as a feature map would.
        mixing = rng.standard_normal((2, 3))
        coarse = np.einsum("nkhw,kc->nchw", hidden.reshape(-1, 2, 2, 2), mixing) * 30 + 128
        images = np.clip(coarse.repeat(6, axis=2).repeat(6, axis=3), 0, 255).astype(np.uint8)
        if edge:
            mechanism = ReleaseMechanism("gaussian", clip=100.0, sigma=NOISE[leak])
            states = [self.edge(maps, state) for state in range(t)]
            features = [edge_features(s, images, np.arange(len(who)), device="cpu") for s in states]
        else:
            hidden[:, 0] += 1.5 * (2 * gender - 1)
            clean = hidden if leak else rng.standard_normal(hidden.shape)
            if maps and not letters:
                clean = np.repeat(np.repeat(clean.reshape(-1, 2, 2, 2), 3, axis=2), 3, axis=3)

        def release(rows, draw):
            if edge:
                source = SeededNoise(seed, draw)
                drawn = [mechanism.sanitize(state[rows], source).values.numpy() for state in features]
                return frozen(np.stack(drawn, axis=1))
            noise = np.random.default_rng((seed, draw)).standard_normal((len(rows), t, *clean.shape[1:]))
            noised = (clean[rows][:, None] + 0.5 * noise).astype(np.float32)
            return frozen(
                alphabet.one_hot(np.digitize(noised, np.linspace(-2.4, 2.4, 7))) if letters else noised
            )

        alphabet = Alphabet(letters=8, groups=8) if letters else None

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
            populations=tuple(frozen(rows) for rows in self.populations(rng)),
            alphabet=alphabet,
        )
        if edge:
            self.view = white_box(self.view, edges=states, mechanism=mechanism)

    @staticmethod
    def edge(maps, seed):
        """An untrained edge: maps of 24x6x6, or vectors of 16 values."""
        narrow = BottleneckConfig() if maps else BottleneckConfig(kind="dimension", size=16)
        config = ModelConfig(backbone="small_cnn", cut="stage1", bottleneck=narrow, exit_hidden=8)
        return build_network(
            config,
            image_size=12,
            task_classes={"smile": 2},
            sensitive_classes={"gender": 2},
            seed=seed,
        )[0]

    def populations(self, rng):
        """Rows of 40 victims of which a tenth, a half and nine tenths are of class 1; or all victims."""
        classes = [np.flatnonzero(self.gender == k) for k in (0, 1)]
        if min(len(rows) for rows in classes) < 36:
            return [np.arange(len(self.gender))]
        return [
            np.concatenate([rng.choice(classes[0], 40 - ones, False), rng.choice(classes[1], ones, False)])
            for ones in (4, 20, 36)
        ]

    @staticmethod
    def auc(scores, labels):
        """By counting pairs, ties half: independent of the attackers' own."""
        positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
        below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
        return below.mean() / 2 / len(negative)

    def score(self, result):
        """By kind: AUC, verification AUC, or share of the constant answer's error removed."""
        if result.probabilities is not None:
            return self.auc(result.probabilities[:, 1], self.gender)
        if result.embeddings is not None:
            similar = result.embeddings @ result.embeddings.T
            upper = np.triu_indices(len(self.who), 1)
            return self.auc(similar[upper], (self.who[:, None] == self.who)[upper].astype(int))
        if result.shares is not None:
            shares = np.array([self.gender[rows].mean() for rows in self.view.populations])
            constant = self.view.aux.labels["gender"].mean()
            return 1 - np.abs(result.shares[:, 1] - shares).mean() / np.abs(constant - shares).mean()
        truth = self.images / 255
        error = ((result.reconstructions - truth) ** 2).mean()
        constant = ((self.view.aux.images.mean(axis=0) / 255 - truth) ** 2).mean()
        return 1 - error / constant


@pytest.fixture(scope="session")
def world_for():
    """``world_for(attack, ...)``: the world of the attack's threat model.

    Attacks that optimize for each victim get few victims, and what counts letters gets letters.
    """

    def build(attack, *, maps=True, leak=True, n_victims=200, **options):
        few = min(n_victims, 24) if attack.expensive else n_victims
        options.setdefault("letters", isinstance(attack, TableAttack))
        return World(maps=maps, leak=leak, edge=attack.white_box, n_victims=few, **options)

    return build
