"""Channels last: the same numbers but for last digits, the same parameters, nothing seen from outside."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from privhier.models.backbones import build_backbone
from privhier.models.layout import ChannelsLastGroupNorm, pays, use_channels_last
from privhier.seeding import isolated_rng, torch_stream

CPU = torch.device("cpu")
SHAPES = [(3, 24, 12, 12), (2, 8, 5, 7), (1, 4, 1, 9), (4, 6, 2, 2)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_stream(0, "layout"))


def gradients(layers: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layers(x)
    return [y.detach(), *torch.autograd.grad((y * y.cos()).sum(), [x, *layers.parameters()])]


def trunk(name: str, stages: int) -> nn.Sequential:
    with isolated_rng(0, "layout"):
        backbone = build_backbone(name, n_outputs=2, image_size=32)
    return nn.Sequential(*list(backbone.stages.values())[:stages])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_is_torchs_own(shape):
    plain = nn.GroupNorm(2, shape[1])
    fast = ChannelsLastGroupNorm(2, shape[1])
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        theirs.data = drawn(shape[1]) + 2
        ours.data = theirs.data.clone()
    x = 3 * drawn(*shape) + 5  # far from 0: where sums of squares would lose their digits
    last = x.contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(gradients(fast, last), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert fast(last).is_contiguous(memory_format=torch.channels_last)


def test_the_norm_gives_back_what_it_cannot_do_faster():
    fast, plain = ChannelsLastGroupNorm(2, 4), nn.GroupNorm(2, 4)
    for x in (drawn(3, 4), drawn(3, 4, 5), drawn(3, 4, 5, 5)):
        assert torch.equal(fast(x), plain(x))
    bare = ChannelsLastGroupNorm(2, 4, affine=False)
    last = drawn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(bare(last), nn.GroupNorm(2, 4, affine=False)(last))
    assert fast.double()(last.double()).dtype == torch.float64


@pytest.mark.parametrize(("name", "stages"), [("small_cnn", 2), ("resnet18", 2), ("mobilenet_v3_small", 3)])
def test_a_trunk_computes_the_same(name, stages):
    plain = trunk(name, stages)
    fast = copy.deepcopy(plain)
    use_channels_last(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = drawn(4, 3, 32, 32)
    assert fast(x).is_contiguous()
    for ours, theirs in zip(gradients(fast, x), gradients(plain, x), strict=True):
        assert float((ours - theirs).norm()) <= 1e-4 * float(theirs.norm()) + 1e-6


def test_the_convolutions_really_see_channels_last():
    layers = trunk("small_cnn", 2)
    use_channels_last(layers)
    seen = []
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layers(drawn(2, 3, 32, 32))
    assert len(seen) == 4
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    seen.clear()
    layers.eval()(drawn(2, 3, 32, 32))
    assert all(x.is_contiguous() for x in seen)


def test_what_is_evaluated_is_bit_for_bit_what_a_reloaded_network_gives():
    plain = trunk("small_cnn", 2)
    fast = copy.deepcopy(plain)
    use_channels_last(fast)
    x = drawn(4, 3, 32, 32)
    assert torch.equal(fast.eval()(x), plain.eval()(x))


def test_gradients_of_gradients_are_refused_not_wrong():
    layers = trunk("small_cnn", 1)
    use_channels_last(layers)
    x = drawn(2, 3, 32, 32).requires_grad_()
    (first,) = torch.autograd.grad(layers(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_what_was_not_measured_is_not_claimed():
    assert pays("auto", "small_cnn", CPU)
    assert not pays("auto", "small_cnn", torch.device("cuda"))
    assert not pays("auto", "mobilenet_v3_small", CPU)
    assert pays(True, "vgg11", CPU)
    assert not pays(False, "small_cnn", CPU)
