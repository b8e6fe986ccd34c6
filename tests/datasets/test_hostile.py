"""Files and folders made to hang, crash or multiply: all are problem rows."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from privhier.config import DatasetConfig
from privhier.datasets import decode, regular
from privhier.datasets.decode import decode_picture
from privhier.datasets.formats import FORMATS, PICTURE_SUFFIXES, UNREAD_SUFFIXES
from privhier.datasets.load import load_dataset
from privhier.datasets.pixels import UnreadPictureError
from privhier.datasets.walk import walk
from privhier.errors import DataError

MakeConfig = Callable[..., DatasetConfig]


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def reasons(config: DatasetConfig) -> dict[str, str]:
    return {problem.where: problem.reason for problem in load_dataset(config, seed=0).problems}


def blank_png(side: int, rows_of_it: int | None = None) -> bytes:
    """A black RGB picture of a few kilobytes, never held whole; its first rows alone make it a broken one."""
    packer = zlib.compressobj(1)
    count = side if rows_of_it is None else rows_of_it
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(count)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_postscript_runs_nothing(
    utkface_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    script = tmp_path / "bin" / "gs"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    (utkface_root / "1_0_0_1.jpg").write_bytes(program)
    Image.new("RGB", (8, 8)).save(utkface_root / "2_0_0_1.png", "TGA")
    found = reasons(make_config("utkface", root=str(utkface_root)))
    assert found == dict.fromkeys(("1_0_0_1.jpg", "2_0_0_1.png"), "broken image: not a picture")
    assert not ran.exists()
    assert not {"EPS", "PSD", "WMF"} & set(FORMATS)


def test_pixels_are_counted_before_they_are_decoded(utkface_root: Path, make_config: MakeConfig) -> None:
    (utkface_root / "1_0_0_1.png").write_bytes(blank_png(7100, 1))
    found = reasons(make_config("utkface", root=str(utkface_root)))
    assert found == {"1_0_0_1.png": "too large: 50,410,000 pixels to decode, at most 50,000,000"}


BOMBS = """
import re, sys
from pathlib import Path
from privhier.datasets import decode
from privhier.datasets.decode import decode_files
import os
os.sched_getaffinity = lambda pid: range(8)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
paths = sorted(path.name for path in Path(sys.argv[1]).iterdir())
chunks = list(decode_files(Path(sys.argv[1]), paths, size=16, crop="center"))
print(sum(len(chunk.rows) for chunk in chunks), (peak() - before) // 1024)
"""


def test_many_large_pictures_are_bounded_in_memory(tmp_path: Path) -> None:
    large = blank_png(2600)
    for number in range(4 * decode.CHUNK):
        (tmp_path / f"{number:03}.png").write_bytes(large if number % 32 == 0 else b"")
    output = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert output[0] == "8"
    # One picture of 6.8 million pixels takes 27 MB, and one is decoded at a time, whatever the cores.
    assert int(output[1]) < 80


def test_a_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8000, 8000), (200, 10, 10)).save(stream, "JPEG")
    pixels, _ = decode_picture(stream.getvalue(), 16, None)
    assert pixels[0].min() > 190
    Image.new("L", (8000, 8000)).save(stream := io.BytesIO(), "JPEG", progressive=True)
    with pytest.raises(UnreadPictureError, match=r"^too large: 64,000,000 pixels"):
        decode_picture(stream.getvalue(), 16, None)


def test_a_header_of_pillows_own_bomb(tmp_path: Path) -> None:
    data = bytearray(blank_png(8))
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(UnreadPictureError, match=r"^too large: "):
        decode_picture(bytes(data), 16, None)


def test_only_regular_files_are_opened(utkface_root: Path, make_config: MakeConfig) -> None:
    os.mkfifo(utkface_root / "1_0_0_1.jpg")
    (utkface_root / "2_0_0_1.jpg").symlink_to("/dev/zero")
    (utkface_root / "3_0_0_1.jpg").mkdir()
    (utkface_root / "4_0_0_1.jpg").write_bytes(b"")
    (utkface_root / "5_0_0_1.jpg").symlink_to(utkface_root / "5_0_0_1.jpg")
    (utkface_root / "6_0_0_1.jpg").symlink_to(utkface_root / "1_0_0_1.png")
    whole = sorted(utkface_root.glob("2?_*.chip.jpg"))[0].read_bytes()
    (utkface_root / "7_0_0_1.jpg").write_bytes(whole[: len(whole) // 2])
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(utkface_root)  # a socket's path may have 107 bytes
        server.bind("8_0_0_1.jpg")
        os.chdir(here)
        found = reasons(make_config("utkface", root=str(utkface_root)))
    assert found.pop("7_0_0_1.jpg").startswith("broken image: ")
    assert found == {
        "1_0_0_1.jpg": "not a regular file: a FIFO",
        "2_0_0_1.jpg": "not a regular file: a device",
        "3_0_0_1.jpg": "not a regular file: a folder",
        "4_0_0_1.jpg": "broken image: an empty file",
        "5_0_0_1.jpg": "broken image: a link to nothing",
        "6_0_0_1.jpg": "broken image: a link to nothing",
        "8_0_0_1.jpg": "not a regular file: a socket",
    }


def test_a_file_without_end_is_not_read_whole(
    utkface_root: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regular, "MOST_BYTES", 2**20)
    monkeypatch.setattr(decode, "LARGE_BYTES", 2**19)
    with (utkface_root / "1_0_0_1.jpg").open("wb") as file:
        file.truncate(2**40)
    found = reasons(make_config("utkface", root=str(utkface_root)))
    assert found == {"1_0_0_1.jpg": "too large: more than 1,048,576 bytes"}


def test_a_link_multiplies_nothing(utkface_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    plain = load_dataset(make_config("utkface", root=str(utkface_root)), seed=0)
    below = utkface_root / "a"
    below.mkdir()
    (utkface_root / "self").symlink_to(".")
    (below / "up").symlink_to("..")
    (below / "root").symlink_to("/")
    (utkface_root / "twice").symlink_to("a")
    first = sorted(utkface_root.glob("*.jpg"))[0]
    (below / "99_0_0_1.jpg").symlink_to(first)
    faces = load_dataset(make_config("utkface", root=str(utkface_root)), seed=0)
    np.testing.assert_array_equal(faces.images, plain.images)
    assert Counter(problem.reason.partition(":")[0] for problem in faces.problems) == {"link not followed": 5}
    assert {problem.where for problem in faces.problems} == {
        "a/99_0_0_1.jpg",
        "a/root",
        "a/up",
        "self",
        "twice",
    }


def test_links_out_of_the_root_are_followed_once(utkface_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(utkface_root, outside)
    utkface_root.mkdir()
    (utkface_root / "one").symlink_to(outside)
    (utkface_root / "two").symlink_to(outside)
    (outside / "back").symlink_to(utkface_root)
    found = walk(utkface_root)
    assert len(found.pictures) == 12
    assert all(path.startswith("one/") for path in found.pictures)
    assert [problem.where for problem in found.problems] == ["one/back", "two"]

    linked = tmp_path / "linked"
    linked.mkdir()
    for path in outside.glob("*.jpg"):
        (linked / path.name).symlink_to(path)
    assert len(walk(linked).pictures) == 12
    (tmp_path / "root").symlink_to(linked)
    assert len(walk(tmp_path / "root").pictures) == 12


def test_an_unreadable_folder_is_no_silence(utkface_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (utkface_root / "closed").mkdir()
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError) as caught:
        walk(utkface_root)
    assert (caught.value.key, caught.value.rule) == ("dataset.root", "could not be read: Permission denied")


KINDS = {
    ".gif": ("GIF", {"save_all": True}),
    ".jfif": ("JPEG", {}),
    ".jpe": ("JPEG", {}),
    ".JPG": ("JPEG", {}),
    ".mpo": ("MPO", {"save_all": True}),
    ".avif": ("AVIF", {"save_all": True}),
    ".jp2": ("JPEG2000", {}),
    ".j2k": ("JPEG2000", {}),
    ".webp": ("WEBP", {"save_all": True}),
    ".bmp": ("BMP", {}),
    ".dib": ("DIB", {}),
    ".tif": ("TIFF", {"save_all": True}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".ppm": ("PPM", {}),
    ".pbm": ("PPM", {}),
    ".apng": ("PNG", {"save_all": True}),
}


def test_every_suffix_that_pillow_reads_is_read(make_config: MakeConfig, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    for number, (suffix, (kind, keys)) in enumerate(KINDS.items()):
        more = {"append_images": [Image.new("RGB", (16, 16))]} if "save_all" in keys else {}
        picture = Image.new("1" if suffix == ".pbm" else "RGB", (16, 16), "white")
        picture.save(root / f"{number + 1}_0_0_1{suffix}", kind, **keys, **more)
    for suffix in (".heic", ".psd", ".CR2"):
        (root / f"99_0_0_1{suffix}").write_bytes(b"whatever")
    (root / "README.md").write_text("no picture")
    faces = load_dataset(make_config("utkface", root=str(root), image_size=16), seed=0)
    unread = {problem.where: problem.reason for problem in faces.problems}
    assert len(faces) == len(KINDS), unread
    assert faces.images.min() >= 240, "of an animation, not the first frame"
    assert Counter(problem.reason for problem in faces.problems) == {
        "suffix not read: .heic": 1,
        "suffix not read: .psd": 1,
        "suffix not read: .cr2": 1,
    }


def test_suffixes_are_pillows() -> None:
    Image.init()
    here = {suffix for suffix, kind in Image.registered_extensions().items() if kind in {*FORMATS, "MPO"}}
    assert here - PICTURE_SUFFIXES == set()
    pictures = {
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind not in {"GRIB", "BUFR", "HDF5", "MPEG", "IPTC", "PALM"} and kind in {*Image.OPEN, "MPO"}
    }
    assert pictures - PICTURE_SUFFIXES <= UNREAD_SUFFIXES
    assert not PICTURE_SUFFIXES & UNREAD_SUFFIXES


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.filterwarnings("ignore")  # as decode_files has it: Pillow warns of many kinds of damage
def test_damage_is_a_problem_whatever_pillow_raises() -> None:
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    originals: list[bytes] = []
    for kind in ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000"):
        keys = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}
        smooth.save(stream := io.BytesIO(), kind, **keys)
        originals.append(stream.getvalue())
    outcomes: Counter[bool] = Counter()
    for _ in range(1500):
        data = bytearray(originals[random.integers(len(originals))])
        for _ in range(random.integers(1, 6)):
            data[random.integers(len(data))] = random.integers(256)
        if random.random() < 0.3:
            del data[random.integers(1, len(data)) :]
        try:
            decode_picture(bytes(data), 16, None)
        except UnreadPictureError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 100
