"""The matched filter: three forms of bounded size, the identity at first, what they undo, where it stands."""

from __future__ import annotations

import math

import pytest
import torch

from privhier.config import ModelConfig
from privhier.models.matched_filter import MOST, MatchedFilter
from privhier.models.network import build_network
from privhier.seeding import isolated_rng, torch_stream

FORMS = [((4, 6, 6), 144), ((16, 8, 8), 1024), ((8, 12, 12), 8), ((64, 12, 12), 64), ((64, 64, 64), 1)]
"""Shapes of maps, and how many values are filtered together."""


@pytest.mark.parametrize(("shape", "width"), FORMS)
def test_it_is_the_identity_at_first_and_of_bounded_size(shape, width):
    made = MatchedFilter(shape)
    x = torch.randn(2, *shape, generator=torch_stream(0, "x"))
    assert made.width == width
    assert torch.equal(made(x), x)
    values = math.prod(shape)
    assert sum(p.numel() for p in made.parameters()) <= MOST + 2 * values


def blocks_of(shape: tuple[int, int, int], width: int) -> list[list[tuple[int, int, int]]]:
    """Which values of a map are filtered together, spelled out."""
    channels, height, width_ = shape
    places = [[(c, i, j) for c in range(channels)] for i in range(height) for j in range(width_)]
    flat = [value for place in places for value in place]
    return {len(flat): [flat], channels: places, 1: [[value] for value in flat]}[width]


@pytest.mark.parametrize(("shape", "width"), [((2, 3, 2), 12), ((3, 2, 2), 3), ((2, 2, 3), 1)])
def test_it_is_a_linear_layer_on_every_block_of_values(shape, width, monkeypatch):
    allowed = {12: 144, 3: 36, 1: 12}[width]
    monkeypatch.setattr("privhier.models.matched_filter.MOST", allowed)
    made = MatchedFilter(shape)
    with torch.no_grad(), isolated_rng(0, "weights"):
        for parameter in made.parameters():
            parameter.normal_()
    x = torch.randn(4, *shape, generator=torch_stream(0, "x"))
    found, expected = made(x), torch.zeros(4, *shape)
    for number, block in enumerate(blocks_of(shape, width)):
        inside = torch.stack([x[:, c, i, j] for c, i, j in block], dim=1) * made.gain[number]
        mixed = inside @ made.mixing[number] / width if width > 1 else 0
        outside = inside + mixed + made.bias[number]
        for column, (c, i, j) in enumerate(block):
            expected[:, c, i, j] = outside[:, column]
    assert made.width == width
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("allowed", [48**2, 48 * 3, 48])
def test_it_learns_to_undo_gains_that_differ_by_place(allowed, monkeypatch):
    """By steps of an optimizer, from what arrives: a convolution in its place stays far off."""
    monkeypatch.setattr("privhier.models.matched_filter.MOST", allowed)
    shape, draw = (3, 4, 4), torch_stream(0, "gains")
    gains = torch.randn(shape, generator=draw).mul(0.7).exp()

    def error(reader: torch.nn.Module) -> float:
        optimizer = torch.optim.Adam(reader.parameters(), lr=0.01)
        for _ in range(200):
            x = torch.randn(64, *shape, generator=draw)
            loss = (reader(gains * x) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x = torch.randn(64, *shape, generator=draw)
        return float((reader(gains * x) - x).square().mean().detach())

    with isolated_rng(0, "convolution"):
        plain = torch.nn.Conv2d(shape[0], shape[0], 1)
    assert error(MatchedFilter(shape)) < 0.3 * error(plain)


@pytest.mark.parametrize("kind", [{"kind": "channels", "size": 4}, {"kind": "none"}])
def test_a_tail_with_it_starts_as_the_one_without(kind):
    def built(matched_filter: bool):
        config = ModelConfig.model_validate({"cut": "stage1", "bottleneck": kind})
        sizes = {"task_classes": {"a": 2}, "sensitive_classes": {"b": 2}}
        return build_network(config, image_size=24, seed=3, matched_filter=matched_filter, **sizes)

    (edge, plain), (other, filtered) = built(False), built(True)
    assert isinstance(filtered.expander[0], MatchedFilter)
    assert not any(isinstance(module, MatchedFilter) for module in plain.modules())
    assert all(torch.equal(one, two) for one, two in zip(edge.parameters(), other.parameters(), strict=True))
    release = torch.randn(3, *edge.release_shape, generator=torch_stream(0, "release"))
    assert torch.equal(plain.eval()(release)[0], filtered.eval()(release)[0])


@pytest.mark.parametrize(
    "bottleneck",
    [{"kind": "dimension", "size": 4}, {"kind": "letters", "size": 2, "letters": 4, "fit": "learned"}],
)
def test_vectors_and_letters_begin_with_a_full_layer_as_they_are(bottleneck):
    config = ModelConfig.model_validate({"bottleneck": bottleneck, "matched_filter": True})
    assert not config.filters(shaped=True)
    _, tail = build_network(
        config, image_size=24, task_classes={"a": 2}, sensitive_classes={}, seed=0, matched_filter=True
    )
    assert not any(isinstance(module, MatchedFilter) for module in tail.modules())
