"""White-box inversion of images in a batch against one at a time: a ratio measured in one run.

An untrained ResNet-18 (GroupNorm, stride-2 stem) cut after layer1, drawn faces of 64x64 pixels, releases of
64x32x32 values without noise. The same images are inverted with the same hyper-parameters; each descends
as if alone, so both reach the same loss, which is asserted. Only the descent is timed: both share the
choice of hyper-parameters on own images.
"""

from __future__ import annotations

import os
import time

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view
from privhier.attacks.inversion import InversionAttack
from privhier.attacks.parts.matching import Misfit
from privhier.attacks.threat_models import white_box
from privhier.config import DatasetConfig, ModelConfig
from privhier.datasets.load import load_dataset
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.release import ReleaseMechanism

SIZE, BATCH, AUXILIARY = 64, 160, 200
ALONE, ROUNDS = 8, 5
STEPS = 30
WANTED = 1.5


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    faces = DatasetConfig(
        name="synthetic",
        image_size=SIZE,
        task=["smiling"],
        sensitive=["male"],
        options={"images": AUXILIARY + BATCH, "identities": 60},
    )
    images = np.asarray(load_dataset(faces, seed=0).images)
    edge, _ = build_network(
        ModelConfig(backbone="resnet18", cut="layer1", norm="group", stem="small"),
        image_size=SIZE,
        task_classes={"smiling": 2},
        sensitive_classes={},
        seed=0,
    )
    cpu, aux, victims = torch.device("cpu"), np.arange(AUXILIARY), np.arange(AUXILIARY, len(images))
    view = white_box(
        curious_cloud_view(
            edges=[edge],
            mechanism=ReleaseMechanism(),
            victims=edge_features(edge, images, victims, device=cpu).numpy()[:, None],
            source=AuxiliarySource(images, aux, {}, {}, np.arange(len(images))),
            draws=1,
            seed=0,
            device=cpu,
            tail=None,
        ),
        edges=[edge],
        mechanism=ReleaseMechanism(),
    )
    attack, misfit = InversionAttack(steps=STEPS), Misfit(view, aux)
    start = torch.from_numpy(images[aux].mean(axis=0, dtype=np.float64) / 255).float()
    releases = torch.from_numpy(np.array(view.releases))

    def losses(part: torch.Tensor) -> torch.Tensor:
        return attack.invert(view, misfit, part, [start], weight=10.0, steps=STEPS, stop=STEPS)[1]

    losses(releases[:2])  # warms up
    ratios = []
    for turn in range(
        ROUNDS
    ):  # by turns, so that a busy moment of the machine does not fall on one side only
        part = releases[turn * attack.batch : (turn + 1) * attack.batch]
        started = time.perf_counter()
        together = losses(part)
        middle = time.perf_counter()
        alone = torch.cat([losses(part[[number]]) for number in range(ALONE)])
        ended = time.perf_counter()
        torch.testing.assert_close(alone, together[:ALONE], rtol=0.02, atol=0.0)
        batched, single = (middle - started) / len(part), (ended - middle) / ALONE
        ratios.append(single / batched)
        print(f"  seconds an image: {batched:.3f} by {len(part)}, {single:.3f} alone: {ratios[-1]:.2f} times")
    print(
        f"inversion, {STEPS} steps: median {np.median(ratios):.2f} times faster by {attack.batch} than alone"
    )
    print(f"  wanted: at least {WANTED:.1f} times")


if __name__ == "__main__":
    main()
