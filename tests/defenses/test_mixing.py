"""Losses that compare the records of a batch: legal without DP-SGD, refused with it, found if they hide."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.config import RunConfig, load_config
from privhier.defenses.base import Defense, DefenseBatch, defenses, task_loss_per_record
from privhier.defenses.none import NoDefense
from privhier.distributed.remote import open_edge
from privhier.errors import ConfigError, GuaranteeError, TrainingError
from privhier.evaluation.result import Result
from privhier.planner.profile import profile
from privhier.planner.timing import TimingJob
from privhier.planner.timing_process import Side
from privhier.privacy.guarantees import CURIOUS_CLOUD, OWN_RELEASES
from privhier.sweeps.job import check_points
from privhier.sweeps.spec import Point

pytestmark = pytest.mark.usefixtures("comparing")
SMALL = [
    "schedule.cloud_epochs=0", "attacks.raw_image=false", "attacks.reconstruction=[]", "attacks.draws=1",
    "evaluation.bootstrap=100", "runtime.threads=1", "tracking.enabled=false", "defense.options={}",
]  # fmt: skip
PRIVATE = "edge.dp_sgd.noise_multiplier=1.0"


@pytest.fixture
def configured(repository: Path) -> Any:
    def make(*more: str, defense: str = "comparing") -> RunConfig:
        return load_config(repository / "configs" / "debug.yaml", [*SMALL, f"defense.name={defense}", *more])

    return make


def test_distance_correlation_is_the_published_one(comparing: dict[str, Any]) -> None:
    """Against the definition, and at its two ends: 0 where nothing is shared, 1 where everything is."""
    shares = comparing["correlation_shares"]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)

    def centered(d: Any) -> Any:
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()

    a = centered(np.linalg.norm(x[:, None] - x[None], axis=2))
    b = centered((y[:, None] != y[None]).astype(float))
    wanted = (a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())
    labels = torch.from_numpy(y)
    assert float(shares(torch.from_numpy(x).float(), labels).mean()) == pytest.approx(wanted, rel=1e-4)
    classes = torch.nn.functional.one_hot(labels).float()
    assert float(shares(classes, labels).mean()) == pytest.approx(1, abs=1e-5)
    assert shares(torch.zeros(30, 4, requires_grad=True), labels).tolist() == [0.0] * 30
    assert shares(classes[:1], labels[:1]).tolist() == [0.0]


def test_its_gradient_is_finite_where_records_are_equal(comparing: dict[str, Any]) -> None:
    for z in (torch.zeros(6, 3), torch.ones(6, 3).cumsum(0) // 2):
        z.requires_grad_()
        labels = torch.tensor([0, 1, 0, 1, -1, 1])
        comparing["correlation_shares"](z, labels).mean().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert not z.grad[4].any()


def test_without_dp_sgd_it_runs_from_end_to_end(configured: Any, tmp_path: Path) -> None:
    session = job.open_session(configured("defense.options.weight=3.0"), tmp_path / "run")
    job.run(session, command="run")
    result = Result.read(tmp_path / "run" / "result.json")
    assert result.leakage["male"].worst is not None
    rows = {row.name: row for row in result.guarantees}
    own = rows[OWN_RELEASES]
    assert own.epsilon is not None  # a release is of one record, whatever losses trained the edge
    assert rows[CURIOUS_CLOUD].epsilon is None


REFUSED = r"defense\.name: 'comparing' - compares the records of a batch.*drop edge\.dp_sgd"


def test_with_dp_sgd_every_verb_refuses_it_and_writes_nothing(configured: Any, tmp_path: Path) -> None:
    config, out = configured(PRIVATE), tmp_path / "run"
    with pytest.raises(ConfigError, match=REFUSED):
        job.open_session(config, out)
    with pytest.raises(ConfigError, match=REFUSED), ExitStack() as stack:
        open_edge(config, out, stack=stack)
    assert not out.exists()
    point = Point(config, config.hash(), {}, "x", "dp=on", "dp=on")
    with pytest.raises(ConfigError, match=rf"point \(dp=on\): {REFUSED}"):
        check_points([Point(configured(), "", {}, "x", "dp=off", "dp=off"), point])
    with pytest.raises(ConfigError, match=REFUSED):
        profile(TimingJob(config, {"smiling": 2}, {"male": 2}), edge=Side(1), cloud=Side(1))


def test_a_sweep_knows_at_once_what_else_dp_sgd_refuses(configured: Any) -> None:
    config = configured(PRIVATE, "defense.options.adversary_steps=1", defense="gradient_reversal")
    with pytest.raises(ConfigError, match="takes extra adversary steps"):
        check_points([Point(config, "", {}, "x", "y", "y")])


def test_a_sweep_looks_at_every_release_a_defense_is_made_for(configured: Any) -> None:
    """Two points that differ in the bottleneck alone: the second is not taken for the first."""
    of_values = {"needs": frozenset({"values"}), "__doc__": "Of values."}
    defenses.register("of_values")(type("OfValues", (NoDefense,), of_values))
    letters = [
        "model.bottleneck={kind: letters, size: 2, letters: 4}",
        "release.mechanism=none",
        "release.sigma=null",
    ]
    fine, wrong = (configured(*more, defense="of_values") for more in ([], letters))
    check_points([Point(fine, "", {}, "x", "vector", "vector")])
    with pytest.raises(ConfigError, match=r"point \(letters\): model\.bottleneck\.kind: 'letters' - must"):
        check_points(
            [Point(fine, "", {}, "x", "vector", "vector"), Point(wrong, "", {}, "x", "letters", "letters")]
        )


def test_a_sweep_looks_at_every_release_a_defense_counts_by(configured: Any) -> None:
    quiet = configured("release.mechanism=none", "release.sigma=null", defense="vib")
    with pytest.raises(ConfigError, match="must be gaussian, with noise"):
        check_points(
            [Point(configured(defense="vib"), "", {}, "x", "a", "a"), Point(quiet, "", {}, "x", "b", "b")]
        )


def test_there_must_be_somebody_to_compare_with(configured: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size: 1 - must be at least 2 with the defense"):
        job.open_session(configured("training.batch_size=1"), tmp_path / "run")
    job.open_session(configured("training.batch_size=1", defense="none"), tmp_path / "none")


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_sabotage_a_defense_that_hides_that_it_mixes(configured: Any, tmp_path: Path) -> None:
    """It claims to take records by themselves; the check before the first step of DP-SGD finds out."""
    mixing = defenses.get("comparing")
    defenses.register("hidden")(type("Hidden", (mixing,), {"mixes_records": False, "__doc__": "Hides."}))
    session = job.open_session(configured(PRIVATE, defense="hidden"), tmp_path / "run")
    with pytest.raises(GuaranteeError, match="must not depend on the other records of its batch"):
        job.train(session)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("wrong", ["mean", "nothing"])
def test_a_loss_of_another_shape_is_refused_in_words(
    configured: Any, tmp_path: Path, monkeypatch: Any, wrong: str, private: bool
) -> None:
    def loss(self: Defense, batch: DefenseBatch) -> Any:
        return task_loss_per_record(batch).mean() if wrong == "mean" else None

    monkeypatch.setattr(NoDefense, "loss", loss)
    session = job.open_session(configured(*([PRIVATE] if private else []), defense="none"), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"NoDefense.*must give one loss a record.*gave"):
        job.train(session)
