"""Channel pruning: per record, chosen by the task and against the secret, and who is trained by what."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from privhier.config import Choice, ModelConfig
from privhier.defenses.base import DefenseBatch, build_defense, task_loss_per_record
from privhier.defenses.disco import ChannelPruner, Disco, gain_over_shares
from privhier.errors import ConfigError
from privhier.models.network import build_network
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.private_plan import check_defense

C = 4


def pruner(keep: int = 2, *, channels: int = C) -> ChannelPruner:
    with isolated_rng(0, "pruner"):
        return ChannelPruner(channels, keep, 8)


def test_every_record_keeps_its_own_channels_untouched():
    draw = torch_stream(0, "x")
    x = torch.randn(64, C, 3, 3, generator=draw) + 3 * torch.randn(64, C, 1, 1, generator=draw)
    z = pruner()(x)
    kept = (z != 0).all(dim=(2, 3))
    assert ((z == 0).all(dim=(2, 3)) ^ kept).all()
    assert (kept.sum(1) == 2).all()
    assert torch.equal(z[kept], x[kept])
    assert len(kept.unique(dim=0)) > 1  # not one choice for all
    assert torch.equal(z[5:6], pruner()(x[5:6]))
    assert int((pruner(3)(torch.zeros(2, C, 3, 3) + 1) != 0).all(dim=(2, 3)).sum()) == 6


def test_a_channel_that_is_off_still_learns_whether_it_should_be():
    outlet, x = pruner(), torch.randn(8, C, 3, 3, generator=torch_stream(0, "x"))
    (outlet(x) * torch.randn(8, C, 3, 3, generator=torch_stream(0, "g"))).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in outlet.parameters())
    assert (outlet.scorer[2].bias.grad != 0).all()


def test_what_keeps_everything_is_refused():
    for keep, channels in ((0.9, 3), (0.5, 1), (0.2, 1)):
        with pytest.raises(ConfigError, match=rf"defense\.options\.keep: {keep} - keeps {channels} of"):
            build_defense(Choice(name="disco", options={"keep": keep})).outlet((channels, 4, 4))
    assert build_defense(Choice(name="disco", options={"keep": 0.01})).outlet((9, 4, 4)).keep == 1


def whole_edge():
    config = ModelConfig(bottleneck={"kind": "channels", "size": C}, exit_hidden=8)
    edge, _ = build_network(
        config, image_size=24, task_classes={"a": 2}, sensitive_classes={"b": 2, "c": 3}, seed=0
    )
    edge.outlet = pruner()
    return edge


def gradients(loss) -> tuple[Tensor, Tensor]:
    """Of trunk and scorer, in one backward of the mean."""
    edge, draw = whole_edge(), torch_stream(0, "batch")
    z = edge.features(torch.randn(32, 3, 24, 24, generator=draw))
    labels = [torch.randint(0, k, (32,), generator=draw) for k in (2, 2, 3)]
    loss(DefenseBatch(z=z, task_labels=labels[:1], sensitive_labels=labels[1:], edge=edge)).mean().backward()
    return tuple(
        torch.cat([p.grad.flatten() for p in part.parameters()]) for part in (edge.trunk, edge.outlet)
    )


def trains_the_scorer_alone(defense: Disco) -> bool:
    """Whether the term against the secret moves the scorer by its own gradient, and the trunk not at all."""
    weight = defense.options.weight
    trunk, _ = gradients(task_loss_per_record)
    _, full = gradients(lambda batch: task_loss_per_record(batch) + weight * gain_over_shares(batch, None))
    own_trunk, own_scorer = gradients(defense.loss)
    return torch.allclose(own_trunk, trunk, atol=1e-6) and torch.allclose(own_scorer, full, atol=1e-6)


def test_the_scorer_alone_is_trained_against_the_secret():
    defense = build_defense(Choice(name="disco", options={"weight": 2.0}))
    _, scorer = gradients(task_loss_per_record)
    _, own = gradients(defense.loss)
    assert (own - scorer).norm() > 0.05 * scorer.norm()
    assert trains_the_scorer_alone(defense)


def test_sabotage_a_term_that_reaches_the_trunk_or_helps_the_adversary():
    class Whole(Disco):
        def loss(self, batch: DefenseBatch) -> Tensor:
            learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
            return learning + self.options.weight * gain_over_shares(batch, None)

    class Helping(Disco):
        def loss(self, batch: DefenseBatch) -> Tensor:
            return super().loss(batch) - 2 * self.options.weight * gain_over_shares(batch, None)

    assert not trains_the_scorer_alone(Whole())
    assert not trains_the_scorer_alone(Helping())


def test_nothing_is_won_beyond_guessing():
    logits = torch.tensor([[9.0, 0], [0, 9], [0, 0], [1, 0]])
    edge = SimpleNamespace(adversary_logits=lambda z: [logits])
    labels = [torch.tensor([0, 0, 1, -1])]
    batch = DefenseBatch(z=logits, task_labels=[], sensitive_labels=labels, edge=edge)
    certain, wrong, guessing, unknown = gain_over_shares(batch, None).tolist()
    assert certain == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    assert (wrong, unknown) == (0.0, 0.0)
    assert guessing == pytest.approx(0.0, abs=1e-6)


def test_what_counts_is_beyond_the_classes_shares_among_the_training_records():
    """An exit that says the shares gains nothing of any class, of a rare one as little as of a common one."""
    edge = whole_edge()
    defense = build_defense(Choice(name="disco"))
    defense.attach(edge)
    secrets = [torch.tensor([0] * 90 + [1] * 10), torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [-1] * 5)]
    data = SimpleNamespace(sensitive_labels=secrets, sensitive_classes=[2, 3])
    defense.begin(edge, data)
    shares = [torch.tensor([0.9, 0.1]), torch.tensor([50, 30, 15]) / 95]
    said = [share.log().expand(6, -1) for share in shares]
    labels = [torch.tensor([0, 1, 0, 1, 0, -1]), torch.tensor([0, 1, 2, 2, 1, 0])]

    def gains(logits: list[Tensor]) -> list[float]:
        still = SimpleNamespace(adversary_logits=lambda z: logits)
        batch = DefenseBatch(z=said[0], task_labels=[], sensitive_labels=labels, edge=still)
        return gain_over_shares(batch, defense.shares).tolist()

    assert gains(said) == pytest.approx([0.0] * 6, abs=1e-6)
    more = said[0].clone()
    more[:, 1] += 2.0  # leans to the rare class, which is still not the likelier one
    found = gains([more, said[1]])
    of_rare = float(torch.log_softmax(more, 1)[1, 1] - shares[0][1].log())
    assert found == pytest.approx([0, of_rare, 0, of_rare, 0, 0], abs=1e-6)
    assert 0 < math.exp(of_rare) * 0.1 < 0.5  # log K would have said: nothing gained


def test_the_secrets_channel_is_pruned_and_the_tasks_is_kept():
    defense = build_defense(Choice(name="disco", options={"weight": 3.0}))
    outlet, draw = pruner(), torch_stream(0, "toy")
    with isolated_rng(0, "exits"):
        task, secret = (nn.Linear(C, 2) for _ in range(2))
    edge = SimpleNamespace(
        outlet=outlet,
        task_logits=lambda z: [task(z.mean(dim=(2, 3)))],
        adversary_logits=lambda z: [secret(z.mean(dim=(2, 3)))],
    )

    def records(n: int) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randn(n, C, 2, 2, generator=draw)
        labels = torch.randint(0, 2, (2, n), generator=draw)
        x[:, :2] = 0.3 * x[:, :2] + (2 * labels.T - 1)[:, :, None, None]  # channel 0: task, 1: secret
        return x, labels[0], labels[1]

    optimizer = torch.optim.Adam([*outlet.parameters(), *task.parameters(), *secret.parameters()], lr=0.02)
    for _ in range(250):
        x, y, s = records(128)
        batch = DefenseBatch(z=outlet(x), task_labels=[y], sensitive_labels=[s], edge=edge)
        optimizer.zero_grad()
        defense.loss(batch).mean().backward()
        optimizer.step()
    x, y, s = records(2000)
    before, after = pruner().mask(x).detach().mean(0), outlet.mask(x).detach().mean(0)
    assert before[1] > 0.3
    assert after[1] < 0.1
    assert after[0] > 0.9
    released = outlet(x).detach().mean(dim=(2, 3)).numpy()
    for labels, low, high in ((y, 0.95, 1.0), (s, 0.0, 0.65)):
        fresh = LogisticRegression().fit(released[:1000], labels[:1000].numpy())
        assert low <= fresh.score(released[1000:], labels[1000:].numpy()) <= high


def test_it_is_refused_without_a_map_and_under_dp_sgd(small_config):
    def check(kind: str, **more) -> None:
        model = {"bottleneck": {"kind": kind, "size": 4}}
        config = small_config(epochs=(1, 0, 1), model=model, defense={"name": "disco"}, **more)
        check_defense(config, build_defense(config.defense))

    check("channels")
    with pytest.raises(ConfigError, match="must keep the map"):
        check("dimension")
    with pytest.raises(ConfigError, match="learns from private records"):
        check("channels", edge={"dp_sgd": {"noise_multiplier": 1.0}})
