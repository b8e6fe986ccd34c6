from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets import crop
from privhier.datasets.crop import FaceFinder, center_square, square_around
from privhier.datasets.load import load_dataset
from privhier.datasets.synthetic import Synthetic


def test_center_square() -> None:
    assert center_square(178, 218) == (0, 20, 178, 198)
    assert center_square(112, 92) == (10, 0, 102, 92)


@pytest.mark.parametrize(
    "face", [(40, 40, 60, 70), (-5, -5, 20, 20), (80, 80, 120, 120), (-50, -50, 300, 300)]
)
def test_square_around_stays_inside(face: tuple[float, ...]) -> None:
    left, top, right, bottom = square_around(face, 100, 90)
    assert right - left == pytest.approx(bottom - top)
    assert left >= 0
    assert top >= 0
    assert right <= 100
    assert bottom <= 90


def test_faces_in_large_pictures_are_searched_in_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Synthetic(images=12, identities=12).read(tmp_path, seed=0)
    assert listing.render is not None
    finder = FaceFinder()
    sizes: list[tuple[int, int]] = []
    detect = finder._network.detect

    def counted(picture: Image.Image) -> object:
        sizes.append(picture.size)
        return detect(picture)

    monkeypatch.setattr(finder._network, "detect", counted)
    near = 0
    for pixels in listing.render(np.arange(12), 256):
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        whole = finder.find(picture)
        with monkeypatch.context() as patch:
            patch.setattr(crop, "LARGEST", 128 * 128)
            reduced = finder.find(picture)
        if whole is not None and reduced is not None:
            near += bool(np.abs(np.subtract(whole, reduced)).max() < 30)
    assert set(sizes) == {(256, 256), (128, 128)}
    assert near >= 4


def test_mtcnn_crops_faces_and_reports_the_others(
    make_config: Callable[..., DatasetConfig], tmp_path: Path
) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    listing = Synthetic(images=12, identities=12).read(tmp_path, seed=0)
    assert listing.render is not None
    # A face in the corner of a wide gray picture: cropped at the centre, hardly any of it would stay.
    for number, pixels in enumerate(listing.render(np.arange(12), 128)):
        wide = Image.new("RGB", (384, 256), "gray")
        wide.paste(Image.fromarray(pixels.transpose(1, 2, 0)), (0, 0))
        wide.save(root / f"{number + 10}_0_0_1.png")
    Image.new("RGB", (64, 48), "blue").save(root / "50_0_0_1.png")
    Image.new("RGB", (10, 10), "blue").save(root / "51_0_0_1.png")
    faces = load_dataset(make_config("utkface", root=str(root), crop="mtcnn", image_size=32), seed=0)

    missed = {problem.where for problem in faces.problems}
    assert {problem.reason.partition(":")[0] for problem in faces.problems} == {"no face found"}
    assert {"50_0_0_1.png", "51_0_0_1.png"} <= missed
    assert len(faces) == 14
    assert len(missed) <= 8, "at least half of the drawn faces should be found"
    gray = (faces.images[:12] == 128).all(axis=1).mean(axis=(1, 2))
    found = [f"{number + 10}_0_0_1.png" not in missed for number in range(12)]
    assert gray[found].max() < 0.3
