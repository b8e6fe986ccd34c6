"""Whatever reads a run folder checks it: edits, swaps and damage are refused, and nothing is concluded."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from privhier import session as job
from privhier.audit.audit import audit_run
from privhier.config import RunConfig, load_config
from privhier.config.shared import shared_part
from privhier.errors import (
    CheckpointError,
    ConfigError,
    GuaranteeError,
    OutputError,
    PrivhierError,
    UplinkError,
)
from privhier.evaluation.result import Result
from privhier.privacy.events import CHAIN_START, chained, parse_line
from privhier.storage.locks import exclusive
from privhier.storage.sealed import Sealed
from privhier.training.cloud_folder import CloudFolder, check_folder
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import MOVABLE, resumptions, saved_config
from privhier.training.trained import load_trained
from privhier.training.trainer import Trainer

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
config_of = SMALL["second"]


class StoppedError(KeyboardInterrupt):
    pass


def half(config: RunConfig, out: Path, epochs: int) -> None:
    """A run that was stopped after so many epochs."""
    save = Trainer._save

    def stop(self: Trainer, done: int) -> None:
        save(self, done)
        if done == epochs:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", stop)
        session = job.open_session(config, out, resume=out.exists())
        with pytest.raises(StoppedError):
            job.train(session)


@pytest.fixture(scope="module")
def finished(repository, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    job.run(job.open_session(config_of(repository), out), command="privhier run")
    return out


@pytest.fixture(scope="module")
def stopped(repository, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    half(config_of(repository), out, 3)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def attack(run: Path) -> Result:
    session = job.reopen_session(run)
    return job.attack(session, load_trained(session.config, session.prepared.data, session.folder))


def report(run: Path) -> Result:
    session = job.reopen_session(run)
    load_trained(session.config, session.prepared.data, session.folder)
    return Result.of_run(session.folder.sealed, session.folder.result)


def resume(run: Path) -> Result:
    config = RunConfig.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    return job.run(job.open_session(config, run, resume=True), command="privhier run")


def audit(run: Path) -> Any:
    return audit_run(run, draws=1000)


def numbers(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in ("timing", "git")}


# --- the ledger ---------------------------------------------------------------------------------------


def forge(run: Path, edit: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Edit the ledger and make up every hash that stands over it: lines, digests, training.json."""
    path = run / "ledger.jsonl"
    events = edit([json.loads(line) for line in path.read_text().splitlines()])
    chain, lines = CHAIN_START, []
    for event in events:
        found = parse_line(json.dumps(event | {"chain": ""}).encode())
        assert found is not None
        chain = chained(chain, found[0])
        lines.append(json.dumps(event | {"chain": chain}) + "\n")
    sealed = Sealed(run)
    sealed.write(path, "".join(lines))
    if (run / "training.json").exists():
        facts = json.loads((run / "training.json").read_text())
        sealed.write_json(run / "training.json", facts | {"ledger": chain})


FORGERIES: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "emptied": lambda events: [],
    "noise ten times": lambda events: [
        event | {"sigma": 10 * event["sigma"]} if event["kind"] == "release" else event for event in events
    ],
    "clip a tenth": lambda events: [
        event | {"clip": event["clip"] / 10} if event["kind"] == "release" else event for event in events
    ],
    "a line deleted": lambda events: events[:1] + events[2:],
    "a test line deleted": lambda events: [event for event in events if event["split"] != "test"],
    "lines doubled": lambda events: [event for event in events for _ in range(2)],
    "fewer records": lambda events: [event | {"records": 1} for event in events],
    "another epoch": lambda events: [event | {"epoch": event["epoch"] + 7} for event in events],
    "another source": lambda events: [event | {"noise_source": "system"} for event in events],
    "another mechanism": lambda events: [event | {"mechanism": "laplace"} for event in events],
}


@pytest.mark.parametrize("forgery", list(FORGERIES))
def test_a_forged_ledger_is_refused_by_attack_and_audit(run, forgery):
    forge(run, FORGERIES[forgery])
    before = (run / "result.json").read_bytes()
    for verb in (attack, audit):
        with pytest.raises(GuaranteeError, match="ledger"):
            verb(run)
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize("forgery", ["emptied", "noise ten times", "a line deleted", "lines doubled"])
def test_a_forged_ledger_is_refused_on_resume(stopped, tmp_path, forgery):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    forge(run, FORGERIES[forgery])
    with pytest.raises(GuaranteeError, match="ledger"):
        resume(run)


def test_a_true_ledger_passes_everywhere(run, stopped, repository, tmp_path):
    forge(run, lambda events: events)
    assert audit(run).rows
    resumed = Path(shutil.copytree(stopped, tmp_path / "resumed"))
    resume(resumed)
    expected, found = numbers(run), numbers(resumed)
    assert found == expected


def test_under_system_noise_a_repeated_epoch_may_stand_twice(repository, tmp_path):
    out = tmp_path / "run"
    config = config_of(repository, "privacy.noise_source=system", "schedule.cloud_epochs=0")
    half(config, out, 1)
    checkpoint = (out / "checkpoint.pt").read_bytes()
    half_again = Path(shutil.copytree(out, tmp_path / "again"))
    # As a kill in the middle of the second epoch leaves it: charged, and not in the checkpoint.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", lambda self, done: (_ for _ in ()).throw(StoppedError))
        session = job.open_session(config, half_again, resume=True)
        with pytest.raises(StoppedError):
            job.train(session)
    assert (half_again / "checkpoint.pt").read_bytes() == checkpoint
    result = resume(half_again)
    assert result.release["releases_per_record"] == 2  # two draws went up, two are charged


# --- configuration, weights, releases, results --------------------------------------------------------

EDITS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "sigma in config.yaml": ("config.yaml", lambda data: data.replace(b"sigma: 0.3", b"sigma: 3.0")),
    "seed in config.yaml": ("config.yaml", lambda data: data.replace(b"seed: 0", b"seed: 1", 1)),
    "a score in result.json": ("result.json", lambda data: data.replace(b'"value": 0.', b'"value": 0.0')),
    "an epsilon in result.json": ("result.json", lambda data: data.replace(b'"epsilon": 8', b'"epsilon": 1')),
    "totals in training.json": ("training.json", lambda data: data.replace(b'"records": ', b'"records": 1')),
    "history.json emptied": ("history.json", lambda data: b""),
    "training.json cut": ("training.json", lambda data: data[: len(data) // 2]),
    "edge.safetensors, one bit": (
        "edge.safetensors",
        lambda data: data[:-3] + bytes([data[-3] ^ 64]) + data[-2:],
    ),
    "tail.safetensors emptied": ("tail.safetensors", lambda data: b""),
    "test releases, one bit": ("releases/test.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "test releases emptied": ("releases/test.npy", lambda data: b""),
    "snapshot, one bit": (
        "snapshots/edge_0000.safetensors",
        lambda data: data[:-1] + bytes([data[-1] ^ 64]),
    ),
    "digests.json emptied": ("digests.json", lambda data: b""),
}


@pytest.mark.parametrize("edit", list(EDITS))
def test_an_edited_file_is_refused_by_whatever_reads_it(run, edit):
    name, change = EDITS[edit]
    path = run / name
    before = path.read_bytes()
    assert change(before) != before
    path.write_bytes(change(before))
    expected, refused = numbers(run) if name != "result.json" else None, []
    verbs = [report, load_edge, attack] if name != "result.json" else [report, audit]  # attack writes it anew
    for verb in verbs:
        try:
            verb(run)
        except PrivhierError:
            refused.append(verb.__name__)
    assert refused
    if expected is not None and name != "digests.json":
        assert numbers(run) == expected  # who did not refuse does not use it


def test_a_removed_digests_file_is_no_way_around(run):
    (run / "digests.json").unlink()
    for verb in (attack, report, audit, resume, load_edge):
        with pytest.raises(CheckpointError, match=r"digests\.json"):
            verb(run)


def test_weights_and_releases_of_another_run_are_refused(run, repository, tmp_path):
    other = tmp_path / "other"
    job.train(job.open_session(config_of(repository, "seed=1"), other))
    for name in ("edge.safetensors", "releases/test.npy", "training.json"):
        kept = (run / name).read_bytes()
        shutil.copyfile(other / name, run / name)
        with pytest.raises(PrivhierError):
            attack(run)
        (run / name).write_bytes(kept)
    attack(run)


def test_a_damaged_finished_attack_is_run_again_with_the_same_scores(run):
    expected = numbers(run)
    paths = sorted((run / "attacks").rglob("*.npz"))
    assert paths
    for damage in (lambda data: b"", lambda data: data[:40], lambda data: data[:-40]):
        for path in paths:
            path.write_bytes(damage(path.read_bytes()))
        attack(run)
        assert numbers(run) == expected


def test_an_edited_finished_attack_is_run_again(run):
    expected = numbers(run)
    for path in (run / "attacks").rglob("*.npz"):
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if "probabilities" in arrays:
            arrays["probabilities"] = np.full_like(arrays["probabilities"], 0.5)
            np.savez(path, **arrays)
    attack(run)
    assert numbers(run) == expected


def test_a_checkpoint_with_one_flipped_bit_is_refused(stopped, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    data = bytearray((run / "checkpoint.pt").read_bytes())
    for place in np.random.default_rng(0).integers(0, len(data), 6).tolist():
        data[place] ^= 4
        (run / "checkpoint.pt").write_bytes(bytes(data))
        with pytest.raises(CheckpointError, match="edited or damaged"):
            resume(run)
        data[place] ^= 4
    (run / "checkpoint.pt").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        resume(run)


def test_lost_draws_are_missed_and_never_drawn_again(repository, tmp_path):
    out = tmp_path / "run"
    more = [
        "privacy.label_epsilon=2",
        "privacy.noise_source=system",
        "release.sigma=null",
        "release.target_epsilon=8",
        "release.clip={quantile: 0.5, epsilon: 0.5}",
    ]
    half(config_of(repository, *more), out, 3)
    for name in ("sent_labels.npy", "clip.json", "releases/val.npy", "cloud_cache/payload.npy"):
        kept = (out / name).read_bytes()
        charges = (out / "ledger.jsonl").read_bytes()
        (out / name).unlink()
        with pytest.raises(CheckpointError, match="is missing"):
            resume(out)
        assert (out / "ledger.jsonl").read_bytes() == charges
        (out / name).write_bytes(kept)
    resume(out)


# --- claiming a folder --------------------------------------------------------------------------------


def test_two_processes_cannot_work_in_one_folder(repository, run, tmp_path):
    config = config_of(repository)
    with exclusive(RunFolder(run).lock), pytest.raises(OutputError, match="another process"):
        job.open_session(config, run, resume=True)
    session = job.open_session(config, tmp_path / "fresh")
    with exclusive(session.folder.lock), pytest.raises(OutputError, match="another process"):
        job.run(session, command="privhier run")
    job.run(session, command="privhier run")


def test_a_resume_under_another_configuration_names_the_keys(repository, stopped):
    other = config_of(repository, "release.sigma=0.5", "training.edge.lr=0.01")
    with pytest.raises(CheckpointError) as caught:
        job.open_session(other, stopped, resume=True)
    assert "release.sigma is 0.3 there, 0.5 here" in str(caught.value)
    assert "training.edge.lr is 0.002 there, 0.01 here" in str(caught.value)


def test_a_resume_with_other_threads_goes_on_and_says_so(repository, stopped, tmp_path):
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    config = config_of(repository, "runtime.threads=2")
    assert config.hash() == config_of(repository).hash()
    result = job.run(job.open_session(config, run, resume=True), command="privhier run")
    assert any("runtime.threads=2 (before: 1)" in warning for warning in result.warnings)


def test_a_folder_from_before_layouts_goes_on_and_says_so(repository, stopped, tmp_path):
    run = RunFolder(Path(shutil.copytree(stopped, tmp_path / "run")))
    data = yaml.safe_load(run.config.read_text())
    del data["runtime"]["channels_last"]
    run.sealed.write(run.config, yaml.safe_dump(data, sort_keys=False))
    assert saved_config(run).runtime.channels_last is False
    job.open_session(config_of(repository), run.root, resume=True)
    assert resumptions(run) == ["runtime.channels_last=auto (before: False)"]


def test_a_resume_on_other_images_is_refused(repository, tmp_path, finished, monkeypatch):
    """The same configuration hash, other pictures: releases of them would be free in the ledger."""
    faces = tmp_path / "faces"
    write_faces(faces, seed=0)
    tiny = [item for item in SMALL["SECOND"] if "options" not in item]
    settings = [
        *tiny,
        "dataset.name=folder",
        "dataset.options={image: file}",
        f"dataset.cache={tmp_path / 'cache'}",
    ]

    def config_at(root: Path | str) -> RunConfig:
        return load_config(repository / "configs" / "debug.yaml", [*settings, f"dataset.root={root}"])

    config = config_at(faces)
    out = tmp_path / "run"
    half(config, out, 2)
    other = tmp_path / "other"
    write_faces(other, seed=1)
    elsewhere = config_at(other)
    assert elsewhere.hash() == config.hash()
    with pytest.raises(CheckpointError, match="under one ledger"):
        job.open_session(elsewhere, out, resume=True)
    moved = tmp_path / "moved"
    faces.rename(moved)
    monkeypatch.chdir(tmp_path)
    job.train(job.open_session(config_at("moved"), out, resume=True))
    # Saved absolute: another current folder changes nothing. Moved again: told by an override.
    monkeypatch.chdir("/")
    session = job.reopen_session(out)
    assert session.config.dataset.root == str(moved)
    moved.rename(faces)
    with pytest.raises(PrivhierError):
        job.reopen_session(out)
    session = job.reopen_session(out, [f"dataset.root={faces}"])
    job.attack(session, load_trained(session.config, session.prepared.data, session.folder))
    with pytest.raises(CheckpointError, match="under one ledger"):
        job.reopen_session(out, [f"dataset.root={other}"])
    with pytest.raises(ConfigError, match="cannot be changed in a run that exists"):
        job.reopen_session(out, ["release.sigma=3.0"])


def write_faces(folder: Path, *, seed: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(seed)
    folder.mkdir()
    rows = ["file,smiling,male"]
    for number in range(128):
        name = f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / name)
        rows.append(f"{name},{number % 2},{number // 2 % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def test_every_file_that_is_read_again_is_bound(finished):
    """A reader that is added without its digest would be found here."""
    written = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    listed = set(json.loads((finished / "digests.json").read_text())["files"])
    for digests in finished.glob("attacks/**/digests.json"):
        names = json.loads(digests.read_text())["files"]
        listed |= {(digests.parent / name).relative_to(finished).as_posix() for name in names}
    pages = {name for name in written if name.startswith("figures/")} | {"report.html"}
    assert {n for n in written - listed - pages if not n.endswith(("digests.json", ".lock"))} == set()
    for name in listed - {name for name in listed if name.startswith("attacks/")}:
        recorded = json.loads((finished / "digests.json").read_text())["files"][name]
        assert recorded == [hashlib.sha256((finished / name).read_bytes()).hexdigest()]


def test_a_cloud_folder_of_another_configuration_names_the_keys(repository, tmp_path):
    folder, shared = CloudFolder(tmp_path), shared_part(config_of(repository))
    folder.sealed.write(folder.config, shared.to_yaml())
    check_folder(folder, shared)
    other = shared_part(config_of(repository, "release.sigma=0.5"))
    with pytest.raises(UplinkError, match=r"release\.sigma is 0\.3 there, 0\.5 here"):
        check_folder(folder, other)
    folder.config.write_text(other.to_yaml())
    with pytest.raises(CheckpointError, match="edited or damaged"):
        check_folder(folder, other)


def test_what_may_differ_in_a_finished_run_is_in_no_hash(run):
    plain = saved_config(RunFolder(run))
    given = {"dataset.root": "x", "dataset.cache": "y", "runtime.threads": 3, "runtime.device": "cpu"}
    given |= {"report.pictures": "none", "tracking.enabled": False, "runtime.channels_last": False}
    given |= {"runtime.resident": False}
    assert set(given) == set(MOVABLE)
    changed = saved_config(RunFolder(run), [f"{key}={value}" for key, value in given.items()])
    assert changed.report.pictures == "none"
    assert changed.runtime.threads == 3
    assert changed.hash() == plain.hash()
