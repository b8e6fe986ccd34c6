import numpy as np
import torch
from torch import nn

from privhier.attacks.parts.fitting import FitPlan, count_macs, fit
from privhier.attacks.parts.nets import stack_releases, trunk


def test_releases_become_channels_beside_their_mean():
    releases = np.random.default_rng(0).standard_normal((5, 3, 4, 6, 6)).astype(np.float32)
    stacked = stack_releases(releases)
    assert stacked.shape == (5, 16, 6, 6)
    assert np.array_equal(stacked[:, 4:8], releases[:, 1])
    np.testing.assert_allclose(stacked[:, 12:], releases.mean(axis=1), atol=1e-6)
    assert np.shares_memory(stack_releases(releases[:, :1]), releases)


def test_costs_are_counted():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert count_macs(network, torch.zeros(2, 3, 8, 8)) == 16 * 8 * 27 + 5 * 128
    assert network.training


def test_the_trunk_takes_any_map():
    for channels, size in ((3, 3), (16, 12), (3, 48), (3, 112), (200, 7)):
        layers, features = trunk(channels, size, 8)
        assert nn.Sequential(*layers)(torch.zeros(2, channels, size, size)).shape == (2, features)


def test_the_best_epoch_is_kept_not_the_last():
    network = nn.Linear(2, 1)
    seen, scores = [], iter([0.1, 0.9, 0.3, 0.2, 0.8])

    def score():
        seen.append(network.weight.detach().clone())
        return next(scores)

    best, epoch = fit(
        network,
        FitPlan(epochs=5, batch=4, learning_rate=0.1, weight_decay=0.0, patience=3),
        records=8,
        loss=lambda _epoch, positions: (network(torch.ones(len(positions), 2)) - 3).pow(2).mean(),
        score=score,
        generator=torch.Generator().manual_seed(0),
    )
    assert (best, epoch) == (0.9, 2)
    assert torch.equal(network.weight, seen[1])
    assert not torch.equal(network.weight, seen[-1])
    assert not network.training
