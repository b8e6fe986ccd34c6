"""Channels on letters: epsilon by brute force, frequencies, what each is good for, where bits come from."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
import torch

from privhier.errors import ConfigError
from privhier.privacy.channels import (
    CHANNELS,
    ORDERED_MOST,
    Channel,
    RandomizedResponse,
    SubsetSelection,
    TruncatedGeometric,
    build_channel,
)
from privhier.privacy.noise import RecordNoise, SeededNoise, SystemNoise

CASES = [
    RandomizedResponse(2, 1.0),
    RandomizedResponse(16, 8.0),
    RandomizedResponse(5, 0.3),
    SubsetSelection(16, 1.0),
    SubsetSelection(7, 2.0, width=3),
    SubsetSelection(5, 0.5, width=4),
    SubsetSelection(3, 5.0),
    TruncatedGeometric(16, 2.0),
    TruncatedGeometric(9, 1.0, reach=8),
    TruncatedGeometric(6, 4.0, reach=2),
    TruncatedGeometric(2, 0.7),
]
every = pytest.mark.parametrize("channel", CASES, ids=repr)


def by_brute_force(matrix: torch.Tensor) -> float:
    """The largest log ratio that any answer gives any two letters."""
    rows = matrix.tolist()
    pairs = itertools.permutations(rows, 2)
    return max(math.log(p / q) for one, other in pairs for p, q in zip(one, other, strict=True))


def test_every_channel_has_a_case():
    assert {type(channel) for channel in CASES} == set(CHANNELS.values())
    for name, kind in CHANNELS.items():
        assert build_channel(name, 4, 1.5) == kind(4, 1.5)


@every
def test_rows_are_distributions_and_epsilon_is_exact(channel):
    matrix = channel.matrix
    assert matrix.shape == (channel.letters, channel.letters)
    assert matrix.dtype == torch.float64
    assert float(matrix.min()) > 0
    assert torch.allclose(matrix.sum(1), torch.ones(channel.letters, dtype=torch.float64), atol=1e-14)
    exact = by_brute_force(matrix)
    assert channel.epsilon == pytest.approx(exact, rel=1e-12)
    assert exact <= channel.target * (1 + 1e-12)
    assert exact >= channel.target * (1 - 1e-9)  # nothing of the target is left unused


@pytest.mark.parametrize("kind", CHANNELS.values())
def test_epsilon_keeps_to_its_target_over_a_grid(kind):
    for letters, target in itertools.product((2, 3, 8, 33), (0.05, 0.5, 3.0, 12.0)):
        found = by_brute_force(kind(letters, target).matrix)
        assert target * (1 - 1e-6) <= found <= target * (1 + 1e-9)


def test_what_float64_rounds_to_certainty_has_no_epsilon():
    assert RandomizedResponse(4, 600.0).epsilon == math.inf
    assert SubsetSelection(4, 800.0).epsilon == math.inf


def frequencies(channel: Channel, noise, each: int = 20_000) -> torch.Tensor:
    letters = torch.arange(channel.letters).repeat(each)
    answers = channel.sample(letters, noise)
    assert answers.dtype == torch.int64
    counts = torch.zeros(channel.letters, channel.letters, dtype=torch.float64)
    counts.index_put_((letters, answers), torch.ones(len(letters), dtype=torch.float64), accumulate=True)
    return counts / each


@every
def test_answers_come_as_often_as_the_matrix_says(channel):
    each = 20_000
    found, said = frequencies(channel, SeededNoise(1, "letters"), each), channel.matrix
    errors = (found - said).abs() / (said * (1 - said) / each).sqrt()
    # An entry strays by six standard errors once in half a billion; beside rare ones, by three answers.
    assert bool(((errors < 6) | ((found - said).abs() * each < 6)).all())


@pytest.mark.parametrize("kind", CHANNELS.values())
def test_so_do_those_of_the_operating_system(kind):
    channel = kind(5, 1.0)
    assert torch.allclose(frequencies(channel, SystemNoise()), channel.matrix, atol=0.025)


@every
def test_answers_are_reproducible_fresh_and_each_records_own(channel):
    letters = (torch.arange(600) % channel.letters).reshape(200, 3)
    first, again, other = (channel.sample(letters, SeededNoise(seed, "letters")) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    stream = SeededNoise(0, "letters")
    assert torch.equal(channel.sample(letters, stream), first)
    assert not torch.equal(channel.sample(letters, stream), first)
    everyone = channel.sample(letters, RecordNoise(0, "letters", records=np.arange(200)))
    few = channel.sample(letters[50:60], RecordNoise(0, "letters", records=np.arange(50, 60)))
    assert torch.equal(everyone[50:60], few)


@every
def test_under_system_entropy_every_answer_takes_its_own_bytes(channel, monkeypatch):
    taken, urandom = [0], os.urandom

    def count(size):
        taken[0] += size
        return urandom(size)

    monkeypatch.setattr(os, "urandom", count)
    channel.sample(torch.zeros(64, 2, dtype=torch.int64), SystemNoise())
    draws = 2 if isinstance(channel, RandomizedResponse) else 1
    assert taken[0] == draws * 8 * 64 * 2
    taken[0] = 0
    channel.sample(torch.zeros(64, 2, dtype=torch.int64), SeededNoise(0, "letters"))
    assert taken[0] == 0


@pytest.mark.parametrize(("letters", "target"), [(2, 0.5), (5, 1.0), (16, 8.0)])
def test_randomized_response_draws_as_label_privacy_always_has(letters, target):
    """The same answers bit for bit, from the same two uniform values each."""
    source = SeededNoise(3, "labels", "smile")
    labels = torch.arange(999) % letters
    keep = 1 / (1 + (letters - 1) * math.exp(-target))
    true = source.uniform((999,)) < keep
    other = 1 + (source.uniform((999,)) * (letters - 1)).long()
    before = torch.where(true, labels, (labels + other) % letters)
    now = RandomizedResponse(letters, target).sample(labels, SeededNoise(3, "labels", "smile"))
    assert torch.equal(now, before)


def test_the_lowest_and_the_highest_uniform_value_give_letters():
    class Ends:
        kind = "seeded"

        def uniform(self, shape):
            return torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64).repeat(shape[0] // 2)

    for channel in CASES:
        answers = channel.sample(torch.arange(channel.letters).repeat_interleave(2), Ends())
        assert 0 <= int(answers.min()) <= int(answers.max()) < channel.letters


@every
def test_utilities_are_their_definitions(channel):
    count = channel.letters
    prior = torch.arange(1, count + 1, dtype=torch.float64)
    prior /= prior.sum()
    rows = channel.matrix.tolist()
    out = [sum(float(p) * row[j] for p, row in zip(prior, rows, strict=True)) for j in range(count)]
    cells = [(float(prior[i]), rows[i][j], out[j], abs(i - j)) for i in range(count) for j in range(count)]
    bits = sum(p * q * math.log2(q / o) for p, q, o, _ in cells)
    assert channel.mutual_information(3 * prior) == pytest.approx(bits, abs=1e-12)
    assert channel.expected_distance(prior) == pytest.approx(sum(p * q * far for p, q, _, far in cells))


def test_each_channel_has_its_own_ground():
    """Many letters at a small epsilon, letters with an order at a middle one, any at a high one."""

    def told(letters, target):
        return [kind(letters, target).mutual_information() for kind in CHANNELS.values()]

    def missed(letters, target):
        return [kind(letters, target).expected_distance() for kind in CHANNELS.values()]

    response, subset, geometric = told(16, 1.0)
    assert subset > 2 * response > geometric
    response, subset, geometric = missed(128, 6.0)
    assert geometric < 0.9 * subset < 0.6 * response
    assert told(16, 8.0)[1] == pytest.approx(told(16, 8.0)[0])  # a window of one letter is its response
    assert missed(16, 8.0)[2] == pytest.approx(missed(16, 8.0)[0])


@pytest.mark.parametrize(("letters", "target"), [(16, 1.0), (9, 2.0), (40, 0.5), (5, 6.0)])
def test_the_chosen_window_tells_most(letters, target):
    chosen = SubsetSelection(letters, target)
    widths = [SubsetSelection(letters, target, width).mutual_information() for width in range(1, letters)]
    assert chosen.mutual_information() == pytest.approx(max(widths))
    assert chosen.favored == 1 + int(np.argmax(np.round(widths, 12)))


def test_windows_lie_around_their_letter():
    favored = SubsetSelection(7, 3.0, width=3).matrix > 1 / 7
    assert favored[3].nonzero().flatten().tolist() == [2, 3, 4]
    assert favored[0].nonzero().flatten().tolist() == [0, 1, 6]


def test_the_geometric_channel_falls_with_the_distance_and_ends_in_a_floor():
    row = TruncatedGeometric(9, 3.0, reach=3).matrix[0]
    steps = (row[:-1] / row[1:]).log()
    assert torch.allclose(steps[:3], steps[:1].expand(3))
    assert float(steps[0]) > 0.5
    assert torch.allclose(steps[3:], torch.zeros(5, dtype=torch.float64), atol=1e-12)
    one_step, response = TruncatedGeometric(9, 3.0, reach=1).matrix, RandomizedResponse(9, 3.0).matrix
    assert torch.allclose(one_step, response)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomizedResponse(1, 1.0), "at least 2"),
        (lambda: RandomizedResponse(2.0, 1.0), "integer"),
        (lambda: RandomizedResponse(True, 1.0), "integer"),
        (lambda: SubsetSelection(4, 0.0), "above 0"),
        (lambda: SubsetSelection(4, math.nan), "above 0"),
        (lambda: RandomizedResponse(4, math.inf), "finite"),
        (lambda: SubsetSelection(4, 1.0, width=4), r"\[1, 3\]"),
        (lambda: TruncatedGeometric(4, 1.0, reach=0), r"\[1, 3\]"),
        (lambda: TruncatedGeometric(ORDERED_MOST + 1, 1.0), "at most 256"),
        (lambda: build_channel("gaussian", 4, 1.0), "randomized_response, subset_selection"),
        (lambda: RandomizedResponse(4, 1.0).sample(torch.tensor([4]), SystemNoise()), r"\[0, 4\)"),
        (lambda: SubsetSelection(4, 1.0).sample(torch.tensor([-1]), SystemNoise()), r"\[0, 4\)"),
        (lambda: TruncatedGeometric(4, 1.0).sample(torch.tensor([1.0]), SystemNoise()), "int64"),
    ],
)
def test_what_is_no_channel_or_no_letter_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_nobody_at_all_gets_no_answer():
    for channel in CASES:
        assert channel.sample(torch.zeros(0, 2, dtype=torch.int64), SystemNoise()).shape == (0, 2)
