"""Drawn faces in CelebA's official layout: a stand-in to try the protocol on where CelebA is not at hand.

    python experiments/celeba_protocol/drawn.py data/celeba --images 3000

Smiling and Male are drawn. What drawn faces do not have is made up: Mouth_Slightly_Open is smiling, one in
five turned over, Attractive no glasses and no hat, Young below forty. Numbers of runs on them say nothing of
CelebA.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from privhier.config.data import DatasetConfig
from privhier.datasets.load import DRAW_CHUNK, build_source
from privhier.seeding import numpy_stream


def main() -> None:
    """Draw, and write images and the three label files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    config = DatasetConfig.model_validate(
        {
            "name": "synthetic",
            "image_size": asked.size,
            "task": ["smiling"],
            "sensitive": ["male"],
            "options": {"images": asked.images, "identities": max(10, asked.images // 20)},
        }
    )
    listing = build_source(config).read(Path(), seed=asked.seed)
    assert listing.render is not None
    assert listing.identity is not None
    own = {name: np.asarray(column) for name, column in listing.attributes.items()}
    turned = numpy_stream(asked.seed, "celeba", "mouth").random(asked.images) < 0.2
    flags = {
        "Attractive": (own["glasses"] == 0) & (own["hat"] == 0),
        "Male": own["male"] == 1,
        "Mouth_Slightly_Open": (own["smiling"] == 1) ^ turned,
        "Smiling": own["smiling"] == 1,
        "Young": own["age"] < 40,
    }
    pictures = asked.folder / "img_align_celeba"
    pictures.mkdir(parents=True)
    names = [f"{number + 1:06d}.jpg" for number in range(asked.images)]
    for start in range(0, asked.images, DRAW_CHUNK):  # CelebA's number of faces would be 2.5 GB at once
        chosen = np.arange(start, min(start + DRAW_CHUNK, asked.images), dtype=np.int64)
        for row, image in zip(chosen.tolist(), listing.render(chosen, asked.size), strict=True):
            face = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
            face.save(pictures / names[row], quality=95)
    rows = [
        " ".join([name, *("1" if flag[row] else "-1" for flag in flags.values())])
        for row, name in enumerate(names)
    ]
    _write(asked.folder / "list_attr_celeba.txt", [str(asked.images), " ".join(flags), *rows])
    people = listing.identity.tolist()
    pairs = list(zip(names, people, strict=True))
    _write(asked.folder / "identity_CelebA.txt", [f"{name} {person + 1}" for name, person in pairs])
    last = max(people)
    parts = [0 if person < 0.8 * last else 1 if person < 0.9 * last else 2 for person in people]
    _write(
        asked.folder / "list_eval_partition.txt",
        [f"{n} {part}" for n, part in zip(names, parts, strict=True)],
    )


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
