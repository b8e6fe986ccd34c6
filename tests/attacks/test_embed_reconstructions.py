from dataclasses import replace

import numpy as np
import pytest

from privhier.attacks import embed_reconstructions
from privhier.attacks.build import build_attack
from privhier.attacks.embed_reconstructions import EmbedReconstructionsAttack, LinearMap
from privhier.attacks.embedders.base import FaceEmbedder, embedders, resized
from privhier.attacks.parts.decoding import Decoded, decode_victims
from privhier.attacks.parts.people import verification_auc
from privhier.attacks.view import AuxiliarySet, View
from privhier.config import Choice
from privhier.errors import ConfigError, UnknownNameError


@embedders.register("test_pixels")
class Pixels(FaceEmbedder):
    """The colors of the four quarters; ``spoiled`` adds a part that is the same for everybody."""

    spoiled: float = 0.0

    @property
    def needs_file(self):
        return False

    def _vectors(self, images):
        rows = resized(images, 2, 2).reshape(len(images), -1) - 0.5
        return np.hstack([rows, np.full((len(rows), 1), self.spoiled, np.float32)])


SMALL = EmbedReconstructionsAttack(target="identity", embedder="test_pixels", epochs=2, width=8, blocks=1)


def world(*, n_people=60, photos=4, noise=0.3, draws=2, seed=0, size=12):
    """Faces of four colored quarters, released as noisy quarters; the last third are the victims."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_people), photos)
    quarters = rng.standard_normal((n_people, 3, 2, 2))[who] + 0.2 * rng.standard_normal((len(who), 3, 2, 2))
    side = size // 2
    images = np.clip(quarters.repeat(side, 2).repeat(side, 3) * 35 + 128, 0, 255).astype(np.uint8)
    clean = quarters.repeat(2, 2).repeat(2, 3).astype(np.float32)

    def release(rows, draw):
        random = np.random.default_rng((seed, draw))
        return (clean[rows] + noise * random.standard_normal(clean[rows].shape))[:, None].astype(np.float32)

    split = len(who) * 2 // 3 // photos * photos
    aux, victims = np.arange(split), np.arange(split, len(who))
    view = View(
        threat_model="toy",
        releases=release(victims, 999),
        image_shape=(3, size, size),
        aux=AuxiliarySet(
            images=images[aux],
            labels={"identity": who[aux]},
            n_classes={"identity": n_people},
            groups=who[aux],
            draws=draws,
            releases=lambda k: release(aux, k),
        ),
        seed=1,
    )
    return view, images, who


def test_victims_are_told_apart_by_their_reconstructions():
    view, images, who = world()
    result = SMALL.run(view)
    victims = who[-len(view.releases) :]
    assert verification_auc(result.embeddings, victims) > 0.95
    photos = Pixels().embed(images[-len(view.releases) :].astype(np.float32) / 255)
    assert verification_auc(result.embeddings, victims) <= verification_auc(photos, victims) + 0.03
    assert result.queries == 2 * len(view.aux.images)


def test_a_map_learned_from_own_photos_is_used_where_it_helps(monkeypatch):
    """Blue is all noise in these pictures, as the attacker sees on its own; a linear map leaves it out."""
    view, _, who = world(n_people=90, noise=np.array([0.1, 0.1, 6.0])[:, None, None])

    def noisy(view, plan):
        pictures = np.clip(view.releases[:, 0] * 35 / 255 + 0.5, 0, 1).astype(np.float32)
        return Decoded(pictures, np.zeros(len(pictures), np.float32), 0.0, epoch=1, epochs=1, queries=0)

    monkeypatch.setattr(embed_reconstructions, "decode_victims", noisy)
    result = SMALL.run(view)
    pictures = noisy(view, None).images
    victims = who[-len(view.releases) :]
    assert "linear map" in result.selected["embedding"]
    assert verification_auc(Pixels().embed(pictures), victims) < 0.8
    assert verification_auc(result.embeddings, victims) > 0.9
    assert result.validation > 0.9
    assert result.selected["decoder_epoch"] == 1


def test_the_decoder_never_sees_the_people_it_is_judged_on(monkeypatch):
    seen = {}

    def spy(view, plan):
        seen["view"] = view
        return decode_victims(view, plan)

    monkeypatch.setattr(embed_reconstructions, "decode_victims", spy)
    view, _, _ = world()
    SMALL.run(view)
    trained = seen["view"].aux
    held_out = [rows for rows in np.unique(view.aux.groups) if rows not in trained.groups]
    assert len(held_out) == 10
    assert set(trained.groups.tolist()).isdisjoint(held_out)
    assert trained.labels == {}
    assert len(seen["view"].releases) == 2 * 10 * 4 + len(view.releases)
    assert np.array_equal(seen["view"].releases[80:], view.releases)
    assert np.array_equal(trained.releases(1), view.aux.releases(1)[np.isin(view.aux.groups, trained.groups)])


def test_the_linear_map_minimizes_what_it_says():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4)).astype(np.float32)
    y = (x @ rng.standard_normal((4, 4)) + 3).astype(np.float32)
    centered, target = x - x.mean(0), y - y.mean(0)

    def cost(matrix, penalty):
        scale = (centered**2).sum() / 4
        return ((centered @ matrix - target) ** 2).sum() + penalty * scale * ((matrix - np.eye(4)) ** 2).sum()

    fitted = LinearMap.fit(x, y, 0.7).matrix
    for _ in range(20):
        assert cost(fitted, 0.7) <= cost(fitted + 0.01 * rng.standard_normal((4, 4)), 0.7)
    assert np.array_equal(LinearMap.fit(x, y, np.inf).matrix, np.eye(4, dtype=np.float32))
    np.testing.assert_allclose(LinearMap.fit(x, y, 1e9).matrix, np.eye(4), atol=1e-6)
    mapped = LinearMap.fit(x, y, 1e-9)(x)
    np.testing.assert_allclose(mapped, target / np.linalg.norm(target, axis=1, keepdims=True), atol=1e-4)


def test_what_it_refuses():
    view, _, _ = world()
    assert SMALL.refuses(view) is None
    assert "makes no use of the task labels" in SMALL.refuses(
        replace(view, task_labels=np.zeros((len(view.releases), 1), np.int64), task_classes=(2,))
    )
    assert "names no people" in SMALL.refuses(replace(view, aux=replace(view.aux, labels={})))
    few, _, _ = world(n_people=9)
    assert "auxiliary people have two photos" in SMALL.refuses(few)
    small, _, _ = world(n_people=12, photos=3)
    assert "auxiliary images" in SMALL.refuses(small)
    assert "no file of weights" in EmbedReconstructionsAttack(target="identity").refuses(view)


def test_a_wrong_embedder_is_found_before_anything_is_trained():
    def build(**options):
        choice = Choice(name="embed_reconstructions", options=options)
        return build_attack(choice, kind="verification", target="identity")

    assert build(embedder="test_pixels", settings=["spoiled=2.5"])._build() == Pixels(spoiled=2.5)
    with pytest.raises(ConfigError, match="is not a file") as caught:
        build(path="nowhere.onnx")
    assert caught.value.key.endswith("embed_reconstructions.options.embedder.onnx.options.path")
    with pytest.raises(UnknownNameError, match="Did you mean onnx"):
        build(embedder="onxx")
    with pytest.raises(ConfigError, match="name=value"):
        build(settings=["scale 1"])
    with pytest.raises(ConfigError, match="Did you mean spoiled"):
        build(embedder="test_pixels", settings=["spoilt=1"])
