"""The audit of letters: tight and quiet on sound channels, through whole runs, and on a reloaded edge."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.audit import audit as audit_module
from privhier.audit import fits as fits_module
from privhier.audit import letter_reload as reload_module
from privhier.audit.audit import audit_run, read_claim
from privhier.audit.fits import Fit, fitted_row, lumped
from privhier.audit.letter_claim import ClaimedLetters
from privhier.audit.letter_reload import audit_letter_reload
from privhier.audit.letters import audit_letters
from privhier.cli.main import main
from privhier.errors import CheckpointError, ConfigError
from privhier.models.inputs import normalize
from privhier.models.letter_code import LetterCode
from privhier.privacy.channels import CHANNELS, build_channel
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.deploy import ReleasingEdge, load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import saved_config
from privhier.training.release import Releaser

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))


def code(letters, groups=1):
    made = LetterCode(groups=groups, letters=letters, size=1, learned=False)
    made.settle(torch.arange(letters).float().view(1, letters, 1).repeat(groups, 1, 1))
    return made


def audit(name, letters, epsilon, *, groups=1, releases=1, draws=20_000, seed=0, own=None):
    """Audit a sound channel; ``epsilon`` is of one answer."""
    made, channel = own or code(letters, groups), build_channel(name, letters, epsilon)
    return audit_letters(
        lambda z, *, epoch, batch: channel.sample(
            made.letters_of(z), SeededNoise(seed, "t", epoch, batch)
        ).float(),
        ClaimedLetters(name, letters, groups, epsilon, releases),
        code=made,
        draws=draws,
        seed=seed,
        batches=[(0, 100), (releases - 1, 7)],
    )[:-1]  # this release function takes what is not finite


@pytest.mark.parametrize("name", sorted(CHANNELS))
@pytest.mark.parametrize(
    ("letters", "epsilon", "groups", "releases", "draws", "least"),
    [
        (16, 8.0, 1, 1, 200_000, 0.9),
        (4, 4.0, 1, 1, 40_000, 0.9),
        (2, 1.0, 1, 1, 40_000, 0.85),
        (6, 1.0, 3, 2, 40_000, 0.8),
        (5, 0.5, 4, 1, 40_000, 0.8),
    ],
)
def test_sound_channels_are_held_tight(name, letters, epsilon, groups, releases, draws, least):
    rows = audit(name, letters, epsilon, groups=groups, releases=releases, draws=draws)
    assert not any(row.refuted for row in rows), [row.line() for row in rows]
    main_row, whole = rows[0], epsilon * groups * releases
    assert main_row.claimed_epsilon == pytest.approx(whole)
    assert least <= main_row.lower_95 / whole <= 1.05
    assert main_row.lower_alarm < main_row.lower_95
    usual = float(re.search(r"prove about (\S+) of a sound claim", main_row.note)[1])
    assert usual == pytest.approx(main_row.lower_95, abs=0.15 * whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHANNELS))
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_a_million_draws_prove_nine_tenths_of_the_claim(name, epsilon):
    rows = audit(name, 16, epsilon, draws=1_000_000)
    assert not any(row.refuted for row in rows)
    assert 0.9 <= rows[0].lower_95 / epsilon <= 1.02


def test_false_alarms_do_not_happen_in_many_audits():
    over = 0
    for seed in range(30):
        rows = audit("randomized_response", 4, 1.0, seed=seed, draws=2_000)
        assert not any(row.refuted for row in rows)
        over += rows[0].lower_95 > 1.0
    assert over <= 6  # 30 chances of at most 5 %; the draws are fixed by their seeds


def test_the_same_seed_gives_the_same_rows():
    first, again, other = (audit("subset_selection", 8, 1.0, seed=s, draws=2_000) for s in (3, 3, 4))
    assert first == again
    assert first != other


def test_what_few_draws_cannot_see_is_said():
    rows = {row.name: row for row in audit("randomized_response", 16, 25.0, draws=4_000)}
    assert not any(row.refuted for row in rows.values())
    assert rows["release: releases"].lower_95 < 8
    assert "should be changed, too few to notice" in rows["release: channel"].note
    wide = {row.name: row for row in audit("randomized_response", 512, 1.0, draws=2_000)}
    assert "0 of 512 letters were due" in wide["release: alphabet"].note


def test_letters_that_stand_for_no_features_are_named_and_the_others_tried():
    own = LetterCode(groups=2, letters=6, size=1, learned=False)
    values = torch.arange(6.0).view(1, 6, 1).repeat(2, 1, 1)
    values[0, 4:], values[1, 1:] = 3.0, 0.0  # as a fitted code repeats the last letter that it found
    own.settle(values)
    rows = {row.name: row for row in audit("randomized_response", 6, 2.0, groups=2, own=own)}
    assert not any(row.refuted for row in rows.values())
    assert "7 of 12 letters stand for no features" in rows["release: channel"].note
    assert rows["release: releases"].lower_95 > 1.5


def test_a_matrix_that_is_worth_more_than_it_says_is_refuted():
    class Dear(ClaimedLetters):
        @property
        def worth(self):
            return 1.01 * self.epsilon

    channel, made = build_channel("randomized_response", 4, 1.0), code(4)
    rows = audit_letters(
        lambda z, *, epoch, batch: channel.sample(made.letters_of(z), SeededNoise(0, epoch, batch)).float(),
        Dear("randomized_response", 4, 1, 1.0, 1),
        code=made,
        draws=2_000,
    )
    assert [row.name for row in rows if row.refuted and "worth epsilon" in row.note] == ["release: channel"]


@pytest.mark.parametrize("name", sorted(CHANNELS))
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 8.0, 30.0])
def test_a_claim_is_its_channel_s_own(name, epsilon):
    claim = ClaimedLetters(name, 7, 2, epsilon, 3)
    assert claim.worth <= epsilon * (1 + 1e-9) + claim.rounding
    assert claim.whole == 6 * epsilon
    every = np.arange(7)
    own = build_channel(name, 7, epsilon).matrix.numpy()
    low, high = claim.worst_pair(every, np.random.default_rng(0))
    assert claim.log_ratio(low, high).max() == pytest.approx(epsilon, rel=0.01)
    assert claim.pairs(every)[[0, 3]].sum() == pytest.approx(np.square(own).sum() / 7)
    assert claim.turns(every)[0] == pytest.approx(np.diag(own).mean())


def test_too_few_draws_are_refused():
    with pytest.raises(ConfigError, match="at least 1000"):
        audit("randomized_response", 4, 1.0, draws=10)


def test_rare_cells_share_one_and_impossible_ones_stand_alone():
    fit = lumped("x", np.array([90, 4, 6, 0]), np.array([0.9, 0.05, 0.05, 0.0]))
    assert fit.counts.tolist() == [90, 0, 10]
    assert fit.shares == pytest.approx([0.9, 0.0, 0.1])
    assert not fit.broken(0.01)
    assert lumped("x", np.array([90, 4, 5, 1]), np.array([0.9, 0.05, 0.05, 0.0])).broken(1e-300)


def test_a_row_names_the_worst_first():
    fits = [Fit(str(n), np.array([50 + n, 50 - n]), np.array([0.5, 0.5])) for n in (0, 30, 40, 50, 45)]
    note = fitted_row("n", "w", "a", fits, 1e-3).note
    assert note == "refuted by: 50, off by 0.5; 45, off by 0.45; 40, off by 0.4; and 1 more"
    alone = replace(fits[1], joint=True)
    assert fitted_row("n", "w", "a", [alone, fits[2]], 1e-3).note.startswith("refuted by: 40")


# Whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    config = SMALL["small_config"](
        epochs=(1, 1, 1),
        images=160,
        size=16,
        model={"bottleneck": {"kind": "letters", "size": 1, "letters": 5, "groups": 2}},
        release={"mechanism": "randomized_response", "target_epsilon": 6.0},
        tracking={"enabled": False},
    )
    run = tmp_path_factory.mktemp("letters") / "run"
    job.train(job.open_session(config, run))
    return run


def exit_code(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


ROWS = [
    "releases", "channel", "alphabet", "fresh noise", "other records", "other groups", "own batches",
    "non-finite features",
]  # fmt: skip


def test_a_sound_run_of_letters_passes(finished, capsys):
    assert exit_code("audit", finished, "--draws", 8_000) == 0
    printed = capsys.readouterr().out
    assert "claimed: epsilon 6 for 2 release(s) of one record; it allows" in printed
    report = json.loads((finished / "audit.json").read_text())
    names = [f"{path}: {row}" for path in ("training", "evaluation") for row in ROWS]
    assert [row["name"] for row in report["rows"]] == [*names, "reloaded edge"]
    assert all(name in printed for name in names)
    first = (finished / "audit.json").read_bytes()
    assert not audit_run(finished, draws=8_000).refuted
    assert (finished / "audit.json").read_bytes() == first


def claim_of(run):
    return read_claim(RunFolder(run), saved_config(RunFolder(run)))


def test_the_claim_is_what_the_ledger_holds(finished):
    claim = claim_of(finished)
    assert (claim.kind, claim.delta, claim.releases, claim.test_releases) == ("letters", 0.0, 2, 2)
    assert claim.epsilon == pytest.approx(6.0)
    assert claim.of(1) == pytest.approx(3.0)
    assert set(claim.records) == {"train", "val", "test"}
    assert claim.letters == ClaimedLetters("randomized_response", 5, 2, claim.strength / 2, 2)
    assert claim.letters.epsilon == pytest.approx(1.5)


def test_without_noise_a_run_of_letters_claims_nothing(tmp_path):
    config = SMALL["small_config"](
        epochs=(1, 0, 1),
        images=120,
        size=16,
        model={"bottleneck": {"kind": "letters", "size": 1, "letters": 4}},
        tracking={"enabled": False},
    )
    job.train(job.open_session(config, tmp_path / "run"))
    report = audit_run(tmp_path / "run", draws=2_000)
    assert report.rows == []
    assert "claims nothing" in report.note


def test_noise_off_in_evaluation_shows_in_the_evaluation_rows_alone(finished, monkeypatch):
    class Quiet(ReleaseMechanism):
        def _answered(self, letters, noise):
            return letters

    def release_split(self, *args, **kwargs):
        if args[3] != "test":
            return whole(self, *args, **kwargs)
        own = self.mechanism
        quiet = Quiet(own.mechanism, letters=5, groups=2, epsilon=own.epsilon)
        return whole(Releaser(self.config, quiet, self.ledger, run_id="x"), *args, **kwargs)

    whole = Releaser.release_split
    monkeypatch.setattr(Releaser, "release_split", release_split)
    report = audit_run(finished, draws=8_000)
    refuted = {row.name for row in report.rows if row.refuted}
    assert {"evaluation: releases", "evaluation: channel"} <= refuted
    assert not any(name.startswith("training") for name in refuted)
    assert "reloaded edge" not in refuted


# A reloaded edge


def reload_row(finished, monkeypatch, change):
    """The row of a reload that ``change`` tampers with: it gets a loaded edge and gives one back.

    Its note names all that is wrong: which three are worst is chance where six are as wrong as each other.
    """
    monkeypatch.setattr(fits_module, "_NAMED", 100)
    monkeypatch.setattr(reload_module, "load_edge", lambda run: change(load_edge(run)))
    return audit_letter_reload(finished, claim_of(finished).letters, image_size=16)


def test_a_sound_reload_passes(finished, monkeypatch):
    row = reload_row(finished, monkeypatch, lambda edge: edge)
    assert (row.refuted, row.note) == (False, "as claimed")


@pytest.mark.parametrize("how", ["none", "double"])
def test_a_reload_with_less_noise_is_caught(finished, monkeypatch, how):
    def change(edge):
        own = edge.mechanism
        if how == "none":
            edge.mechanism = ReleaseMechanism("none", letters=5, groups=2)
        else:
            edge.mechanism = replace(own, epsilon=2 * own.epsilon)
        return edge

    note = reload_row(finished, monkeypatch, change).note
    assert "evaluation mode: answers" in note
    assert "training mode: answers" in note


def switched(kind, edge):
    return kind(edge.edge, edge.mechanism, image_size=edge.image_size)


def test_noise_off_in_evaluation_mode_of_a_reloaded_edge_is_caught(finished, monkeypatch):
    class Switch(ReleasingEdge):
        def forward(self, images):
            if self.training:
                return super().forward(images)
            features = self.edge.features(normalize(images)).float()
            quiet = ReleaseMechanism("none", letters=5, groups=2)
            return quiet.sanitize(features, self.noise, self.edge.codebook)

    row = reload_row(finished, monkeypatch, lambda edge: switched(Switch, edge))
    assert "evaluation mode: " in row.note
    assert "training mode" not in row.note


class Again:
    """The same two draws in every call."""

    kind, count = "seeded", 0

    def uniform(self, shape):
        self.count += 1
        return SeededNoise(self.count % 2, "again").uniform(shape)


def test_a_reload_that_repeats_its_noise_is_caught(finished, monkeypatch):
    def change(edge):
        edge.noise = Again()
        return edge

    assert "pairs of answers of first call and second call" in reload_row(finished, monkeypatch, change).note


def test_two_loads_of_the_same_seed_are_caught(finished, monkeypatch):
    def change(edge):
        edge.noise = SeededNoise(0, "load")
        return edge

    note = reload_row(finished, monkeypatch, change).note
    assert "pairs of answers of first call and second load" in note
    assert "first call and second call" not in note


def test_a_reload_that_lost_its_letters_is_refused(finished, monkeypatch):
    def change(edge):
        edge.edge.code.settled.fill_(False)
        return edge

    with pytest.raises(CheckpointError, match="no letters"):
        reload_row(finished, monkeypatch, change)


def test_a_claim_of_less_than_was_charged_exits_with_1(finished, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    whole = audit_module.read_claim

    def small(folder, config):
        claim = whole(folder, config)
        half = replace(claim.letters, epsilon=claim.letters.epsilon / 2)
        return replace(claim, epsilon=claim.epsilon / 2, strength=claim.strength / 2, letters=half)

    monkeypatch.setattr(audit_module, "read_claim", small)
    assert exit_code("audit", run, "--draws", 8_000) == 1
    printed = capsys.readouterr().out
    assert "REFUTED training: releases" in printed
    assert "REFUTED reloaded edge" in printed
