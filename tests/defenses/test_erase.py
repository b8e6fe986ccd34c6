"""Erasure at release: what each closed form takes out, what it leaves, and what it cannot do."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from privhier.config import Choice
from privhier.defenses.base import DefenseData, build_defense
from privhier.defenses.erase import Eraser
from privhier.defenses.projections import leace, one_hot, splince
from privhier.distributed.remote import open_edge
from privhier.errors import ConfigError
from privhier.seeding import torch_stream
from privhier.session import open_session
from privhier.training.private_plan import check_defense

N, D = 3000, 12


def data_of(x, secrets, classes, *, task=None, persons=None) -> DefenseData:
    return DefenseData(
        task_labels=[torch.zeros(len(x), dtype=torch.int64) if task is None else task],
        sensitive_labels=secrets,
        task_classes=[2],
        sensitive_classes=classes,
        persons=torch.full((len(x),), -1) if persons is None else persons,
        mean_image=lambda: torch.zeros(3, 8, 8),
        seed=0,
        features=lambda: x,
    )


def eraser(data: DefenseData, **options) -> Eraser:
    """The map that a finish leaves."""
    defense = build_defense(Choice(name="erase", options=options))
    outlet = defense.outlet(tuple(data.features().shape[1:]))
    edge = SimpleNamespace(outlet=outlet)
    defense.check(edge, data)
    defense.finish(edge, data)
    return outlet


def linear_toy(seed: int = 0, n: int = N):
    """Features in which a secret of two classes and one of three move the mean, and so does a task."""
    draw = torch_stream(seed, "erase")
    two, three, task = (torch.randint(0, k, (n,), generator=draw) for k in (2, 3, 2))
    x = torch.randn(n, D, generator=draw) @ torch.randn(D, D, generator=torch_stream(0, "mix"))
    moves = 4 * torch.randn(3, D, generator=torch_stream(0, "moves"))
    return (
        x + two[:, None] * moves[0] + three[:, None] * moves[1] + task[:, None] * moves[2],
        two,
        three,
        task,
    )


def accuracy(x, labels, test, truth) -> float:
    """Of a fresh logistic regression, on records it has not seen."""
    reader = LogisticRegression(max_iter=2000).fit(x.flatten(1).numpy(), labels.numpy())
    return float((reader.predict(test.flatten(1).numpy()) == truth.numpy()).mean())


def squares(x) -> torch.Tensor:
    """All products of two features, which a linear reader of them reads as a quadratic one reads x."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return x[:, i] * x[:, j]


def noise(classes: int, n: int = N) -> float:
    """Four standard errors of an accuracy at chance, and the edge of a class that is a little larger."""
    return 1 / classes + 4 * float(np.sqrt(1 / classes * (1 - 1 / classes) / n)) + 0.01


@pytest.mark.parametrize("method", ["leace", "splince", "quadratic"])
def test_no_fresh_linear_reader_finds_any_of_the_secrets(method):
    x, two, three, task = linear_toy()
    y, two_new, three_new, task_new = linear_toy(1)
    outlet = eraser(data_of(x, [two, three], [2, 3], task=task), method=method, rank=1)
    assert accuracy(x, two, y, two_new) > 0.9
    assert accuracy(x, three, y, three_new) > 0.6
    assert accuracy(outlet(x), two, outlet(y), two_new) < noise(2)
    assert accuracy(outlet(x), three, outlet(y), three_new) < noise(3)
    assert accuracy(outlet(x), task, outlet(y), task_new) > 0.75


def test_it_is_the_identity_until_it_is_fitted_and_keeps_the_mean():
    x, two, _, _ = linear_toy()
    assert Eraser((D,))(x) is x
    mapped = eraser(data_of(x, [two], [2]))(x)
    assert torch.allclose(mapped.mean(0), x.mean(0), atol=1e-3)


def test_a_rare_class_is_erased_as_well():
    """One-hot columns of rare classes are short: a bound on their length would let them pass."""
    rare = (torch.arange(N) % 1000 == 0).long()
    x = torch.randn(N, D, generator=torch_stream(0, "rare")) + rare[:, None] / 2

    def apart(z) -> float:
        return float((z[rare == 1].mean(0) - z[rare == 0].mean(0)).norm())

    assert apart(x) > 1
    assert apart(eraser(data_of(x, [rare], [2]))(x)) < 1e-4


def test_unknown_labels_are_left_out_of_their_own_attribute_only():
    x, two, three, _ = linear_toy()
    hidden = two.clone()
    hidden[::3] = -1
    outlet = eraser(data_of(x, [hidden, three], [2, 3]))
    for labels, classes in ((hidden, 2), (three, 3)):
        means = [outlet(x)[labels == label].mean(0) for label in range(classes)]
        assert all(torch.allclose(means[0], mean, atol=1e-3) for mean in means[1:])
    assert int(torch.linalg.matrix_rank(outlet.projection, atol=1e-3)) == D - 3  # who is known is no secret
    nobody = torch.full_like(two, -1)
    alone = eraser(data_of(x, [nobody, three], [2, 3]))
    assert torch.allclose(alone.projection, eraser(data_of(x, [three], [3])).projection, atol=1e-5)
    untouched = eraser(data_of(x, [nobody], [2]))
    assert torch.allclose(untouched(x), x, atol=1e-4)


def test_splince_keeps_the_covariance_with_the_task_exactly_where_leace_does_not():
    x, two, _, task = linear_toy()
    agree = torch.rand(len(x), generator=torch_stream(0, "tie")) < 0.8
    task = torch.where(agree, two, task)  # a task that says much of the secret
    x, (secret, wanted) = x.double() - x.double().mean(0), (one_hot([c], [2]) for c in (two, task))
    before, kept, lost = x.mT @ wanted, splince(x, secret, wanted), leace(x, secret)
    for projection in (kept, lost):
        assert float((projection @ x.mT @ secret).abs().max()) < 1e-6 * float((x.mT @ secret).abs().max())
    assert torch.allclose(kept @ before, before, rtol=1e-6)
    assert not torch.allclose(lost @ before, before, rtol=0.1)


def test_splince_is_the_published_formula():
    """W^+ V (U^T V)^(-1) U^T W, with U the complement of the secret's span and V the range."""
    x, two, three, task = linear_toy()
    x = x.double() - x.double().mean(0)
    secret, wanted = one_hot([two, three], [2, 3]), one_hot([task], [2])
    found = splince(x, secret, wanted)
    # Its first import, by splince, is the one that warns.
    shrink = sys.modules["concept_erasure"].optimal_linear_shrinkage
    values, vectors = torch.linalg.eigh(shrink(x.mT @ x / (len(x) - 1), len(x)))
    whiten, unwhiten = (vectors * values**power @ vectors.mT for power in (-0.5, 0.5))
    kernel, toward = whiten @ x.mT @ secret, whiten @ x.mT @ wanted

    def complement(columns, rank):
        return torch.linalg.svd(columns, full_matrices=True)[0][:, rank:]

    u = complement(kernel, 3)
    v = torch.cat([toward[:, :1], complement(torch.cat([kernel, toward], 1), 4)], dim=1)
    formula = unwhiten @ v @ torch.linalg.inv(u.mT @ v) @ u.mT @ whiten
    assert torch.allclose(found, formula, atol=1e-6)


def test_a_task_that_is_the_secret_goes_with_it():
    x, two, _, _ = linear_toy()
    x = x.double() - x.double().mean(0)
    secret = one_hot([two], [2])
    assert torch.allclose(splince(x, secret, secret), leace(x, secret), atol=1e-6)


def covariance_toy(seed: int, n: int = N):
    """Means are equal; one class is wide in one direction, the other in another."""
    draw = torch_stream(seed, "covariance")
    labels = torch.randint(0, 2, (n,), generator=draw)
    x = torch.randn(n, D, generator=draw)
    x[:, 0] *= 1 + 3 * labels
    x[:, 1] *= 4 - 3 * labels
    mix = torch.linalg.qr(torch.randn(D, D, generator=torch_stream(0, "turn")))[0]
    return x @ mix, labels


def test_a_quadratic_reader_wins_where_only_covariances_differ_and_quadratic_stops_it():
    (x, labels), (y, truth) = covariance_toy(0), covariance_toy(1)
    data = data_of(x, [labels], [2])
    linear, quadratic = eraser(data, method="leace"), eraser(data, method="quadratic", rank=2)

    def read(outlet) -> float:
        return accuracy(squares(outlet(x)), labels, squares(outlet(y)), truth)

    assert accuracy(linear(x), labels, linear(y), truth) < noise(2)
    assert read(linear) > 0.75  # the documented limit of LEACE
    assert read(quadratic) < noise(2)
    rest = torch.linalg.matrix_rank(quadratic.projection, atol=1e-3)
    assert int(rest) == D - 3


def test_person_takes_out_what_tells_persons_apart():
    draw = torch_stream(0, "persons")
    persons = torch.arange(1200) // 4
    own = torch.randn(300, 2, generator=draw)
    x = torch.randn(1200, D, generator=draw)
    x[:, :2] += 3 * own[persons]
    x = x @ torch.linalg.qr(torch.randn(D, D, generator=draw))[0]
    persons[::7] = -1
    outlet = eraser(data_of(x, [persons * 0], [2], persons=persons), method="person", rank=2)

    def verification(z) -> float:
        known = persons >= 0
        distances = torch.cdist(z[known], z[known])
        same = persons[known][:, None] == persons[known]
        i, j = torch.triu_indices(*same.shape, 1)
        return float(roc_auc_score(same[i, j], -distances[i, j]))

    assert verification(x) > 0.8
    assert abs(verification(outlet(x)) - 0.5) < 0.03


def test_a_wide_map_is_erased_place_by_place(monkeypatch):
    monkeypatch.setattr("privhier.defenses.erase.WIDEST", 40)
    draw = torch_stream(0, "wide")
    labels = torch.randint(0, 2, (800,), generator=draw)
    x = torch.randn(800, 6, 4, 4, generator=draw) + labels[:, None, None, None] * torch.randn(
        6, 4, 4, generator=draw
    )
    outlet = eraser(data_of(x, [labels], [2]))
    assert (outlet.places, outlet.width) == (16, 6)
    apart = outlet(x)[labels == 1].mean(0) - outlet(x)[labels == 0].mean(0)
    assert apart.shape == (6, 4, 4)
    assert float(apart.abs().max()) < 1e-4
    assert accuracy(outlet(x), labels, outlet(x), labels) < 0.6
    one = torch.zeros(1, 6, 4, 4)
    one[0, :, 1, 2] = 1  # a place has nothing to say to the others
    moved = (outlet(one) - outlet(one * 0))[0]
    assert moved[:, 1, 2].any()
    assert not (moved.abs().sum(0) > 1e-6)[torch.arange(4) != 1].any()


@pytest.mark.parametrize("shape", [(5000,), (128, 64, 64), (5000, 1, 1)])
def test_what_is_too_wide_is_refused_before_anything_is_trained(shape):
    with pytest.raises(ConfigError, match=r"model\.bottleneck: .*too wide for the defense 'erase'"):
        Eraser(shape)


@pytest.mark.parametrize(
    ("options", "classes", "message"),
    [
        ({}, [D + 1], rf"would erase {D} directions of {D} values, and leave nothing"),
        ({"method": "splince"}, [D + 1], "leave nothing"),
        ({"method": "quadratic", "rank": D - 1}, [2], "leave nothing"),
        ({"method": "person", "rank": D}, [2], "leave nothing"),
        ({"method": "person", "rank": 2}, [2], "needs training people with two images"),
    ],
)
def test_what_would_leave_nothing_or_has_nobody_is_refused(options, classes, message):
    x, two, _, _ = linear_toy(n=50)
    with pytest.raises(ConfigError, match=rf"defense\.options\.method: .*{message}"):
        eraser(data_of(x, [two], classes, persons=torch.arange(50)), **options)


def test_letters_that_are_learned_before_the_closed_form_are_refused(small_config):
    def config(fit: str):
        return small_config(
            epochs=(1, 0, 1),
            model={"bottleneck": {"kind": "letters", "size": 2, "letters": 4, "fit": fit}},
            release={"mechanism": "randomized_response", "target_epsilon": 4.0},
            defense={"name": "erase"},
        )

    check_defense(config("kmeans"), build_defense(Choice(name="erase")))
    with pytest.raises(ConfigError, match=r"model\.bottleneck\.fit: 'learned' - must be found after"):
        check_defense(config("learned"), build_defense(Choice(name="erase")))


@pytest.mark.parametrize("verb", ["run", "edge"])
def test_what_cannot_be_erased_is_refused_before_anything_is_written(small_config, tmp_path, verb):
    config = small_config(
        epochs=(1, 0, 1), dataset={"sensitive": ["male", "identity"]}, defense={"name": "erase"}
    )
    out = tmp_path / "run"
    with ExitStack() as stack, pytest.raises(ConfigError, match="leave nothing"):
        open_session(config, out) if verb == "run" else open_edge(config, out, stack=stack)
    assert not out.exists()
