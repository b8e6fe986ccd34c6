"""Every way of breaking the release of letters that we could think of, really broken, and caught by name."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from privhier.audit.letter_claim import ClaimedLetters
from privhier.audit.letters import audit_letters
from privhier.audit.paths import AuditedReleases
from privhier.config import parse_config
from privhier.errors import ConfigError, GuaranteeError, ReleaseError
from privhier.models.letter_code import LetterCode
from privhier.privacy.accounting import solve_answer
from privhier.privacy.channels import CHANNELS, RandomizedResponse, build_channel
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import torch_stream
from privhier.training.release import Releaser

K, M, D, JOINT = 6, 2, 2, 1
RELEASES = JOINT + 1
TARGET = 6.0
RECORDS = 300
"""Of a split: joint steps of 48 and a last of 12, whole splits in batches of 256 and 44."""
PATHS = ["training", "evaluation"]


def code(letters=K, groups=M):
    made = LetterCode(groups=groups, letters=letters, size=D, learned=False)
    made.settle(torch.randn(groups, letters, D, generator=torch_stream(0, "codes")))
    return made


def config_of(name, target, joint=JOINT):
    return parse_config(
        {
            "name": "sabotage",
            "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
            "model": {"bottleneck": {"kind": "letters", "size": D, "letters": K, "groups": M}},
            "schedule": {"pretrain_epochs": 1, "joint_epochs": joint, "cloud_epochs": RELEASES - joint},
            "release": {"mechanism": name, "target_epsilon": target},
            "training": {"batch_size": 48},
        }
    )


def audit(
    mechanism=ReleaseMechanism,
    *,
    name="randomized_response",
    target=TARGET,
    path="training",
    draws=8_000,
    claim=None,
    release=None,
    joint=JOINT,
):
    """Audit a run's path with a mechanism of this class; returns the refuted rows by name."""
    each = solve_answer(target, M, RELEASES)
    paths = AuditedReleases(
        config_of(name, target, joint), mechanism(name, letters=K, groups=M, epsilon=each), code()
    )
    rows = audit_letters(
        release or getattr(paths, path),
        ClaimedLetters(name, K, M, claim or each, RELEASES),
        code=paths.code,
        draws=draws,
        name=path,
        batches=paths.batches(path, RECORDS, (M,)),
    )
    return {row.name.removeprefix(f"{path}: "): row for row in rows if row.refuted}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_a_sound_channel_passes(name, path):
    assert audit(name=name, path=path) == {}


# Answers that are kept too often


class Kept(ReleaseMechanism):
    """Like all below, a mechanism that lies about itself: what it makes is a release by its own word."""

    def _answered(self, letters, noise):
        return letters


@functools.cache
def plain(mechanism, factor):
    """The mechanism that is what it says, of ``factor`` times the epsilon."""
    return ReleaseMechanism(mechanism.mechanism, letters=K, groups=M, epsilon=factor * mechanism.epsilon)


class Doubled(ReleaseMechanism):
    def _answered(self, letters, noise):
        return plain(self, 2)._answered(letters, noise)


class NotShared(ReleaseMechanism):
    """The record's epsilon for each of its answers, in place of a T * M-th part."""

    def _answered(self, letters, noise):
        return plain(self, RELEASES * M)._answered(letters, noise)


@pytest.mark.parametrize("name", sorted(CHANNELS))
@pytest.mark.parametrize("mechanism", [Kept, Doubled, NotShared])
def test_a_letter_kept_too_often(mechanism, name):
    assert {"releases", "channel", "own batches"} <= audit(mechanism, name=name, draws=12_000).keys()


@pytest.mark.parametrize("mechanism", [Kept, Doubled])
def test_at_a_high_epsilon_the_channel_shows_what_few_draws_cannot_bound(mechanism):
    """Of 16,000 answers at pure epsilon 7 seventy are changed: none at all shows, a bound needs more."""
    assert "channel" in audit(mechanism, target=7.0 * RELEASES * M, draws=16_000)


def test_answers_of_the_whole_epsilon_are_charged_for_it():
    """Whoever forgets to share the target among answers is found by the account as well."""
    ledger = Ledger(None)
    whole = ReleaseMechanism("randomized_response", letters=K, groups=M, epsilon=TARGET)
    for epoch in range(RELEASES):
        ledger.charge("train", 10, "joint", epoch, whole, "seeded")
    assert ledger.guarantees(delta=1e-5)[0].epsilon == TARGET * RELEASES * M


def test_a_claim_of_one_answer_for_all_of_them_is_too_small():
    each = solve_answer(TARGET, M, RELEASES)
    refuted = audit(claim=each / (RELEASES * M))
    assert {"releases", "channel"} <= refuted.keys()
    assert refuted["releases"].lower_95 > 1.1 * TARGET / (RELEASES * M)


@pytest.mark.parametrize("keep", [1.0, 1 / (1 + (K - 1) * math.exp(-3.0))], ids=["always", "2 epsilon"])
def test_a_channel_whose_own_matrix_is_worth_more_than_the_claim(monkeypatch, keep):
    """The claim's matrix is then as broken as the answers, which follow it: its worth is held against it."""
    monkeypatch.setattr(RandomizedResponse, "keep", property(lambda self: keep))
    refuted = audit(draws=12_000)
    assert {"releases", "channel"} <= refuted.keys()
    assert "its matrix is worth epsilon" in refuted["channel"].note


class OneGroupKept(ReleaseMechanism):
    def _answered(self, letters, noise):
        answers = super()._answered(letters, noise).clone()
        answers[:, -1] = letters[:, -1]
        return answers


def test_one_group_that_is_not_answered_at_random():
    refuted = audit(OneGroupKept)
    assert "answers of group 1" in refuted["channel"].note
    assert "answers of group 0" not in refuted["channel"].note


class OneLetterKept(ReleaseMechanism):
    def _answered(self, letters, noise):
        return torch.where(letters == 3, letters, super()._answered(letters, noise))


def test_one_letter_that_is_not_answered_at_random():
    assert "answers to letter 3," in audit(OneLetterKept)["channel"].note


def channel_answers(letters, stream, epsilon):
    noise = SeededNoise(0, "answers", *stream)
    return build_channel("randomized_response", K, epsilon).sample(letters, noise)


def by_hand(answered):
    """A release function that has nothing but ``answered(letters, epoch, batch)``."""
    own = code()
    return lambda features, *, epoch, batch: answered(own.letters_of(features), epoch, batch).float()


def test_noise_off_in_the_last_epoch_only():
    each = solve_answer(TARGET, M, RELEASES)

    def answered(letters, epoch, batch):
        return letters if epoch == RELEASES - 1 else channel_answers(letters, (epoch, batch), each)

    assert "answers of epoch 1" in audit(release=by_hand(answered))["channel"].note


# The alphabet


class NeverTheLast(ReleaseMechanism):
    def _answered(self, letters, noise):
        return super()._answered(letters, noise).clamp(max=K - 2)


def test_a_letter_that_is_never_answered():
    refuted = audit(NeverTheLast)
    assert f"letter {K - 1} of group 0 is never answered" in refuted["alphabet"].note
    assert "channel" in refuted


class OtherAlphabet(ReleaseMechanism):
    more = 0

    def _answered(self, letters, noise):
        channel = build_channel(self.mechanism, K + self.more, self.epsilon)
        return channel.sample(letters, noise)


class TooMany(OtherAlphabet):
    more = 2


class TooFew(OtherAlphabet):
    more = -1


@pytest.mark.parametrize("name", sorted(CHANNELS))
@pytest.mark.parametrize("mechanism", [TooMany, TooFew])
def test_a_channel_of_another_alphabet_than_the_code_is_refused_by_the_mechanism(mechanism, name):
    with pytest.raises((ReleaseError, ConfigError), match=r"must lie in \[0, "):
        audit(mechanism, name=name)


def test_letters_that_the_code_has_not_are_found_wherever_they_come_from():
    each = solve_answer(TARGET, M, RELEASES)

    def answered(letters, epoch, batch):
        noise = SeededNoise(0, "answers", epoch, batch)
        return RandomizedResponse(K + 2, each).sample(letters, noise)

    refuted = audit(release=by_hand(answered))
    assert f"are none of its {K} letters" in refuted["alphabet"].note
    assert "channel" in refuted


def test_what_is_no_whole_number_is_no_letter():
    sound = by_hand(lambda letters, epoch, batch: channel_answers(letters, (epoch, batch), TARGET / 4))
    assert "alphabet" in audit(release=lambda *z, **where: sound(*z, **where) + 0.25)


class HalfALetter(ReleaseMechanism):
    def _answered(self, letters, noise):
        return super()._answered(letters, noise).float()


class OneGroupMissing(ReleaseMechanism):
    def _answered(self, letters, noise):
        return super()._answered(letters, noise)[:, :1]


@pytest.mark.parametrize("mechanism", [HalfALetter, OneGroupMissing])
def test_answers_of_another_kind_are_refused_by_the_mechanism(mechanism):
    with pytest.raises(ReleaseError, match=r"int64 \(B, M\)"):
        audit(mechanism)


# Noise that is shared


class SharedByPairs(SeededNoise):
    """Every draw serves two records that follow each other."""

    def uniform(self, shape):
        half = super().uniform((shape[0] // 2 + shape[0] % 2, *shape[1:]))
        return half.repeat_interleave(2, 0)[: shape[0]]


class SharedByHalves(SeededNoise):
    def uniform(self, shape):
        half = super().uniform((shape[0] // 2 + shape[0] % 2, *shape[1:]))
        return half.repeat(2, *[1] * (len(shape) - 1))[: shape[0]]


class SharedByGroups(SeededNoise):
    def uniform(self, shape):
        return super().uniform((shape[0], 1)).repeat(1, shape[1])


def names_of(noise_class, *dropped):
    """A ``Releaser.noise`` that leaves parts of the stream's name away."""

    def noise(self, split, phase, epoch, batch):
        names = {"split": split, "phase": phase, "epoch": epoch, "batch": batch}
        return noise_class(self.config.seed, "release", *(v for k, v in names.items() if k not in dropped))

    return noise


@pytest.mark.parametrize(
    ("name", "path"),
    [*((name, "training") for name in sorted(CHANNELS)), ("randomized_response", "evaluation")],
)
@pytest.mark.parametrize("shared", [SharedByPairs, SharedByHalves])
def test_noise_shared_by_records(monkeypatch, shared, name, path):
    monkeypatch.setattr(Releaser, "noise", names_of(shared))
    refuted = audit(name=name, path=path)
    assert "other records" in refuted
    assert "releases" not in refuted


@pytest.mark.parametrize(
    ("name", "path"),
    [*((name, "training") for name in sorted(CHANNELS)), ("randomized_response", "evaluation")],
)
def test_noise_shared_by_groups(monkeypatch, name, path):
    monkeypatch.setattr(Releaser, "noise", names_of(SharedByGroups))
    refuted = audit(name=name, path=path)
    assert set(refuted) <= {"other groups", "releases"}
    assert "other groups" in refuted


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("dropped", "where"), [("epoch", "in epochs 0 and 1"), ("batch", "in one epoch")])
def test_noise_reused_in_another_epoch_or_batch(monkeypatch, dropped, where, path):
    monkeypatch.setattr(Releaser, "noise", names_of(SeededNoise, dropped))
    assert where in audit(path=path, joint=2)["fresh noise"].note


def test_one_noise_for_all_records_of_a_batch_is_refused_by_the_mechanism(monkeypatch):
    class OneForAll(SeededNoise):
        def uniform(self, shape):
            return super().uniform((1, *shape[1:])).expand(shape)

    monkeypatch.setattr(Releaser, "noise", names_of(OneForAll))
    with pytest.raises(ReleaseError, match="every record anew"):
        audit()


# Noise that depends on the batch


class KeptInSmallBatches(ReleaseMechanism):
    most = 40

    def _answered(self, letters, noise):
        return letters if len(letters) <= self.most else super()._answered(letters, noise)


@pytest.mark.parametrize("path", PATHS)
def test_letters_kept_in_the_last_batch_only(path):
    own = type("Last", (KeptInSmallBatches,), {"most": 44 if path == "evaluation" else 12})
    refuted = audit(own, path=path)
    assert "own batches" in refuted
    assert not {"releases", "channel"} & refuted.keys()


class ByMajority(ReleaseMechanism):
    """A record whose letter most of its batch has is answered with that letter."""

    def _answered(self, letters, noise):
        answers = super()._answered(letters, noise)
        most = letters[1:].mode(dim=0).values
        alike = (letters[:1] == most).all() & torch.tensor(len(letters) == 8)
        return torch.where(alike & (letters == most), letters, answers)


def test_answers_that_depend_on_the_batch():
    refuted = audit(ByMajority)
    assert set(refuted) == {"other records"}
    assert "in small batches with" in refuted["other records"].note


def test_noise_off_in_evaluation_only(monkeypatch):
    def release_split(self, *args, **kwargs):
        if args[3] != "test":
            return whole(self, *args, **kwargs)
        own = self.mechanism
        quiet = Kept(own.mechanism, letters=K, groups=M, epsilon=own.epsilon)
        return whole(Releaser(self.config, quiet, self.ledger, run_id=self.run_id), *args, **kwargs)

    whole = Releaser.release_split
    monkeypatch.setattr(Releaser, "release_split", release_split)
    assert audit(path="training") == {}
    assert {"releases", "channel"} <= audit(path="evaluation", draws=12_000).keys()


class LetsThrough(ReleaseMechanism):
    def clip_features(self, z):
        return torch.nan_to_num(z.float(), nan=0.0, posinf=0.0, neginf=0.0)


def test_non_finite_features_let_through():
    assert set(audit(LetsThrough)) == {"non-finite features"}


# The account


def test_letters_that_are_not_charged_are_refused_by_the_ledger(monkeypatch):
    monkeypatch.setattr(Releaser, "charge", lambda self, *args: None)
    with pytest.raises(GuaranteeError, match="never charged"):
        audit()


def test_true_letters_are_charged_without_bound():
    ledger = Ledger(None)
    ledger.charge("train", 10, "joint", 0, ReleaseMechanism("none", letters=K, groups=M), "seeded")
    assert ledger.accounts()["train"].epsilon == math.inf


def test_one_seeded_draw_at_two_epsilons_is_refused_by_the_ledger():
    ledger = Ledger(None)
    features = torch.zeros(4, M * D)
    for each in (1.0, 2.0):
        mechanism = ReleaseMechanism("randomized_response", letters=K, groups=M, epsilon=each)
        config = config_of("randomized_response", TARGET)
        paths = AuditedReleases(config, mechanism, code(), ledger=lambda: ledger)
        if each == 1.0:
            assert paths.training(features, epoch=0, batch=0).shape == (4, M)
        else:
            with pytest.raises(GuaranteeError, match="reused"):
                paths.training(features, epoch=0, batch=0)


def test_the_audit_of_letters_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    audit(draws=2_000)
    assert torch.equal(before, torch.random.get_rng_state())
