"""Both halves built from a configuration."""

import pytest
import torch

from privhier.config import ModelConfig
from privhier.errors import CheckpointError, ConfigError, UnknownNameError
from privhier.models.backbones import build_backbone
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.models.weights import load_weights, save_weights

TASKS = {"gender": 2, "bin(age, 20, 40, 60)": 4}
SENSITIVE = {"race==0": 2, "race": 5}


def build(seed: int = 0, image_size: int = 48, **model: object) -> tuple[EdgeSegment, CloudTail]:
    return build_network(
        ModelConfig(**model),
        image_size=image_size,
        task_classes=TASKS,
        sensitive_classes=SENSITIVE,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("model", "release_shape"),
    [
        ({}, (32, 12, 12)),
        ({"cut": "stage4"}, (64, 3, 3)),
        ({"bottleneck": {"kind": "dimension", "size": 8}}, (8,)),
        ({"bottleneck": {"kind": "channels", "size": 16}}, (16, 12, 12)),
        ({"backbone": "resnet18", "cut": "layer1", "exit_hidden": 0}, (64, 24, 24)),
    ],
)
def test_shapes(model: dict[str, object], release_shape: tuple[int, ...]) -> None:
    edge, tail = build(**model)
    z = edge.features(torch.randn(3, 3, 48, 48))
    assert edge.release_shape == release_shape
    assert z.shape == (3, *release_shape)
    assert [logits.shape for logits in edge.task_logits(z)] == [(3, 2), (3, 4)]
    assert [logits.shape for logits in edge.adversary_logits(z)] == [(3, 2), (3, 5)]
    assert [logits.shape for logits in tail(z)] == [(3, 2), (3, 4)]
    assert edge.task_names == tuple(TASKS)
    assert edge.sensitive_names == tuple(SENSITIVE)


def test_resnet_small_stem_at_64_pixels_keeps_32_by_32_after_layer1() -> None:
    assert build(image_size=64, backbone="resnet18", cut="layer1")[0].release_shape == (64, 32, 32)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = build(0), build(0), build(1)
    assert torch.equal(torch.get_rng_state(), before)
    for one, two, three in zip(first, second, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


def test_a_bottleneck_or_another_exit_changes_no_other_initial_weight() -> None:
    """References differ from the protected network in what was asked for, not in luck."""
    wide, _ = build()
    narrow, _ = build(bottleneck={"kind": "dimension", "size": 8})
    assert all(
        torch.equal(a, b) for a, b in zip(wide.trunk.parameters(), narrow.trunk.parameters(), strict=True)
    )
    single, _ = build_network(
        ModelConfig(), image_size=48, task_classes=TASKS, sensitive_classes={"race": 5}, seed=0
    )
    for a, b in zip(
        single.adversarial_exits[0].parameters(), wide.adversarial_exits[1].parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_description_is_plain_and_counts_every_parameter() -> None:
    edge, _ = build(bottleneck={"kind": "dimension", "size": 8})
    description = edge.describe()
    assert description["cut"] == "stage2"
    assert description["feature_shape"] == [32, 12, 12]
    assert description["release_shape"] == [8]
    assert description["weights"] == {"path": "none", "sha256": "", "dropped": []}
    assert sum(description["parameters"].values()) == sum(p.numel() for p in edge.parameters())


def test_unknown_names_and_small_images() -> None:
    with pytest.raises(UnknownNameError, match=r"model\.backbone: 'resnet81'.*Did you mean resnet18"):
        build(backbone="resnet81")
    with pytest.raises(
        UnknownNameError, match=r"model\.cut: 'stage9'.*Known: stage1, stage2, stage3, stage4"
    ):
        build(cut="stage9")
    with pytest.raises(ConfigError, match=r"dataset\.image_size: 16 - is too small.*'block5'"):
        build_backbone("vgg11", n_outputs=2, image_size=16)


def test_measuring_shapes_leaves_statistics_and_modes_alone() -> None:
    backbone = build_backbone("small_cnn", n_outputs=2, image_size=32, norm="batch")
    norm = backbone.stages["stage1"][1]
    assert norm.num_batches_tracked == 0
    assert all(module.training for module in backbone.modules())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_weights_survive_the_round_trip(tmp_path, norm: str) -> None:
    trained, fresh = build(0, norm=norm), build(1, norm=norm)
    x = torch.randn(4, 3, 48, 48)
    trained[0].features(x)  # moves BatchNorm's statistics
    for name, one, two in zip(("edge", "tail"), trained, fresh, strict=True):
        save_weights(one, tmp_path / f"{name}.safetensors")
        load_weights(two, tmp_path / f"{name}.safetensors")
        one.eval()
        two.eval()
    z = trained[0].features(x)
    assert torch.equal(fresh[0].features(x), z)
    assert all(torch.equal(a, b) for a, b in zip(trained[1](z), fresh[1](z), strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edge.safetensors", "tail.safetensors"]


def test_weights_of_another_network_change_nothing(tmp_path) -> None:
    save_weights(build(0)[0], tmp_path / "edge.safetensors")
    other = build(0, exit_hidden=32)[0]
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(
        CheckpointError, match=r"must fit the configured network; \d+ tensors do not, e\.g\. "
    ):
        load_weights(other, tmp_path / "edge.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 10])
def test_missing_and_damaged_weights(tmp_path, content: bytes | None) -> None:
    path = tmp_path / "edge.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"edge\.safetensors.*cannot be read"):
        load_weights(build(0)[0], path)


def test_a_crash_while_saving_keeps_the_old_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edge.safetensors"
    edge = build(0)[0]
    save_weights(edge, path)
    before = path.read_bytes()

    def crash(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("privhier.storage.files.os.fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_weights(build(1)[0], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["edge.safetensors"]


def test_edge_and_tail_learn_together_without_a_gradient_across_the_cut() -> None:
    """A few joint steps on an easy task: both the early exit and the tail learn it."""
    edge, tail = build_network(
        ModelConfig(bottleneck={"kind": "dimension", "size": 4}),
        image_size=32,
        task_classes={"bright": 2},
        sensitive_classes={"other": 2},
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (48,), generator=generator)
    images = torch.randn(48, 3, 32, 32, generator=generator) + (labels - 0.5)[:, None, None, None]
    optimizer = torch.optim.Adam([*edge.parameters(), *tail.parameters()], lr=3e-3)
    history = []
    for _ in range(20):
        z = edge.features(images)
        losses = [
            torch.nn.functional.cross_entropy(logits[0], labels)
            for logits in (edge.task_logits(z), tail(z.detach()))
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        history.append([loss.item() for loss in losses])
    assert history[-1][0] < 0.5 * history[0][0]
    assert history[-1][1] < 0.5 * history[0][1]
