"""A small scene whose pictures are to be reconstructed."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view
from privhier.attacks.threat_models import white_box
from privhier.attacks.view import View
from privhier.config import BottleneckConfig, ModelConfig
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism

SIZE = 16
N_AUX = 120


@dataclass(frozen=True)
class Scene:
    """Views of pictures of a disc before a slope, and the victims' truth float32 (n, 3, 16, 16) apart."""

    view: View
    truth: np.ndarray

    def error_left(self, result):
        """Mean squared error over that of the mean auxiliary picture: 0 is a perfect copy."""
        constant = self.view.aux.images.mean(axis=0) / 255
        return ((result.reconstructions - self.truth) ** 2).mean() / ((constant - self.truth) ** 2).mean()

    def first(self, n):
        """The same attacker, fewer victims."""
        return Scene(replace(self.view, releases=self.view.releases[:n]), self.truth[:n])


def pictures(n, seed, *, tinted):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    cy, cx, radius = rng.uniform(0.3, 0.7, (3, n, 1, 1)) * np.array([1, 1, 0.5]).reshape(3, 1, 1, 1)
    disc = 1 / (1 + np.exp(40 * (np.hypot(y - cy, x - cx) - radius)))[:, None]
    back, front = rng.uniform(0.1, 0.9, (2, n, 3, 1, 1))
    if tinted:
        back *= 0.4
        front = 0.4 + 0.6 * front * np.array([1.0, 0.8, 0.5]).reshape(3, 1, 1)
    slope = rng.uniform(-0.3, 0.3, (n, 1, 1, 1)) * (x - 0.5)
    return np.clip(255 * (back * (1 - disc) + front * disc + slope), 0, 255).astype(np.uint8)


@pytest.fixture
def scene():
    """``scene(sigma=, clip=, t=, vector=, victims=)``: an untrained edge, with the white box.

    ``tinted``: discs are brighter and redder than what is behind them, so that pictures cannot be taken
    for their negatives.
    """

    def build(*, sigma=0.0, clip=None, t=1, vector=False, victims=6, white=True, tinted=False):
        images = pictures(N_AUX + victims, 0, tinted=tinted)
        narrow = BottleneckConfig(kind="dimension", size=24) if vector else BottleneckConfig()
        config = ModelConfig(backbone="small_cnn", cut="stage1", bottleneck=narrow)
        edges = [
            build_network(config, image_size=SIZE, task_classes={"y": 2}, sensitive_classes={}, seed=state)[
                0
            ].eval()
            for state in range(t)
        ]
        mechanism = ReleaseMechanism() if clip is None else ReleaseMechanism("gaussian", clip, sigma)
        rows, cpu = np.arange(N_AUX, N_AUX + victims), torch.device("cpu")
        releases = [
            mechanism.sanitize(
                edge_features(edge, images, rows, device=cpu), SeededNoise(7, state)
            ).values.numpy()
            for state, edge in enumerate(edges)
        ]
        view = curious_cloud_view(
            edges=edges,
            mechanism=mechanism,
            victims=np.stack(releases, axis=1),
            source=AuxiliarySource(images, np.arange(N_AUX), {}, {}, np.arange(len(images))),
            draws=2,
            seed=5,
            device=cpu,
            tail=None,
        )
        if white:
            view = white_box(view, edges=edges, mechanism=mechanism)
        return Scene(view, images[rows].astype(np.float32) / 255)

    return build
