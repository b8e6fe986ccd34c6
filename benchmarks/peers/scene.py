"""What both sides of a comparison are given: drawn faces, one network, its releases, a white box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import digest
from torch import Tensor, nn

from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view
from privhier.attacks.parts.matching import Misfit
from privhier.attacks.threat_models import white_box
from privhier.attacks.view import View
from privhier.config import DatasetConfig, ModelConfig
from privhier.datasets.load import load_dataset
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.release import ReleaseMechanism

CPU = torch.device("cpu")


def drawn_faces(images: int, size: int) -> np.ndarray:
    """uint8 ``(images, 3, size, size)``: drawn faces, nobody's."""
    chosen = DatasetConfig(
        name="synthetic",
        image_size=size,
        task=["smiling"],
        sensitive=["male"],
        options={"images": images, "identities": max(2, images // 2)},
    )
    return np.array(load_dataset(chosen, seed=0).images)  # a copy: torch asks for what can be written


def digest_of(network: nn.Module) -> str:
    """Of a network's parameters and buffers."""
    return digest(value.detach().numpy() for value in network.state_dict().values())


def shapes_of(network: nn.Module) -> str:
    """Digest of the names and shapes of a network's parameters: the same network, whatever it starts from."""
    found = [f"{name} {tuple(value.shape)}" for name, value in network.named_parameters()]
    return digest([np.array(found)])


@dataclass(frozen=True)
class Scene:
    """Victims' releases and what it takes to invert them.

    Attributes:
        edge: In evaluation mode, frozen.
        view: The white box's.
        misfit: How badly images explain releases; holds their variance.
        releases: float32 ``(n, 1, *shape)``.
        truth: float32 ``(n, 3, H, W)`` in [0, 1].
        start: float32 ``(3, H, W)``: the mean of the attacker's own images.
    """

    edge: EdgeSegment
    view: View
    misfit: Misfit
    releases: Tensor
    truth: Tensor
    start: Tensor

    @property
    def data(self) -> str:
        """Digest of the releases and of the image everybody starts from."""
        return digest([self.releases.numpy(), self.start.numpy()])

    @torch.no_grad()
    def loss(self, images: Tensor) -> float:
        """Mean square by which images ``(n, 3, H, W)`` miss the releases, over the releases' variance."""
        missed = (self.misfit.predict(images) - self.releases).square().flatten(1).mean(dim=1)
        return float(missed.mean()) / self.misfit.spread


def inversion_scene(backbone: str, cut: str, *, size: int, victims: int, auxiliary: int = 100) -> Scene:
    """An untrained edge cut early, and noiseless releases of drawn faces."""
    images = drawn_faces(auxiliary + victims, size)
    edge, _ = build_network(
        ModelConfig(backbone=backbone, cut=cut, norm="group", stem="small"),
        image_size=size,
        task_classes={"smiling": 2},
        sensitive_classes={},
        seed=0,
    )
    edge.eval().requires_grad_(False)
    own, theirs = np.arange(auxiliary), np.arange(auxiliary, auxiliary + victims)
    mechanism = ReleaseMechanism("none")
    view = white_box(
        curious_cloud_view(
            edges=[edge],
            mechanism=mechanism,
            victims=edge_features(edge, images, theirs, device=CPU).numpy()[:, None],
            source=AuxiliarySource(images, own, {}, {}, np.arange(len(images))),
            draws=1,
            seed=0,
            device=CPU,
            tail=None,
        ),
        edges=[edge],
        mechanism=mechanism,
    )
    return Scene(
        edge=edge,
        view=view,
        misfit=Misfit(view, own),
        releases=torch.from_numpy(np.array(view.releases)),
        truth=torch.from_numpy(images[theirs]).float() / 255,
        start=torch.from_numpy(images[own].mean(axis=0, dtype=np.float64) / 255).float(),
    )
