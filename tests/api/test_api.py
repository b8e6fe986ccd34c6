"""The front door: what a notebook of fifteen lines needs, and what it must not do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import privhier as ph
from privhier.errors import CheckpointError, ConfigError, DataError, InterruptedRunError, OutputError

SMALL = {
    "name": "small",
    "dataset": {
        "name": "synthetic",
        "image_size": 16,
        "task": ["smiling"],
        "sensitive": ["male", "identity"],
        "options": {"images": 240, "identities": 60},
    },
    "model": {"bottleneck": {"kind": "dimension", "size": 4}, "exit_hidden": 8},
    "schedule": {"pretrain_epochs": 1, "joint_epochs": 1, "cloud_epochs": 1},
    "release": {"mechanism": "gaussian", "clip": 4.0, "sigma": 2.0},
    "training": {"batch_size": 32},
    "attacks": {
        "attribute": [{"name": "logistic_regression"}],
        "verification": [{"name": "metric", "options": {"epochs": 1}}],
        "reconstruction": [],
        "threat_models": ["curious_cloud"],
    },
    "evaluation": {"bootstrap": 100, "references": []},
    "tracking": {"enabled": False},
    "runtime": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> ph.FinishedRun:
    return ph.run(SMALL, out=tmp_path_factory.mktemp("api") / "done", progress=False)


def test_the_import_loads_nothing_heavy():
    code = "import sys, privhier as ph; ph.__all__, dir(ph); print(*sys.modules)"
    heard = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pydantic", "omegaconf", "rich", "mlflow", "sklearn", "typer"}
    assert heavy & set(heard.stdout.split()) == set()


def test_every_name_is_there_documented_and_no_room_hides_it(repository):
    import privhier.api
    import privhier.cli.main
    import privhier.sweeps.job

    for name in ph.__all__:
        assert getattr(ph, name).__doc__, name
    assert callable(ph.run)
    assert callable(ph.sweep)
    assert set(privhier.api.__all__) <= set(ph.__all__) <= set(dir(ph))
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        ph.swep  # noqa: B018


def test_a_run_is_the_command_lines(done, tmp_path, told):
    config = tmp_path / "small.json"  # YAML holds JSON
    config.write_text(json.dumps(SMALL))
    told("run", config, "--out", tmp_path / "run")
    own, other = (
        json.loads((folder / "result.json").read_text()) for folder in (done.folder, tmp_path / "run")
    )
    for result in (own, other):
        del result["timing"], result["git"]
    assert own == other
    assert done.report.is_file()
    assert done.summary().startswith("task smiling: cloud AUC")


def test_load_config_takes_files_data_and_both_kinds_of_overrides(repository):
    file = repository / "configs" / "debug.yaml"
    listed = ph.load_config(file, ["release.sigma=0.4", "dataset.task=[bin(age, 20, 40)]", "name=x"])
    mapped = ph.load_config(
        str(file), {"release.sigma": 0.4, "dataset.task": ["bin(age, 20, 40)"], "name": "x"}
    )
    assert listed == mapped
    assert ph.load_config(SMALL, {"defense": {"name": "max_entropy"}}).defense.name == "max_entropy"
    for wrong in ("release.sigma=0.4", ["release.sigma"], {"release.sigmma": 1}):
        with pytest.raises(ConfigError):
            ph.load_config(file, wrong)
    with pytest.raises(ConfigError, match="overrides"):
        ph.load_config(file, "seed=1")
    root = ph.load_config(file, {"dataset.root": Path("a b"), "release.sigma": np.float32(0.5)})
    assert (root.dataset.root, root.release.sigma) == ("a b", 0.5)
    for nothing in (5, None):
        with pytest.raises(ConfigError, match="must be a file, or plain data"):
            ph.load_config(nothing)
    with pytest.raises(ConfigError, match="cannot stand in a configuration"):
        ph.load_config(file, {"release.sigma": object()})


def test_a_finished_run_is_opened_without_its_data(done, monkeypatch):
    monkeypatch.setattr("privhier.session.opening.load_dataset", None)
    opened = ph.open_run(done.folder)
    assert opened.result == done.result
    assert opened.config == done.config
    assert opened.result.leakage["male"].worst.auc.n > 0
    assert opened.plot() == done.plot()


def test_what_is_no_finished_run_is_refused(done, tmp_path):
    with pytest.raises(CheckpointError):
        ph.open_run(tmp_path)
    edited = tmp_path / "edited"
    shutil.copytree(done.folder, edited)
    text = (edited / "result.json").read_text()
    (edited / "result.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(CheckpointError):
        ph.open_run(edited)
    with pytest.raises(ConfigError, match="cannot be changed in a run that exists"):
        ph.open_run(done.folder, {"release.sigma": 9})


def test_a_run_is_not_made_twice(done):
    with pytest.raises(OutputError):
        ph.run(SMALL, out=done.folder, progress=False)
    before = (done.folder / "result.json").stat().st_mtime_ns
    assert ph.run(SMALL, out=done.folder, resume=True, progress=False).result == done.result
    assert (done.folder / "result.json").stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        ph.run(SMALL, {"release.sigma": 9}, out=done.folder, resume=True, progress=False)


def test_views_hold_releases_and_no_truth(done):
    victims = done.result.leakage["male"].worst
    view = done.view()
    assert view.releases.shape[1:] == (2, 4)
    assert len(view.releases) == victims.auc.n + victims.training_records["auc"].n
    assert done.view("eavesdropper").releases.shape[1:] == (1, 4)
    assert done.view("raw_image").releases.shape[1:] == (1, 3, 16, 16)
    assert done.view("white_box").white_box is not None
    with pytest.raises(ConfigError, match="must be one of curious_cloud"):
        done.view("nosy_cloud")


def test_looking_writes_nothing(done):
    before = {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    looked = ph.open_run(done.folder, {"runtime.threads": 2})
    assert looked.view().releases.shape == done.view().releases.shape
    assert looked.faces.fingerprint == done.faces.fingerprint
    assert {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()} == before


def test_one_more_attack_is_scored_as_the_configured_are(done):
    from privhier.attacks.logistic_regression import LogisticRegressionAttack

    before = (done.folder / "result.json").read_bytes()
    again = done.attack(LogisticRegressionAttack(target="male"), progress=False)
    (configured,) = done.result.leakage["male"].attacks
    assert again == configured
    other = done.attack(ph.attacks.NearestNeighbors(target="male"), progress=False)
    assert other.attack == "nearest_neighbors"
    assert 0 <= other.auc.low <= other.auc.value <= other.auc.high <= 1
    assert other.training_records["auc"].n > 0
    raw = done.attack(ph.attacks.NearestNeighbors(target="male"), view="raw_image", progress=False)
    assert raw.auc != other.auc
    assert (done.folder / "result.json").read_bytes() == before
    assert ph.open_run(done.folder).result == done.result


def test_attacks_of_every_kind_are_taken(done):
    from privhier.attacks.decoder import DecoderAttack
    from privhier.attacks.fine_tune import FineTuneAttack
    from privhier.attacks.property import MixtureAttack
    from privhier.attacks.verification import MetricAttack

    assert done.attack(MetricAttack(epochs=1), progress=False).verification_auc.n > 0
    assert done.attack(DecoderAttack(epochs=1), progress=False).ssim.n > 0
    assert done.attack(MixtureAttack(target="male"), progress=False).error.value >= 0
    assert done.attack(FineTuneAttack(target="male", epochs=1), progress=False).threat_model == "white_box"


def test_an_attack_that_does_not_fit_is_refused(done):
    with pytest.raises(ConfigError, match="one of this run's sensitive attributes: male, identity"):
        done.attack(ph.attacks.NearestNeighbors(target="hat"), progress=False)


def test_what_is_no_attack_is_refused_in_words(done):
    for wrong in ("nearest_neighbors", ph.attacks.NearestNeighbors, ph.attacks.LiraAttack()):
        with pytest.raises(ConfigError, match="must be an attack object"):
            done.attack(wrong)
    with pytest.raises(ConfigError, match="must be one of curious_cloud"):
        done.attack(ph.attacks.NearestNeighbors(target="male"), view="nosy")
    with pytest.raises(ConfigError, match="does not apply to the view curious_cloud_labels"):
        done.attack(ph.attacks.NearestNeighbors(target="male"), view="curious_cloud_labels", progress=False)
    with pytest.raises(ConfigError, match="does not apply to the view curious_cloud: "):
        done.attack(ph.attacks.FineTuneAttack(target="male"), view="curious_cloud", progress=False)
    for options in ({"neighbors": (0,)}, {"neighbors": 5}, {"max_columns": -3}):
        with pytest.raises(ConfigError, match=f"NearestNeighbors.{next(iter(options))}"):
            ph.attacks.NearestNeighbors(target="male", **options)


def test_an_attack_that_is_written_anew_is_run_anew(done):
    """In a notebook a class is changed and keeps name and options."""
    scores = []
    for said in (0, 1):

        @dataclass(frozen=True)
        class Mine(ph.attacks.NearestNeighbors):
            if said:

                def described(self, setting):
                    return {"said": "other"}

        scores.append(done.attack(Mine(target="male"), progress=False))
    assert scores[0].attack == "Mine"
    # One text, two classes: the source tells them apart where it differs, as in two cells.
    from privhier.attacks.bench import _source_of

    assert _source_of(type("Typed", (), {"__module__": "__main__"})) != _source_of(
        type("Typed", (), {"__module__": "__main__"})
    )
    assert "described" in _source_of(Mine)


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (lambda n: 1 / 0, "this attack failed: ZeroDivisionError"),
        (lambda n: np.full((n, 2), 1.0, np.float32), "do not sum to 1"),
        (lambda n: np.full((n, 3), 1 / 3, np.float32), "probabilities of shape"),
    ],
)
def test_a_faulty_attack_is_named(done, said, rule):
    @dataclass(frozen=True)
    class Faulty(ph.attacks.Attack):
        kind: ClassVar[str] = "attribute"

        def run(self, view):
            n = len(view.releases)
            chosen = np.zeros(n, dtype=np.int64)
            return ph.attacks.AttackResult(probabilities=said(n), predictions=chosen)

    with pytest.raises(ph.PrivhierError, match=rf"attacks\.attribute\.Faulty.*{rule}"):
        done.attack(Faulty(target="male"), progress=False)


def test_the_edge_releases_images(done):
    images = done.faces.images[:5]
    for wrong in (images.astype(float), images.transpose(0, 2, 3, 1), [[1], [1, 2]]):
        with pytest.raises(DataError, match="images"):
            done.release(wrong)
    first, second = done.release(images), done.release(images)
    assert first.shape == (5, 4)
    assert first.dtype == np.float32
    assert not np.array_equal(first, second), "fresh noise for every release"
    assert type(ph.load_edge(done.folder)) is type(done.edge)


def test_plots_show_and_save(done, tmp_path):
    drawing = done.plot()
    assert drawing._repr_svg_().startswith("<?xml")
    assert drawing.save(tmp_path / "a.svg").read_bytes() == drawing.svg
    assert drawing.save(tmp_path / "a.png").read_bytes() == drawing.png
    with pytest.raises(OutputError, match=r"\.svg or \.png"):
        drawing.save(tmp_path / "a.pdf")


def test_runs_are_compared_where_they_differ(done, tmp_path):
    other = ph.run(SMALL, {"release.sigma": 0.5, "seed": 1}, out=tmp_path / "other", progress=False)
    table = ph.compare([done, other.folder])
    assert list(table.index) == ["done", "other"]
    assert list(table.columns[:2]) == ["release.sigma", "seed"]
    assert table["release.sigma"].tolist() == [2.0, 0.5]
    assert table.loc["done", "utility_mean/auc"] == done.result.utility_mean.auc.value
    assert table.loc["done", "leakage/male"] == done.result.leakage["male"].headline.score.value
    assert table.loc["done", "leakage/identity/score"] == "matched_verification_auc"
    assert table.loc["other", "epsilon"] > table.loc["done", "epsilon"] > 0
    assert "uplink/total_bytes" in ph.compare([done], every=True)
    again = ph.compare([done, done])
    assert len(again) == 2
    with pytest.raises(ConfigError, match="must be a list of runs"):
        ph.compare(done)


def test_ctrl_c_is_a_typed_error_that_says_how_to_go_on(done, tmp_path):
    def stop(text: str, step: int, total: int) -> None:
        if text.startswith("attack"):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"resume=True"):
        ph.run(SMALL, out=tmp_path / "run", progress=stop)
    with pytest.raises(ph.PrivhierError):
        ph.open_run(tmp_path / "run")
    assert (
        ph.run(SMALL, out=tmp_path / "run", resume=True, progress=False).result.leakage == done.result.leakage
    )


def test_a_ctrl_c_waits_until_libraries_are_loaded():
    from privhier.process.stopping import whole

    through = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a run in the background ignores
    try:
        with pytest.raises(KeyboardInterrupt), whole():  # noqa: PT012 - that it goes on is the point
            os.kill(os.getpid(), signal.SIGINT)
            through.append(True)
        assert through == [True]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def own() -> ph.FaceDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 20, 20, 3), dtype=np.uint8)
    male, smiling = rng.integers(0, 2, (2, 300))
    images[male == 1, :6] //= 3
    images[smiling == 1, 12:] //= 3
    return ph.datasets.from_arrays(
        images, {"male": male, "smiling": smiling == 1}, identity=np.arange(300) // 3
    )


def test_own_faces_from_arrays_in_memory(own, tmp_path):
    done = ph.run(SMALL, {"dataset.options": {}}, out=tmp_path / "own", dataset=own, progress=False)
    assert (done.config.dataset.name, done.config.dataset.image_size) == ("arrays", 20)
    assert done.result.dataset["fingerprint"] == own.fingerprint
    assert done.attack(ph.attacks.NearestNeighbors(target="male"), progress=False).auc.n > 0
    alone = ph.open_run(done.folder)
    assert alone.result == done.result
    with pytest.raises(DataError, match=r"open_run\(folder, dataset=faces\)"):
        alone.view()
    assert ph.open_run(done.folder, dataset=own).view().releases.shape[2] == 4
    other = ph.datasets.from_arrays(own.images, {**own.attributes, "male": 1 - own.attributes["male"]})
    with pytest.raises(ph.PrivhierError):
        ph.open_run(done.folder, dataset=other).view()
    again = {"dataset.options": {}}
    with pytest.raises(CheckpointError, match="a finished run on other faces"):
        ph.run(SMALL, again, out=done.folder, dataset=other, resume=True, progress=False)
    with pytest.raises(ConfigError, match="must be a FaceDataset"):
        ph.run(SMALL, out=tmp_path / "none", dataset=own.images, progress=False)


def test_faces_that_were_handed_over_are_chosen_before(own, tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.limit"):
        ph.run(SMALL, {"dataset.limit": 20}, out=tmp_path / "own", dataset=own, progress=False)


def test_a_sweep_gives_its_runs(repository, tmp_path):
    spec = {
        "name": "front",
        "base": "small.json",
        "overrides": {"attacks.verification": [], "dataset.sensitive": ["male"]},
        "axes": [{"key": "release.sigma", "values": [0.5, 2.0]}],
        "seeds": [0],
    }
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    (tmp_path / "front.yaml").write_text(json.dumps(spec))
    found = ph.sweep(tmp_path / "front.yaml", out=tmp_path / "front", workers=1, progress=False)
    assert found.summary.done == 2
    assert found.report == tmp_path / "front" / "report.html"
    assert [run.config.release.sigma for run in found.runs] == [0.5, 2.0]
    assert found.table()["release.sigma"].tolist() == [0.5, 2.0]


def test_progress_is_a_line_in_a_notebook(monkeypatch):
    pytest.importorskip("IPython")
    import IPython
    import IPython.display

    from privhier.process import progress

    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    class Shell:
        kernel = object()

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    monkeypatch.setattr(IPython.display, "display", display)
    with progress.shown_progress() as report:
        report("epoch", 3, 3)
    assert shown == ["starting", "epoch 3/3", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 16, 16), np.float32),
        np.zeros((2, 3, 17, 16), np.uint8),
        np.zeros((3, 16, 16), np.uint8),
        np.zeros((2, 16, 16, 3), np.uint8),
        [[1, 2]],
    ],
    ids=["float", "size", "rank", "channels last", "list"],
)
def test_a_deployed_edge_refuses_what_it_would_release_wrongly(done, wrong):
    edge = ph.load_edge(done.folder)
    assert edge.image_size == 16
    with pytest.raises(DataError, match=r"must be uint8 \(B, 3, 16, 16\)"):
        edge(wrong)


def test_a_deployed_tail_names_the_class_of_what_its_edge_releases(done):
    edge, tail = ph.load_edge(done.folder), ph.load_tail(done.folder)
    images = done.faces.images[:6]
    release = edge(images)
    found, shares = tail.predict(release), tail.probabilities(release.payload())
    assert tail.classes == {"smiling": ["not smiling", "smiling"]}
    assert set(found["smiling"]) <= set(tail.classes["smiling"])
    assert shares["smiling"].shape == (6, 2)
    np.testing.assert_allclose(shares["smiling"].sum(1), 1, atol=1e-6)
    named = [tail.classes["smiling"][row.argmax()] for row in shares["smiling"]]
    assert found["smiling"].tolist() == named
    for wrong in (np.zeros((2, 5)), np.zeros(4), np.full((2, 4), np.nan)):
        with pytest.raises(DataError, match=r"must be finite, of shape \(B, 4\)"):
            tail.predict(wrong)


def test_a_tail_of_a_folder_from_before_names_has_numbers(done, monkeypatch):
    import privhier.training.deploy as deploy

    finished = deploy.finished_training

    def without(folder):
        return {key: value for key, value in finished(folder).items() if key != "task_class_names"}

    monkeypatch.setattr(deploy, "finished_training", without)
    assert ph.load_tail(done.folder).classes == {"smiling": ["0", "1"]}
