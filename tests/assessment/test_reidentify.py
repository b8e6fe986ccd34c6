import numpy as np
import pytest

from privhier.assessment.reidentify import PER_PERSON, draw_lineup
from privhier.attacks.embedders.base import FaceEmbedder, resized
from privhier.datasets.base import FaceDataset


class Pixels(FaceEmbedder):
    """The picture itself, small."""

    def _vectors(self, images):
        return resized(images, 4, 4).reshape(len(images), -1) - 0.5


def faces(photos, *, seed=0, copies=()):
    """People with ``photos[p]`` noisy photos each; ``copies``: pairs of rows that are the same file."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(len(photos)), photos)
    base = rng.integers(40, 215, (len(photos), 3, 8, 8))[identity]
    images = np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)
    duplicates = np.arange(len(identity))
    for a, b in copies:
        images[b], duplicates[b] = images[a], duplicates[a]
    return FaceDataset("toy", images, {}, identity, identity, duplicates)


def lineup(dataset, victims, pool=None, **options):
    options = {"resamples": 100, "confidence": 0.95, "seed": 0} | options
    pool = np.arange(len(dataset)) if pool is None else pool
    return draw_lineup(dataset, np.asarray(victims), pool, Pixels(), **options)


def pixels(dataset, rows):
    return dataset.images[rows].astype(np.float32) / 255


def test_perfect_reconstructions_reach_the_originals_and_noise_reaches_chance():
    dataset = faces([3] * 120)
    victims = np.arange(0, 360, 3)
    drawn = lineup(dataset, victims)
    perfect = drawn.score(pixels(dataset, victims))
    assert perfect.rank1 == perfect.original_rank1
    assert perfect.tar == perfect.original_tar
    assert perfect.rank1.value == 1.0
    assert perfect.tar.value == 1.0
    assert (perfect.gallery, perfect.rank1.n, perfect.chance) == (120, 120, 1 / 120)
    noise = drawn.score(np.random.default_rng(1).random((120, 3, 8, 8)).astype(np.float32))
    assert noise.rank1.value <= 0.05
    assert noise.tar.value <= 0.06
    blank = drawn.score(np.full((120, 3, 8, 8), 0.3, np.float32))
    assert blank.rank1.value <= 0.02
    assert noise.original_rank1 == perfect.original_rank1


def test_another_persons_picture_is_no_hit():
    dataset = faces([2] * 60)
    victims = np.arange(0, 120, 2)
    swapped = lineup(dataset, victims).score(np.roll(pixels(dataset, victims), 1, axis=0))
    assert swapped.rank1.value == 0.0
    assert swapped.tar.value < 0.1


def test_the_gallery_never_shows_the_attacked_photo_nor_a_copy_of_it():
    """Were it there, pictures of nothing but the attacked photo's noise would be found again."""
    dataset = faces([3] * 40, copies=[(3 * p, 3 * p + 1) for p in range(40)])
    victims = np.arange(0, 120, 3)
    drawn = lineup(dataset, victims)
    assert len(drawn.probes) == 40
    shown = Pixels().embed(pixels(dataset, np.arange(2, 120, 3)))
    np.testing.assert_allclose(drawn.gallery, shown, atol=1e-6)


def test_only_copies_of_the_attacked_photo_make_nobody_a_probe():
    dataset = faces([2] * 20, copies=[(2 * p, 2 * p + 1) for p in range(19)])
    drawn = lineup(dataset, np.arange(0, 40, 2))
    assert drawn.probes.tolist() == [19]
    assert len(drawn.gallery) == 20


def test_where_all_photos_are_attacked_one_is_shown_and_the_others_are_probes():
    dataset = faces([2] * 30)
    drawn = lineup(dataset, np.arange(60))
    assert len(drawn.probes) == 30
    assert len(np.unique(drawn.people)) == 30
    shown = Pixels().embed(pixels(dataset, np.arange(60)))
    for position, person in zip(drawn.probes, drawn.people, strict=True):
        other = position ^ 1
        np.testing.assert_allclose(drawn.gallery[person], shown[other], atol=1e-6)


def test_other_people_of_the_pool_fill_the_gallery():
    dataset = faces([2] * 5 + [1] * 50)
    victims = np.arange(0, 10, 2)
    drawn = lineup(dataset, victims, gallery=20)
    assert len(drawn.gallery) == 20
    assert len(drawn.probes) == 5
    few = lineup(dataset, victims, pool=np.arange(13), gallery=20)
    assert len(few.gallery) == 8
    small = lineup(dataset, victims, gallery=3)
    assert (len(small.gallery), len(small.probes)) == (3, 3)


def test_a_person_with_many_attacked_photos_does_not_decide_alone():
    dataset = faces([40, 2, 2])
    drawn = lineup(dataset, np.array([*range(39), 40, 42]))
    assert len(drawn.probes) == PER_PERSON + 2


def test_the_same_seed_draws_the_same():
    dataset = faces([3] * 30)
    first, second, other = (lineup(dataset, np.arange(0, 90, 3), seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.gallery, second.gallery)
    assert np.array_equal(first.weights, second.weights)
    assert not np.array_equal(first.gallery, other.gallery)


def test_a_false_accept_rate_that_few_pairs_cannot_resolve_has_no_score():
    dataset = faces([2] * 8)
    found = lineup(dataset, np.arange(0, 16, 2)).score(pixels(dataset, np.arange(0, 16, 2)))
    assert found.tar is None
    assert found.original_tar is None
    assert found.rank1.value == 1.0


@pytest.mark.parametrize("photos", [[1] * 10, [2]], ids=["no second photo", "nobody else"])
def test_without_anybody_to_look_for_or_among_there_is_no_lineup(photos):
    assert lineup(faces(photos), [0]) is None


def test_a_data_set_without_people_has_no_lineup():
    dataset = faces([2] * 4)
    nameless = FaceDataset("toy", dataset.images, {}, None, dataset.group, dataset.duplicate_group)
    assert lineup(nameless, [0]) is None
