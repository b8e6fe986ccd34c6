"""Shapes, linearity and limits of the bottleneck and its expander; the exits on what it releases."""

import pytest
import torch
from torch import nn

from privhier.config import BottleneckConfig
from privhier.errors import ConfigError
from privhier.models.bottleneck import build_bottleneck
from privhier.models.exits import Exit


@pytest.mark.parametrize("feature_shape", [(32, 12, 12), (24, 3, 3), (16, 7, 7), (8, 1, 1), (64, 32, 32)])
@pytest.mark.parametrize(
    ("kind", "size", "expected"), [("none", None, None), ("dimension", 5, (5,)), ("channels", 4, (4,))]
)
def test_shapes_there_and_back(
    feature_shape: tuple[int, int, int], kind: str, size: int | None, expected: tuple[int, ...] | None
) -> None:
    bottleneck, expander, release_shape = build_bottleneck(
        BottleneckConfig(kind=kind, size=size), feature_shape
    )
    features = torch.randn(3, *feature_shape)
    release = bottleneck(features)
    assert tuple(release.shape[1:]) == release_shape
    if kind == "none":
        assert release is features
        assert release_shape == feature_shape
    elif kind == "dimension":
        assert release_shape == expected
    else:
        assert release_shape == (4, *feature_shape[1:])
    assert expander(release).shape == features.shape


@pytest.mark.parametrize(("kind", "size"), [("dimension", 6), ("channels", 3)])
def test_bottleneck_is_affine(kind: str, size: int) -> None:
    """No activation: a one-sided release would waste half of the ball it is clipped to."""
    bottleneck, _, _ = build_bottleneck(BottleneckConfig(kind=kind, size=size), (16, 9, 9))
    a, b = torch.randn(2, 1, 16, 9, 9)
    middle = bottleneck((a + b) / 2)
    assert torch.allclose(middle, (bottleneck(a) + bottleneck(b)) / 2, atol=1e-5)
    assert not torch.allclose(bottleneck(torch.zeros_like(a)), torch.zeros(()))


@pytest.mark.parametrize(
    ("kind", "fits", "too_large"), [("channels", 16, 17), ("dimension", 16 * 16, 16 * 16 + 1)]
)
def test_a_bottleneck_must_narrow(kind: str, fits: int, too_large: int) -> None:
    build_bottleneck(BottleneckConfig(kind=kind, size=fits), (16, 8, 8))
    with pytest.raises(ConfigError, match=rf"model\.bottleneck\.size: {too_large} - must be at most {fits}"):
        build_bottleneck(BottleneckConfig(kind=kind, size=too_large), (16, 8, 8))


@pytest.mark.parametrize("release_shape", [(8,), (64, 32, 32), (3, 12, 12), (4, 7, 7), (5, 1, 1)])
@pytest.mark.parametrize("hidden", [0, 6, 64])
def test_exit_shapes(release_shape: tuple[int, ...], hidden: int) -> None:
    head = Exit(release_shape, 7, hidden)
    assert head(torch.randn(2, *release_shape)).shape == (2, 7)
    is_linear = not any(isinstance(module, nn.ReLU) for module in head.modules())
    assert is_linear is (hidden == 0)


def test_exit_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        Exit((8,), 1, 0)
