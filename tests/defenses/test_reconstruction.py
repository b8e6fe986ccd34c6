"""Against reconstruction: what is drawn of a release, who is trained by what, and where the pull ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from privhier.config import Choice
from privhier.defenses.base import Defense, DefenseBatch, DefenseData, build_defense, task_loss_per_record
from privhier.defenses.reconstruction import Decoder, Reconstruction, squared_distance
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.private_plan import check_defense

SIZE, D = 8, 6
PARTS = torch.linalg.qr(torch.randn(3 * SIZE**2, 6, generator=torch_stream(0, "parts")))[0]


def make_edge() -> EdgeSegment:
    """A linear edge, whose releases a linear reader can invert."""
    with isolated_rng(0, "edge"):
        return EdgeSegment(
            nn.Identity(),
            nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, D)),
            task_exits={"a": Exit((D,), 2, 0)},
            adversarial_exits={"b": Exit((D,), 2, 8)},
            feature_shape=(D,),
            description={"image_size": SIZE},
        )


def records(n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of six independent parts, one of which is the task."""
    found = torch.randn(n, 6, generator=draw)
    labels = torch.randint(0, 2, (n,), generator=draw)
    found[:, 0] = 2.0 * labels - 1
    return (6 * found @ PARTS.mT).view(n, 3, SIZE, SIZE), labels


def made(weight: float, kind: type[Defense] | None = None) -> tuple[Any, EdgeSegment]:
    edge, choice = make_edge(), Choice(name="reconstruction", options={"weight": weight})
    defense = build_defense(choice) if kind is None else kind(Reconstruction.Options(weight=weight))
    defense.attach(edge)
    defense.mean_image.copy_(0.1 * torch.ones(3, SIZE, SIZE))
    return defense, edge


def batch_of(edge: EdgeSegment, n: int = 64, *, strength: float = 1.0, step: int = 0) -> DefenseBatch:
    images, labels = records(n, torch_stream(0, "batch", step))
    mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=0.1)
    z = mechanism.sanitize(edge.features(images), SeededNoise(0, "batch", step)).values
    return DefenseBatch(
        z=z, task_labels=[labels], sensitive_labels=[labels], edge=edge, images=images, strength=strength
    )


def gradients(loss: Any, edge: EdgeSegment, *modules: nn.Module, strength: float = 1.0) -> list[Tensor]:
    """Of each module, in one backward of the mean loss."""
    for module in (edge, *modules):
        module.zero_grad(set_to_none=True)
    loss(batch_of(edge, strength=strength)).mean().backward()
    return [torch.cat([p.grad.flatten() for p in module.parameters()]) for module in modules]


def is_honest(kind: type[Defense]) -> bool:
    """Whether the decoder descends its own error, nothing else, and that error never reaches the trunk."""
    defense, edge = made(2.0, kind)

    def own(batch: DefenseBatch) -> Tensor:
        return squared_distance(defense.decoder(batch.z.detach()), batch.images)

    wanted = gradients(own, edge, defense.decoder)[0]
    got = gradients(defense.loss, edge, defense.decoder)[0]
    plain = gradients(task_loss_per_record, edge, edge.bottleneck)[0]
    weak = gradients(defense.loss, edge, edge.bottleneck, strength=0.0)[0]
    return torch.allclose(got, wanted, atol=1e-6) and torch.allclose(weak, plain, atol=1e-6)


def test_the_decoder_learns_to_draw_and_the_edge_never_helps_it():
    assert is_honest(Reconstruction)


def test_sabotage_an_undetached_z_or_a_decoder_taught_to_fail_is_caught():
    class Helped(Reconstruction):
        def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
            honest = super().adversary_loss(z, batch)
            drawn = squared_distance(self.decoder(z), batch.images)
            return honest + drawn - squared_distance(self.decoder(z.detach()), batch.images)

    class Taught(Reconstruction):
        def loss(self, batch: DefenseBatch) -> Tensor:
            drawn = self.decoder(batch.z)
            pull = batch.strength * squared_distance(drawn, self.mean_image)
            return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch) + pull

    assert not is_honest(Helped)
    assert not is_honest(Taught)


def test_the_pull_is_the_formula_and_ends_at_the_mean_image():
    defense, edge = made(3.0)
    batch = batch_of(edge)
    difference = defense.loss(batch) - (task_loss_per_record(batch) + defense.adversary_loss(batch.z, batch))
    drawn = defense.decoder(batch.z)
    wanted = 3.0 * (drawn - defense.mean_image).square().flatten(1).mean(1)
    assert torch.allclose(difference, wanted, atol=1e-5)
    with torch.no_grad():  # a decoder that draws the mean image of everybody
        for parameter in defense.decoder[-1].parameters():
            parameter.zero_()
        defense.decoder[-1].bias.fill_(0.1)
    _, plain = (gradients(loss, edge, edge.bottleneck)[0] for loss in (defense.loss, task_loss_per_record))
    assert torch.allclose(gradients(defense.loss, edge, edge.bottleneck)[0], plain, atol=1e-7)


def drawn_by_a_fresh_decoder(weight: float) -> tuple[float, float]:
    """After training: the share of new images' variance, but for the task's own part, that a fresh linear
    decoder draws, and the task's accuracy."""
    defense, edge = made(weight)
    defense.mean_image.zero_()
    # An edge that follows its task slowly: under Adam this linear one keeps nothing but the task by itself.
    optimizers = [
        torch.optim.SGD(edge.bottleneck.parameters(), lr=1e-3),
        torch.optim.Adam([*edge.task_exits.parameters(), *defense.parameters()], lr=0.01),
    ]
    for step in range(120):
        edge.zero_grad(set_to_none=True)
        defense.zero_grad(set_to_none=True)
        defense.loss(batch_of(edge, step=step, strength=min(1.0, step / 30))).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        known, new = batch_of(edge, 1500, step=1000), batch_of(edge, 1500, step=1001)
        right = edge.task_logits(new.z)[0].argmax(1) == new.task_labels[0]
    rest = PARTS[:, 1:]
    fresh = Ridge(alpha=1e-3).fit(known.z.numpy(), (known.images.flatten(1) @ rest).numpy())
    truth = (new.images.flatten(1) @ rest).numpy()
    error = np.square(fresh.predict(new.z.numpy()) - truth).sum()
    return 1 - float(error / np.square(truth - truth.mean(0)).sum()), float(right.float().mean())


def test_a_fresh_decoder_draws_less_of_it_and_the_task_is_still_done():
    (open_, _), (defended, accuracy) = drawn_by_a_fresh_decoder(0.0), drawn_by_a_fresh_decoder(3.0)
    assert open_ > 0.5
    assert defended < 0.6 * open_
    assert accuracy > 0.9


@pytest.mark.parametrize("shape", [(5,), (3, 6, 6), (4, 12, 24), (2, 24, 24)])
def test_it_draws_whole_images_from_vectors_and_maps(shape):
    with isolated_rng(0, "decoder"):
        decoder = Decoder(shape, 24, 16)
    assert decoder(torch.zeros(2, *shape)).shape == (2, 3, 24, 24)


def test_begin_keeps_the_mean_image_in_the_checkpoint():
    defense, edge = made(1.0)
    mean = torch.randn(3, SIZE, SIZE, generator=torch_stream(0, "mean"))
    data = DefenseData([], [], [], [], torch.zeros(0), lambda: mean, 0, lambda: torch.zeros(0))
    defense.begin(edge, data)
    assert torch.equal(defense.state_dict()["mean_image"], mean)


def test_it_is_refused_under_dp_sgd(small_config):
    config = small_config(
        epochs=(1, 0, 1), defense={"name": "reconstruction"}, edge={"dp_sgd": {"noise_multiplier": 1.0}}
    )
    with pytest.raises(ConfigError, match="learns from private records outside the one loss"):
        check_defense(config, build_defense(config.defense))
