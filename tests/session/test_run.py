"""The main job end to end on synthetic faces: determinism, kill -9 and resume, tracking, report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.config import RunConfig, load_config
from privhier.errors import CheckpointError, GuaranteeError, OutputError
from privhier.evaluation.result import Result
from privhier.privacy.release import ReleaseMechanism
from privhier.training.deploy import load_edge
from privhier.training.trained import load_trained

OVERRIDES = [
    "dataset.sensitive=[male,identity]",
    "evaluation.references=[open]",
    "attacks.attribute=[logistic_regression,mlp]",
    "tracking.enabled=false",
]
SMALLER = [  # as many steps an epoch as the debug run takes
    "dataset.image_size=24",
    "dataset.options.images=200",
    "dataset.options.identities=50",
    "training.batch_size=32",
    "attacks.auxiliary=40",
    "attacks.victims=40",
    "attacks.training_victims=20",
    "attacks.attribute="
    "[{name: logistic_regression, options: {trials: 0}}, {name: mlp, options: {trials: 0}}]",
]


def config_of(repository: Path, *more: str) -> RunConfig:
    return load_config(repository / "configs" / "debug.yaml", [*OVERRIDES, *more])


def small_of(repository: Path, *more: str) -> RunConfig:
    """For what does not ask how good an attacker is."""
    return config_of(repository, *SMALLER, *more)


def run(config: RunConfig, out: Path, *, resume: bool = False) -> Result:
    return job.run(job.open_session(config, out, resume=resume), command="privhier run")


def numbers(folder: Path) -> dict[str, Any]:
    """result.json without what may differ between two runs: timing and git."""
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in ("timing", "git")}


@pytest.fixture(scope="module")
def finished(repository, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    run(small_of(repository), out)
    return out


def test_the_result_has_every_part(finished):
    result = Result.read(finished / "result.json")
    assert set(result.utility) == {"smiling"}
    assert set(result.leakage) == {"male", "identity"}
    male = result.leakage["male"]
    assert male.raw_image_attack is not None
    assert male.worst.training_records["auc"].n > 0
    values = [attack.auc.value for attack in male.attacks]
    assert values == sorted(values, reverse=True)
    assert male.worst.attack == male.attacks[0].attack
    assert male.worst.auc.value == values[0]
    assert male.ceiling is not None
    assert male.ceiling.releases == 2
    assert result.leakage["identity"].worst.verification_auc is not None
    assert result.reconstruction["decoder"].ssim.n == 16
    assert result.references["open"].leakage["male"].ceiling is None
    assert result.uplink.releases_per_record == 2
    own, cloud = result.guarantees[:2]
    assert own.epsilon > 10
    assert "vacuous" in own.note
    assert "simulation" in own.note
    assert cloud.epsilon is None
    assert {row.unit for row in result.guarantees} == {"record", "person"}
    assert 0.5 < own.allows < 1
    assert cloud.allows is None
    leaked = result.guarantees[-1]
    assert (leaked.measure, leaked.epsilon) == ("maximal_leakage", None)
    assert leaked.nats > 0
    assert set(own.does_not_cover) & set(cloud.does_not_cover) <= set(leaked.does_not_cover)
    smiling = result.utility["smiling"]
    assert smiling.cloud_gain.value == pytest.approx(smiling.cloud.auc.value - smiling.edge_exit.auc.value)
    assert smiling.cloud_gain == result.utility_mean.cloud_gain
    assert result.references["open"].utility_mean.cloud_gain is not None


def test_the_report_names_the_command_and_what_is_not_covered(finished):
    page = (finished / "report.html").read_text()
    assert "privhier run" in page
    assert "not covered" in page.lower()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page


def test_the_same_seed_gives_the_same_numbers(repository, finished, tmp_path):
    run(small_of(repository), tmp_path / "b")
    assert numbers(finished) == numbers(tmp_path / "b")


@pytest.mark.slow
def test_another_seed_gives_other_numbers(repository, finished, tmp_path):
    run(small_of(repository, "seed=1"), tmp_path / "b")
    assert numbers(finished)["utility"] != numbers(tmp_path / "b")["utility"]


KILLS = {
    "in a pretraining batch": ("privhier.training.edge", "EdgeTrainer.step", 2),
    "in a joint batch": ("privhier.training.edge", "EdgeTrainer.step", 6),
    "in the release for the cloud": ("privhier.training.cloud", "CloudTrainer.receive_and_cache", 1),
    "in a cloud epoch": ("privhier.training.cloud", "CloudTrainer.train_step", 5),
    "while saving the weights": ("privhier.training.trainer", "Trainer._finish", 1),
    "before the second attack": ("privhier.attacks.mlp", "MlpAttack.run", 1),
    "before the report": ("privhier.session.stages", "report", 1),
}

EVERY_CHANGE = ("in a joint batch",)
DRIVER = """
import importlib, os, signal, sys
from pathlib import Path
module, path, count, out, overrides = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[6:]
owner = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
original = getattr(owner, name)
calls = 0
def deadly(*args, **kwargs):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, name, deadly)
from privhier import session as job
from privhier.config import load_config
session = job.open_session(load_config(sys.argv[5], overrides), Path(out))
job.run(session, command="privhier run")
"""


@pytest.mark.parametrize(
    "where",
    [where if where in EVERY_CHANGE else pytest.param(where, marks=pytest.mark.slow) for where in KILLS],
)
def test_kill_9_then_resume_gives_the_undisturbed_numbers(repository, finished, tmp_path, where):
    module, path, count = KILLS[where]
    out = tmp_path / "killed"
    arguments = [
        module,
        path,
        str(count),
        str(out),
        str(repository / "configs" / "debug.yaml"),
        *OVERRIDES,
        *SMALLER,
    ]
    done = subprocess.run([sys.executable, "-c", DRIVER, *arguments], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (out / "report.html").exists()
    run(small_of(repository), out, resume=True)
    assert numbers(finished) == numbers(out)
    assert not list(out.rglob("*.tmp"))


def test_the_stages_one_by_one_give_the_whole(repository, finished, tmp_path):
    session = job.open_session(small_of(repository), tmp_path / "parts")
    job.train(session)
    again = job.reopen_session(tmp_path / "parts")
    trained = load_trained(again.config, again.prepared.data, again.folder)
    result = job.attack(again, trained)
    job.report(again, result, trained, command="privhier report")
    assert numbers(finished) == numbers(tmp_path / "parts")
    cached = job.attack(job.reopen_session(tmp_path / "parts"), trained)
    assert cached.timing == result.timing, "what is read from disk does not cost nothing"


def test_known_people_are_recognized_on_raw_images(repository, tmp_path):
    """Top-1 against the attribute's own codes: codes that do not match the truth give exactly 0."""
    more = [
        "dataset.identity_protocol=known_people",
        "dataset.options.identities=20",
        "dataset.limit=300",  # some people are left out: their numbers are gaps, the codes have none
        "dataset.sensitive=[identity]",
        "attacks.attribute=[logistic_regression]",
        "attacks.auxiliary=400",
        "attacks.reconstruction=[]",
        "evaluation.references=[]",
    ]
    identity = run(config_of(repository, *more), tmp_path / "known").leakage["identity"]
    assert identity.ceiling is None
    assert identity.worst.auc is None
    assert identity.raw_image_attack.top1.low > 3 * identity.majority


def test_a_taken_folder_is_refused_and_left_alone(repository, finished):
    before = sorted(path.name for path in finished.iterdir())
    with pytest.raises(OutputError, match="exists already"):
        job.open_session(small_of(repository), finished)
    with pytest.raises(CheckpointError, match="another configuration"):
        job.open_session(small_of(repository, "seed=3"), finished, resume=True)
    assert sorted(path.name for path in finished.iterdir()) == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not a run folder"):
        job.reopen_session(tmp_path)


def test_an_unwritable_folder_is_refused(repository):
    with pytest.raises(OutputError, match="cannot be written"):
        job.open_session(config_of(repository), Path("/proc/privhier"))


def test_sabotage_no_noise_behind_a_claimed_epsilon_breaks_the_ceiling(repository, tmp_path, monkeypatch):
    """A mechanism that clips but forgets its noise: the task does better than its epsilon allows."""
    strong = [
        "release.sigma=8.0",
        "dataset.options.images=3000",
        "dataset.options.identities=600",
        "schedule.pretrain_epochs=8",
        "schedule.joint_epochs=0",
        "schedule.cloud_epochs=2",
        "dataset.task=[male]",
        "dataset.sensitive=[smiling]",
        "defense.options.weight=0",
        "evaluation.references=[]",
        "attacks.reconstruction=[]",
        "attacks.raw_image=false",
    ]
    config = config_of(repository, *strong)
    monkeypatch.setattr(ReleaseMechanism, "_randomized", lambda self, z, noise: self.clip_features(z))
    with pytest.raises(GuaranteeError):
        run(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / "result.json").exists()


def test_tracking_takes_params_metrics_artifacts_and_both_models(repository, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    out = tmp_path / "store" / "tracked"
    config = small_of(repository, "tracking.enabled=true", "evaluation.references=[]")
    run(config, out)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("privhier")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    parent = parents[0]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["release.sigma"] == "0.3"
    assert parent.data.tags["config_hash"] == config.hash()
    assert len(runs) - 1 == 4  # two attackers on male, one on identity, one decoder
    assert parent.inputs.dataset_inputs
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    wanted = {"config.yaml", "result.json", "report.html", "edge.safetensors", "tail.safetensors"}
    assert wanted <= artifacts
    folder = Path(client.download_artifacts(parent.info.run_id, "edge.safetensors", str(tmp_path)))
    edge = load_edge(out, weights=folder).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 24, 24), dtype=np.uint8))
    assert not torch.equal(edge(images), edge(images))
