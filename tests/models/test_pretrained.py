"""Initial weights from files: torchvision's state dicts, strictly, with their provenance."""

import hashlib
import pickle
import re
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from privhier.assessment.lpips_weights import alexnet_state
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


def wrapped(state: dict[str, torch.Tensor], form: str) -> dict[str, torch.Tensor]:
    """The keys that wrappers around a model, or around a part of it, make of a state dict's."""
    if form == "module in the middle":
        return {f"layer1.module{key[6:]}" if key.startswith("layer1") else key: v for key, v in state.items()}
    return {form + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("module.", "pth"),
        ("_orig_mod.", "safetensors"),
        ("_orig_mod.module.", "pth"),
        ("module._orig_mod.", "pth"),
        ("module in the middle", "safetensors"),
    ],
)
def test_what_wrappers_add_to_the_keys_is_taken_off(
    tmp_path: Path, resnet_file: Path, form: str, suffix: str
) -> None:
    state = torch.load(resnet_file, weights_only=True)
    path = tmp_path / f"wrapped.{suffix}"
    (torch.save if suffix == "pth" else save_file)(wrapped(state, form), path)
    loaded, plain = load("resnet18", path), load("resnet18", resnet_file)
    assert set(loaded.provenance.dropped) == set(plain.provenance.dropped) == {"fc.weight", "fc.bias"}
    for a, b in zip(loaded.stages.state_dict().values(), plain.stages.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_one_tensor_under_two_names_is_refused(tmp_path: Path, resnet_file: Path) -> None:
    state = torch.load(resnet_file, weights_only=True)
    torch.save(
        {**wrapped(state, "module."), "_orig_mod.conv1.weight": state["conv1.weight"]}, tmp_path / "w.pth"
    )
    with pytest.raises(ConfigError, match=r"holds conv1\.weight twice"):
        load("resnet18", tmp_path / "w.pth")


def foreign_files(folder: Path, resnet_file: Path) -> dict[str, tuple[Path, str]]:
    """Files that people give for weights, by what they are: each with the words that must be said of it."""
    whole = resnet_file.read_bytes()
    state = torch.load(resnet_file, weights_only=True)
    small = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    save_file(small, folder / "small.safetensors")
    tensors = (folder / "small.safetensors").read_bytes()
    torch.save(small, folder / "old.pth", _use_new_zipfile_serialization=False)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40
    page = b"<!DOCTYPE html>\n<html><title>Not found</title></html>"
    contents: dict[str, tuple[bytes, str]] = {
        "empty.pth": (b"", "empty"),
        "empty.safetensors": (b"", "empty"),
        "page.pth": (page, "web page"),
        "page.safetensors": (b"\xef\xbb\xbf\n " + page.lower(), "web page"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 46\n", "Git LFS"),
        "message.pth": (b'{"message": "Not Found"}', "JSON"),
        "text.pth": (b"not tensors at all, just text", "did not write it"),
        "cut.pth": (whole[: len(whole) // 2], "damaged or cut off"),
        "flipped.pth": (bytes(flipped), "checksum"),
        "old_cut.pth": ((folder / "old.pth").read_bytes()[:-1000], "damaged or cut off"),
        "other.safetensors": (whole, "torch.save wrote it"),
        "other.pth": (tensors, "safetensors file"),
        "cut.safetensors": (tensors[: len(tensors) // 2], "damaged or cut-off"),
        "header.safetensors": ((2**40).to_bytes(8, "little") + tensors[8:], "damaged or cut-off"),
        "archive.pth": (b"", "zip archive that torch.save did not write"),
        "model.pth": (b"", "pickled model"),
        "plain_model.pth": (b"", "pickled model"),
        "arguments.pth": (b"", "argparse.Namespace"),
        "checkpoint.pth": (b"", "a checkpoint with a state dict under 'model'"),
        "list.pth": (b"", "flat mapping"),
    }  # fmt: skip
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    torch.save(torch.nn.Linear(2, 2), folder / "model.pth")
    (folder / "plain_model.pth").write_bytes(pickle.dumps(torch.nn.Linear(2, 2)))
    torch.save({"args": Namespace(lr=1), **small}, folder / "arguments.pth")
    torch.save({"model": state, "epoch": 3, "optimizer": {}}, folder / "checkpoint.pth")
    torch.save([state["conv1.weight"]], folder / "list.pth")
    return {name: (folder / name, words) for name, (_, words) in contents.items()}


def test_other_files_are_refused_in_words_of_our_own(tmp_path: Path, resnet_file: Path) -> None:
    for name, (path, words) in foreign_files(tmp_path, resnet_file).items():
        with pytest.raises(ConfigError) as caught:
            load("resnet18", path)
        text = str(caught.value)
        assert words in text, (name, text)
        assert caught.value.key == "model.weights"
        assert not re.search(r"weights_only|torch\.load|PyTorch|miniz|\x1b|Traceback|enforce", text), (
            name,
            text,
        )


def test_lpips_reads_its_weights_by_the_same_rules(tmp_path: Path, resnet_file: Path) -> None:
    assert alexnet_state(None) is None
    for name, (path, words) in foreign_files(tmp_path, resnet_file).items():
        with pytest.raises(ConfigError, match=re.escape(words)) as caught:
            alexnet_state(str(path))
        assert caught.value.key == "evaluation.lpips_weights", name
    with pytest.raises(ConfigError, match="AlexNet"):
        alexnet_state(str(resnet_file))
    with torch.random.fork_rng(devices=[]):
        state = torchvision.models.alexnet(num_classes=2).state_dict()
    torch.save(wrapped(state, "module."), tmp_path / "alexnet.pth")
    read = alexnet_state(str(tmp_path / "alexnet.pth"))
    assert read is not None
    assert sorted(read) == sorted(key for key in state if key.startswith("features."))
    assert all(torch.equal(read[key], state[key]) for key in read)
