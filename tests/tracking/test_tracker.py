"""Tracking: what arrives in MLflow, what a resumed run goes on with, and what happens when it fails."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privhier.config import RunConfig
from privhier.errors import CheckpointError, TrackingError
from privhier.evaluation.flat import clean_name, flatten, result_metrics
from privhier.evaluation.result import AttackScores, Reconstruction, Result, Score
from privhier.evaluation.statement import may_say
from privhier.tracking import tracker as tracking
from privhier.tracking.tracker import saved_state

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "name": "tracked",
    "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
    "schedule": {"pretrain_epochs": 2, "cloud_epochs": 3},
}


class Tail(nn.Module):
    """Two heads on releases of eight values, as the cloud tail answers: a list."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5))

    def forward(self, release: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.split(self.layers(release), [2, 3], dim=1))


@pytest.fixture
def run(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def result() -> Result:
    return Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")


def config(**more: Any) -> RunConfig:
    return RunConfig.model_validate(CONFIG | more)


def client(run: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{run.parent / 'mlflow.db'}")


def scores(auc: float = 0.6) -> AttackScores:
    score = Score(value=auc, low=auc - 0.02, high=auc + 0.02, n=50)
    return AttackScores(
        attack="mlp",
        repr="MLP(hidden=(64,))",
        auc=score,
        training_records={"auc": score},
        selected={"hidden": 64},
    )


def run_id(run: Path) -> str:
    return str(json.loads((run / "tracking.json").read_text())["run_id"])


def test_off_writes_nothing_and_answers_everything(tmp_path: Path, result: Result) -> None:
    tracker = tracking.open_tracker(config(tracking={"enabled": False}), tmp_path)
    assert isinstance(tracker, tracking.NullTracker)
    tracker.log_epoch("joint", 0, {"loss": 1.0})
    tracker.log_dataset(name="synthetic", digest="ab", sizes={"train": 1})
    tracker.log_attack("race==0", scores())
    tracker.log_reconstruction("decoder", Reconstruction())
    tracker.log_result(result)
    tracker.log_artifacts(tmp_path)
    assert tracker.log_tail(Tail(), np.zeros((2, 8), np.float32)) is None
    tracker.finish()
    assert tracker.failure is None
    assert list(tmp_path.iterdir()) == []


def test_a_loud_warning_is_a_tag_as_long_as_it_holds(run: Path, result: Result) -> None:
    loud = result.model_copy(update={"warnings": ["NOT LEARNED: task gender at the cloud", "routine"]})
    for claimed, wanted in ((loud, "NOT LEARNED: task gender at the cloud"), (result, None)):
        tracker = tracking.open_tracker(config(), run)
        tracker.log_result(claimed)
        tracker.finish()
        assert tracker.failure is None
        assert client(run).get_run(run_id(run)).data.tags.get("warning") == wanted


def test_a_run_arrives_whole(run: Path, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = mlflow.get_tracking_uri()
    for name in ("config.yaml", "result.json", "ledger.jsonl", "edge.safetensors", "secret.pt"):
        (run / name).write_text(name)
    (run / "figures").mkdir()
    (run / "figures" / "tradeoff.svg").write_text("<svg/>")

    tracker = tracking.open_tracker(config(), run)
    tracker.log_dataset(name="synthetic", digest="ab" * 32, sizes={"train": 30, "test": 10})
    tracker.log_epoch("pretrain", 1, {"val/race==0/auc": 0.7})
    tracker.log_epoch("cloud", 2, {"cloud_loss": 0.5})
    tracker.log_attack("race==0", scores())
    tracker.log_reconstruction("decoder", Reconstruction(ssim=Score(value=0.3, low=0.2, high=0.4, n=9)))
    tracker.log_result(result)
    tracker.log_artifacts(run)
    tracker.finish()

    assert tracker.failure is None
    store = client(run)
    logged = store.get_run(run_id(run))
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "tracked (run): no defense, no noise, seed=0"
    assert (logged.data.tags["kind"], logged.data.tags["mlflow.runColor"]) == ("run", "#767676")
    note = logged.data.tags["mlflow.note.content"]
    assert note.startswith("\n\n".join(may_say(result)))
    assert f"get-artifact?path=figures%2Ftradeoff.svg&run_uuid={run_id(run)}" in note
    assert logged.data.params["schedule.pretrain_epochs"] == "2"
    assert json.loads(logged.data.params["dataset.sensitive"]) == ["race==0"]
    assert logged.data.tags["mlflow.source.name"] == "privhier"
    assert logged.data.tags["config_hash"] == config().hash()
    assert logged.data.tags["dataset_fingerprint"] == "ab" * 32
    assert logged.data.tags["worst_attack/race_eq_0"] == "mlp"
    assert "warning" not in logged.data.tags
    (pretrain,) = store.get_metric_history(run_id(run), "pretrain/val/race_eq_0/auc")
    (cloud,) = store.get_metric_history(run_id(run), "cloud/cloud_loss")
    assert (pretrain.step, pretrain.value, cloud.step, cloud.value) == (1, 0.7, 4, 0.5)
    worst = result.leakage["race==0"].worst.auc
    assert worst is not None
    metrics = logged.data.metrics
    assert metrics["leakage/race_eq_0/worst/auc"] == worst.value
    assert metrics["leakage/race_eq_0/worst/auc_low"] == worst.low
    assert metrics["leakage/race_eq_0/worst/auc_high"] == worst.high
    assert metrics["references/open/utility_mean/auc"] == result.references["open"].utility_mean.auc.value
    dataset = logged.inputs.dataset_inputs[0].dataset
    assert dataset.digest == ("ab" * 32)[:36]
    assert json.loads(dataset.profile) == {"train": 30, "test": 10}
    names = {item.path for item in store.list_artifacts(run_id(run))}
    assert names == {"config.yaml", "result.json", "ledger.jsonl", "edge.safetensors", "figures"}
    nested = store.search_runs(
        [logged.info.experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run_id(run)}'"
    )
    by_name = {one.info.run_name: one for one in nested}
    assert set(by_name) == {"attack on race==0: mlp", "reconstruction: decoder"}
    assert {one.data.tags["kind"] for one in nested} == {"attack", "reconstruction"}
    assert by_name["attack on race==0: mlp"].data.metrics["training/auc_high"] == 0.62
    assert by_name["attack on race==0: mlp"].data.params["hidden"] == "64"
    assert by_name["reconstruction: decoder"].data.metrics["ssim"] == 0.3
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
    assert list(elsewhere.iterdir()) == []


def test_the_noise_seed_reaches_the_store_nowhere(run: Path, result: Result) -> None:
    """Neither as a param nor in the configuration kept beside the report."""
    secret = config(privacy={"noise_seed": 987654321})
    (run / "config.yaml").write_text(secret.to_yaml())
    tracker = tracking.open_tracker(secret, run)
    tracker.log_result(result)
    tracker.log_artifacts(run)
    tracker.finish()
    assert tracker.failure is None
    store = client(run)
    (found,) = store.search_runs([e.experiment_id for e in store.search_experiments()])
    assert found.data.params["privacy.noise_seed"] == "(left out)"
    kept = Path(store.download_artifacts(found.info.run_id, "config.yaml", str(run))).read_text()
    assert "(left out)" in kept
    assert kept.splitlines()[0] == secret.to_yaml().splitlines()[0]
    for path in run.parent.rglob("*"):
        if path.is_file() and path != run / "config.yaml":
            assert b"987654321" not in path.read_bytes(), path


def test_a_resumed_run_goes_on_in_the_same_place(run: Path) -> None:
    first = tracking.open_tracker(config(), run)
    first.log_epoch("pretrain", 0, {"loss": 1.0})
    first.log_epoch("pretrain", 1, {"loss": 0.9})
    first.log_attack("race==0", scores(0.6))
    name = run_id(run)  # killed here

    second = tracking.open_tracker(config(), run)
    assert client(run).get_run(name).info.status == "RUNNING"
    second.log_epoch("pretrain", 1, {"loss": 0.9})
    second.log_epoch("cloud", 0, {"loss": 0.5})
    second.log_attack("race==0", scores(0.7))
    second.finish()

    assert run_id(run) == name
    store = client(run)
    assert [m.step for m in store.get_metric_history(name, "pretrain/loss")] == [0, 1]
    assert [m.step for m in store.get_metric_history(name, "cloud/loss")] == [2]
    everything = store.search_runs([store.get_run(name).info.experiment_id])
    assert len(everything) == 2
    assert {one.data.metrics.get("auc") for one in everything} == {None, 0.7}


def test_an_emptied_store_gets_a_new_run(run: Path, empty_store: Path) -> None:
    (run / "tracking.json").write_text(json.dumps({"run_id": "0" * 32, "attacks": {}, "tail": "m-gone"}))
    tracking.open_tracker(config(), run).finish()
    assert run_id(run) != "0" * 32
    assert "tail" not in json.loads((run / "tracking.json").read_text())


def test_runs_side_by_side_do_not_mix(run: Path) -> None:
    other = run.parent / "other"
    other.mkdir()
    a = tracking.open_tracker(config(), run)
    b = tracking.open_tracker(config(name="second"), other)
    a.log_epoch("joint", 0, {"loss": 1.0})
    b.log_epoch("joint", 0, {"loss": 2.0})
    a.finish()
    b.finish("FAILED")
    one, two = (client(run).get_run(run_id(folder)) for folder in (run, other))
    assert (one.data.metrics["joint/loss"], two.data.metrics["joint/loss"]) == (1.0, 2.0)
    assert (one.info.status, two.info.status) == ("FINISHED", "FAILED")


def test_the_tail_reloads_without_a_pickle_and_answers_alike(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    tail = Tail().train()
    tracker = tracking.open_tracker(config(), run)
    uri = tracker.log_tail(tail, torch.zeros(1, 8))
    assert uri is not None
    assert tracker.log_tail(tail, torch.zeros(1, 8)) == uri
    tracker.log_artifacts(run)
    tracker.finish()
    assert tracker.failure is None
    assert tail.training
    files = [path for path in (run.parent / "mlartifacts").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pth", ".pkl", ".pickle")]
    assert [path for path in files if path.suffix == ".pt2"]

    releases = np.random.default_rng(0).standard_normal((7, 8)).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat(tail.eval()(torch.from_numpy(releases)), dim=1).numpy()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent / 'mlflow.db'}")
    for address in (uri, f"runs:/{run_id(run)}/tail"):
        model = mlflow.pytorch.load_model(address)
        np.testing.assert_allclose(model(torch.from_numpy(releases)).detach().numpy(), expected, atol=1e-6)
        generic = mlflow.pyfunc.load_model(address)
        np.testing.assert_allclose(generic.predict(releases), expected, atol=1e-6)
        assert generic.metadata.signature.inputs.inputs[0].shape == (-1, 8)
        assert generic.input_example.shape[1:] == (8,)


def test_the_real_tail_of_a_feature_map_can_be_logged(run: Path) -> None:
    from privhier.config import ModelConfig
    from privhier.models.network import build_network

    model = ModelConfig.model_validate({"cut": "stage1", "bottleneck": {"kind": "channels", "size": 4}})
    edge, tail = build_network(
        model, image_size=32, task_classes={"gender": 2, "age": 4}, sensitive_classes={"race==0": 2}, seed=0
    )
    tracker = tracking.open_tracker(config(), run)
    assert tracker.log_tail(tail, np.zeros((2, *edge.release_shape), np.float32)) is not None
    assert tracker.failure is None


def test_a_tail_with_a_matched_filter_reloads_without_our_code(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privhier.config import ModelConfig
    from privhier.models.matched_filter import MatchedFilter
    from privhier.models.network import build_network

    model = ModelConfig.model_validate({"cut": "stage1", "bottleneck": {"kind": "channels", "size": 4}})
    sizes: dict[str, Any] = {"task_classes": {"gender": 2, "age": 4}, "sensitive_classes": {}}
    edge, tail = build_network(model, image_size=32, seed=0, matched_filter=True, **sizes)
    (layer,) = [module for module in tail.modules() if isinstance(module, MatchedFilter)]
    with torch.no_grad():
        layer.mixing += torch.randn(layer.mixing.shape, generator=torch.Generator().manual_seed(0))
    tracker = tracking.open_tracker(config(), run)
    uri = tracker.log_tail(tail, np.zeros((2, *edge.release_shape), np.float32))
    tracker.finish()
    releases = np.random.default_rng(0).standard_normal((5, *edge.release_shape)).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat(tail.eval()(torch.from_numpy(releases)), dim=1).numpy()
    np.save(run.parent / "releases.npy", releases)
    script = (
        "import sys, numpy, mlflow\n"
        "answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.load(sys.argv[2]))\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'privhier'], 'our code'\n"
        "numpy.save(sys.argv[3], answer)\n"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent / 'mlflow.db'}")
    command = [sys.executable, "-c", script, str(uri), run.parent / "releases.npy", run.parent / "answer.npy"]
    subprocess.run(command, check=True, cwd=run.parent, timeout=120)
    np.testing.assert_allclose(np.load(run.parent / "answer.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_tail_of_letters_reloads_and_answers_alike_on_every_letter(
    run: Path, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    import mlflow

    from privhier.config import ModelConfig
    from privhier.models.network import build_network

    bottleneck = {"kind": "letters", "size": 2, "letters": 5, "groups": groups}
    edge, tail = build_network(
        ModelConfig.model_validate({"bottleneck": bottleneck}),
        image_size=32,
        task_classes={"gender": 2, "age": 4},
        sensitive_classes={},
        seed=0,
    )
    tracker = tracking.open_tracker(config(), run)
    uri = tracker.log_tail(tail, np.zeros((2, *edge.release_shape), np.float32))
    tracker.finish()
    assert uri is not None
    letters = np.stack([np.roll(np.arange(5), group) for group in range(groups)], axis=1)
    with torch.no_grad():
        expected = torch.cat(tail.eval()(torch.from_numpy(letters)), dim=1).numpy()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent / 'mlflow.db'}")
    found = mlflow.pyfunc.load_model(uri).predict(letters.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "uri", ["http://someone:hunter2@127.0.0.1:9", "file:///nowhere/mlruns", "sqlite:///{blocked}/mlflow.db"]
)
def test_a_store_that_does_not_open_stops_the_start(
    run: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    (run / "blocked").write_text("a file where a folder should be")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(blocked=run / "blocked"))
    start = time.monotonic()
    with pytest.raises(TrackingError, match=r"tracking\.enabled=false") as caught:
        tracking.open_tracker(config(), run)
    assert time.monotonic() - start < 20
    assert caught.value.key == "MLFLOW_TRACKING_URI"
    assert "hunter2" not in str(caught.value)
    assert not (run / "tracking.json").exists()


def test_the_environment_decides_where_it_goes(
    run: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.parent / "central").mkdir()
    shutil.copy(empty_store, run.parent / "central" / "mlflow.db")
    uri = f"sqlite:///{run.parent / 'central' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (run / "config.yaml").write_text("name: tracked\n")
    tracker = tracking.open_tracker(config(), run)
    tracker.log_artifacts(run)
    tracker.finish()
    assert list((run.parent / "central" / "mlartifacts").rglob("config.yaml"))
    assert not (run.parent / "mlartifacts").exists()


def test_a_store_that_fails_later_costs_no_result(
    run: Path, result: Result, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracking.open_tracker(config(), run)
    assert isinstance(tracker, tracking.MlflowTracker)
    calls = []

    def broken(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        raise ConnectionError("the cable was pulled\nand more")

    monkeypatch.setattr(tracker._client, "log_batch", broken)
    with caplog.at_level(logging.WARNING, logger="privhier.tracking.tracker"):
        tracker.log_epoch("joint", 0, {"loss": 1.0})
        tracker.log_epoch("joint", 1, {"loss": 1.0})
        tracker.log_attack("race==0", scores())
        tracker.log_result(result)
        assert tracker.log_tail(Tail(), np.zeros((2, 8), np.float32)) is None
        tracker.log_artifacts(run)
        tracker.finish()
    assert len(calls) == 1  # one failure is enough: each further try could wait for minutes
    assert tracker.failure == ("MLflow tracking stopped at log_epoch: ConnectionError: the cable was pulled")
    assert [record.message for record in caplog.records] == [tracker.failure]
    assert json.loads((run / "tracking.json").read_text())["failure"] == tracker.failure


def test_interrupts_are_not_swallowed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = tracking.open_tracker(config(), run)
    assert isinstance(tracker, tracking.MlflowTracker)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracker._client, "log_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tracker.log_epoch("joint", 0, {"loss": 1.0})
    assert tracker.failure is None


def test_works_from_the_repository_root_where_a_folder_is_called_datasets(run: Path) -> None:
    assert (ROOT / "datasets").is_dir()
    code = f"""
import sys
from pathlib import Path
import numpy as np
import torch
from privhier.tracking import tracker as tracking
from privhier.config import RunConfig
assert sys.path[0] == ""
tracker = tracking.open_tracker(RunConfig.model_validate({CONFIG!r}), Path({str(run)!r}))
tracker.log_dataset(name="synthetic", digest="ab" * 32, sizes={{"train": 3}})
tracker.log_epoch("joint", 0, {{"loss": 1.0}})
uri = tracker.log_tail(torch.nn.Linear(8, 2), np.zeros((2, 8), np.float32))
tracker.finish()
assert tracker.failure is None, tracker.failure
assert uri
import mlflow
assert not Path("mlruns").exists()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert client(run).get_run(run_id(run)).info.status == "FINISHED"


def test_names_are_cleaned_and_stay_apart() -> None:
    assert clean_name("a/race==0/b") == "a/race_eq_0/b"
    expressions = ["race==0", "race!=0", "race>=0", "race<=0", "race>0", "race<0", "bin(age, 20)", "age"]
    assert len({clean_name(name) for name in expressions}) == len(expressions)


def test_every_metric_of_a_result_is_a_number_with_a_name_mlflow_takes(result: Result) -> None:
    metrics = result_metrics(result)
    assert all(isinstance(value, float) and clean_name(name) == name for name, value in metrics.items())
    assert metrics["epsilon/own_releases_of_one_record"] == 7.9931
    assert not [name for name in metrics if name.startswith("epsilon/Training_record")]


def test_flatten_keeps_every_leaf() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {}}) == {
        "a.b": "1",
        "a.c": "[1, 2]",
        "d": "None",
        "e": "{}",
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"attacks": 3}', "\xff"])
def test_a_damaged_state_is_a_typed_error_with_its_remedy(tmp_path, text):
    (tmp_path / "tracking.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tracking\.json.*Remove it"):
        saved_state(tmp_path)
    (tmp_path / "tracking.json").unlink()
    assert saved_state(tmp_path) == {}
