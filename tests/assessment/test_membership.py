"""Membership inference on a run: the view tells nothing, shadows are the run's own, a kill costs little."""

from __future__ import annotations

import json
import pickle
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.assessment import shadow_training
from privhier.assessment.context import Subject
from privhier.assessment.membership import choose_candidates, membership_scores, membership_view
from privhier.assessment.shadow_training import PARTS, ShadowTrainer
from privhier.assessment.victims import choose_victims
from privhier.attacks.membership.lira import LiraAttack
from privhier.attacks.membership.shadows import ask, training_rows
from privhier.attacks.membership.view import Workshop
from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.evaluation.result import Membership
from privhier.privacy.release import ReleaseMechanism
from privhier.report.roc_figure import draw_roc
from privhier.training import trainer as trainers
from privhier.training.folder import RunFolder
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.trained import Trained
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def tiny(**changes) -> RunConfig:
    chosen = {
        "dataset": {
            "splits": {"train": 0.3, "val": 0.1, "aux": 0.3, "test": 0.3},
            "options": {"identities": 100},
        },
        "model": {"bottleneck": {"size": 8}},
        "release": {"mechanism": "gaussian", "clip": 4.0, "sigma": 0.05},
        "attacks": {
            "membership": [
                {"name": "lira", "options": {"shadows": 4}},
                {"name": "rmia", "options": {"shadows": 4}},
            ],
            "membership_candidates": 120,
        },
        "evaluation": {"bootstrap": 100},
    }
    return small_config(images=300, size=16, **{**chosen, **changes})


def trained_run(config: RunConfig, root: Path) -> tuple[Prepared, Trained, RunFolder]:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    folder = RunFolder(root)
    keep = choose_victims(config, prepared).training
    mechanism = build_mechanism(config, len(prepared.data.splits.train))
    trained = Trainer(config, prepared.data, mechanism, folder, device=CPU, keep=keep).run()
    return prepared, trained, folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[RunConfig, Prepared, Trained, RunFolder]:
    config = tiny()
    return config, *trained_run(config, tmp_path_factory.mktemp("run"))


def subject(config: RunConfig, prepared: Prepared, folder: RunFolder, progress=None) -> Subject:
    return Subject(config, folder, prepared, choose_victims(config, prepared), CPU, progress)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "attacks" not in path.parts
    }


def count_trainings(monkeypatch) -> list[int]:
    calls: list[int] = []
    original = ShadowTrainer.__call__

    def counted(self, rows, seed):
        calls.append(seed)
        return original(self, rows, seed)

    monkeypatch.setattr(ShadowTrainer, "__call__", counted)
    return calls


def timeless(found: Membership) -> Membership:
    """All but the wall times."""
    return found.model_copy(update={"seconds": {}})


@pytest.mark.slow
def test_scores_resume_and_workers_agree(finished, monkeypatch, tmp_path):
    config, prepared, trained, folder = finished
    calls, before = count_trainings(monkeypatch), files(folder.root)
    heard = []
    watched = subject(config, prepared, folder, lambda *said: heard.append(said))
    found = membership_scores(watched, trained, workers=1)
    assert len(calls) == 4
    assert heard[-1] == ("membership: shadow models", 4, 4)
    assert files(folder.root) == before, "nothing of the run itself may change, its ledger least of all"
    assert set(found.parts) == set(PARTS)
    assert set(found.parts["tail"]) == {"lira", "rmia"}
    assert abs(found.n_members - found.n_nonmembers) <= 4
    assert found.shadows == 4
    assert abs(found.shadow_records - len(prepared.data.splits.train)) <= 2
    for by_attack in found.parts.values():
        for scores in by_attack.values():
            assert scores.auc.n == found.n_members + found.n_nonmembers
            assert scores.tpr_at_fpr_01 is None, "60 non-members cannot resolve 1 %"
            assert scores.tpr_at_fpr_001 is None
            assert scores.roc[-1] == (1.0, 1.0)
    assert Membership.model_validate_json(found.model_dump_json()) == found

    (folder.attacks / "membership").joinpath(kept(folder)[1]).unlink()  # as if killed there
    again = membership_scores(subject(config, prepared, folder), trained, workers=1)
    assert len(calls) == 5
    assert timeless(again) == timeless(found)

    elsewhere = membership_scores(subject(config, prepared, RunFolder(tmp_path)), trained, workers=2)
    assert len(calls) == 5, "two processes of their own have trained them"
    assert timeless(elsewhere) == timeless(found)

    stores = [np.load(folder.attacks / "membership" / name) for name in kept(folder)]
    training = sum(float(store["seconds"]) for store in stores)
    assert training > 0
    warm = membership_scores(subject(config, prepared, folder), trained, workers=1)
    assert len(calls) == 5
    for shown in (found, again, warm):
        assert min(shown.seconds.values()) >= (0 if shown is found else training)
    assert found.seconds["rmia"] >= 0.5 * found.seconds["lira"], "lira trained what both use"

    drawings = draw_roc(found)
    assert len(drawings) == len(found.parts)
    assert all(drawing.svg.startswith(b"<?xml") for drawing in drawings)
    assert drawings == draw_roc(found)


def kept(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.attacks / "membership").glob("*.npz"))


def test_no_attack_asked_for_is_no_result(finished):
    config, prepared, trained, folder = finished
    attacks = config.attacks.model_copy(update={"membership": []})
    quiet = config.model_copy(update={"attacks": attacks})
    assert membership_scores(subject(quiet, prepared, folder), trained) is None


def test_candidates_are_balanced_and_share_no_group(finished):
    config, prepared, _, _ = finished
    chosen = choose_candidates(config, prepared)
    group, splits = prepared.dataset.group, prepared.data.splits
    members, others = chosen.records[chosen.member], chosen.records[~chosen.member]
    assert np.isin(members, splits.train).all()
    assert np.isin(others, splits.test).all()
    assert not np.intersect1d(group[members], group[others]).size
    assert not np.intersect1d(group[chosen.population], group[chosen.records]).size
    for side, split in ((members, splits.train), (others, splits.test)):
        whole = split[np.isin(group[split], group[side])]
        np.testing.assert_array_equal(np.sort(side), whole)
    order = np.flatnonzero(chosen.member)
    assert 0.35 < order.mean() / len(chosen.member) < 0.65, "the order must not tell"


def test_the_view_is_the_same_whoever_was_trained_on(finished):
    config, prepared, trained, _ = finished
    chosen = choose_candidates(config, prepared)
    splits = prepared.data.splits
    swapped = replace(splits, train=splits.test, test=splits.train)
    other = replace(prepared, data=replace(prepared.data, splits=swapped))
    views = [
        membership_view(config, p, trained, c, device=CPU, workshop=Workshop())
        for p, c in (
            (prepared, chosen),
            (other, replace(chosen, member=~chosen.member)),
        )
    ]
    sizes = [len(splits.train), len(splits.test)]
    assert [view.records for view in views] == sizes, "the size alone is public"
    views = [replace(view, records=0) for view in views]
    for name in ("images", "labels", "groups", "population", "train", "seed", "pipeline", "target"):
        first, second = (pickle.dumps(getattr(view, name)) for view in views)
        assert first == second, name


def test_shadow_models_are_trained_by_the_runs_own_rules(finished, monkeypatch):
    config, prepared, trained, _ = finished
    chosen = choose_candidates(config, prepared)
    view = membership_view(config, prepared, trained, chosen, device=CPU, workshop=Workshop())
    seen = []
    original = Trainer.__init__

    def watched(self, config, data, mechanism, folder, **rest):
        original(self, config, data, mechanism, folder, **rest)
        seen.append((config, data, self.mechanism, folder.root))

    monkeypatch.setattr(Trainer, "__init__", watched)
    rows = training_rows(view, 0)
    parts = view.train(rows, 77)
    ((own, data, mechanism, root),) = seen
    assert own.model_copy(update={"seed": config.seed}) == config
    assert own.seed == 77
    assert mechanism == trained.mechanism
    np.testing.assert_array_equal(data.splits.train, rows)
    assert not root.exists()
    first, again = (parts["tail"](view.images, 0)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, parts["tail"](view.images, 1)[0]), "every query has noise of its own"
    clean = [parts["edge_weights"](view.images, query)[0] for query in (0, 1)]
    np.testing.assert_array_equal(*clean)


@pytest.mark.parametrize("protected", [False, True], ids=["identity exit", "dp_sgd"])
def test_other_pipelines_train_shadows_too(protected, tmp_path):
    changes = {"schedule": {"joint_epochs": 1}}
    if protected:
        changes["edge"] = {"dp_sgd": {"target_epsilon": 2.0}}
        changes["privacy"] = {"label_epsilon": 3.0, "noise_source": "system"}
    else:
        changes["dataset"] = tiny().dataset.model_dump() | {"sensitive": ["identity"]}
        changes["release"] = {"mechanism": "none"}
    config = tiny(**changes)
    prepared, trained, _ = trained_run(config, tmp_path)
    chosen = choose_candidates(config, prepared)
    workshop = Workshop(tmp_path / "shadows")
    view = membership_view(config, prepared, trained, chosen, device=CPU, workshop=workshop)
    result = LiraAttack(shadows=4).run(view)
    assert all(np.isfinite(scores).all() for scores in result.scores.values())
    assert set(result.scores) == set(PARTS)


def test_shadow_models_have_letters_of_their_own(tmp_path):
    config = tiny(
        model={"bottleneck": {"kind": "letters", "size": 2, "letters": 4, "groups": 2}},
        release={"mechanism": "randomized_response", "target_epsilon": 4.0},
    )
    prepared, trained, _ = trained_run(config, tmp_path)
    chosen = choose_candidates(config, prepared)
    view = membership_view(config, prepared, trained, chosen, device=CPU, workshop=Workshop())
    parts = pickle.loads(pickle.dumps(view.train))(training_rows(view, 0), 77)
    own = trained.edge.codebook.values
    assert not torch.equal(parts["tail"].edge.codebook.values, own)
    for asked in (parts, view.target):
        answered = [asked["tail"](view.images, query)[0] for query in (0, 1)]
        assert not np.array_equal(*answered), "every query is answered anew"
        assert len(np.unique(answered[0], axis=0)) <= 4**2, "a tail sees letters"
        clean = [asked["edge_weights"](view.images, query)[0] for query in (0, 1)]
        np.testing.assert_array_equal(*clean)
        assert 1 < len(np.unique(clean[0], axis=0)) <= 4**2, "the true letter's values"
        assert np.isfinite(asked["task_exit"](view.images, 0)[0]).all()


@pytest.mark.slow
def test_a_network_that_knows_its_records_by_heart_gives_them_away(tmp_path):
    config = tiny(
        dataset=tiny().dataset.model_dump() | {"task": ["bin(age, 25, 35, 50)"]},
        model={"exit_hidden": 32, "bottleneck": {"kind": "none", "size": None}},
        schedule={"joint_epochs": 15},
        release={"mechanism": "none"},
        training={"batch_size": 16, "augment": {"flip": False, "shift": 0}, "edge": {"lr": 5e-3}},
    )
    prepared, trained, folder = trained_run(config, tmp_path)
    found = membership_scores(subject(config, prepared, folder), trained, workers=1)
    assert found.parts["edge_weights"]["lira"].auc.low > 0.5
    assert json.loads(found.model_dump_json())["n_members"] == found.n_members


def test_the_noiseless_part_is_clipped_as_the_exits_were_trained(finished):
    config, prepared, trained, _ = finished
    chosen = choose_candidates(config, prepared)
    tight = replace(trained, mechanism=ReleaseMechanism("gaussian", clip=1e-3, sigma=1e-6))
    view = membership_view(config, prepared, tight, chosen, device=CPU, workshop=Workshop())
    clipped, noised = (view.target[part](view.images, 0)[0] for part in ("edge_weights", "task_exit"))
    np.testing.assert_allclose(clipped, noised, atol=1e-3)


def test_one_pass_through_the_edge_serves_all_parts_and_no_number_changes(finished, monkeypatch):
    config, prepared, trained, _ = finished
    view = membership_view(
        config, prepared, trained, choose_candidates(config, prepared), device=CPU, workshop=Workshop()
    )
    passes = []
    features = shadow_training.edge_features

    def counted(edge, images, rows, **rest):
        passes.append(len(rows))
        return features(edge, images, rows, **rest)

    monkeypatch.setattr(shadow_training, "edge_features", counted)
    monkeypatch.setattr(shadow_training, "_BLOCK", 64)  # several blocks, each with noise of its own
    images, labels = view.pool_images(), view.pool_labels()
    together = ask(view.target, images, labels)
    assert sum(passes) == 2 * len(images), "once a query, whoever is asked"
    alone = ask(dict(view.target), images, labels)
    assert sum(passes) == (2 + 2 * len(PARTS)) * len(images)
    assert list(together) == list(alone) == list(PARTS)
    for part in PARTS:
        np.testing.assert_array_equal(together[part], alone[part])


@pytest.mark.parametrize("cloud_epochs", [0, 1])
def test_a_shadow_model_is_the_run_s_own_without_its_checkpoints(
    finished, monkeypatch, tmp_path, cloud_epochs
):
    """Bit for bit what a trainer that leaves a checkpoint after every epoch gives."""
    config, prepared, trained, _ = finished
    config = tiny(schedule={"pretrain_epochs": 1, "joint_epochs": 1, "cloud_epochs": cloud_epochs})
    view = membership_view(
        config, prepared, trained, choose_candidates(config, prepared), device=CPU, workshop=Workshop()
    )
    saved = []
    save = trainers.save_checkpoint
    monkeypatch.setattr(trainers, "save_checkpoint", lambda *a, **k: (saved.append(1), save(*a, **k)))
    rows = training_rows(view, 0)
    parts = view.train(rows, 77)
    assert not saved
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, **_: run(self))
    kept = view.train(rows, 77)
    assert len(saved) == 3 + 2 * cloud_epochs, "one after every epoch, and after the releases in between"
    for part in PARTS:
        np.testing.assert_array_equal(
            parts[part](view.images, 0)[0], kept[part](view.images, 0)[0], err_msg=part
        )
