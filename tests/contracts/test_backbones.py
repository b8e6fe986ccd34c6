"""What every backbone must do, whatever its family. A new backbone is one row: its stages."""

import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from privhier.errors import UnknownNameError
from privhier.models.backbones import StagedBackbone, backbones, build_backbone
from privhier.models.split import split_backbone
from privhier.seeding import isolated_rng

STAGES = {
    "efficientnet_b0": ("stem", *(f"stage{index}" for index in range(1, 8)), "top"),
    "mobilenet_v3_small": ("stem", "stage1", "stage2", "stage3", "stage4", "top"),
    "resnet18": ("stem", "layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("stem", "layer1", "layer2", "layer3", "layer4"),
    "small_cnn": ("stage1", "stage2", "stage3", "stage4"),
    "vgg11": ("block1", "block2", "block3", "block4", "block5"),
    "vgg16": ("block1", "block2", "block3", "block4", "block5"),
}
N_OUTPUTS = 5
VARIANTS = [("group", "small"), ("batch", "torchvision")]
CASES = [(name, norm, stem) for name in STAGES for norm, stem in VARIANTS]
# BatchNorm mixes records in training mode, and DP-SGD refuses it: some promises are GroupNorm's alone.
group_norm_only = pytest.mark.parametrize(
    "backbone", [case for case in CASES if case[1] == "group"], indirect=True, ids="-".join
)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def backbone(request: pytest.FixtureRequest) -> StagedBackbone:
    name, norm, stem = request.param
    with isolated_rng(0, "test"):
        built = build_backbone(name, n_outputs=N_OUTPUTS, image_size=32, norm=norm, stem=stem)
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics other than 0 and 1, as after training
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    built.name, built.norm = name, norm
    return built.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_registered_backbone_has_a_row() -> None:
    assert backbones.names() == sorted(STAGES)


def test_stage_names(backbone: StagedBackbone) -> None:
    assert backbone.stage_names == STAGES[backbone.name]


@torch.no_grad()
def test_edge_then_tail_is_the_whole_network_at_every_cut(
    backbone: StagedBackbone, images: torch.Tensor
) -> None:
    whole = backbone(images)
    assert whole.shape == (2, N_OUTPUTS)
    assert whole.std() > 0
    for cut in backbone.stage_names:
        trunk, tail = split_backbone(backbone, cut)
        features = trunk(images)
        assert tuple(features.shape[1:]) == backbone.feature_shapes[cut]
        assert torch.equal(tail(features), whole)
        shared = {id(parameter) for part in (trunk, tail) for parameter in part.parameters()}
        assert shared == {id(parameter) for parameter in backbone.parameters()}


def test_unknown_cut_names_the_nearest(backbone: StagedBackbone) -> None:
    last = backbone.stage_names[-1]
    with pytest.raises(UnknownNameError, match=rf"model\.cut: '{last}x' .* Did you mean {last}"):
        split_backbone(backbone, f"{last}x")


def test_only_the_norm_that_was_asked_for(backbone: StagedBackbone) -> None:
    kinds = {
        type(m) for m in backbone.modules() if isinstance(m, nn.GroupNorm | nn.modules.batchnorm._BatchNorm)
    }
    assert kinds == {nn.GroupNorm if backbone.norm == "group" else nn.BatchNorm2d}


@group_norm_only
def test_forward_draws_nothing_and_ignores_other_records(
    backbone: StagedBackbone, images: torch.Tensor
) -> None:
    """Under GroupNorm a record's output depends on that record alone, in training mode too."""
    backbone.train()
    before = torch.get_rng_state()
    with torch.no_grad():
        together, alone = backbone(images), backbone(images[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(together[:1], alone, atol=1e-4)
    backbone.eval()


@group_norm_only
def test_per_sample_gradients_are_possible(backbone: StagedBackbone, images: torch.Tensor) -> None:
    """Opacus' hooks refuse BatchNorm and anything in place; per-sample gradients sum to the batch's."""
    wrapped = GradSampleModule(backbone.train(), loss_reduction="sum")
    try:
        # Images that require grad: else torch warns that the first hook sees no input gradient.
        wrapped(images.clone().requires_grad_()).logsumexp(1).sum().backward()
        for parameter in wrapped.parameters():
            assert torch.allclose(parameter.grad_sample.sum(0), parameter.grad, rtol=1e-2, atol=1e-4)
    finally:
        wrapped.to_standard_module().eval()
        backbone.zero_grad()
        for parameter in backbone.parameters():
            parameter.grad_sample = None
