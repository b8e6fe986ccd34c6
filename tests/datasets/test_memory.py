"""CelebA at its full size must fit: what counts is anonymous memory, as pages of a map can be dropped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.datasets.synthetic import Synthetic

COUNT = 202_599
LIMIT_KB = 2 * 1024 * 1024

LOAD = """
import re, sys, threading, time
from pathlib import Path
import numpy as np
from privhier.config import DatasetConfig, SplitsConfig
from privhier.datasets.load import load_dataset
from privhier.datasets.splits import split_dataset

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
config = DatasetConfig(name="celeba", root=sys.argv[1], cache=sys.argv[2], image_size=64,
                       task=["Smiling"], sensitive=["Male"])
faces = load_dataset(config, seed=0)
splits = split_dataset(faces, SplitsConfig(), protocol="unknown_people", seed=0)
total = 0
for start in range(0, len(splits.train), 512):
    total += int(faces.images[splits.train[start:start + 512]].sum(dtype=np.int64))
assert total > 0
print(len(faces), peak)
"""


@pytest.mark.slow
def test_celeba_at_full_size_stays_under_two_gigabytes(tmp_path: Path) -> None:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    listing = Synthetic(images=500, identities=50).read(tmp_path, seed=0)
    assert listing.render is not None
    names = [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]
    originals = []
    for row in range(500):
        pixels = listing.render(np.array([row]), 178)[0]
        original = tmp_path / f"{row}.jpg"
        Image.fromarray(pixels.transpose(1, 2, 0)).resize((178, 218)).save(original, quality=90)
        originals.append(original)
    for number, name in enumerate(names):
        os.link(originals[number % 500], folder / name)
    columns = [f"Attribute_{number}" for number in range(38)] + ["Male", "Smiling"]
    cells = ["-1", " 1"]
    with (tmp_path / "celeba" / "list_attr_celeba.txt").open("w") as file:
        file.write(f"{COUNT}\n{' '.join(columns)}\n")
        for number, name in enumerate(names):
            file.write(f"{name} {' '.join(cells[(number >> bit) & 1] for bit in range(40))}\n")
    with (tmp_path / "celeba" / "identity_CelebA.txt").open("w") as file:
        file.writelines(f"{name} {number % 500}\n" for number, name in enumerate(names))
    with (tmp_path / "celeba" / "list_eval_partition.txt").open("w") as file:
        file.writelines(f"{name} {number * 3 // COUNT}\n" for number, name in enumerate(names))

    arguments = [sys.executable, "-c", LOAD, str(tmp_path / "celeba"), str(tmp_path / "cache")]
    for start in ("first, decoding", "second, from the cache"):
        output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
        assert int(output[0]) == COUNT
        assert int(output[1]) < LIMIT_KB, f"{start}: RssAnon reached {int(output[1]) / 1024:.0f} MB"
