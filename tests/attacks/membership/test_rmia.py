"""RMIA's own arithmetic; the contract it shares with LiRA is in ``test_lira.py``."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from privhier.attacks.membership.rmia import RmiaAttack
from privhier.attacks.membership.shadows import shadow_models
from privhier.attacks.membership.view import Population

Toy = runpy.run_path(str(Path(__file__).with_name("toy.py")))["Toy"]


def likelihood(model, view):
    logits = model(view.pool_images(), 0)[0].astype(float)
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True))[np.arange(len(logits)), view.pool_labels()[:, 0]]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_scores_are_the_share_of_population_records_beaten(offline, gamma):
    toy = Toy(memory=2.0, n=50, population=40)
    attack = RmiaAttack(shadows=8, gamma=gamma, offline_a=0.4, offline=offline, mirrored=False)
    scores = attack.run(toy.view).scores["tail"]
    target = likelihood(toy.view.target["tail"], toy.view)
    shadows = shadow_models(toy.view, 8)
    inside = np.stack([shadow.inside for shadow in shadows])
    said = np.stack([1 / (1 + np.exp(-shadow.said["tail"][0, :, 0].astype(float))) for shadow in shadows])
    shares = []
    for x in range(50):
        out = said[~inside[:, x], x].mean()
        own = said[inside[:, x], x].mean()
        p_x = 0.5 * (1.4 * out + 0.6) if offline else 0.5 * (own + out)
        beaten = 0
        for z in range(50, 90):
            p_z = 0.5 * (1.4 * said[~inside[:, z], z].mean() + 0.6)
            beaten += target[x] / p_x >= gamma * target[z] / p_z
        shares.append(beaten / 40)
    # Within one step of the share: ties are broken below that.
    assert np.abs(scores - np.array(shares)).max() <= 1 / 41
    assert spearmanr(scores, shares).statistic > 0.9


def test_candidates_that_beat_the_same_records_are_still_ordered():
    toy = Toy(memory=3.0, n=60, population=4)
    scores = RmiaAttack(shadows=8).run(toy.view).scores["tail"]
    assert len(np.unique(scores)) > 50
    assert ((scores > 0) & (scores < 1)).all()


def test_without_population_records_it_refuses():
    view = Toy(memory=1.0, n=20, population=4).view
    empty = Population(view.population.images[:0], view.population.labels[:0])
    assert "population" in RmiaAttack().refuses(replace(view, population=empty))
    assert RmiaAttack().refuses(view) is None
