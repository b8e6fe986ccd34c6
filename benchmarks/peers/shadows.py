"""Training shadow models: the run's own trainer against the same network and loss in ART's ``ShadowModels``.

One network, small_cnn cut after stage2: task exit, monitoring exit on detached features, tail on detached
releases; clip and noise on every batch. As many records, epochs and records a batch (ART's own: ten of 128),
the same optimizer. Both also say what each model thinks of every record. Ours goes through everything a run
does: named streams, a ledger charged before each release, encoded messages to the cloud, files under digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Array, Contender, Outcome, Report, Row, Rule, compare, digest
from pages import versions_of
from scene import CPU, drawn_faces, shapes_of
from torch import Tensor, nn
from torch.nn import functional

from privhier.assessment.shadow_training import ShadowTrainer
from privhier.attacks.membership.shadows import shadow_models
from privhier.attacks.membership.view import MembershipView, Population
from privhier.config import RunConfig, parse_config
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng

SIZE, POOL, MODELS, EPOCHS, BATCH = 32, 512, 2, 10, 128
SIGMA, CLIP = 0.02, 1.0
REACHED = 0.3
"""Cross-entropy of the tail on what was trained on; ART starts every model by torch's own initialization."""


def config() -> RunConfig:
    """The run whose shadow models are trained."""
    optimizer = {"schedule": "constant", "lr": 0.002, "weight_decay": 0.0}
    return parse_config(
        {
            "name": "peers",
            "dataset": {"name": "synthetic", "image_size": SIZE, "task": ["smiling"], "sensitive": ["male"]},
            "model": {
                "backbone": "small_cnn",
                "cut": "stage2",
                "bottleneck": {"kind": "dimension", "size": 16},
            },
            "schedule": {"joint_epochs": EPOCHS},
            "release": {"mechanism": "gaussian", "sigma": SIGMA, "clip": CLIP},
            "defense": {"name": "none"},
            "training": {
                "batch_size": BATCH,
                "edge": optimizer,
                "cloud": optimizer,
                "augment": {"flip": False, "shift": 0},
            },
        }
    )


@dataclass(frozen=True)
class Pool:
    """Images uint8, and labels int64 of task and secret, that can be learned from them."""

    images: Array
    task: Array
    secret: Array

    @classmethod
    def drawn(cls) -> Pool:
        """Bright or not, reddish or not."""
        images = drawn_faces(POOL, SIZE)
        red = images[:, 0].mean(axis=(1, 2)) - images[:, 2].mean(axis=(1, 2))
        bright = images[:, :, : SIZE // 2].mean(axis=(1, 2, 3))
        columns = [(values > np.median(values)).astype(np.int64) for values in (bright, red)]
        return cls(images, *columns)

    @property
    def data(self) -> str:
        """Its digest."""
        return digest([self.images, self.task, self.secret])


def _network(chosen: RunConfig) -> tuple[EdgeSegment, CloudTail]:
    return build_network(
        chosen.model,
        image_size=SIZE,
        task_classes={"smiling": 2},
        sensitive_classes={"male": 2},
        seed=chosen.seed,
    )


class Whole(nn.Module):
    """Edge and tail as one network: normalized images to logits of both exits and the tail, ``(B, 6)``."""

    def __init__(self, edge: EdgeSegment, tail: CloudTail) -> None:
        super().__init__()
        self.edge, self.tail = edge, tail

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        z = self.edge.features(x)
        z = z * (CLIP / z.norm(dim=1, keepdim=True).clamp_min(CLIP))
        z = z + SIGMA * torch.randn_like(z)
        stopped = z.detach()
        parts = [*self.edge.task_logits(z), *self.edge.adversary_logits(stopped), *self.tail(stopped)]
        return torch.cat(parts, dim=1)


class Three(nn.Module):
    """The three losses together; classes 0 to 3 stand for both labels, one-hot as ART hands them over."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        both = labels.argmax(dim=1)
        task, secret = both % 2, both // 2
        losses = zip(logits.split(2, dim=1), (task, secret, task), strict=True)
        return torch.stack([functional.cross_entropy(said, truth) for said, truth in losses]).sum()


def ours(pool: Pool) -> Contender:
    """Our shadow models, one after the other."""
    chosen = config()

    def start() -> Callable[[], Report]:
        network = digest([np.array([shapes_of(part) for part in _network(chosen)])])
        train = ShadowTrainer(
            config=chosen,
            images=pool.images,
            task=pool.task[:, None],
            sensitive=pool.secret[:, None],
            task_classes={"smiling": 2},
            sensitive_classes={"male": 2},
            mechanism=ReleaseMechanism("gaussian", clip=CLIP, sigma=SIGMA),
            device=str(CPU),
        )
        view = MembershipView(
            images=pool.images,
            labels=pool.task[:, None],
            groups=np.arange(POOL),
            population=Population(pool.images[:0], pool.task[:0, None]),
            target={},
            train=train,
            records=POOL // 2,
            seed=0,
        )

        def work() -> Report:
            made = shadow_models(view, MODELS)

            def report() -> Outcome:
                # The log-odds of the true class give its cross-entropy.
                losses = [np.logaddexp(0, -one.said["tail"][0, one.inside, 0]).mean() for one in made]
                return Outcome(network, pool.data, float(np.mean(losses)), MODELS)

            return report

        return work

    return Contender("ours", start)


def in_art(pool: Pool) -> Contender:
    """``ShadowModels`` around the same network; images are handed over normalized."""
    from art.attacks.inference.membership_inference import ShadowModels
    from art.estimators.classification import PyTorchClassifier

    chosen = config()
    images = pool.images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    labels = np.eye(4, dtype=np.float32)[pool.task + 2 * pool.secret]

    def start() -> Callable[[], Report]:
        edge, tail = _network(chosen)
        network = digest([np.array([shapes_of(part) for part in (edge, tail)])])
        whole = Whole(edge, tail)
        optimizer = torch.optim.Adam(whole.parameters(), lr=0.002)  # its AdamW cannot be cloned
        template = PyTorchClassifier(
            whole, Three(), images.shape[1:], 4, optimizer=optimizer, device_type="cpu"
        )

        def work() -> Report:
            with isolated_rng(0, "peers", "art"):
                models = ShadowModels(template, num_shadow_models=MODELS, random_state=0)
                members, _ = models.generate_shadow_dataset(images, labels, member_ratio=0.5)

            def report() -> Outcome:
                said, truth = (
                    torch.from_numpy(members[2])[:, 4:],
                    torch.from_numpy(members[1]).argmax(dim=1) % 2,
                )
                return Outcome(network, pool.data, float(functional.cross_entropy(said, truth)), MODELS)

            return report

        return work

    return Contender("ART ShadowModels, our network", start)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Row]:
    """One network."""
    pool = Pool.drawn()
    yield compare(
        f"{MODELS} shadow models, small_cnn, {POOL // 2} images of {SIZE}x{SIZE}, {EPOCHS} epochs of {BATCH}",
        ours(pool),
        in_art(pool),
        versions=versions_of("adversarial-robustness-toolbox"),
        unit="seconds a model",
        pairs=pairs,
        rule=Rule(reached=REACHED),
        warm=False,
    )
