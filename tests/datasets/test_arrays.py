"""A data set made from arrays: the same groups and checks as any other, and nothing silently converted."""

from __future__ import annotations

import numpy as np
import pytest

from privhier.datasets.arrays import from_arrays
from privhier.errors import DataError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)


LABELS = {"a": [0, 1] * 4}


def test_both_layouts_give_the_same_faces(images):
    one = from_arrays(images, LABELS)
    other = from_arrays(images.transpose(0, 2, 3, 1), LABELS)
    assert np.array_equal(one.images, other.images)
    assert one.fingerprint == other.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        one.images[0] = 0


def test_the_faces_are_the_callers_no_more(images):
    faces = from_arrays(images, LABELS)
    before = faces.images.copy()
    images[:] = 0
    assert np.array_equal(faces.images, before)


def test_identical_and_named_photos_share_a_group(images):
    images[5] = images[2]
    faces = from_arrays(images, LABELS, photo=[0, 1, 2, 3, 3, 5, 6, 7])
    assert faces.duplicate_group[5] == faces.duplicate_group[2]
    assert faces.duplicate_group[3] == faces.duplicate_group[4]
    assert len(np.unique(faces.duplicate_group)) == 6
    people = from_arrays(images, LABELS, identity=list("aabbccdd"))
    assert people.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_how_wide_a_number_is_does_not_matter(images):
    wide, narrow = (from_arrays(images, {"a": np.array(LABELS["a"], dtype=kind)}) for kind in (int, np.int8))
    assert wide.fingerprint == narrow.fingerprint == from_arrays(images, {"a": [False, True] * 4}).fingerprint


def test_everything_that_matters_is_in_the_fingerprint(images):
    prints = {
        from_arrays(images, LABELS).fingerprint,
        from_arrays(images[::-1], LABELS).fingerprint,
        from_arrays(images, {"a": [1, 0] * 4}).fingerprint,
        from_arrays(images, {"b": LABELS["a"]}).fingerprint,
        from_arrays(images, LABELS, identity=range(8)).fingerprint,
        from_arrays(images, LABELS, photo=range(8)).fingerprint,
    }
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"images": np.zeros((8, 3, 16, 16))}, "must be uint8"),
        ({"images": np.zeros((8, 16, 16), np.uint8)}, "must be uint8"),
        ({"images": np.zeros((8, 1, 16, 16), np.uint8)}, "square RGB"),
        ({"images": np.zeros((8, 3, 16, 18), np.uint8)}, "square RGB"),
        ({"images": np.zeros((8, 3, 8, 8), np.uint8)}, "at least 16"),
        ({"images": np.zeros((0, 3, 16, 16), np.uint8)}, "square RGB"),
        ({"attributes": {}}, "at least one column"),
        ({"attributes": {"a": [0, 1]}}, "one value for each of 8"),
        ({"attributes": {"a": [0.0, np.nan] * 4}}, "must not be missing"),
        ({"attributes": {"a": ["x", ""] * 4}}, "must not be missing"),
        ({"attributes": {"a": [None, 1] * 4}}, "must hold"),
        ({"attributes": [1, 2]}, "must map names to columns"),
        ({"attributes": {"identity": [0, 1] * 4}}, "must be the name of a column"),
        ({"attributes": {"a b": [0, 1] * 4}}, "must be the name of a column"),
        ({"value_names": {"b": {0: "no"}}}, "must be the name of a column"),
        ({"attributes": {"a": [[1], [1, 2]] * 4}}, "is no array"),
        ({"attributes": {"a": np.full(8, 2**63, np.uint64)}}, "64 bits with a sign"),
        ({"identity": [1, 2]}, "one value for each of 8"),
        ({"photo": np.full(8, np.nan)}, "must not be missing"),
    ],
)
def test_what_is_not_clear_is_refused(images, change, rule):
    given = {"images": images, "attributes": LABELS, **change}
    with pytest.raises(DataError, match=rule):
        from_arrays(given.pop("images"), given.pop("attributes"), **given)
