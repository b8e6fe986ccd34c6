"""Our cached loading against torchvision's image-folder loading of the same JPEGs, in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets
from torchvision.transforms import v2

from privhier.config import DatasetConfig
from privhier.datasets.load import load_dataset
from privhier.models.inputs import normalize
from privhier.seeding import numpy_stream
from privhier.training.batches import ordered_batches

IMAGES, SIZE, ROUNDS, WANTED = 2000, 64, 5, 10.0


def write_faces(folder: Path) -> None:
    """Synthetic faces as JPEGs, in torchvision's layout with a CSV beside it for ours."""
    config = DatasetConfig(
        name="synthetic",
        image_size=112,
        task=["smiling"],
        sensitive=["male"],
        options={"images": IMAGES, "identities": 400},
    )
    faces = load_dataset(config, seed=0)
    rows = ["image,smiling,male"]
    for number, pixels in enumerate(faces.images):
        smiling, male = (int(faces.attributes[name][number]) for name in ("smiling", "male"))
        path = folder / str(smiling) / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(path, quality=90)
        rows.append(f"{smiling}/{number:05d}.jpg,{smiling},{male}")
    (folder / "faces.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        root, cache = Path(scratch) / "faces", Path(scratch) / "cache"
        root.mkdir()
        write_faces(root)
        config = DatasetConfig(
            name="folder",
            root=str(root),
            cache=str(cache),
            image_size=SIZE,
            task=["smiling"],
            sensitive=["male"],
            options={"csv": "faces.csv", "image": "image"},
        )
        load_dataset(config, seed=0)  # decodes once
        transform = v2.Compose([v2.Resize((SIZE, SIZE)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        folder = torchvision_datasets.ImageFolder(str(root), transform=transform)
        loader = torch.utils.data.DataLoader(folder, batch_size=128, shuffle=True, num_workers=2)

        def ours() -> int:
            faces = load_dataset(config, seed=0)
            order = numpy_stream(0, "bench").permutation(len(faces))
            batches = ordered_batches(order, 128)
            return sum(len(normalize(torch.from_numpy(faces.images[rows]))) for rows in batches)

        ratios = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            seen = sum(len(images) for images, _ in loader)
            middle = time.perf_counter()
            if ours() != seen:
                raise SystemExit("the two loaders saw different numbers of images")
            ratios.append((middle - started) / (time.perf_counter() - middle))
    spread = f"median {statistics.median(ratios):.1f}, min {min(ratios):.1f}, max {max(ratios):.1f}"
    print(f"loading {IMAGES} JPEGs of 112x112 at {SIZE}x{SIZE}, start to last batch, {ROUNDS} pairs:")
    print(f"  image folder / ours: {spread}")
    print(f"  wanted: at least {WANTED:.0f}")


if __name__ == "__main__":
    main()
