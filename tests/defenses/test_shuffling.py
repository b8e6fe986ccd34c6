"""Why shuffling the places of a map is no defense here: whoever knows how places look puts them back."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression

from privhier.seeding import numpy_stream

PLACES, CHANNELS = 16, 12


def maps(n: int, stream: str) -> np.ndarray:
    """Maps ``(n, PLACES, CHANNELS)`` as an edge's are: every place has a look of its own, and content."""
    looks = numpy_stream(0, "shuffling", "looks").normal(size=(PLACES, CHANNELS))
    return looks + 0.6 * numpy_stream(0, "shuffling", stream).normal(size=(n, PLACES, CHANNELS))


def shuffled(released: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every record's places in an order of its own, and that order."""
    rng = numpy_stream(0, "shuffling", "orders")
    orders = np.stack([rng.permutation(PLACES) for _ in released])
    return np.take_along_axis(released, orders[:, :, None], axis=1), orders


def put_back(seen: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The attacker: predicts the place of every token from maps of its own, one place each."""
    places = np.tile(np.arange(PLACES), len(own))
    model = LogisticRegression(max_iter=500).fit(own.reshape(-1, CHANNELS), places)
    scores = model.predict_log_proba(seen.reshape(-1, CHANNELS)).reshape(len(seen), PLACES, PLACES)
    return np.stack([linear_sum_assignment(-one)[1] for one in scores])


def test_a_position_predictor_undoes_shuffled_places() -> None:
    seen, orders = shuffled(maps(60, "victims"))
    found = put_back(seen, maps(200, "attacker"))
    assert (found == orders).mean() > 0.95
    alike = seen - seen.mean(axis=1, keepdims=True)
    lost = put_back(numpy_stream(0, "shuffling", "blind").permuted(alike, axis=2), maps(200, "attacker"))
    assert (lost == orders).mean() < 0.2  # the test can fail: without the places' looks there is no order
