"""One more attack on a finished run: recorded beside the configuration, joined into what the run claims."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

import privhier as ph
from privhier import session as job
from privhier.attacks.base import Attack, attacks
from privhier.cli.main import main
from privhier.config import Choice
from privhier.errors import ConfigError, ResultError, TrainingError
from privhier.evaluation.headline import headline
from privhier.evaluation.result import Result
from privhier.evaluation.schema import json_schema
from privhier.evaluation.statement import may_say
from privhier.session.additions import _check_not_lowered

HERE = Path(__file__).parent
second = runpy.run_path(str(HERE.parent / "small.py"))["second"]
LEAST = "[{name: logistic_regression, options: {trials: 0}}]"


@pytest.fixture(scope="module")
def original(repository, tmp_path_factory) -> Path:
    """With a reference and attacks on raw images, which an addition is run on as well."""
    out = tmp_path_factory.mktemp("runs") / "original"
    config = second(
        repository,
        f"attacks.attribute={LEAST}",
        "attacks.raw_image=true",
        "evaluation.references=[open]",
    )
    job.run(job.open_session(config, out), command="privhier run")
    return out


@pytest.fixture
def run(original, tmp_path) -> Path:
    """A copy of it, somewhere else."""
    return Path(shutil.copytree(original, tmp_path / "moved" / "run"))


@pytest.fixture(scope="module")
def with_neighbors(original, tmp_path_factory) -> Path:
    """With one addition."""
    run = Path(shutil.copytree(original, tmp_path_factory.mktemp("added") / "run"))
    assert len(ph.open_run(run).add("nearest_neighbors", progress=False).additions) == 1
    return run


@pytest.fixture
def added(with_neighbors, tmp_path) -> Path:
    """A copy of it, somewhere else."""
    return Path(shutil.copytree(with_neighbors, tmp_path / "moved" / "added"))


def refused(capsys, *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    return " ".join(" ".join(line for line in lines if not line.startswith("note: ")).split())


def contents(run: Path) -> dict[str, bytes]:
    """Every file but locks, by name."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_an_addition_is_recorded_and_joined_into_the_leakage(run, told):
    before, files = Result.read(run / "result.json"), contents(run)
    said = told("attack", run, "--add", "nearest_neighbors,neighbors=[3,9]")
    assert "added: nearest_neighbors (attribute, neighbors=[3, 9])" in said
    after = ph.open_run(run).result
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads((run / "result.json").read_text()))
    (one,) = after.additions
    assert (one.attack, one.section, one.options) == ("nearest_neighbors", "attribute", {"neighbors": [3, 9]})
    assert one.seed == before.seed
    assert one.date.startswith("20")
    assert (run / "config.yaml").read_bytes() == files["config.yaml"]
    assert (after.config_hash, after.git, after.guarantees) == (
        before.config_hash,
        before.git,
        before.guarantees,
    )
    male, was = after.leakage["male"], before.leakage["male"]
    assert {row.attack for row in male.attacks} == {"logistic_regression", "nearest_neighbors"}
    assert next(row for row in male.attacks if row.attack == "logistic_regression") == was.attacks[0]
    assert headline(male).score.value >= headline(was).score.value
    assert male.worst.auc.value >= was.worst.auc.value
    for place in ("attacks/raw_image/male", "references/open/attacks/curious_cloud/male"):
        assert list((run / place).glob("nearest_neighbors-*.npz")), place
    page = (run / "report.html").read_text()
    assert 'id="additions"' in page
    assert "nearest_neighbors</span> (added)" in page
    assert "--add" in page


def test_the_statement_says_that_the_strongest_was_added(result):
    name = next(iter(result.leakage))
    attack = headline(result.leakage[name]).attack
    bare = attack.partition("@")[0]
    added = {
        "section": "attribute",
        "attack": bare,
        "name": bare,
        "options": {},
        "seed": 0,
        "date": "2026-03-04T05:06:07+00:00",
        "git": {},
    }
    told = Result.model_validate(result.model_dump(by_alias=True) | {"additions": [added]})
    assert f"(by {attack}, added on 2026-03-04," in may_say(told)[1]
    assert "added on" not in may_say(result)[1]


def test_the_same_addition_twice_is_a_no_op_that_says_so(added, told):
    run, before = added, contents(added)
    again = told("attack", run, "--add", "nearest_neighbors,neighbors=[5,15,45,135]")  # the defaults
    assert "nothing to do" in again
    assert "was added on" in again
    configured = told("attack", run, "--add", "logistic_regression,trials=0")
    assert "nothing to do" in configured
    assert "configured" in configured
    assert contents(run) == before


@pytest.mark.slow
def test_several_at_once_and_another_of_a_name_gets_a_number(run, told):
    told("attack", run, "--add", "logistic_regression,trials=1", "--add", "nearest_neighbors",
        "--add", "nearest_neighbors",
    )  # fmt: skip
    result = Result.read(run / "result.json")
    assert [one.name for one in result.additions] == ["logistic_regression#2", "nearest_neighbors"]
    assert {row.attack for row in result.leakage["male"].attacks} == {
        "logistic_regression",
        "logistic_regression#2",
        "nearest_neighbors",
    }


@pytest.mark.slow
def test_attack_and_report_keep_what_was_added(added, told):
    run = added
    (run / "report.html").unlink()
    before = json.loads((run / "result.json").read_text())
    told("attack", run)
    after = json.loads((run / "result.json").read_text())
    for name in ("additions", "leakage", "references"):
        assert after[name] == before[name]
    told("report", run)
    assert 'id="additions"' in (run / "report.html").read_text()


REFUSED = {
    "an unknown name": (["nearest_neighbours"], ["nearest_neighbours", "Did you mean nearest_neighbors"]),
    "an unknown option": (["mlp,epoch=3"], ["epoch", "not an option of mlp", "epochs", "widths"]),
    "a wrong type": (["mlp,epochs=many"], ["--add.mlp.options.epochs", "integer"]),
    "out of range": (["nearest_neighbors,neighbors=[0]"], ["neighbors", "at least 1"]),
    "no value": (["mlp,epochs"], ["KEY=VALUE"]),
    "an option twice": (["mlp,epochs=1,epochs=2"], ["epochs twice"]),
    "no name": ([",epochs=2"], ["names no attack"]),
    "nothing": ([""], ["names no attack"]),
    "of people, where nobody is": (["metric"], ["does not apply", "its secrets are male", "one person"]),
    "the second of two": (["nearest_neighbors", "table"], ["table", "does not apply"]),
    "the target": (["mlp,target=male"], ["target", "not an option of mlp"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_the_run_as_it_was(case, original, capsys):
    texts, words = REFUSED[case]
    before = contents(original)
    message = refused(capsys, "attack", original, *(f"--add={text}" for text in texts))
    for word in words:
        assert word in message, message
    assert contents(original) == before


@dataclass(frozen=True)
class Broken(Attack):
    """Raises."""

    kind: ClassVar[str] = "attribute"

    def run(self, view):
        """See ``Attack``."""
        raise ZeroDivisionError("of the attack itself")


@pytest.fixture
def broken(monkeypatch):
    """A registered attack that raises; gone after the test."""
    attacks.names()
    monkeypatch.setattr(attacks, "_entries", dict(attacks._entries))
    attacks.register("broken")(Broken)


@pytest.mark.slow
def test_an_addition_that_fails_leaves_the_claims_as_they_were(run, broken, capsys):
    before = contents(run)
    message = refused(capsys, "attack", run, "--add", "nearest_neighbors", "--add", "broken")
    assert "ZeroDivisionError" in message
    now = contents(run)
    assert {name for name in now if now[name] != before.get(name)} <= {
        name for name in now if name.startswith(("attacks/", "references/open/attacks/"))
    }, "answers of what had ended are kept, as after Ctrl-C; nothing else"
    done = ph.open_run(run)
    assert done.result.additions == []
    with pytest.raises(TrainingError, match="this attack failed"):
        done.add("broken", progress=False)


def test_an_addition_may_not_lower_what_leaks(run, put):
    result = json.loads((run / "result.json").read_text())
    higher = json.loads(json.dumps(result))
    top = higher["leakage"]["male"]["headline"]["score"]
    top.update(value=0.9999, high=1.0)
    put(run / "result.json", json.dumps(higher))
    before = contents(run)
    with pytest.raises(ResultError, match=r"is below the 0\.9999 that"):
        ph.open_run(run).add("nearest_neighbors", progress=False)
    now = contents(run)
    assert all(now[name] == before[name] for name in ("result.json", "report.html", "digests.json"))
    assert "additions.json" not in now
    _check_not_lowered(Result.model_validate(result), Result.model_validate(higher))  # higher is as it should


@pytest.mark.slow
def test_between_its_two_files_a_kill_loses_nothing(added, put, told):
    run = added
    whole = json.loads((run / "result.json").read_text())
    put(run / "result.json", json.dumps(whole | {"additions": []}))  # as if it had not been written yet
    assert "added: nearest_neighbors" in told("attack", run, "--add", "nearest_neighbors")
    assert json.loads((run / "result.json").read_text())["additions"] == whole["additions"]


def test_additions_that_were_removed_or_edited_are_missed(added, capsys):
    run = added
    path = run / "additions.json"
    text = path.read_text()
    path.write_text(text.replace("nearest_neighbors", "mlp"))
    assert "not what was written" in refused(capsys, "attack", run)
    path.unlink()
    assert "is missing" in refused(capsys, "attack", run, "--add", "mlp")


@pytest.mark.slow
def test_pictures_and_who_needs_the_edges_weights(run, told):
    """Pictures are drawn, and listed among what is not covered; a white box brings its threat model."""
    told("attack", run, "--add", "decoder,epochs=1", "--add", "fine_tune,epochs=1")
    result = Result.read(run / "result.json")
    assert result.reconstruction["decoder"].ssim.n > 0
    assert any("pictures of test victims" in text for text in result.guarantees[0].does_not_cover)
    page = (run / "report.html").read_text()
    assert "<img" in page[page.index('id="reconstruction"') :]
    assert "fine_tune@white_box" in {row.attack for row in result.leakage["male"].attacks}
    assert [row.name for row in result.threat_models] == ["curious_cloud", "white_box"]
    assert "fine_tune@white_box" in {row.attack for row in result.references["open"].leakage["male"].attacks}


def test_python_does_the_same(added, original):
    done = ph.open_run(added)
    again = done.add("nearest_neighbors", progress=False)
    assert again == done.result == Result.read(added / "result.json")
    with pytest.raises(ConfigError, match="Did you mean neighbors"):
        done.add("nearest_neighbors", {"neighbor": 3}, progress=False)
    with pytest.raises(ConfigError, match="name"):
        done.add(3, progress=False)
    assert "added on" in done.summary()
    table = ph.compare([added, original])
    assert list(table["additions"]) == ["nearest_neighbors (attribute)", ""]
    assert "additions" not in ph.compare([original])


def test_a_run_without_a_result_is_told_to_be_finished(repository, tmp_path, capsys):
    config = second(repository, f"attacks.attribute={LEAST}")
    job.train(job.open_session(config, tmp_path / "run"))
    assert "result.json" in refused(capsys, "attack", tmp_path / "run", "--add", "mlp")
    assert "not a run folder" in refused(capsys, "attack", tmp_path, "--add", "mlp")


@pytest.mark.slow
def test_a_run_in_mlflow_hears_of_it(told, repository, empty_store, tmp_path, monkeypatch, capsys):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    config = second(repository, f"attacks.attribute={LEAST}", "tracking.enabled=true")
    out = tmp_path / "run"
    job.run(job.open_session(config, out), command="privhier run")
    told("attack", out, "--add", "nearest_neighbors")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    known = json.loads((out / "tracking.json").read_text())
    run = client.get_run(known["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["additions"].startswith("nearest_neighbors (attribute), 20")
    nested = client.get_run(known["attacks"]["male/nearest_neighbors"])
    assert nested.data.tags["added"] in run.data.tags["additions"]
    assert nested.data.tags["mlflow.parentRunId"] == run.info.run_id
    elsewhere = shutil.copytree(out, tmp_path / "far" / "away" / "and" / "further")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["attack", str(elsewhere), "--add", "logistic_regression,trials=1"])
    said = capsys.readouterr()
    assert ended.value.code in (0, None)
    assert "warning: MLflow: no MLflow store beside this folder knows the run" in said.err
    assert not list((tmp_path / "far").rglob("mlflow.db")), "no store is begun for a run that has one"
    assert len(Result.read(elsewhere / "result.json").additions) == 2


@pytest.mark.slow
def test_membership_and_make_up_are_added_too(run, told):
    told("attack", run, "--add", "lira,shadows=4", "--add", "mixture")
    result = Result.read(run / "result.json")
    assert result.membership.parts["tail"]["lira"].shadows == 4
    assert [row.attack for row in result.property_inference["male"]] == ["mixture"]
    assert [one.section for one in result.additions] == ["membership", "property"]
    again = told("attack", run, "--add", "lira,shadows=4")
    assert "nothing to do" in again


def test_adding_beside_what_adapts_leaves_those_who_adapt(repository):
    """``auto`` adds attackers where none were chosen; an addition chooses none."""
    from privhier.assessment.additions import extended, number_of
    from privhier.evaluation.additions import Addition

    config = ph.load_config(repository / "configs" / "debug.yaml", {"defense.name": "max_entropy"})
    config = config.model_copy(update={"attacks": type(config.attacks)()})
    before = config.attackers
    assert "decensor" in {choice.name for choice in before.attribute}
    name = number_of(config, Choice(name="fine_tune"), "attribute")
    one = Addition(
        section="attribute", attack="fine_tune", name=name, options={"epochs": 1}, seed=0, date="", git={}
    )
    after = extended(config, [one]).attackers
    assert name == "fine_tune#2"
    assert after.attribute == [*before.attribute, Choice(name="fine_tune", options={"epochs": 1})]
    assert after.threat_models == before.threat_models
