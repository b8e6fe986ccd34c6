"""Optimizers: torch's own formulas, in one kernel a step, also for a checkpoint from before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from privhier.config import OptimizerConfig
from privhier.seeding import isolated_rng, stream_seed
from privhier.training.optimize import build_optimizer


def parameters() -> list[nn.Parameter]:
    with isolated_rng(0, "optimize"):
        return [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,))]


def plain(values: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(
            values, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, foreach=False
        )
    return torch.optim.AdamW(values, config.lr, weight_decay=config.weight_decay, foreach=False)


def steps(values: list[nn.Parameter], optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        sum(value.sin().sum() for value in values).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_fused_steps_are_the_plain_ones_also_after_a_plain_checkpoint(name):
    config = OptimizerConfig(name=name, lr=0.05)
    ours, theirs = parameters(), parameters()
    fused, slow = build_optimizer(ours, config), plain(theirs, config)
    assert fused.param_groups[0]["fused"]
    steps(ours, fused, 5)
    steps(theirs, slow, 5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    fused.load_state_dict(copy.deepcopy(slow.state_dict()))
    for a, b in zip(ours, theirs, strict=True):
        a.data.copy_(b.data)
    steps(ours, fused, 3)
    steps(theirs, slow, 3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_isolated_block_draws_what_torchs_own_seeding_draws_and_puts_the_state_back():
    before = torch.get_rng_state()
    with isolated_rng(3, "a", 1):
        ours = torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(3, "a", 1))
        assert torch.equal(torch.randn(5), ours)
