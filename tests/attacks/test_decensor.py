from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from privhier.attacks.decensor import DecensorAttack
from privhier.attacks.parts.edge_copy import RetrainPlan, pixels, retrain_edge
from privhier.attacks.parts.fitting import class_probabilities
from privhier.attacks.parts.selection import pose_attribute
from privhier.attacks.threat_models import white_box
from privhier.attacks.view import AuxiliarySet, View
from privhier.config import ModelConfig
from privhier.models.features import edge_features
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism

PLAN = RetrainPlan(stages=1, hidden=16, epochs=8, batch=32, learning_rate=3e-3, max_gmacs=100)


def toy(records=80, victims=200, sigma=0.3, leak=25, cut="stage1", seed=0):
    """Noise images in which gender brightens the left half; an untrained edge releases maps."""
    rng = np.random.default_rng(seed)
    n = records + victims
    gender = rng.integers(0, 2, n)
    pictures = rng.normal(128, 40, (n, 3, 8, 8))
    pictures[:, :, :, :4] += leak * (2 * gender - 1)[:, None, None, None]
    images = np.clip(pictures, 0, 255).astype(np.uint8)
    config = ModelConfig(backbone="small_cnn", cut=cut, exit_hidden=16)
    edge, _ = build_network(config, image_size=8, task_classes={"smile": 2}, sensitive_classes={}, seed=seed)
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


def test_the_edge_copy_is_retrained_from_the_cut_back_and_nothing_else_moves():
    view, _ = toy(cut="stage2")
    edge = view.white_box.edges[0]
    before = {name: value.clone() for name, value in edge.state_dict().items()}
    problem = pose_attribute(view, "gender", "decensor")
    copy = retrain_edge(view, problem, PLAN, name="decensor")
    assert copy.score > 0.9
    assert not copy.training
    for name, value in edge.state_dict().items():
        assert torch.equal(value, before[name])
    own = copy.state_dict()
    for name, value in edge.trunk.state_dict().items():
        frozen = name.startswith("stage1")
        assert torch.equal(value, own[f"{'frozen' if frozen else 'retrained'}.{name}"]) == frozen


def test_images_stay_as_they_are():
    """Pixels are normalized in place further down: the attacker's own must not be."""
    view, _ = toy()
    problem = pose_attribute(view, "gender", "decensor")
    copy = retrain_edge(view, problem, replace(PLAN, epochs=1), name="decensor")
    shown = torch.from_numpy(pixels(view.aux.images[:4]))
    kept = shown.clone()
    with torch.no_grad():
        first, again = copy(shown), copy(shown)
    assert torch.equal(shown, kept)
    assert torch.equal(first, again)


def test_a_budget_cuts_the_epochs():
    view, _ = toy()
    problem = pose_attribute(view, "gender", "decensor")
    short = retrain_edge(view, problem, replace(PLAN, epochs=50, max_gmacs=0), name="decensor")
    three = retrain_edge(view, problem, replace(PLAN, epochs=3), name="decensor")
    images = pixels(view.aux.images)
    assert np.array_equal(
        class_probabilities(short, images, "cpu"), class_probabilities(three, images, "cpu")
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_translated_features_tell_the_target(weight):
    view, truth = toy(records=200)
    attack = DecensorAttack(
        target="gender", class_weights=(weight,), epochs=16, batch=16, retrain_epochs=6, width=16
    )
    result = attack.run(view)
    assert roc_auc_score(truth, result.probabilities[:, 1]) > 0.85
    assert result.selected["class_weight"] == weight
    assert result.selected["uncensored"] > 0.9


def test_noise_that_hides_the_features_hides_the_translation():
    view, truth = toy(sigma=100.0)
    attack = DecensorAttack(target="gender", epochs=4, retrain_epochs=4, width=8)
    result = attack.run(view)
    assert abs(roc_auc_score(truth, result.probabilities[:, 1]) - 0.5) < 0.12
    assert result.selected["uncensored"] > 0.9  # the images are still read: only the release is not
