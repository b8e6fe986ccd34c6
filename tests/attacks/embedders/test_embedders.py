import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from privhier.assessment.victims import check_bench
from privhier.attacks.embedders.base import embedders
from privhier.attacks.embedders.build import build_embedder
from privhier.config import Choice, parse_config
from privhier.errors import ConfigError, UnknownNameError


def varint(number):
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def field(number, value):
    """One protocol-buffers field: an integer, or bytes (text, message) with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name, shape, kind=1):
    dimensions = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dimensions)))


def onnx_file(path, shape, operators=("GlobalAveragePool", "Flatten"), out=("n", 3), kind=1):
    """An ONNX file that chains operators without weights; the default answers each channel's mean."""
    names = ["picture", *(f"after{k}" for k in range(len(operators) - 1)), "embedding"]
    nodes = b"".join(
        field(1, field(1, names[k]) + field(2, names[k + 1]) + field(4, operator))
        for k, operator in enumerate(operators)
    )
    graph = nodes + field(2, "g")
    graph += field(11, value_info("picture", shape, kind)) + field(12, value_info("embedding", out, kind))
    path.write_bytes(field(1, 8) + field(8, field(2, 13)) + field(7, graph))
    return str(path)


def build(name, **options):
    return build_embedder(Choice(name=name, options=options))


def plain(*colors, side=6):
    """Pictures of one color each, values in 0..255."""
    return np.array(colors, dtype=np.float32)[:, :, None, None].repeat(side, 2).repeat(side, 3) / 255


def unit(rows):
    rows = np.array(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


COLORS = [[255, 0, 0], [0, 127.5, 255], [10, 20, 30]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[1, -1, -1], [-1, 0, 1], [-117.5, -107.5, -97.5]]),
        ({"order": "bgr"}, [[-1, -1, 1], [1, 0, -1], [-97.5, -107.5, -117.5]]),
        ({"mean": 0, "scale": 255}, COLORS),
        ({"mean": [0, 1, 2], "scale": [1, 2, 1.0]}, [[255, -0.5, -2], [0, 63.25, 253], [10, 9.5, 28]]),
    ],
    ids=["default", "bgr", "zero to one", "by channel"],
)
@pytest.mark.parametrize("batch", ["n", 2], ids=["any batch", "batches of two"])
def test_pixels_enter_as_the_options_say(tmp_path, options, expected, batch):
    made = build("onnx", path=onnx_file(tmp_path / "m.onnx", (batch, 3, 6, 6), out=(batch, 3)), **options)
    rows = made.embed(plain(*COLORS))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, unit(expected), atol=1e-5)


def test_channels_may_come_last_and_pictures_have_any_size(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", ("n", 4, 5, 3), operators=("Flatten",), out=("n", 60))
    made = build("onnx", path=path, mean=0, scale=1)
    for side in (4, 9, 64):
        np.testing.assert_allclose(
            made.embed(plain(*COLORS, side=side)), unit(np.tile(COLORS, (1, 20))), atol=1e-5
        )


def test_resizing_is_bilinear(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", ("n", 3, 4, 4), operators=("Flatten",), out=("n", 48))
    ramp = np.broadcast_to(np.linspace(0, 1, 2, dtype=np.float32), (1, 3, 2, 2))
    rows = build("onnx", path=path, mean=0, scale=1).embed(ramp)
    np.testing.assert_allclose(rows, unit(np.tile([[0, 0.25, 0.75, 1]], (1, 12))), atol=1e-6)


def test_an_open_size_must_be_given(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", ("n", 3, "h", "w"))
    np.testing.assert_allclose(
        build("onnx", path=path, size=8).embed(plain([255, 0, 0])), unit([[1, -1, -1]]), atol=1e-6
    )
    with pytest.raises(ConfigError, match="leaves it open") as caught:
        build("onnx", path=path).embed(plain([0, 0, 0]))
    assert caught.value.key == "attacks.embedders.onnx.options.size"
    fixed = onnx_file(tmp_path / "fixed.onnx", ("n", 3, 6, 6))
    with pytest.raises(ConfigError, match=r"input is \[6, 6\]"):
        build("onnx", path=fixed, size=8).embed(plain([0, 0, 0]))


def test_one_picture_says_what_many_say(tmp_path):
    made = build("onnx", path=onnx_file(tmp_path / "m.onnx", ("n", 3, 6, 6)))
    pictures = np.random.default_rng(0).random((70, 3, 7, 9)).astype(np.float32)
    pictures.flags.writeable = False
    rows = made.embed(pictures)
    assert np.array_equal(rows, made.embed(pictures))
    np.testing.assert_allclose(made.embed(pictures[69:]), rows[69:], atol=1e-6)
    assert made.embed(pictures[:0]).shape == (0, 3)


def test_wrong_pictures_are_refused(tmp_path):
    made = build("onnx", path=onnx_file(tmp_path / "m.onnx", ("n", 3, 6, 6)))
    for bad, text in [
        (np.zeros((3, 6, 6)), "expected images"),
        (np.zeros((1, 1, 6, 6)), "expected images"),
        (np.full((1, 3, 6, 6), 255.0), r"\[0, 1\]"),
        (np.full((1, 3, 6, 6), np.nan), "finite"),
    ]:
        with pytest.raises(ValueError, match=text):
            made.embed(bad.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "more", "text"),
    [
        (("n", 1, 6, 6), {}, "has inputs"),
        (("n", 3), {"operators": ("Flatten",)}, "has inputs"),
        (("n", 3, 6, 6), {"operators": ("GlobalAveragePool",), "out": ("n", 3, 1, 1)}, "not finite rows"),
        (("n", 3, 6, 6), {"kind": 11, "operators": ("Flatten",), "out": ("n", 108)}, "not float32"),
    ],
    ids=["gray", "no picture", "no rows", "float64"],
)
def test_files_that_are_no_face_embedder_are_refused(tmp_path, shape, more, text):
    made = build("onnx", path=onnx_file(tmp_path / "m.onnx", shape, **more))
    with pytest.raises(ConfigError, match=text) as caught:
        made.embed(plain([0, 0, 0]))
    assert caught.value.key == "attacks.embedders.onnx.options.path"


def test_a_web_page_is_found_before_anything_is_trained(tmp_path):
    page = tmp_path / "page.pth"
    page.write_bytes(b"<!DOCTYPE html><html><title>Not found</title></html>")
    config = {
        "name": "t",
        "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
        "schedule": {"joint_epochs": 1},
    }
    for name in ("onnx", "inception_resnet_v1"):
        choice = {"name": name, "options": {"path": str(page)}}
        with pytest.raises(ConfigError, match="web page") as caught:
            check_bench(parse_config({**config, "attacks": {"embedders": [choice]}}))
        assert caught.value.key == f"attacks.embedders.{name}.options.path"


def test_damaged_files_are_refused(tmp_path):
    for name, options in (("onnx", {}), ("inception_resnet_v1", {})):
        path = tmp_path / "damaged.pt"
        path.write_bytes(b"no such thing")
        with pytest.raises(ConfigError, match=r"is not an ONNX file|cannot be read as tensors"):
            build(name, path=str(path), **options).embed(plain([0, 0, 0]))


def test_a_relative_path_is_looked_up_below_the_data_folder_too(tmp_path, monkeypatch):
    (tmp_path / "data" / "weights").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PRIVHIER_DATA", str(tmp_path / "data"))
    onnx_file(tmp_path / "data" / "weights" / "m.onnx", ("n", 3, 6, 6))
    assert build("onnx", path="weights/m.onnx").embed(plain([255, 0, 0])).shape == (1, 3)
    with pytest.raises(ConfigError, match=r"looked at other\.onnx and "):
        build("onnx", path="other.onnx")


@pytest.mark.parametrize(
    ("name", "options", "option", "text"),
    [
        ("onnx", {}, "path", "is not a file"),
        ("inception_resnet_v1", {}, "path", "is not a file"),
        ("onnx", {"path": "nowhere.onnx"}, "path", "is not a file"),
        ("onnx", {"paht": "x"}, "paht", "Did you mean path"),
        ("onnx", {"scale": 0}, "scale", "above 0"),
        ("onnx", {"mean": [1, 2]}, "mean", "or three"),
        ("onnx", {"size": "112"}, "size", "integer"),
        ("onnx", {"order": "rbg"}, "order", "'rgb' or 'bgr'"),
        ("inception_resnet_v1", {"weights": "vggface2"}, "weights", "'file' or 'random'"),
        ("inception_resnet_v1", {"align": "yes"}, "align", "boolean"),
    ],
)
def test_a_bad_option_is_named(name, options, option, text):
    with pytest.raises(ConfigError, match=text) as caught:
        build(name, **options)
    assert caught.value.key == f"attacks.embedders.{name}.options.{option}"


def test_an_unknown_embedder_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean onnx"):
        build("onxx")
    assert {"onnx", "inception_resnet_v1"} <= set(embedders.names())


def test_equal_options_have_equal_reprs_before_and_after_use(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", ("n", 3, 6, 6))
    made = build("onnx", path=path)
    before = repr(made)
    made.embed(plain([0, 0, 0]))
    assert repr(made) == before == repr(build("onnx", path=path))


@pytest.fixture(scope="module")
def network():
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        from facenet_pytorch import InceptionResnetV1

        torch.manual_seed(5)
        return InceptionResnetV1(pretrained=None).eval()


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).random((2, 3, 160, 160)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_inception_resnet_takes_weights_from_a_file_and_drops_the_classifier(
    tmp_path, network, faces, suffix
):
    state = dict(network.state_dict()) | {"logits.weight": torch.zeros(7, 512), "logits.bias": torch.zeros(7)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    before = torch.random.get_rng_state()
    made = build("inception_resnet_v1", path=str(path))
    rows = made.embed(faces)
    assert torch.equal(before, torch.random.get_rng_state())
    with torch.no_grad():
        expected = network((torch.from_numpy(faces) * 255 - 127.5) / 128).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert made.notes == ("dropped the classifier in the file of weights (logits.bias, logits.weight)",)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "wrapped.pth")
    wrapped = build("inception_resnet_v1", path=str(tmp_path / "wrapped.pth"))
    np.testing.assert_array_equal(wrapped.embed(faces), rows)
    assert wrapped.notes == made.notes


def test_other_weights_are_refused(tmp_path, network, faces):
    state = dict(network.state_dict())
    for change, text in [
        ({"surplus": torch.zeros(1)}, "e.g. surplus"),
        ({"last_linear.weight": torch.zeros(128, 1792)}, "e.g. last_linear.weight"),
        ({"last_bn.bias": torch.full((512,), torch.nan)}, "not finite in last_bn.bias"),
        ({"last_bn.bias": "text"}, "flat mapping"),
    ]:
        torch.save(state | change, tmp_path / "w.pt")
        with pytest.raises(ConfigError, match=text):
            build("inception_resnet_v1", path=str(tmp_path / "w.pt")).embed(faces)
    with pytest.raises(ConfigError, match="exclude each other"):
        build("inception_resnet_v1", path=str(tmp_path / "w.pt"), weights="random")


def test_a_picture_without_a_face_goes_in_whole_and_is_counted(faces):
    """MTCNN's weights lie in the package: nothing is asked of the network, and no global state changes."""
    aligned = build("inception_resnet_v1", weights="random", align=True)
    whole = build("inception_resnet_v1", weights="random")
    before = torch.random.get_rng_state()
    gray = np.full((2, 3, 40, 40), 0.5, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(aligned.embed(gray), whole.embed(gray), atol=2e-2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert aligned.notes[-1] == "no face found in 2 of 2 pictures, which went in whole"
    assert whole.notes == ("untrained weights: recognizes hardly anything",)


def test_the_crop_is_the_face_that_was_found(monkeypatch):
    from privhier.datasets.crop import FaceFinder

    monkeypatch.setattr(FaceFinder, "find", lambda _self, _picture: (20.0, 0.0, 40.0, 20.0))
    picture = np.zeros((1, 3, 40, 40), dtype=np.float32)
    picture[:, 0, :24, 16:] = 1.0
    aligned = build("inception_resnet_v1", weights="random", align=True)
    red = np.zeros((1, 3, 160, 160), dtype=np.float32)
    red[:, 0] = 1.0
    whole = build("inception_resnet_v1", weights="random")
    np.testing.assert_allclose(aligned.embed(picture), whole.embed(red), atol=1e-6)
    assert abs(whole.embed(picture) - whole.embed(red)).max() > 1e-3
    assert "no face" not in " ".join(aligned.notes)


@pytest.mark.real
def test_the_real_embedder_tells_people_apart(real_data):
    """On deep-funneled crops, not aligned by landmarks: above 0.97 AUC, and useless on another scale."""
    path = real_data / "weights" / "mobilefacenet_arcface_128.onnx"
    if not path.is_file():
        pytest.skip("no ONNX face embedder in this folder")
    from PIL import Image
    from sklearn.metrics import roc_auc_score

    folders = sorted((real_data / "lfw-py" / "lfw-deepfunneled").iterdir())
    people = [photos for f in folders if len(photos := sorted(f.iterdir())) >= 2][:120]
    pictures = np.stack(
        [np.asarray(Image.open(p).convert("RGB")) for photos in people for p in photos[:2]]
    ).transpose(0, 3, 1, 2)
    aucs = {}
    for name, options in {"default": {}, "unscaled": {"mean": 0, "scale": 1}}.items():
        rows = build("onnx", path=str(path), **options).embed(pictures.astype(np.float32) / 255)
        similar = rows[::2] @ rows[1::2].T
        aucs[name] = roc_auc_score(np.eye(len(people)).ravel(), similar.ravel())
    assert aucs["default"] > 0.97
    assert aucs["unscaled"] < 0.9
