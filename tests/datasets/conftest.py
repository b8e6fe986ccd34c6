from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets.base import FaceDataset


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., DatasetConfig]:
    """A dataset section with the cache in the test's own folder."""

    def make(name: str, **keys: object) -> DatasetConfig:
        base = {
            "cache": str(tmp_path / "cache"),
            "image_size": 24,
            "task": ["task"],
            "sensitive": ["sensitive"],
        }
        return DatasetConfig.model_validate({"name": name, **base, **keys})

    return make


@pytest.fixture
def make_faces() -> Callable[..., FaceDataset]:
    """A data set without pictures worth looking at: columns, identities and groups as given."""

    def make(
        attributes: dict[str, list[object]] | None = None,
        identity: list[int] | None = None,
        duplicate: list[int] | None = None,
        count: int | None = None,
        value_names: dict[str, dict[int, str]] | None = None,
    ) -> FaceDataset:
        columns = {name: np.array(values) for name, values in (attributes or {}).items()}
        sized = [*columns.values(), *(x for x in (identity, duplicate) if x is not None)]
        n = len(sized[0]) if sized else count or 0
        people = None if identity is None else np.array(identity, dtype=np.int64)
        copies = np.arange(n) if duplicate is None else np.array(duplicate, dtype=np.int64)
        return FaceDataset(
            name="toy",
            images=np.zeros((n, 3, 16, 16), dtype=np.uint8),
            attributes=columns,
            identity=people,
            group=copies if people is None else people,
            duplicate_group=copies,
            value_names=value_names or {},
        )

    return make


@pytest.fixture
def utkface_root(tmp_path: Path) -> Path:
    """Twelve distinct pictures under UTKFace names."""
    root = tmp_path / "faces"
    root.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{20 + number}_{number % 2}_{number % 5}_2017.jpg.chip.jpg")
    return root
