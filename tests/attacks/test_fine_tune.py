from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from privhier.attacks.fine_tune import FineTuneAttack
from privhier.attacks.parts.edge_exits import AveragedExits, own_exit, renewed_exit
from privhier.attacks.parts.fresh_noise import FreshReleases, side_by_side
from privhier.attacks.parts.nets import stack_releases
from privhier.attacks.threat_models import white_box
from privhier.attacks.view import AuxiliarySet, View
from privhier.config import ModelConfig
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism


def toy(records=80, victims=200, sigma=0.3, leak=25, exits=("age",), seed=0):
    """Noise images in which gender brightens the left half; an untrained edge releases 24x4x4 maps."""
    rng = np.random.default_rng(seed)
    n = records + victims
    gender = rng.integers(0, 2, n)
    pictures = rng.normal(128, 40, (n, 3, 8, 8))
    pictures[:, :, :, :4] += leak * (2 * gender - 1)[:, None, None, None]
    images = np.clip(pictures, 0, 255).astype(np.uint8)
    config = ModelConfig(backbone="small_cnn", cut="stage1", exit_hidden=16)
    classes = dict.fromkeys(exits, 2)
    edge, _ = build_network(
        config, image_size=8, task_classes={"smile": 2}, sensitive_classes=classes, seed=seed
    )
    if not exits:
        edge = EdgeSegment(
            edge.trunk,
            edge.bottleneck,
            task_exits={},
            adversarial_exits={},
            feature_shape=edge.feature_shape,
            description={},
        )
    mechanism = ReleaseMechanism("gaussian", clip=100.0, sigma=sigma)
    features = edge_features(edge, images, np.arange(n), device=torch.device("cpu"))

    def release(rows, draw):
        return mechanism.sanitize(features[rows], SeededNoise(seed, draw)).values[:, None].numpy()

    own, others = np.arange(records), np.arange(records, n)
    aux = AuxiliarySet(
        images=images[own],
        labels={"gender": gender[own]},
        n_classes={"gender": 2},
        groups=own,
        draws=1,
        releases=lambda k: release(own, k),
    )
    view = View("toy", release(others, 99), (3, 8, 8), aux, seed=1)
    return white_box(view, edges=[edge], mechanism=mechanism), gender[others]


def read(view, truth, **options):
    result = FineTuneAttack(target="gender", width=8, **options).run(view)
    return roc_auc_score(truth, result.probabilities[:, 1]), result


def teach(view, images, labels):
    """Train the edge's own exit for gender on noised features of ``images``."""
    edge = view.white_box.edges[0]
    z = edge_features(edge, images, np.arange(len(images)), device=torch.device("cpu"))
    head = edge.adversarial_exits[edge.sensitive_names.index("gender")].requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    noise = torch.Generator().manual_seed(0)
    for _ in range(60):
        noisy = z + view.white_box.mechanism.sigma * torch.randn(z.shape, generator=noise)
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(noisy), torch.from_numpy(labels)).backward()
        optimizer.step()
    optimizer.zero_grad()
    head.requires_grad_(False)


def test_what_the_edges_own_exit_knows_is_used():
    """With 40 labelled records little can be learned anew; the exit has learned from 1,000 other people."""
    options = {"sigma": 1.0, "leak": 10, "exits": ("gender",)}
    view, truth = toy(records=40, victims=1200, **options)
    unseen = slice(1000, None)
    view = replace(view, releases=view.releases[unseen])
    plain, _ = read(view, truth[unseen], epochs=3, teacher_epochs=0)
    everyone, _ = toy(records=1240, victims=1, **options)
    others = slice(40, 1040)
    teach(view, everyone.aux.images[others], everyone.aux.labels["gender"][others])
    knowing, _ = read(view, truth[unseen], epochs=3, teacher_epochs=0)
    assert knowing > plain + 0.2


def test_copies_are_the_attackers_own():
    view, _ = toy(exits=("age", "gender"))
    edge = view.white_box.edges[0]
    z = torch.from_numpy(view.releases[:, 0])
    exact, renewed = own_exit(edge, "gender", 2), renewed_exit(edge, "gender", 5)
    with torch.no_grad():
        assert torch.equal(exact(z), edge.adversarial_exits[1](z))
        assert renewed(z).shape == (200, 5)
        assert torch.equal(renewed.layers[0].weight, edge.adversarial_exits[1].layers[0].weight)
        exact.layers[0].weight.zero_()
        assert edge.adversarial_exits[1].layers[0].weight.abs().sum() > 0
    assert all(parameter.requires_grad for parameter in exact.parameters())
    assert own_exit(edge, "gender", 3) is None  # its classes are others
    assert own_exit(edge, "race", 2) is None
    assert renewed_exit(edge, "race", 3).n_classes == 3  # hidden layers of another exit
    assert renewed_exit(toy(exits=())[0].white_box.edges[0], "race", 3) is None


def test_an_edge_without_exits_is_attacked_too():
    view, truth = toy(exits=())
    score, result = read(view, truth, epochs=12, teacher_epochs=0)
    assert score > 0.9
    # One network, and its average with itself: no other start exists.
    assert result.selected["network"].startswith("new network")


def test_noise_is_new_in_every_batch_of_every_epoch():
    view, _ = toy(records=20)
    noise = FreshReleases(view, "fine_tune", "gender")
    rows = np.array([3, 1, 4])
    first = noise.batch(rows, 0, "new network")
    assert not torch.equal(first, noise.batch(rows, 1, "new network"))
    assert not torch.equal(first, noise.batch(rows, 0, "own exit"))
    assert torch.equal(first, FreshReleases(view, "fine_tune", "gender").batch(rows, 0, "new network"))
    assert noise.queries == 9
    clean = torch.from_numpy(noise._features[rows])
    spread = (first - clean).std()
    assert abs(float(spread) - 0.3) < 0.03
    assert len(noise.held_out(rows)) == 12  # four draws
    quiet = white_box(view, edges=view.white_box.edges, mechanism=ReleaseMechanism("none"))
    assert len(FreshReleases(quiet, "x").held_out(rows)) == 3  # another draw would be the same


def test_a_teacher_is_one_more_candidate():
    view, truth = toy(records=60)
    _, without = read(view, truth, epochs=4, teacher_epochs=0)
    score, result = read(view, truth, epochs=4, teacher_epochs=2)
    assert result.queries > without.queries
    assert score > 0.8


def test_logits_are_averaged_over_the_releases():
    exits = [Exit((4,), 2, 0), Exit((4,), 2, 0)]
    z = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (exits[0](z[:, 0]) + exits[1](z[:, 1])) / 2
        assert torch.allclose(AveragedExits(exits)(z), expected)


def test_releases_side_by_side_are_those_of_the_convolutional_attacker():
    maps = np.random.default_rng(0).standard_normal((3, 2, 4, 5, 5)).astype(np.float32)
    assert np.allclose(side_by_side(torch.from_numpy(maps)).numpy(), stack_releases(maps))
    vectors = torch.arange(12.0).view(2, 2, 3)
    assert side_by_side(vectors).shape == (2, 9, 1, 1)
