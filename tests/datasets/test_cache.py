from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets import decode
from privhier.datasets.load import load_dataset
from privhier.errors import DataError, OutputError

MakeConfig = Callable[..., DatasetConfig]

KILLED = """
import os, signal, sys
from privhier.config import DatasetConfig
from privhier.datasets import decode
from privhier.datasets.load import load_dataset
decode.CHUNK = 2
def progress(what, done, total):
    if done >= total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
config = DatasetConfig(name="utkface", root=sys.argv[1], cache=sys.argv[2], image_size=24,
                       task=["gender"], sensitive=["race"])
load_dataset(config, seed=0, progress=progress)
"""


def finished(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if not path.name.startswith(".")]


def test_pixels_are_what_pillow_gives(utkface_root: Path, make_config: MakeConfig) -> None:
    # Lossless, so that a plain decode and a box resize by hand can be compared exactly.
    root = utkface_root.parent / "exact"
    root.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "1_0_0_1.png")
    faces = load_dataset(make_config("utkface", root=str(root), image_size=16), seed=0)
    np.testing.assert_array_equal(faces.images[0], pixels[:, 4:20].transpose(2, 0, 1))


def test_kill_9_leaves_no_half_cache(utkface_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(utkface_root), str(cache)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert finished(cache) == []
    assert list(cache.glob(".*.tmp-*")), "the test killed it before it had begun"

    faces = load_dataset(make_config("utkface", root=str(utkface_root)), seed=0)
    assert len(faces) == 12
    assert all(image.any() for image in faces.images)
    assert len(finished(cache)) == 1
    assert not list(cache.glob(".*.tmp-*"))


def test_an_error_leaves_nothing(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(make_config("utkface", root=str(utkface_root)), seed=0, progress=interrupt)
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_key_follows_source_size_and_version(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    config = make_config("utkface", root=str(utkface_root))
    first = load_dataset(config, seed=0)
    load_dataset(config.model_copy(update={"image_size": 32}), seed=0)
    assert len(finished(cache)) == 2

    changed = sorted(utkface_root.iterdir())[0]
    Image.new("RGB", (32, 32), "red").save(changed)
    second = load_dataset(config, seed=0)
    assert len(finished(cache)) == 3
    assert second.fingerprint != first.fingerprint
    assert second.images[0, 0].min() > 200

    monkeypatch.setattr("privhier.datasets.cache.VERSION", "next")
    load_dataset(config, seed=0)
    assert len(finished(cache)) == 4


def test_fingerprint_is_about_content_not_place(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in utkface_root.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    one, two = (
        load_dataset(make_config("utkface", root=str(root)), seed=0) for root in (utkface_root, moved)
    )
    assert one.fingerprint == two.fingerprint
    relabeled = sorted(moved.iterdir())[0]
    relabeled.rename(moved / ("99" + relabeled.name[2:]))
    assert load_dataset(make_config("utkface", root=str(moved)), seed=0).fingerprint != one.fingerprint


def test_a_damaged_cache_is_built_again(utkface_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("utkface", root=str(utkface_root))
    expected = np.array(load_dataset(config, seed=0).images)
    pixels = finished(tmp_path / "cache")[0] / "images.bin"
    pixels.write_bytes(pixels.read_bytes()[:100])
    np.testing.assert_array_equal(load_dataset(config, seed=0).images, expected)


@pytest.mark.parametrize("name", ["images.bin", "rows.npy", "digests.npy", "meta.json", "near"])
def test_a_flipped_bit_in_a_cache_is_seen(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    config = make_config("utkface", root=str(utkface_root))
    before = load_dataset(config, seed=0)
    expected = (np.array(before.images), before.fingerprint, before.problems, before.group.tolist())
    (path,) = finished(tmp_path / "cache")[0].glob(f"{name}*")
    data = path.read_bytes()
    for place in np.random.default_rng(3).integers(0, len(data), 12).tolist():
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        again = load_dataset(config, seed=0)
        np.testing.assert_array_equal(again.images, expected[0])
        assert (again.fingerprint, again.problems, again.group.tolist()) == expected[1:]
        path.write_bytes(data)


def test_a_cache_that_cannot_be_written_is_named(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        load_dataset(
            make_config("utkface", root=str(utkface_root), cache=str(tmp_path / "file" / "x")), seed=0
        )
    assert caught.value.key == "dataset.cache"


def test_cache_folder_from_the_environment(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVHIER_CACHE", str(tmp_path / "elsewhere"))
    load_dataset(make_config("utkface", root=str(utkface_root), cache=None), seed=0)
    assert len(finished(tmp_path / "elsewhere")) == 1


def test_nothing_usable_left(make_config: MakeConfig, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    root.mkdir()
    (root / "1_0_0_1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no usable image is left \(1 problems, the first: 1_0_0_1.jpg"):
        load_dataset(make_config("utkface", root=str(root)), seed=0)


def test_a_link_to_nothing_is_reported(utkface_root: Path, make_config: MakeConfig) -> None:
    (utkface_root / "1_0_0_1.jpg").symlink_to(utkface_root / "gone")
    faces = load_dataset(make_config("utkface", root=str(utkface_root)), seed=0)
    assert len(faces) == 12
    assert [problem.where for problem in faces.problems] == ["1_0_0_1.jpg"]


def test_rotated_photos_are_turned_upright(tmp_path: Path, make_config: MakeConfig) -> None:
    root = tmp_path / "turned"
    root.mkdir()
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16] = 255
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(root / "1_0_0_1.png", exif=exif)
    faces = load_dataset(make_config("utkface", root=str(root), image_size=16), seed=0)
    assert faces.images[0, :, :7].min() > 250
    assert faces.images[0, :, 9:].max() < 5


def test_chunks_keep_their_order(
    utkface_root: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("utkface", root=str(utkface_root))
    whole = np.array(load_dataset(config, seed=0).images)
    monkeypatch.setattr(decode, "CHUNK", 1)
    calls: list[tuple[str, int, int]] = []
    faces = load_dataset(
        make_config("utkface", root=str(utkface_root), cache=config.cache + "2"),  # type: ignore[operator]
        seed=0,
        progress=lambda *call: calls.append(call),
    )
    np.testing.assert_array_equal(faces.images, whole)
    assert calls[-1] == ("decode", 12, 12)
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)
