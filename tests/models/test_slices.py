"""A batch in slices: the same numbers but for last digits, and never where records would mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from privhier.models import slices
from privhier.models.backbones import build_backbone
from privhier.models.slices import FEWEST, in_slices, slice_size
from privhier.seeding import isolated_rng, torch_stream

RECORD = torch.zeros(1, 3, 32, 32)


def layers(norm: str = "group") -> nn.Sequential:
    with isolated_rng(0, "slices"):
        backbone = build_backbone("small_cnn", n_outputs=2, image_size=32, norm=norm)
    return nn.Sequential(*list(backbone.stages.values())[:2])


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch_stream(0, "slices"))


@pytest.mark.parametrize(("count", "wanted"), [(5, [5]), (8, [8]), (9, [5, 4]), (21, [7, 7, 7])])
def test_slices_are_alike_and_none_is_larger_than_asked(count, wanted):
    net, seen = layers(), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    x = images(count)
    torch.testing.assert_close(in_slices(net, x, 8), net(x), rtol=1e-5, atol=1e-6)
    assert seen[:-1] == wanted


def test_the_weights_gradients_are_those_of_the_whole_batch():
    net, x = layers(), images(20)
    found = [torch.autograd.grad(in_slices(net, x, size).cos().sum(), net.parameters()) for size in (None, 8)]
    for whole, sliced in zip(*found, strict=True):
        torch.testing.assert_close(sliced, whole, rtol=1e-4, atol=1e-4)


def test_the_wider_the_map_the_smaller_the_slice(monkeypatch):
    net = layers().train()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    widest = 4 * 24 * 16 * 16  # bytes of the first stage's map
    monkeypatch.setattr(slices, "BYTES", 100 * widest)
    assert slice_size(net, RECORD) == 96
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert slice_size(net, RECORD) == 200
    monkeypatch.setattr(slices, "BYTES", widest)
    assert slice_size(net, RECORD) == 2 * FEWEST
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_layers_that_mix_records_or_draw_by_position_take_the_batch_whole():
    assert slice_size(layers("batch"), RECORD) is None
    assert slice_size(nn.Sequential(layers(), nn.Dropout(0.5)), RECORD) is None
    assert slice_size(nn.Sequential(layers(), nn.Dropout(0.0)), RECORD) is not None
    assert slice_size(layers(), RECORD.to("meta")) is None
