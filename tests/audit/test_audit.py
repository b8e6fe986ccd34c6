"""``privhier audit`` on a run folder: exit codes, files, what a reload must do, sabotage of the loading."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from privhier import session as job
from privhier.audit import reload as reload_module
from privhier.audit.audit import audit_run, read_claim
from privhier.audit.file import AuditReport, draw_audit
from privhier.audit.reload import audit_reload
from privhier.audit.row import AuditRow
from privhier.cli.main import main
from privhier.config import load_config
from privhier.errors import CheckpointError, ResultError
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.deploy import ReleasingEdge, load_edge
from privhier.training.folder import RunFolder
from privhier.training.release import Releaser

DRAWS = 20_000
FEW = 2_000
"""Where it is not the audit's sharpness that is tested."""
SMALL = [
    "dataset.image_size=16",
    "dataset.options.images=200",
    "dataset.options.identities=50",
    "attacks.reconstruction=[]",
    "attacks.raw_image=false",
    "tracking.enabled=false",
]


def make(repository, out, *more):
    config = load_config(repository / "configs" / "debug.yaml", [*SMALL, *more])
    job.run(job.open_session(config, out, resume=False), command="privhier run")
    return out


@pytest.fixture(scope="module")
def finished(repository, tmp_path_factory) -> Path:
    return make(repository, tmp_path_factory.mktemp("audit") / "run")


def exit_code(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_sound_run_passes_and_leaves_its_files(finished, capsys):
    before = torch.random.get_rng_state()
    assert exit_code("audit", finished, "--draws", DRAWS) == 0
    assert torch.equal(before, torch.random.get_rng_state())
    printed = capsys.readouterr().out
    assert "claimed: epsilon" in printed
    report = AuditReport.read(finished)
    assert not report.refuted
    names = [row.name for row in report.rows]
    assert len(set(names)) == len(names) == 15
    assert all(name in printed for name in names)
    claimed = read_claim(RunFolder(finished), load_config(finished / "config.yaml"))
    assert claimed.releases == 2
    training = report.rows[0]
    own = json.loads((finished / "result.json").read_text())["guarantees"][0]
    assert training.claimed_epsilon == pytest.approx(own["epsilon"], rel=1e-4)
    assert 0.85 <= training.lower_95 / training.claimed_epsilon <= 1.05
    assert (finished / "audit.svg").read_bytes().startswith(b"<?xml")
    assert (finished / "audit.png").stat().st_size > 1000


def test_a_claim_that_is_too_small_exits_with_1(finished, put, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["guarantees"][0]["epsilon"] /= 2
    put(run / "result.json", json.dumps(result))
    assert exit_code("audit", run, "--draws", 8_000) == 1
    assert "REFUTED training: releases" in capsys.readouterr().out
    assert AuditReport.read(run).refuted


def test_a_limit_that_is_broken_exits_with_1_after_the_audit(finished, capsys):
    written = set()
    for most, code in ((1, 0), (0.01, 1)):
        assert exit_code("audit", finished, "--draws", FEW, "--fail-above", f"male:{most}") == code
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("claimed: epsilon") for line in lines)
        assert lines[-2].startswith("limit male: ")
        written.add((finished / "audit.json").read_bytes())
    assert len(written) == 1  # the same audit, the same bytes


def test_what_is_no_finished_run_exits_with_2(tmp_path, capsys):
    assert exit_code("audit", tmp_path) == 2
    assert "RUN" in capsys.readouterr().err
    with pytest.raises(CheckpointError):
        audit_run(tmp_path)
    with pytest.raises(ResultError):
        AuditReport.read(tmp_path)


def test_too_few_draws_exit_with_2(finished):
    assert exit_code("audit", finished, "--draws", 10) == 2


def test_help_has_an_example_with_every_flag():
    from privhier.cli.main import app

    page = CliRunner().invoke(app, ["audit", "--help"], env={"COLUMNS": "200"}).output
    example = page[page.index("Example:") :]
    assert "privhier audit" in example
    assert "--draws" in example
    assert "--seed" in example


@pytest.mark.parametrize(
    "release",
    [["release.mechanism=none", "release.sigma=null"], ["release.sigma=0"]],
    ids=["none", "sigma 0"],
)
def test_a_run_that_claims_nothing_says_so_and_exits_with_0(repository, tmp_path, release, capsys):
    run = tmp_path / "run"
    config = load_config(repository / "configs" / "debug.yaml", [*SMALL, *release])
    job.train(job.open_session(config, run))
    assert exit_code("audit", run) == 0
    assert "claims nothing" in capsys.readouterr().out
    assert AuditReport.read(run).rows == []


def test_without_a_result_the_ledger_s_claim_is_audited(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    config = load_config(run / "config.yaml")
    printed = read_claim(RunFolder(run), config)
    (run / "result.json").unlink()
    counted = read_claim(RunFolder(run), config)
    assert counted.epsilon == pytest.approx(printed.epsilon)
    assert counted.strength == pytest.approx(printed.strength)
    assert counted.strength == pytest.approx(2 / 0.3, rel=1e-4)


def test_further_parts_are_appended(finished):
    def more(context):
        return [AuditRow(name="more", what="x", adjacency="y", refuted=context.claim is None)]

    report = audit_run(finished, draws=FEW, more=(more,))
    assert report.rows[-1].name == "more"


def test_noise_off_in_evaluation_is_caught_in_the_evaluation_rows(finished, monkeypatch):
    class Quiet(ReleaseMechanism):
        def _randomized(self, z, noise):
            return self.clip_features(z)

    def release_split(self, *args, **kwargs):
        mechanism = Quiet("gaussian", self.mechanism.clip, self.mechanism.sigma)
        return whole(Releaser(self.config, mechanism, self.ledger, run_id="x"), *args, **kwargs)

    whole = Releaser.release_split
    monkeypatch.setattr(Releaser, "release_split", release_split)
    report = audit_run(finished, draws=DRAWS)
    refuted = {row.name for row in report.rows if row.refuted}
    assert "evaluation: releases" in refuted
    assert "reloaded edge" not in refuted


def scale_of(finished):
    claim = read_claim(RunFolder(finished), load_config(finished / "config.yaml"))
    return 2 / claim.strength


def reload_row(finished, monkeypatch, change):
    """The row of a reload that ``change`` tampers with: it gets a loaded edge and gives one back."""
    monkeypatch.setattr(reload_module, "load_edge", lambda run: change(load_edge(run)))
    return audit_reload(finished, kind="gaussian", scale=scale_of(finished), image_size=16)


def test_a_sound_reload_passes(finished, monkeypatch):
    assert not reload_row(finished, monkeypatch, lambda edge: edge).refuted


def test_a_reload_without_noise_is_caught(finished, monkeypatch):
    def change(edge):
        edge.mechanism = ReleaseMechanism("gaussian", 1.0, 0.0)
        return edge

    row = reload_row(finished, monkeypatch, change)
    assert row.refuted
    assert "evaluation mode: first call has 0 of the claimed noise" in row.note


def test_a_reload_with_half_the_noise_is_caught(finished, monkeypatch):
    def change(edge):
        edge.mechanism = ReleaseMechanism("gaussian", 1.0, 0.15)
        return edge

    assert re.search(r"has 0\.(4[5-9]|5)", reload_row(finished, monkeypatch, change).note)


def test_a_reload_that_repeats_its_noise_is_caught(finished, monkeypatch):
    class Again:
        kind = "seeded"

        def gaussian(self, shape):
            return SeededNoise(0, "again").gaussian(shape)

    def change(edge):
        edge.noise = Again()
        return edge

    assert "first call and second call differ by 0 " in reload_row(finished, monkeypatch, change).note


def test_two_loads_of_the_same_seed_are_caught(finished, monkeypatch):
    def change(edge):
        edge.noise = SeededNoise(0, "load")
        return edge

    note = reload_row(finished, monkeypatch, change).note
    assert "first call and second load differ by 0 " in note
    assert "first call and second call" not in note


def test_noise_from_the_global_generator_is_caught(finished, monkeypatch):
    class Global:
        kind = "seeded"

        def gaussian(self, shape):
            return torch.randn(shape)

    def change(edge):
        edge.noise = Global()
        return edge

    assert reload_row(finished, monkeypatch, change).refuted


def switched(kind, edge):
    return kind(edge.edge, edge.mechanism, image_size=edge.image_size)


def test_noise_off_in_evaluation_mode_of_a_reloaded_edge_is_caught(finished, monkeypatch):
    class Switch(ReleasingEdge):
        def forward(self, images):
            if self.training:
                return super().forward(images)
            features = self.edge.features(reload_module.normalize(images)).float()
            return replace(self.mechanism, sigma=0.0).sanitize(features, self.noise)

    row = reload_row(finished, monkeypatch, lambda edge: switched(Switch, edge))
    assert "evaluation mode: first call has 0" in row.note
    assert "training mode" not in row.note


def test_the_plot_is_the_same_every_time_and_takes_no_rows():
    row = AuditRow(
        name="a", what="w", adjacency="y", claimed_epsilon=2.0, delta=0.0, lower_95=1.9, lower_alarm=1.5,
        draws=10, view="axis", refuted=True,
    )  # fmt: skip
    assert draw_audit([row]) == draw_audit([row])
    assert draw_audit([])[0].startswith(b"<?xml")


@pytest.mark.slow
def test_the_audit_reaches_the_run_s_mlflow_run(repository, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make(
        repository, tmp_path / "run", "tracking.enabled=true", "attacks.attribute=[logistic_regression]"
    )
    report = audit_run(run, draws=2000)
    assert report.warnings == []
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    assert client.get_run(run_id).data.metrics["audit/refuted"] == 0
    assert {"audit.json", "audit.svg", "audit.png"} <= {f.path for f in client.list_artifacts(run_id)}
    (run / "tracking.json").unlink()  # then it is found by its configuration
    assert audit_run(run, draws=2000).warnings == []
    (tmp_path / "mlflow.db").unlink()
    assert "no MLflow run" in audit_run(run, draws=2000).warnings[0]
