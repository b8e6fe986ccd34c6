"""The floors of a run: cheap, of the true labels, and a floor that sees releases fails the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from privhier.assessment import floors as floors_of_a_run
from privhier.assessment.context import Context
from privhier.assessment.floors import floor_outcomes, floor_views, label_counts, victim_cells
from privhier.assessment.leakage import leakage
from privhier.assessment.victims import build_attacks
from privhier.assessment.views import cloud_view
from privhier.errors import GuaranteeError
from privhier.evaluation.result import Result
from privhier.metrics.label_space import label_cells
from privhier.session import open_session, run
from privhier.training.trained import load_trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_config):
    threads = torch.get_num_threads()
    config = small_config(
        "floors",
        images=400,
        batch=64,
        dataset={"sensitive": ["male", "identity"], "task": ["smiling", "glasses"]},
        attacks={
            "attribute": [{"name": "logistic_regression", "options": {"trials": 0}}],
            "verification": [{"name": "metric", "options": {"epochs": 0}}],
            "draws": 2,
            "reconstruction": [],
            "raw_image": False,
        },
        evaluation={"bootstrap": 100, "references": ["open"]},
        tracking={"enabled": False},
    )
    session = open_session(config, tmp_path_factory.mktemp("floors") / "run")
    result = run(session, command="test")
    torch.set_num_threads(threads)
    return session, result


@pytest.fixture
def context(finished):
    session, _ = finished
    return Context(session, load_trained(session.config, session.prepared.data, session.folder))


def test_every_leakage_has_its_floor_its_answers_and_its_excess(finished):
    _, result = finished
    for part in (result, result.references["open"]):
        male, identity = part.leakage["male"], part.leakage["identity"]
        assert male.excess.auc.value == pytest.approx(male.worst.auc.value - male.floor.auc.value)
        trained = male.worst.training_records["auc"].value - male.floor.training_records["auc"].value
        assert male.excess.training_records["auc"].value == pytest.approx(trained)
        assert male.answers.auc is not None
        assert male.certified is None
        assert identity.floor.matched_verification_auc.value == 0.5
        assert identity.floor.training_records["matched_verification_auc"].value == 0.5
        assert identity.headline.metric == "matched_verification_auc"
        assert identity.worst.verification_auc is not None
        assert identity.label_counts is None
    assert result.leakage["male"].floor == result.references["open"].leakage["male"].floor
    assert Result.read(finished[0].folder.result) == result


def test_the_counts_are_those_of_the_test_victims(finished, context):
    session, result = finished
    test, data = session.victims.test, session.prepared.data
    cells = label_cells(list(data.task.numpy()[test].T), (2, 2))
    male = session.prepared.labels["male"].values[test]
    expected = np.zeros((4, 2), dtype=np.int64)
    np.add.at(expected, (cells, male), 1)
    assert result.leakage["male"].label_counts.counts == expected.tolist()
    assert label_counts(context, "male") == result.leakage["male"].label_counts
    told = victim_cells(context)[: len(test)]
    assert np.array_equal(told[:, None] == told, cells[:, None] == cells)


def test_the_floor_is_taught_true_labels_of_the_auxiliary_set(context):
    view = floor_views(context, cloud_view(context))["labels"]
    task = context.prepared.data.task.numpy()
    assert np.array_equal(view.alphabet.letters_of(view.aux.releases(0))[:, 0], task[context.victims.aux])
    everyone = np.concatenate([context.victims.test, context.victims.training])
    assert np.array_equal(view.alphabet.letters_of(view.releases)[:, 0], task[everyone])


def test_the_answers_are_the_tails_own(context):
    view = floor_views(context, cloud_view(context))["answers"]
    answers = view.releases[:, 0]
    for first in (0, 4):
        probabilities, chosen = answers[:, first : first + 2], answers[:, first + 2 : first + 4]
        assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(probabilities.argmax(1), chosen.argmax(1))
    assert view.aux.releases(1).shape == (len(context.victims.aux), 1, 8)


@pytest.mark.parametrize("name", ["male", "identity"])
def test_a_floor_that_peeks_at_releases_is_caught(context, monkeypatch, tmp_path, name):
    """Its releases are the labels' with the victims' real releases beside them."""
    cloud = cloud_view(context)
    honest = floor_views(context, cloud)["labels"]
    own, real = honest.aux.releases, cloud.aux.releases

    def beside(labels, releases):
        return np.concatenate([labels, releases[:, -1:].reshape(len(labels), 1, -1)], axis=2)

    peeking = replace(
        honest,
        releases=beside(honest.releases, cloud.releases),
        aux=replace(honest.aux, releases=lambda draw: beside(own(draw), real(draw))),
        alphabet=None,
    )
    monkeypatch.setattr("privhier.assessment.context.bench_folder", lambda *_: tmp_path)
    plan = build_attacks(context.config)[name]
    with pytest.raises(GuaranteeError, match="task labels only, yet its answers on equal labels differ"):
        leakage(context, name, plan, {"curious_cloud": cloud}, {"labels": peeking})


def test_last_bits_do_not_order_victims_of_equal_labels(context, monkeypatch):
    """A library's arithmetic may depend on the row: what is so told apart would count in an AUC."""
    view = floor_views(context, cloud_view(context))["labels"]
    real = floors_of_a_run.outcome

    def rounded(entry):
        said = real(entry)
        noise = np.random.default_rng(0).normal(0, 1e-6, said.probabilities.shape)
        return replace(said, probabilities=said.probabilities + noise.astype(np.float32))

    monkeypatch.setattr(floors_of_a_run, "outcome", rounded)
    for said in floor_outcomes(context, "male", view):
        assert len(np.unique(said.probabilities[:, 1])) <= 4
