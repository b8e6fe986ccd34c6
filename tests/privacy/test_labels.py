"""Randomized response on labels: its probabilities, its epsilon, and learning from it."""

from __future__ import annotations

import math

import pytest
import torch

from privhier.errors import ConfigError
from privhier.privacy.labels import corrected_cross_entropy, flip_matrix, keep_probability, randomize
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.seeding import torch_stream


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (2.0, 2), (1.0, 5)])
def test_answers_are_as_often_true_as_claimed_and_worth_epsilon(epsilon, classes):
    keep = keep_probability(epsilon, classes)
    assert keep == pytest.approx(math.exp(epsilon) / (math.exp(epsilon) + classes - 1))
    labels = torch.arange(classes).repeat(40_000)
    answers = randomize(labels, epsilon, classes, SeededNoise(0, "labels"))
    counts = torch.zeros(classes, classes).index_put_(
        (labels, answers), torch.ones(len(labels)), accumulate=True
    )
    found = (counts / counts.sum(1, keepdim=True)).double()
    assert torch.allclose(found, flip_matrix(epsilon, classes), atol=0.01)
    matrix = flip_matrix(epsilon, classes)
    assert float((matrix.max(0).values / matrix.min(0).values).log().max()) == pytest.approx(epsilon)


def test_the_operating_systems_answers_are_as_often_true():
    labels = torch.arange(3).repeat(40_000)
    answers = randomize(labels, 1.0, 3, SystemNoise())
    assert float((answers == labels).double().mean()) == pytest.approx(keep_probability(1.0, 3), abs=0.01)
    assert set(answers.tolist()) == {0, 1, 2}


def test_the_same_stream_gives_the_same_answers_and_another_does_not():
    labels = torch.zeros(1000, dtype=torch.int64)
    first, again, other = (randomize(labels, 1.0, 2, SeededNoise(s, "labels")) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_corrected_loss_is_least_at_the_clean_probabilities():
    """Of all constant predictions the best under corrected loss is the clean class share, not the noisy."""
    clean = torch.tensor([0.85, 0.15])
    labels = (torch.arange(100_000) >= 85_000).long()
    answers = randomize(labels, 1.0, 2, SeededNoise(3, "labels"))
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = corrected_cross_entropy(logits.expand(len(answers), 2), answers, flip_matrix(1.0, 2))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(torch.softmax(logits.detach(), 0), clean, atol=0.01)
    noisy = (answers == 0).float().mean()
    assert abs(float(noisy) - 0.85) > 0.05  # an uncorrected loss would end there


def test_without_flips_it_is_cross_entropy():
    logits, labels = torch.randn(7, 3, generator=torch_stream(0, "x")), torch.arange(7) % 3
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.allclose(corrected_cross_entropy(logits, labels, torch.eye(3)), plain)


@pytest.mark.parametrize(("epsilon", "classes"), [(0.0, 2), (-1.0, 2), (math.inf, 2), (1.0, 1)])
def test_refusals(epsilon, classes):
    with pytest.raises(ConfigError):
        keep_probability(epsilon, classes)
    with pytest.raises(ConfigError):
        randomize(torch.tensor([3]), 1.0, 2, SeededNoise(0))
