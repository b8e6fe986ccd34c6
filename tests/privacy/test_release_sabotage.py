"""Every way of breaking the release that we could think of, really broken, and really caught."""

from __future__ import annotations

import functools

import pytest
import torch

from privhier.audit.judge import Judge
from privhier.audit.paths import AuditedReleases
from privhier.audit.release import Claimed, audit_release
from privhier.audit.row import AuditRow
from privhier.config import parse_config
from privhier.errors import ReleaseError, UplinkError
from privhier.privacy.accounting import solve_sigma
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.release import Releaser

DELTA = 1e-5
EPSILONS = [4.0, 80.0]
KINDS = ["gaussian", "laplace"]
GROSS = 8_000
"""Draws that must do to see what is grossly wrong; what is sound, or nearly, gets more."""
RECORDS = 300
"""Of a split: joint steps of 48 and a last of 12, whole splits in batches of 256 and 44."""


JUDGED = Judge.row


def config_of(kind, epsilon, joint=2, wire="float32"):
    return parse_config(
        {
            "name": "sabotage",
            "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
            "schedule": {"joint_epochs": joint},
            "release": {"mechanism": kind, "clip": 1.0, "target_epsilon": epsilon, "quantize": wire},
            "privacy": {"delta": DELTA},
            "training": {"batch_size": 48},
        }
    )


def row_of_these(judge, names, name, what, adjacency, claim, views, draws):
    """The judge's row where it is asked for, else one that says nothing."""
    if name in names:
        return JUDGED(judge, name, what, adjacency, claim, views, draws)
    return AuditRow(name=name, what=what, adjacency=adjacency, refuted=False)


def audit(
    kind="gaussian",
    epsilon=8.0,
    *,
    mechanism=ReleaseMechanism,
    path="training",
    draws=20_000,
    joint=2,
    wire="float32",
    of=None,
):
    """Audit a run's path with a mechanism of the class ``mechanism``; returns the refuted rows by name.

    ``of``: The rows that the test is about; others, which take most of the time, are then not drawn for.
    """
    sigma = solve_sigma(kind, epsilon, DELTA, 1.0, joint)
    paths = AuditedReleases(config_of(kind, epsilon, joint, wire), mechanism(kind, 1.0, sigma, wire))
    batches = paths.batches(path, RECORDS, (8,))
    with pytest.MonkeyPatch.context() as patch:
        if of is not None:
            patch.setattr(
                Judge, "row", functools.partialmethod(row_of_these, [f"{path}: {one}" for one in of])
            )
        rows = audit_release(
            getattr(paths, path),
            Claimed(kind, 1.0, epsilon, DELTA, joint),
            shape=(8,),
            draws=draws,
            name=path,
            batches=batches,
        )
    return {row.name.removeprefix(f"{path}: "): row for row in rows if row.refuted}


@pytest.mark.parametrize("path", ["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_mechanism_passes(kind, path):
    assert audit(kind, path=path) == {}


@pytest.mark.parametrize("wire", ["int8", "int4"])
def test_a_sound_mechanism_passes_on_narrow_wires(wire):
    assert audit(wire=wire) == {}


class NoNoise(ReleaseMechanism):
    """Like all below, a mechanism that lies about itself: what it makes is a release by its own word."""

    def _randomized(self, z, noise):
        return self.quantized(self.clip_features(z))


class HalfNoise(ReleaseMechanism):
    def _randomized(self, z, noise):
        return ReleaseMechanism(self.mechanism, self.clip, self.sigma / 2, self.quantize)._randomized(
            z, noise
        )


class NoClip(ReleaseMechanism):
    def clip_features(self, z):
        return z.float()


class ClipPerElement(ReleaseMechanism):
    def clip_features(self, z):
        return z.float().clamp(-self.clip, self.clip)


class ClipByBatchNorm(ReleaseMechanism):
    def clip_features(self, z):
        return z * min(1.0, self.clip / max(float(z.norm()), 1e-9))


class ClipByMeanNorm(ReleaseMechanism):
    """Scales a batch by the root mean square of its records' norms."""

    def clip_features(self, z):
        return z * min(1.0, self.clip / (max(float(z.norm()), 1e-9) / len(z) ** 0.5))


class L2Clip(ReleaseMechanism):
    def clip_features(self, z):
        return ReleaseMechanism("gaussian", self.clip, self.sigma).clip_features(z)


class LetsThrough(ReleaseMechanism):
    def _randomized(self, z, noise):
        return super()._randomized(torch.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0), noise)


class HalfNoiseInSmallBatches(ReleaseMechanism):
    def _randomized(self, z, noise):
        sigma = self.sigma / 2 if len(z) <= 200 else self.sigma
        return ReleaseMechanism(self.mechanism, self.clip, sigma, self.quantize)._randomized(z, noise)


class LessNoiseInTheLastStep(ReleaseMechanism):
    whole = 48

    def _randomized(self, z, noise):
        sigma = self.sigma * min(1.0, len(z) / self.whole)
        return ReleaseMechanism(self.mechanism, self.clip, sigma, self.quantize)._randomized(z, noise)


class LessNoiseInTheLastMessage(LessNoiseInTheLastStep):
    whole = 256


class NoiseByTheRecordsNorm(ReleaseMechanism):
    def _randomized(self, z, noise):
        clipped = self.clip_features(z)
        order = 1 if self.mechanism == "laplace" else 2
        added = super()._randomized(torch.zeros_like(clipped), noise)
        return self.quantized(clipped + added * clipped.norm(order, dim=1, keepdim=True) / self.clip)


class ClampToTheRecordsPeak(ReleaseMechanism):
    def _randomized(self, z, noise):
        peak = self.clip_features(z).abs().amax(1, keepdim=True)
        return super()._randomized(z, noise).clamp(-peak, peak)


class MoreNoiseForLargeRecords(ReleaseMechanism):
    """Never less noise than claimed, and yet the size of the noise tells zero from C."""

    def _randomized(self, z, noise):
        clipped = self.clip_features(z)
        order = 1 if self.mechanism == "laplace" else 2
        added = super()._randomized(torch.zeros_like(clipped), noise)
        return self.quantized(clipped + added * (1 + 4 * clipped.norm(order, dim=1, keepdim=True)))


@pytest.mark.parametrize(
    ("kind", "mechanism"),
    [
        *(
            (kind, mechanism)
            for kind in KINDS
            for mechanism in (NoiseByTheRecordsNorm, ClampToTheRecordsPeak)
        ),
        ("gaussian", MoreNoiseForLargeRecords),
    ],
)
def test_noise_that_knows_its_record_shows_between_unequal_norms(kind, mechanism):
    assert "unequal norms" in audit(kind, mechanism=mechanism, draws=4_000, joint=1, of=["unequal norms"])


@pytest.mark.parametrize(("kind", "epsilon"), [("gaussian", 80.0), ("laplace", 4.0)])
def test_half_the_noise_in_batches_as_small_as_the_runs_own(kind, epsilon):
    refuted = audit(kind, epsilon, mechanism=HalfNoiseInSmallBatches, draws=12_000, joint=1)
    assert set(refuted) == {"own batches"}


@pytest.mark.parametrize(
    ("kind", "path", "mechanism"),
    [
        ("gaussian", "training", LessNoiseInTheLastStep),
        ("laplace", "evaluation", LessNoiseInTheLastMessage),
    ],
)
def test_less_noise_in_the_last_batch(kind, path, mechanism):
    refuted = audit(kind, mechanism=mechanism, path=path, draws=12_000, joint=1)
    assert set(refuted) == {"own batches"}


def test_the_audit_knows_the_sizes_of_the_runs_batches():
    paths = AuditedReleases(config_of("gaussian", 8.0, 2), ReleaseMechanism("gaussian", 1.0, 1.0))
    assert paths.batches("training", RECORDS, (8,)) == [(0, 48), (0, 12)]
    assert paths.batches("evaluation", RECORDS, (8,)) == [(0, 256), (0, 44)]
    data = paths.config.model_dump(mode="json")
    data["schedule"] |= {"cloud_epochs": 3}
    data["edge"] = {"dp_sgd": {"noise_multiplier": 1.0, "physical_batch_size": 20}}
    private = AuditedReleases(parse_config(data), paths.mechanism)
    assert private.batches("training", RECORDS, (8,)) == [(0, 16), (0, 12), (2, 256), (2, 44)]
    assert private.batches("evaluation", 0, (8,)) == []


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_off(kind, epsilon):
    assert "releases" in audit(kind, epsilon, mechanism=NoNoise, draws=GROSS, of=["releases"])


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_at_half_sigma(kind, epsilon):
    assert "releases" in audit(kind, epsilon, mechanism=HalfNoise, of=["releases"])


@pytest.mark.parametrize("wire", ["int8", "int4"])
@pytest.mark.parametrize("mechanism", [NoNoise, HalfNoise])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_wider_than_the_noise_hide_no_lack_of_it(kind, mechanism, wire):
    assert "releases" in audit(kind, 80.0, mechanism=mechanism, wire=wire, of=["releases"])


def test_a_noise_source_of_half_the_scale_is_refused_by_the_mechanism(monkeypatch):
    whole = SeededNoise.gaussian
    monkeypatch.setattr(SeededNoise, "gaussian", lambda self, shape: whole(self, shape) / 2)
    with pytest.raises(ReleaseError, match="unit scale"):
        audit()


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", KINDS)
def test_clip_off(kind, epsilon):
    assert "clipping" in audit(kind, epsilon, mechanism=NoClip, draws=GROSS, of=["clipping"])


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", KINDS)
def test_clip_per_element(kind, epsilon):
    assert "clipping" in audit(
        kind, epsilon, mechanism=ClipPerElement, draws=40_000, joint=1, of=["clipping"]
    )


@pytest.mark.parametrize("epsilon", [8.0, 80.0])
@pytest.mark.parametrize("kind", KINDS)
def test_clip_by_the_batch_s_norm(kind, epsilon):
    assert "other records" in audit(
        kind, epsilon, mechanism=ClipByBatchNorm, draws=40_000, joint=1, of=["other records"]
    )


@pytest.mark.parametrize("epsilon", [8.0, 80.0])
def test_clip_by_the_batch_s_mean_norm(epsilon):
    rows = ["clipping", "other records"]
    refuted = audit("gaussian", epsilon, mechanism=ClipByMeanNorm, draws=40_000, joint=1, of=rows)
    assert sorted(refuted) == rows


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_l2_clip_under_laplace_accounting(epsilon):
    assert audit("laplace", epsilon, mechanism=L2Clip, draws=100_000, joint=1, of=["releases", "clipping"])


def test_non_finite_features_let_through():
    assert set(audit(mechanism=LetsThrough, draws=GROSS)) == {"non-finite features"}


def test_non_finite_features_that_pass_the_mechanism_are_refused_on_the_wire():
    paths = AuditedReleases(config_of("gaussian", 8.0), Unchecked("gaussian", 1.0, 1.0))
    with pytest.raises(UplinkError, match="finite"):
        paths.evaluation(torch.full((4, 8), float("nan")), epoch=0, batch=0)


class Unchecked(ReleaseMechanism):
    def _randomized(self, z, noise):
        return z.float() + self.sigma * noise.gaussian(tuple(z.shape))


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", KINDS)
def test_sensitivity_c_charged_for_2c(kind, epsilon):
    """An accountant that forgets the factor 2 solves for half the noise; the printed claim is too small."""
    right = solve_sigma(kind, epsilon, DELTA, 1.0, 1)
    paths = AuditedReleases(config_of(kind, epsilon, 1), ReleaseMechanism(kind, 1.0, right / 2))
    rows = audit_release(
        paths.training, Claimed(kind, 1.0, epsilon, DELTA, releases=1), shape=(8,), draws=40_000
    )
    assert rows[0].refuted
    assert rows[0].lower_95 > 1.1 * epsilon


class SharedByPairs(SeededNoise):
    """Every noise row serves two records that follow each other."""

    def gaussian(self, shape):
        return (
            super().gaussian((shape[0] // 2 + shape[0] % 2, *shape[1:])).repeat_interleave(2, 0)[: shape[0]]
        )

    def laplace(self, shape):
        return super().laplace((shape[0] // 2, *shape[1:])).repeat_interleave(2, 0)


class SharedByHalves(SeededNoise):
    def gaussian(self, shape):
        return super().gaussian((shape[0] // 2, *shape[1:])).repeat(2, *[1] * (len(shape) - 1))


def names_of(noise_class, *dropped):
    """A ``Releaser.noise`` that leaves parts of the stream's name away."""

    def noise(self, split, phase, epoch, batch):
        names = {"split": split, "phase": phase, "epoch": epoch, "batch": batch}
        return noise_class(self.config.seed, "release", *(v for k, v in names.items() if k not in dropped))

    return noise


@pytest.mark.parametrize("epsilon", [8.0])
@pytest.mark.parametrize("path", ["training", "evaluation"])
@pytest.mark.parametrize("shared", [SharedByPairs, SharedByHalves])
def test_noise_reused_across_records(monkeypatch, epsilon, path, shared):
    monkeypatch.setattr(Releaser, "noise", names_of(shared))
    assert "fresh noise" in audit(epsilon=epsilon, path=path, draws=GROSS, of=["fresh noise"])


def test_noise_reused_across_records_under_laplace(monkeypatch):
    monkeypatch.setattr(Releaser, "noise", names_of(SharedByPairs))
    assert "fresh noise" in audit("laplace", draws=GROSS, of=["fresh noise"])


def test_one_noise_for_all_records_of_a_batch_is_refused_by_the_mechanism(monkeypatch):
    class OneForAll(SeededNoise):
        def gaussian(self, shape):
            return super().gaussian((1, *shape[1:])).expand(shape)

    monkeypatch.setattr(Releaser, "noise", names_of(OneForAll))
    with pytest.raises(ReleaseError, match="every record anew"):
        audit()


@pytest.mark.parametrize("epsilon", [8.0])
@pytest.mark.parametrize("path", ["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_reused_across_epochs_counted_as_fresh(monkeypatch, kind, epsilon, path):
    monkeypatch.setattr(Releaser, "noise", names_of(SeededNoise, "epoch"))
    assert "fresh noise" in audit(kind, epsilon, path=path, draws=GROSS, of=["fresh noise"])


@pytest.mark.parametrize("epsilon", [8.0])
@pytest.mark.parametrize("path", ["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_seed_fixed_per_batch(monkeypatch, kind, epsilon, path):
    monkeypatch.setattr(Releaser, "noise", names_of(SeededNoise, "batch"))
    assert "fresh noise" in audit(kind, epsilon, path=path, draws=GROSS, of=["fresh noise"])


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_noise_off_in_evaluation_only(monkeypatch, epsilon):
    def release_split(self, *args, **kwargs):
        mechanism = NoNoise(self.mechanism.mechanism, 1.0, self.mechanism.sigma)
        quiet = Releaser(self.config, mechanism, self.ledger, run_id=self.run_id)
        return whole(quiet, *args, **kwargs)

    whole = Releaser.release_split
    monkeypatch.setattr(Releaser, "release_split", release_split)
    assert audit(epsilon=epsilon, path="training") == {}
    assert "releases" in audit(epsilon=epsilon, path="evaluation", draws=GROSS, of=["releases"])


def test_a_release_that_is_not_charged_is_refused_by_the_ledger(monkeypatch):
    monkeypatch.setattr(Releaser, "charge", lambda self, *args: None)
    with pytest.raises(Exception, match="never charged"):
        audit()


def test_noise_at_two_scales_under_one_name_is_refused_by_the_ledger():
    """The same seeded noise at sigma and at 2 sigma cancels; the ledger refuses the second charge."""
    ledger = Ledger(None)
    features = torch.zeros(4, 8)
    for sigma in (1.0, 2.0):
        paths = AuditedReleases(
            config_of("gaussian", 8.0), ReleaseMechanism("gaussian", 1.0, sigma), ledger=lambda: ledger
        )
        release = functools.partial(paths.training, features, epoch=0, batch=0)
        if sigma == 1.0:
            release()
        else:
            with pytest.raises(Exception, match="reused"):
                release()
