from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from privhier.config import DatasetConfig
from privhier.datasets.load import build_source, load_dataset
from privhier.datasets.synthetic import Synthetic
from privhier.errors import ConfigError

MakeConfig = Callable[..., DatasetConfig]


def draw(count: int, size: int, seed: int = 0, **options: object) -> np.ndarray:
    listing = Synthetic.model_validate({"images": count, "identities": min(count, 8), **options}).read(
        Path(), seed=seed
    )
    assert listing.render is not None
    return listing.render(np.arange(count), size)


def test_the_same_seed_draws_the_same_faces() -> None:
    first = draw(20, 32)
    assert first.dtype == np.uint8
    assert first.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(first, draw(20, 32))
    assert (first != draw(20, 32, seed=1)).mean() > 0.5


def test_rows_are_drawn_the_same_alone_and_together() -> None:
    listing = Synthetic(images=40, identities=8).read(Path(), seed=0)
    assert listing.render is not None
    together = listing.render(np.arange(40), 32)
    np.testing.assert_array_equal(listing.render(np.array([37, 3]), 32), together[[37, 3]])
    np.testing.assert_array_equal(listing.select(np.array([5, 37])).render(np.array([1]), 32), together[[37]])


def test_the_same_face_at_every_size() -> None:
    small = draw(16, 32).astype(float)
    for factor in (2, 4):
        large = draw(16, 32 * factor).astype(float)
        shrunk = large.reshape(16, 3, 32, factor, 32, factor).mean(axis=(3, 5))
        assert np.abs(shrunk - small).mean() < 3
        matched = np.abs(shrunk - small).mean(axis=(1, 2, 3))
        others = np.abs(np.roll(shrunk, 1, axis=0) - small).mean(axis=(1, 2, 3))
        assert (matched * 5 < others).all()


def test_edges_are_soft() -> None:
    # A hard edge would jump between skin and background in one pixel of a large picture.
    listing = Synthetic(images=8, identities=8).read(Path(), seed=0)
    assert listing.render is not None
    image = listing.render(np.arange(8), 256).astype(float)
    assert len(np.unique(image.round(-1))) > 20
    jumps = np.abs(np.diff(image, axis=3)).max(axis=1)
    assert (jumps > 200).mean() < 1e-3


def test_a_person_is_fixed_and_pictures_vary() -> None:
    listing = Synthetic(images=200, identities=10).read(Path(), seed=0)
    assert listing.identity is not None
    for name, column in listing.attributes.items():
        kinds = {len(set(column[listing.identity == person].tolist())) for person in range(10)}
        assert (kinds == {1}) == (name not in ("smiling", "hat")), name
    assert listing.render is not None
    pictures = listing.render(np.flatnonzero(listing.identity == 0), 32)
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == len(pictures)


def test_attributes_change_pixels_where_they_should() -> None:
    options = {"correlated": ["smiling", "hat"], "images": 400, "identities": 400}
    listing = Synthetic.model_validate(options).read(Path(), seed=0)
    assert listing.render is not None
    images = listing.render(np.arange(400), 32).astype(float).mean(axis=1)
    attributes = listing.attributes
    face = images[:, 8:24, 10:22].mean(axis=(1, 2))
    skin = [face[attributes["skin"] == level].mean() for level in range(4)]
    assert skin == sorted(skin, reverse=True)
    bare = attributes["hat"] == 0
    crown = images[:, 3:7, 13:19].mean(axis=(1, 2))
    assert (
        crown[bare & (attributes["dark_hair"] == 1)].mean()
        < crown[bare & (attributes["dark_hair"] == 0)].mean() - 20
    )


@pytest.mark.parametrize(
    "pair", [("smiling", "male"), ("male", "glasses"), ("hat", "smiling"), ("beard", "hat")]
)
@pytest.mark.parametrize("phi", [-1.0, -0.4, 0.7, 1.0])
def test_correlation_knob(pair: tuple[str, str], phi: float) -> None:
    listing = Synthetic(images=6000, identities=6000, correlated=pair, correlation=phi).read(Path(), seed=0)
    a, b = (listing.attributes[name] for name in pair)
    assert a.mean() == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(phi, abs=0.04)


def test_untied_attributes_are_unrelated() -> None:
    listing = Synthetic(images=6000, identities=6000).read(Path(), seed=0)
    names = ["smiling", "male", "glasses", "hat", "dark_hair", "skin", "age"]
    table = np.corrcoef([listing.attributes[name] for name in names])
    assert np.abs(table - np.eye(len(names))).max() < 0.05
    assert listing.attributes["beard"][listing.attributes["male"] == 0].max() == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"correlated": ["smiling", "mael"]}, "dataset.options.correlated"),
        ({"correlated": ["hat", "hat"]}, "dataset.options.correlated"),
        ({"correlation": 1.5}, "dataset.options.correlation"),
        ({"images": 3, "identities": 9}, "dataset.options"),
        ({"images": 0}, "dataset.options.images"),
    ],
)
def test_bad_options(make_config: MakeConfig, options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_source(make_config("synthetic", options=options))
    assert caught.value.key == key


def test_progress_ends_at_the_total(make_config: MakeConfig) -> None:
    calls: list[tuple[str, int, int]] = []
    config = make_config("synthetic", image_size=16, options={"images": 600, "identities": 6})
    load_dataset(config, seed=0, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("draw", 600, 600)
