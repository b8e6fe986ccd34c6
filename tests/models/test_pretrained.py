"""Initial weights from files: torchvision's state dicts, strictly, with their provenance."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from privhier.config import ModelConfig
from privhier.errors import ConfigError
from privhier.models.backbones import StagedBackbone, build_backbone
from privhier.models.network import build_network

ORIGINALS = {
    "mobilenet_v3_small": (
        torchvision.models.mobilenet_v3_small,
        {"classifier.3.weight", "classifier.3.bias"},
    ),
    "resnet18": (torchvision.models.resnet18, {"fc.weight", "fc.bias"}),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, {"classifier.1.weight", "classifier.1.bias"}),
}


def load(name: str, path: Path | str, **changes: object) -> StagedBackbone:
    settings = {"n_outputs": 3, "image_size": 32, "norm": "batch", "stem": "torchvision"} | changes
    return build_backbone(name, weights=str(path), **settings)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_loaded_backbone_computes_what_torchvisions_model_computes(
    tmp_path: Path, name: str, suffix: str
) -> None:
    builder, head_keys = ORIGINALS[name]
    original = builder(weights=None, num_classes=10).eval()
    path = tmp_path / f"{name}.{suffix}"
    (torch.save if suffix == "pth" else save_file)(original.state_dict(), path)
    images = torch.randn(2, 3, 64, 64)
    same_head = load(name, path, n_outputs=10, image_size=64).eval()
    assert same_head.provenance.dropped == ()
    with torch.no_grad():
        assert torch.allclose(same_head(images), original(images), atol=1e-5)
    other_head = load(name, path)
    assert set(other_head.provenance.dropped) == head_keys
    assert other_head.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for a, b in zip(other_head.stages.parameters(), same_head.stages.parameters(), strict=True):
        assert torch.equal(a, b)


def test_vgg_drops_torchvisions_classifier(tmp_path: Path) -> None:
    source = build_backbone("vgg11", n_outputs=2, image_size=32, norm="batch")
    state = {}
    index = 0
    for stage in source.stages.values():
        for module in stage:
            state |= {f"features.{index}.{key}": value for key, value in module.state_dict().items()}
            index += 1
    state |= {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "vgg11_bn.pth")
    loaded = load("vgg11", tmp_path / "vgg11_bn.pth")
    assert loaded.provenance.dropped == ("classifier.0.weight", "classifier.0.bias")
    for a, b in zip(loaded.stages.parameters(), source.stages.parameters(), strict=True):
        assert torch.equal(a, b)


def test_provenance_reaches_the_report(resnet_file: Path) -> None:
    config = ModelConfig(
        backbone="resnet18", cut="layer1", norm="batch", stem="torchvision", weights=str(resnet_file)
    )
    edge, _ = build_network(config, image_size=32, task_classes={"t": 2}, sensitive_classes={"s": 2}, seed=0)
    weights = edge.describe()["weights"]
    assert weights["path"] == str(resnet_file)
    assert weights["sha256"] == hashlib.sha256(resnet_file.read_bytes()).hexdigest()
    assert weights["dropped"] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("changes", [{"norm": "group"}, {"stem": "small"}])
def test_weights_need_torchvisions_norm_and_stem(resnet_file: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights: .*norm=batch and model\.stem=torchvision; here"):
        load("resnet18", resnet_file, **changes)


def test_weights_of_another_architecture(resnet_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"not the state dict.*keys missing.*misfits \(e\.g\. layer1"):
        load("resnet50", resnet_file)
    with pytest.raises(ConfigError, match="torchvision has no model of this backbone"):
        load("small_cnn", resnet_file)


def test_missing_file_and_wrong_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights: '.*absent\.pth' - is not a file"):
        load("resnet18", tmp_path / "absent.pth")
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"must end in \.pth"):
        load("resnet18", tmp_path / "weights.bin")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    for content in (b"", b"not tensors at all, just text"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read as tensors"):
            load("resnet18", path)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    fired = tmp_path / "fired"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (fired,)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Payload()}, protocol=2))
    with pytest.raises(ConfigError, match="cannot be read as tensors"):
        load("resnet18", path)
    torch.save({"conv1.weight": Payload()}, path)
    with pytest.raises(ConfigError, match="cannot be read as tensors"):
        load("resnet18", path)
    assert not fired.exists()


def test_checkpoint_around_the_state_dict_and_non_finite_values(tmp_path: Path, resnet_file: Path) -> None:
    state = torch.load(resnet_file, weights_only=True)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="flat mapping of names to tensors"):
        load("resnet18", tmp_path / "a.pth")
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(ConfigError, match=r"non-finite values in conv1\.weight"):
        load("resnet18", tmp_path / "b.pth")
