"""A part of the campaign on every change: each file of a finished run damaged in turn, every reader on it."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from privhier import session as job
from privhier.errors import PrivhierError
from privhier.evaluation.result import Result
from privhier.training.charges import checked_ledger
from privhier.training.cloud import ReleaseCache
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import saved_config
from privhier.training.trained import finished_training, load_trained


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    path = Path(__file__).with_name("campaign.py")
    spec = importlib.util.spec_from_file_location("corruption_campaign", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finished(campaign, repository, tmp_path_factory) -> Any:
    out = tmp_path_factory.mktemp("finished") / "run"
    session = job.open_session(campaign.tiny(repository), out)
    job.run(session, command="privhier run")
    return session


def read_everything(session: Any, root: Path) -> list[str]:
    """What every reader concludes from a folder; raises what the first one raises."""
    folder = RunFolder(root)
    config = saved_config(folder)
    trained = load_trained(config, session.prepared.data, folder)
    ledger = checked_ledger(folder, config, finished_training(folder))
    edge = load_edge(root)
    payload, records, labels = ReleaseCache(folder.cloud_cache, folder.sealed).load()
    snapshots = [folder.sealed.checked(folder.snapshot(0)).name]
    found = [
        config.hash(),
        repr(edge.mechanism),
        ledger.head,
        Result.of_run(folder.sealed, folder.result).model_dump_json(),
        [trained.test_releases.tobytes().hex(), trained.training_releases.tobytes().hex(), trained.history],
        [value.numpy().tobytes().hex() for value in trained.edge.state_dict().values()],
        [value.numpy().tobytes().hex() for value in trained.tail.state_dict().values()],
        [payload.tobytes().hex(), records.tolist(), labels.tolist(), snapshots],
    ]
    return [json.dumps(part) for part in found]


NOT_READ = {
    "checkpoint.pt",
    "releases/val.npy",
    "releases/train.json",
    "releases/val.json",
    "releases/test.json",
}
"""Read on resume only: the campaign's half-finished runs and ``tests/training/test_altered_runs.py``."""


def only_of_unread(listed, folder):
    """Whether a changed list of digests differs in entries of files that nobody reads in a finished run."""
    found = json.loads((folder / "digests.json").read_text())["files"]
    return {name for name in listed if found.get(name) != listed[name]} <= NOT_READ


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_every_file_of_a_finished_run_is_guarded(finished, tmp_path, kind):
    rng, root = random.Random(7), finished.folder.root
    expected = read_everything(finished, root)
    listed = json.loads((root / "digests.json").read_text())["files"]
    for name in [*listed, "digests.json"]:
        work = Path(shutil.copytree(root, tmp_path / "work"))
        data = bytearray((work / name).read_bytes())
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) if kind == "cut" else 0 :]
        (work / name).write_bytes(bytes(data))
        try:
            found = read_everything(finished, work)
        except PrivhierError as error:
            assert str(error)  # noqa: PT017
        else:
            assert name in NOT_READ or only_of_unread(listed, work)
            assert found == expected
        shutil.rmtree(work)


def test_the_campaign_sees_a_reader_that_checks_nothing(campaign, finished, tmp_path, monkeypatch):
    """Sabotage: without the digests, a flipped bit of the weights is silently different."""
    expected = campaign.deploy(finished.folder.root)
    work = Path(shutil.copytree(finished.folder.root, tmp_path / "work"))
    path = work / "edge.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(bytes(data))
    assert campaign.outcome(campaign.deploy, work, expected)[0] == "refused"
    monkeypatch.setattr("privhier.storage.sealed.Sealed.check_digest", lambda self, path, digest: None)
    assert campaign.outcome(campaign.deploy, work, expected)[0] == "different"
    path.write_bytes(b"")
    assert campaign.outcome(lambda root: path.read_text()[5], work, expected)[0] == "traceback"


def test_damage_changes_exactly_one_file(campaign, finished, tmp_path):
    root = finished.folder.root
    for seed in range(8):
        work = Path(shutil.copytree(root, tmp_path / str(seed)))
        done = campaign.damage(work, random.Random(seed))
        changed = [
            path.relative_to(work)
            for path in work.rglob("*")
            if path.is_file() and path.read_bytes() != (root / path.relative_to(work)).read_bytes()
        ]
        assert [str(path) for path in changed] == [done.split(" ", 1)[1]]
