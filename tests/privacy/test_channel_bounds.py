import itertools

import numpy as np
import pytest

from privhier.errors import ConfigError
from privhier.privacy.channel_bounds import channel_contraction, checked_channel, joint_letters, mixed
from privhier.privacy.labels import flip_matrix


def some_channel(letters, answers, seed=0):
    return checked_channel(np.random.default_rng(seed).dirichlet(np.ones(answers), letters))


def product(channel, records):
    """The channel of several letters, letter by letter."""
    letters, answers = channel.shape
    rows = itertools.product(range(letters), repeat=records)
    return np.array(
        [
            [
                np.prod([channel[i, j] for i, j in zip(row, column, strict=True)])
                for column in itertools.product(range(answers), repeat=records)
            ]
            for row in rows
        ]
    )


@pytest.mark.parametrize(("letters", "answers", "records"), [(4, 4, 1), (3, 5, 2), (2, 3, 3)])
def test_mixing_is_exact_and_keeps_leading_dimensions(letters, answers, records):
    channel = some_channel(letters, answers)
    shares = np.random.default_rng(1).dirichlet(np.ones(letters**records), (2, 3))
    np.testing.assert_allclose(
        mixed(shares, channel, records), shares @ product(channel, records), atol=1e-14
    )


def test_joint_letters_count_as_mixing_does():
    letters = np.array([[2, 0, 1], [0, 0, 2]])
    assert joint_letters(letters, 3).tolist() == [2 * 9 + 1, 2]
    channel = some_channel(3, 3)
    one = np.zeros(27)
    one[joint_letters(letters[:1], 3)[0]] = 1
    expected = np.einsum("a,b,c->abc", channel[2], channel[0], channel[1]).ravel()
    np.testing.assert_allclose(mixed(one, channel, 3), expected)


@pytest.mark.parametrize(("letters", "answers", "records"), [(4, 4, 1), (3, 5, 2), (2, 3, 3)])
def test_contraction_bounds_the_total_variation_of_any_two_records(letters, answers, records):
    channel = some_channel(letters, answers)
    rows = product(channel, records)
    largest = max(np.abs(a - b).sum() / 2 for a, b in itertools.combinations(rows, 2))
    bound = channel_contraction(channel, records)
    assert largest <= bound + 1e-12
    if records == 1:
        assert bound == pytest.approx(largest)


@pytest.mark.parametrize("letters", [2, 16, 600])  # the last is too large for pairs
def test_contraction_of_randomized_response(letters):
    channel = checked_channel(flip_matrix(3.0, letters).numpy())
    expected = (np.exp(3) - 1) / (np.exp(3) + letters - 1)
    assert channel_contraction(channel) == pytest.approx(expected, abs=1e-12)
    assert channel_contraction(None) == 1.0
    assert channel_contraction(np.eye(5)) == 1.0
    assert channel_contraction(np.full((5, 3), 1 / 3)) == pytest.approx(0.0, abs=1e-12)


def test_a_channel_in_float32_is_scaled():
    matrix = checked_channel(flip_matrix(1.0, 7).numpy().astype(np.float32))
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-15)
    assert (checked_channel(flip_matrix(1.0, 7)) == checked_channel(flip_matrix(1.0, 7).numpy())).all()


@pytest.mark.parametrize(
    "channel",
    [
        np.eye(3),
        np.full((2, 2), 0.4),
        np.array([[1.1, -0.1], [0.5, 0.5]]),
        np.array([[np.nan, 1.0], [0.5, 0.5]]),
        np.full((2, 2), np.nan),
        np.ones(2),
        np.ones((2, 0)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_channel_is_refused(channel):
    with pytest.raises(ConfigError, match=r"letters\.channel"):
        checked_channel(channel, 2)
