"""Releases of letters: what sanitize takes and makes, how they are charged, and what they cost together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation

from privhier.errors import ConfigError, GuaranteeError, ReleaseError
from privhier.models.letter_code import LetterCode
from privhier.privacy.accounting import letters_epsilon, solve_answer
from privhier.privacy.ceilings import ceiling, pure_ceiling
from privhier.privacy.channels import CHANNELS
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps, compose
from privhier.privacy.events import LetterEvent
from privhier.privacy.ledger import Ledger
from privhier.privacy.mechanism import Mechanism
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import torch_stream

K, M, D = 5, 2, 3


def code(letters: int = K, groups: int = M) -> LetterCode:
    made = LetterCode(groups=groups, letters=letters, size=D, learned=False)
    values = torch.randn(groups, letters, D, generator=torch_stream(0, "codes"))
    made.settle(values)
    return made


def features(n: int = 64, groups: int = M) -> torch.Tensor:
    return torch.randn(n, groups * D, generator=torch_stream(1, "features"))


def mechanism(name: str = "randomized_response", epsilon: float = 2.0, **changes) -> ReleaseMechanism:
    return ReleaseMechanism(name, **{"letters": K, "groups": M, "epsilon": epsilon, **changes})


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_answers_go_up_and_their_values_are_what_exits_see(name):
    own, z = code(), features().requires_grad_()
    release = mechanism(name).sanitize(z, SeededNoise(0, "letters"), own)
    answers = release.letters
    assert (answers.dtype, tuple(answers.shape)) == (torch.int64, (64, M))
    assert bool((answers != own.letters_of(z)).any()), "answered at random"
    assert torch.allclose(release.values, own.values_of(answers), atol=1e-6)
    assert np.array_equal(release.payload(), answers.numpy())
    assert release.payload().dtype == np.int64
    release.values.sum().backward()
    assert bool((z.grad == 1).all()), "straight through"


def test_without_a_channel_the_true_letters_go_up():
    own, z = code(), features()
    release = mechanism("none", 0.0).sanitize(z, SystemNoise(), own)
    assert torch.equal(release.letters, own.letters_of(z))
    assert release.mechanism.deterministic


def test_letters_that_were_changed_in_place_do_not_go_up():
    release = mechanism().sanitize(features(), SystemNoise(), code())
    release.letters[0] = (release.letters[0] + 1) % K
    with pytest.raises(ReleaseError, match="changed in place"):
        release.payload()


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (lambda: None, "need the code"),
        (lambda: code(letters=K + 1), "letters and groups"),
        (lambda: code(groups=M + 1), "letters and groups"),
    ],
)
def test_a_code_of_another_alphabet_is_refused(own, wanted):
    made = own()
    z = features(groups=M if made is None else made.groups)
    with pytest.raises(ReleaseError, match=wanted):
        mechanism().sanitize(z, SystemNoise(), made)


def test_values_have_no_code():
    with pytest.raises(ReleaseError, match="values have none"):
        ReleaseMechanism("gaussian", sigma=1.0).sanitize(features(), SystemNoise(), code())


def test_a_fitted_code_releases_nothing_before_it_is_there():
    empty = LetterCode(groups=M, letters=K, size=D, learned=False)
    with pytest.raises(ReleaseError, match="after pre-training"):
        mechanism().sanitize(features(), SystemNoise(), empty)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_become_no_letter(bad):
    z = features()
    z[3, 1] = bad
    with pytest.raises(ReleaseError, match="finite"):
        mechanism().sanitize(z, SystemNoise(), code())


class Lying(SeededNoise):
    """Uniform values that are not what they say."""

    def __init__(self, change) -> None:
        super().__init__(0, "lying")
        self.change = change

    def uniform(self, shape):
        return self.change(super().uniform(shape))


@pytest.mark.parametrize(
    "change",
    [
        lambda u: u[:1].expand(u.shape),
        lambda u: u.float(),
        lambda u: u[:-1],
        lambda u: u / 2,
        lambda u: torch.full_like(u, 0.5) + u * 1e-9,
        lambda u: torch.full_like(u, 3**-0.5) + u * 1e-9,
        lambda u: u + 0.5,
        lambda u: u * math.nan,
    ],
    ids=["shared", "float32", "short", "half", "constant", "off center", "above 1", "nan"],
)
def test_uniform_values_that_cannot_be_fresh_ones_are_refused(change):
    with pytest.raises(ReleaseError):
        mechanism().sanitize(features(512), Lying(change), code())


@pytest.mark.parametrize("change", [lambda u: u + 1, lambda u: u - 1, lambda u: u * math.nan])
def test_uniform_values_out_of_range_are_refused_however_few(change):
    with pytest.raises(ReleaseError, match=r"must lie in \[0, 1\)"):
        mechanism().sanitize(features(4), Lying(change), code())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epsilon": 0.0}, "release.epsilon"),
        ({"mechanism": "none"}, "release.epsilon"),
        ({"mechanism": "gaussian"}, "release.letters"),
        ({"letters": 5000}, "release.letters"),
        ({"letters": 1}, "ledger.letters"),
        ({"groups": 0}, "ledger.groups"),
        ({"releases": 0}, "ledger.releases"),
    ],
)
def test_a_charge_of_what_is_no_mechanism_is_refused(changes, key):
    good = {"split": "train", "records": 9, "phase": "joint", "epoch": 0, "releases": 1, "letters": K}
    good |= {"mechanism": "randomized_response", "groups": M, "epsilon": 1.0, "noise_source": "seeded"}
    assert LetterEvent(**good).key == ("train", "joint", 0)
    with pytest.raises((ConfigError, GuaranteeError)) as refused:
        LetterEvent(**{**good, **changes})
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"mechanism": "randomized_response"}, "letters"),
        ({"mechanism": "randomized_response", "letters": 4}, "epsilon"),
        ({"mechanism": "none", "letters": 4, "epsilon": 1.0}, "epsilon"),
        ({"mechanism": "gaussian", "sigma": 1.0, "letters": 4}, "letters"),
        ({"mechanism": "randomized_response", "letters": 4, "epsilon": 1.0, "sigma": 1.0}, "sigma"),
        ({"mechanism": "randomized_response", "letters": 4, "epsilon": 1.0, "quantize": "int8"}, "clip"),
        ({"mechanism": "none", "letters": 1}, "letters"),
        ({"mechanism": "none", "letters": 5000}, "letters"),
        ({"mechanism": "none", "groups": 2}, "groups"),
        ({"mechanism": "none", "letters": 4, "groups": 0}, "groups"),
        ({"mechanism": "cauchy"}, "mechanism"),
    ],
)
def test_numbers_that_make_no_mechanism_are_refused(fields, key):
    with pytest.raises(ConfigError) as refused:
        Mechanism(**fields)
    assert refused.value.key == f"release.{key}"


def charged(*events: tuple[str, int], own: ReleaseMechanism | None = None) -> Ledger:
    ledger = Ledger(None)
    for phase, epoch in events:
        ledger.charge("train", 10, phase, epoch, own or mechanism(), "seeded")
    return ledger


def test_every_release_is_charged_with_its_alphabet_and_its_epsilon(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge("train", 10, "joint", 0, mechanism(), "seeded")
    (event,) = Ledger.load(tmp_path / "ledger.jsonl").events
    assert event == LetterEvent("train", 10, "joint", 0, 1, "randomized_response", K, M, 2.0, "seeded")
    account = ledger.accounts()["train"]
    assert account.epsilon == 2.0 * M
    assert account.answers == ((2.0, K, M),)


@pytest.mark.parametrize("epochs", [1, 3, 10])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("target", [0.3, 1.0, 8.0])
def test_the_answers_of_a_record_share_the_target_and_never_exceed_it(target, groups, epochs):
    share = solve_answer(target, groups, epochs)
    spent = letters_epsilon(share, groups, epochs)
    assert target * (1 - 1e-12) <= spent <= target


def test_epsilon_is_pure_and_stated_at_delta_0():
    ledger = charged(("joint", 0), ("joint", 1))
    own = ledger.guarantees(delta=1e-5, largest_person={"train": 3})
    assert (own[0].epsilon, own[0].delta) == (8.0, 0.0)
    assert "randomized response" in " ".join(own[0].covers)
    assert "pure" in own[0].adjacency
    assert any("which letters there are" in line for line in own[0].does_not_cover)
    person = next(row for row in own if row.unit == "person")
    assert (person.epsilon, person.delta) == (24.0, 0.0)


def test_true_letters_have_no_epsilon():
    rows = charged(("joint", 0), own=mechanism("none", 0.0)).guarantees(delta=1e-5)
    assert rows[0].epsilon is None
    assert "true letters" in rows[0].note


@pytest.mark.parametrize(
    "other",
    [
        mechanism(letters=K + 1),
        mechanism(groups=M + 1),
        mechanism("subset_selection"),
        ReleaseMechanism("none"),
    ],
    ids=["letters", "groups", "channel", "values"],
)
def test_one_run_has_one_alphabet(other):
    ledger = charged(("joint", 0))
    with pytest.raises(GuaranteeError):
        ledger.charge("train", 10, "joint", 1, other, "seeded")


@pytest.mark.parametrize(
    "sent", [mechanism(epsilon=4.0), mechanism("subset_selection"), mechanism("none", 0.0)]
)
def test_letters_answered_otherwise_than_charged_are_refused(sent):
    ledger = charged(("joint", 0))
    release = sent.sanitize(features(4), SeededNoise(0, "x"), code())
    with pytest.raises(GuaranteeError, match="otherwise than it was charged"):
        ledger.observe("train", "joint", 0, np.arange(4), release)


def test_letters_of_another_alphabet_than_charged_are_refused():
    ledger = charged(("joint", 0))
    sent = mechanism(letters=K + 1)
    release = sent.sanitize(features(4), SeededNoise(0, "x"), code(letters=K + 1))
    with pytest.raises(GuaranteeError, match="otherwise than it was charged"):
        ledger.observe("train", "joint", 0, np.arange(4), release)


def test_composition_with_dp_sgd_and_labels_is_dp_accountings():
    steps = StepAccount((Steps(1.0, 0.02, 200),))
    labels = Responses(((1.0, 3),))
    releases = ReleaseAccount(releases=4, epsilon=4 * 0.5, answers=((0.5, K, 4),))
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE, value_discretization_interval=1e-4)
    step = dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(1.0))
    accountant.compose(step, 200)
    for epsilon, classes in ((1.0, 3), *[(0.5, K)] * 4):
        noise = classes / (math.exp(epsilon) + classes - 1)
        accountant.compose(dp_event.RandomizedResponseDpEvent(noise, classes))
    found = compose(steps, releases, "randomized_response", labels, 1e-5)
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    alone = compose(steps, ReleaseAccount(), "none", labels, 1e-5)
    assert alone < found <= alone + releases.epsilon + 1e-3
    other = compose(steps, releases, "subset_selection", labels, 1e-5)
    assert found * (1 - 1e-6) <= other <= alone + releases.epsilon + 1e-3


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_pure_epsilons_of_answers_are_dp_accountings_at_delta_0(epsilon, count):
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    noise = K / (math.exp(epsilon) + K - 1)
    for _ in range(count):
        accountant.compose(dp_event.RandomizedResponseDpEvent(noise, K))
    account = ReleaseAccount(releases=count, epsilon=count * epsilon, answers=((epsilon, K, count),))
    spent = account.spent("randomized_response", 1e-5)
    assert spent == count * epsilon
    # Discretization rounds up by at most one interval a mechanism.
    assert accountant.get_epsilon(0.0) == pytest.approx(spent, abs=2e-4 * count)
    assert accountant.get_epsilon(1e-5) <= spent + 2e-4 * count


@pytest.mark.parametrize("count", [2, 20, 100])
def test_many_answers_are_all_counted(count):
    """dp-accounting's accountant takes a count with an answer, and counts one."""
    releases = ReleaseAccount(releases=count, epsilon=count * 0.2, answers=((0.2, K, count),))
    found = [
        compose(StepAccount(), releases, name, Responses(), 1e-9)
        for name in ("randomized_response", "subset_selection")
    ]
    for epsilon in found:
        assert 0.2 * math.sqrt(count) < epsilon <= 0.2 * count + 1e-3


def test_the_ceiling_is_that_of_all_answers_together():
    assert ceiling(mechanism(epsilon=0.5), 3, 4) == pure_ceiling(0.5 * M * 3, 4)
    assert ceiling(mechanism("none", 0.0), 1, 2) is None
