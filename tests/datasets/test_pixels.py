"""Every mode Pillow knows, through files where a format keeps it: what brightness comes out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from privhier.config import DatasetConfig
from privhier.datasets.decode import decode_picture
from privhier.datasets.load import load_dataset
from privhier.datasets.pixels import DEEP, Depth, UnreadPictureError, to_rgb

SIDE = 16
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
"""Brightness of every pixel, black to white."""
DEEP_RAMP = np.rint(RAMP * 65535).astype(np.uint16)
LEVELS = np.rint(RAMP * 255).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **keys: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **keys)
    return stream.getvalue()


def tiff(
    data: bytes, *, bits: int, order: str = "<", sample_format: int = 1, photometric: int = 1, fill: int = 1
) -> bytes:
    """A grayscale TIFF of one strip, written by hand: Pillow writes few of the kinds it reads."""
    end = "little" if order == "<" else "big"
    rows = [
        (256, 3, SIDE),
        (257, 3, SIDE),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (266, 3, fill),
        (273, 4, 8 + 2 + 12 * 11 + 4),
        (277, 3, 1),
        (278, 3, SIDE),
        (279, 4, len(data)),
        (339, 3, sample_format),
    ]
    head = (b"II" if order == "<" else b"MM") + (42).to_bytes(2, end) + (8).to_bytes(4, end)
    body = len(rows).to_bytes(2, end)
    for tag, kind, value in rows:
        width = 2 if kind == 3 else 4
        cell = value.to_bytes(width, end).ljust(4, b"\0")
        body += tag.to_bytes(2, end) + kind.to_bytes(2, end) + (1).to_bytes(4, end) + cell
    return head + body + bytes(4) + data


def twelve_bits(values: np.ndarray) -> bytes:
    low, high = values.reshape(-1, 2).astype(np.uint32).T
    return np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], axis=1).astype(np.uint8).tobytes()


DEEP_FILES = {
    "png": lambda: saved(Image.fromarray(DEEP_RAMP), "PNG"),
    "pgm": lambda: b"P5 16 16 65535\n" + DEEP_RAMP.astype(">u2").tobytes(),
    "pgm of 1023": lambda: b"P5 16 16 1023\n" + np.rint(RAMP * 1023).astype(">u2").tobytes(),
    "plain pgm": lambda: b"P2 16 16 65535\n" + " ".join(map(str, DEEP_RAMP.ravel())).encode(),
    "tiff, little": lambda: tiff(DEEP_RAMP.astype("<u2").tobytes(), bits=16),
    "tiff, big": lambda: tiff(DEEP_RAMP.astype(">u2").tobytes(), bits=16, order=">"),
    "tiff, 0 is white": lambda: tiff((65535 - DEEP_RAMP).astype("<u2").tobytes(), bits=16, photometric=0),
    "tiff of 12 bits": lambda: tiff(twelve_bits(np.rint(RAMP * 4095)), bits=12),
    "tiff of 32 bits": lambda: tiff(DEEP_RAMP.astype("<u4").tobytes(), bits=32),
    "tiff of 32 bits, signed, big": lambda: tiff(
        DEEP_RAMP.astype(">i4").tobytes(), bits=32, order=">", sample_format=2
    ),
    "tiff, float, little": lambda: tiff(RAMP.astype("<f4").tobytes(), bits=32, sample_format=3),
    "tiff, float, big": lambda: tiff(RAMP.astype(">f4").tobytes(), bits=32, order=">", sample_format=3),
    "tiff, float, 0 is white": lambda: tiff(
        (1 - RAMP).astype("<f4").tobytes(), bits=32, sample_format=3, photometric=0
    ),
    "pfm": lambda: b"Pf\n16 16\n-1.0\n" + RAMP[::-1].astype("<f4").tobytes(),
}


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_deep_gray_keeps_its_brightness(kind: str) -> None:
    pixels, _ = decode_picture(DEEP_FILES[kind](), SIDE, None)
    # One level of the file's own rounding where it holds 10 or 12 bits.
    assert np.abs(pixels.astype(int) - LEVELS).max() <= (1 if "12" in kind or "1023" in kind else 0)
    assert (pixels[0, 0, 0], pixels[0, -1, -1]) == (0, 255)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
def test_sixteen_bit_jpeg_2000() -> None:
    pixels, _ = decode_picture(saved(Image.fromarray(DEEP_RAMP), "JPEG2000"), SIDE, None)
    np.testing.assert_array_equal(pixels[0], LEVELS)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_color_is_within_one_level(order: str) -> None:
    color = np.stack([DEEP_RAMP, DEEP_RAMP[::-1], DEEP_RAMP.T], axis=-1)
    ppm = b"P6 16 16 65535\n" + color.astype(">u2").tobytes()
    wide = tiff(color.astype(f"{order}u2").tobytes(), bits=16, order=order)
    end = "little" if order == "<" else "big"
    # Three samples a pixel, RGB: two tags of the gray file changed.
    for tag, old, new in ((262, 1, 2), (277, 1, 3)):
        row = tag.to_bytes(2, end) + (3).to_bytes(2, end) + (1).to_bytes(4, end)
        wide = wide.replace(row + old.to_bytes(2, end), row + new.to_bytes(2, end))
    for data in (ppm, wide):
        pixels, _ = decode_picture(data, SIDE, None)
        expected = np.stack([LEVELS, LEVELS[::-1], LEVELS.T])
        assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", sorted(DEEP))
def test_deep_modes_are_scaled(mode: str) -> None:
    picture = Image.new(mode, (2, 1))
    picture.putpixel((0, 0), 0.5 if mode == "F" else 257 * 128)
    picture.putpixel((1, 0), 1.0 if mode == "F" else 65535)
    pixels = np.asarray(to_rgb(picture, Depth()))
    assert pixels.tolist() == [[[128] * 3, [255] * 3]]


def test_rounding_is_to_the_nearest_level() -> None:
    values = np.arange(256, 65536, dtype=np.uint16).reshape(255, 256)
    pixels = np.asarray(to_rgb(Image.fromarray(values), Depth()))[:, :, 0]
    np.testing.assert_array_equal(pixels, np.rint(values / 257))


GRAY = (77, 77, 77)
SHALLOW = {
    "1": (1, (255, 255, 255)),
    "L": (77, GRAY),
    "LA": ((77, 0), GRAY),
    "La": ((77, 255), GRAY),
    "P": (77, GRAY),
    "PA": ((77, 0), GRAY),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBa": ((10, 20, 30, 128), (19, 39, 59)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "YCbCr": ((77, 128, 128), GRAY),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "HSV": ((0, 255, 255), (255, 0, 0)),
}


@pytest.mark.parametrize("mode", SHALLOW)
def test_other_modes_are_pillows(mode: str) -> None:
    color, expected = SHALLOW[mode]
    picture = Image.new(mode, (2, 2), color)
    if mode in ("P", "PA"):
        picture.putpalette([level for level in range(256) for _ in range(3)])
    assert to_rgb(picture, Depth()).getpixel((1, 1)) == pytest.approx(expected, abs=1)


def test_no_mode_is_forgotten() -> None:
    assert set(Image.MODES) <= {*SHALLOW, *DEEP}


def test_transparent_color_is_kept_as_stored() -> None:
    color = np.full((SIDE, SIDE, 4), (200, 100, 50, 0), dtype=np.uint8)
    palette = Image.fromarray(color[..., :3]).quantize(4)
    for data in (
        saved(Image.fromarray(color), "PNG"),
        saved(palette, "PNG", transparency=0),
        saved(palette, "GIF", transparency=0),
    ):
        pixels, _ = decode_picture(data, SIDE, None)
        assert pixels[:, 3, 3].tolist() == pytest.approx([200, 100, 50], abs=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tiff((DEEP_RAMP.astype("<i4") * 2).tobytes(), bits=32, sample_format=2), "0 to 131070"),
        (tiff((DEEP_RAMP.astype("<i4") - 9).tobytes(), bits=32, sample_format=2), "-9 to 65526"),
        (tiff((DEEP_RAMP.astype("<i4") - 40000).astype("<i2").tobytes(), bits=16, sample_format=2), "-32547"),
        (tiff((LEVELS.astype("<u4") << 24).tobytes(), bits=32), "whole numbers from 0 to 65535"),
        (tiff(LEVELS.astype("<u2").tobytes(), bits=16), "none above 255 of 65535"),
        (saved(Image.fromarray(LEVELS.astype(np.uint16)), "PNG"), "none above 255 of 65535"),
        (tiff((RAMP * 255).astype("<f4").tobytes(), bits=32, sample_format=3), "0 to 255, finite"),
        (tiff((RAMP - 0.5).astype("<f4").tobytes(), bits=32, sample_format=3), "-0.5 to 0.5"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype("<f4").tobytes(), bits=32, sample_format=3), "nan"),
        (tiff(np.where(RAMP > 0.5, np.inf, RAMP).astype("<f4").tobytes(), bits=32, sample_format=3), "inf"),
    ],
)
def test_other_values_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(UnreadPictureError, match=r"^pixel values out of range: ") as caught:
        decode_picture(data, SIDE, None)
    assert says in str(caught.value)


def test_black_is_a_picture() -> None:
    pixels, _ = decode_picture(saved(Image.new("I;16", (SIDE, SIDE)), "PNG"), SIDE, None)
    assert not pixels.any()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_pictures_are_turned_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(DEEP_RAMP)))
    pixels, _ = decode_picture(saved(turned, kind, exif=exif), SIDE, None)
    np.testing.assert_array_equal(pixels[0], LEVELS)


def test_refused_values_are_problem_rows(make_config: object, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    (root / "1_0_0_1.png").write_bytes(DEEP_FILES["png"]())
    (root / "2_0_0_1.tiff").write_bytes(tiff((RAMP * 255).astype("<f4").tobytes(), bits=32, sample_format=3))
    config: DatasetConfig = make_config("utkface", root=str(root), image_size=SIDE)  # type: ignore[operator]
    faces = load_dataset(config, seed=0)
    np.testing.assert_array_equal(faces.images[0, 0], LEVELS)
    assert [problem.where for problem in faces.problems] == ["2_0_0_1.tiff"]
