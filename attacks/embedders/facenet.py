"""facenet-pytorch's InceptionResnetV1 from a file of weights, with MTCNN's crop where asked for."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import PrivateAttr, model_validator
from torch import Tensor, nn

from privhier.attacks.embedders.base import FaceEmbedder, embedder_error, embedders, resized, weights_file
from privhier.attacks.view import FloatArray
from privhier.datasets.crop import FaceFinder
from privhier.errors import ConfigError
from privhier.models.state_file import read_state, unwrapped
from privhier.seeding import isolated_rng

_NAME = "inception_resnet_v1"
_SIZE = 160
_CLASSIFIER = "logits."


@embedders.register(_NAME)
class InceptionResnetV1Embedder(FaceEmbedder):
    """FaceNet (Schroff et al. 2015) on Inception-ResNet-v1 (Szegedy et al. 2017), 512 values.

    Input 160x160, standardized by fixed constants: ``(v - 127.5) / 128`` for a pixel of value v.

    Attributes:
        path: State dict (.pt, .pth or .safetensors) of facenet-pytorch's network; its classifier is
            dropped and noted.
        weights: ``file``; or ``random``: untrained weights from a fixed seed, which recognize hardly
            anything and are there for tests.
        align: Crop to the face that MTCNN finds (its weights come with facenet-pytorch); a picture
            without one goes in whole and is counted in ``notes``.
    """

    weights: Literal["file", "random"] = "file"
    align: bool = False

    _dropped: list[str] = PrivateAttr(default_factory=list)
    _faceless: int = PrivateAttr(default=0)
    _seen: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _one_source(self) -> InceptionResnetV1Embedder:
        if self.weights == "random" and self.path:
            raise ValueError("path and weights=random exclude each other")
        return self

    @property
    def needs_file(self) -> bool:
        """False for random weights."""
        return self.weights == "file"

    @property
    def notes(self) -> tuple[str, ...]:
        """Weights that were dropped, faces that were not found, untrained weights."""
        made = ["untrained weights: recognizes hardly anything"] if self.weights == "random" else []
        if self._dropped:
            made.append(f"dropped the classifier in the file of weights ({', '.join(self._dropped)})")
        if self._faceless:
            made.append(f"no face found in {self._faceless} of {self._seen} pictures, which went in whole")
        return tuple(made)

    @cached_property
    def _network(self) -> nn.Module:
        state = None if self.weights == "random" else read_state(weights_file(self.path, _NAME), self._refuse)
        with warnings.catch_warnings(), isolated_rng(0, "embedder", _NAME):
            warnings.simplefilter("ignore")  # facenet-pytorch 2.5 predates some deprecations of torch
            from facenet_pytorch import InceptionResnetV1  # imported only where asked for: it takes a second

            network: nn.Module = InceptionResnetV1(pretrained=None, classify=False).eval()
        if state is not None:
            state = unwrapped(state, network.state_dict(), self._refuse)
            self._dropped.extend(sorted(name for name in state if name.startswith(_CLASSIFIER)))
            _load(network, {n: v for n, v in state.items() if not n.startswith(_CLASSIFIER)}, self.path)
        return network

    def prepare(self) -> None:
        """See ``FaceEmbedder``."""
        _ = self._network

    def _refuse(self, rule: str, remedy: str) -> ConfigError:
        return _misfit(self.path, rule, remedy)

    @cached_property
    def _finder(self) -> FaceFinder:
        with isolated_rng(0, "embedder", "mtcnn"):
            return FaceFinder()

    def _vectors(self, images: FloatArray) -> FloatArray:
        pixels = self._cropped(images) if self.align else resized(images, _SIZE, _SIZE)
        x = torch.from_numpy(np.ascontiguousarray((pixels * 255 - 127.5) / 128, dtype=np.float32))
        with torch.no_grad():
            return np.asarray(self._network(x).numpy(), dtype=np.float32)

    def _cropped(self, images: FloatArray) -> FloatArray:
        made = []
        for image in np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8):
            picture = Image.fromarray(image)
            box = self._finder.find(picture)
            self._faceless += box is None
            self._seen += 1
            face = picture.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR, box=box)
            made.append(np.asarray(face, dtype=np.float32).transpose(2, 0, 1) / 255)
        return np.stack(made)


def _load(network: nn.Module, state: dict[str, Tensor], path: str) -> None:
    own = network.state_dict()
    wrong = sorted(
        {name for name in own if name not in state and not name.endswith("num_batches_tracked")}
        | {name for name in state if name not in own or own[name].shape != state[name].shape}
    )
    if wrong:
        raise _misfit(
            path,
            f"is not facenet-pytorch's InceptionResnetV1: {len(wrong)} entries are missing, unknown or of "
            f"another shape, e.g. {wrong[0]}",
            "Give the state dict of that network",
        )
    bad = [name for name, value in state.items() if not value.float().isfinite().all()]
    if bad:
        raise _misfit(path, f"holds values that are not finite in {bad[0]}", "Give an undamaged file")
    network.load_state_dict(state, strict=False)


def _misfit(path: str, rule: str, remedy: str) -> ConfigError:
    return embedder_error(_NAME, "path", path, rule, remedy)
