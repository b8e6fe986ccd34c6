"""The table attacker reaches the Bayes optimum on letters of known frequencies."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.attacks.mlp import MlpAttack
from privhier.attacks.table import TableAttack
from privhier.attacks.threat_models import with_task_labels
from privhier.attacks.view import Alphabet, AuxiliarySet, View

ATTACK = TableAttack(target="gender")


def view_of(letters, labels, alphabet, *, aux, n_classes=2, draws=1):
    """Letters ``(draws, n, T, M)``: the first ``aux`` records are the attacker's, of the others it sees the
    first draw."""
    hot = alphabet.one_hot(letters)
    owned = AuxiliarySet(
        images=np.zeros((aux, 3, 8, 8), np.uint8),
        labels={"gender": labels[:aux]},
        n_classes={"gender": n_classes},
        groups=np.arange(aux),
        draws=draws,
        releases=lambda k: hot[k, :aux],
    )
    return View("toy", hot[0, aux:], (3, 8, 8), owned, seed=1, alphabet=alphabet), labels[aux:]


def drawn(tables, labels, rng, *, releases=1):
    """One letter a release by ``tables (classes, K)``: int64 ``(1, n, T, 1)``."""
    heights = tables.cumsum(axis=1)[labels]
    u = rng.random((len(labels), releases))
    return (u[:, :, None] > heights[:, None]).sum(axis=2).clip(max=tables.shape[1] - 1)[None, :, :, None]


def made_up(tables, *, n=8000, aux=4000, releases=1, seed=0):
    """A view of letters by known tables, the victims' truth, and their true posteriors (even classes)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(tables), n)
    letters = drawn(tables, labels, rng, releases=releases)
    view, truth = view_of(letters, labels, Alphabet(tables.shape[1]), aux=aux, n_classes=len(tables))
    likelihood = tables[:, letters[0, aux:, :, 0]].prod(axis=2).T
    return view, truth, likelihood / likelihood.sum(axis=1, keepdims=True)


def tables_of(letters, classes=2, seed=0, spread=1.0):
    """Class-conditional frequencies without any order among the letters."""
    logs = spread * np.random.default_rng(seed).standard_normal((classes, letters))
    weights = np.exp(logs)
    return weights / weights.sum(axis=1, keepdims=True)


def balanced(predictions, truth):
    return np.mean([(predictions[truth == k] == k).mean() for k in np.unique(truth)])


@pytest.mark.parametrize(("letters", "releases"), [(2, 1), (16, 1), (64, 1), (16, 4)])
def test_it_is_the_optimal_attacker_on_letters(letters, releases):
    view, truth, posterior = made_up(tables_of(letters, seed=1, spread=0.6), releases=releases)
    result = ATTACK.run(view)
    best = roc_auc_score(truth, posterior[:, 1])
    assert best > 0.58
    assert roc_auc_score(truth, result.probabilities[:, 1]) > best - 0.012
    assert balanced(result.predictions, truth) > balanced(posterior.argmax(1), truth) - 0.015
    if letters <= 16 and releases == 1:
        np.testing.assert_allclose(result.probabilities, posterior, atol=0.12)
    assert result.queries == 4000 * releases


def test_several_classes():
    view, truth, posterior = made_up(tables_of(16, classes=5))
    result = ATTACK.run(view)

    def scored(probabilities):
        return roc_auc_score(truth, probabilities, multi_class="ovr")

    assert scored(result.probabilities) > scored(posterior) - 0.01
    assert balanced(result.predictions, truth) > balanced(posterior.argmax(1), truth) - 0.02


def test_letters_that_say_nothing_give_nothing():
    view, truth, _ = made_up(np.full((2, 32), 1 / 32))
    assert abs(roc_auc_score(truth, ATTACK.run(view).probabilities[:, 1]) - 0.5) < 0.03


def exclusive(n=4000):
    """Two letters a record that say nothing each and everything together."""
    rng = np.random.default_rng(0)
    first, labels = rng.integers(0, 4, n), rng.integers(0, 2, n)
    second = (first + 2 * labels + rng.integers(0, 2, n)) % 4
    return np.stack([first, second], axis=1)[None, :, None, :], labels


@pytest.mark.parametrize("as_releases", [False, True])
def test_letters_that_speak_only_together_are_counted_together(as_releases):
    letters, labels = exclusive()
    alphabet = Alphabet(4, groups=2)
    if as_releases:
        letters, alphabet = letters.transpose(0, 1, 3, 2), Alphabet(4)
    view, truth = view_of(letters, labels, alphabet, aux=2000)
    together = ATTACK.run(view)
    assert together.selected["joint"] is not None
    assert roc_auc_score(truth, together.probabilities[:, 1]) > 0.99
    apart = replace(ATTACK, max_joint=0).run(view)
    assert apart.selected["joint"] is None
    assert roc_auc_score(truth, apart.probabilities[:, 1]) < 0.6


def test_few_records_and_many_letters_are_smoothed():
    """400 records for 300 letters: counts alone are noise, yet one letter in ten tells."""
    tables = np.full((2, 300), 1.0)
    tables[0, :30], tables[1, :30] = 9.0, 1.0
    tables /= tables.sum(axis=1, keepdims=True)
    view, truth, _ = made_up(tables, n=4400, aux=400)
    rough, chosen = replace(ATTACK, smoothing=(1e-6,)).run(view), ATTACK.run(view)
    assert chosen.validation > rough.validation
    assert roc_auc_score(truth, chosen.probabilities[:, 1]) >= roc_auc_score(truth, rough.probabilities[:, 1])


def test_many_draws_of_a_record_are_one_record_better_known():
    """Each auxiliary record is answered anew K times; the tables come closer to the truth."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4200)
    tables = tables_of(16, spread=0.8)
    clean = drawn(tables, labels, rng)[0]
    answers = np.where(rng.random((16, *clean.shape)) < 0.3, clean, rng.integers(0, 16, (16, *clean.shape)))
    few, truth = view_of(answers[:1], labels, Alphabet(16), aux=200)
    many, _ = view_of(answers, labels, Alphabet(16), aux=200, draws=16)
    once, often = (roc_auc_score(truth, ATTACK.run(view).probabilities[:, 1]) for view in (few, many))
    assert often > once
    assert ATTACK.run(many).queries == 16 * 200


def test_a_letter_that_no_auxiliary_record_has_says_nothing():
    labels = np.arange(600) % 3 // 2  # a third are of class 1
    letters = labels.copy()
    letters[500:] = 3
    view, _ = view_of(letters[None, :, None, None], labels, Alphabet(4), aux=500)
    probabilities = ATTACK.run(view).probabilities
    np.testing.assert_allclose(probabilities[:, 1], labels[:500].mean(), atol=0.02)


def test_other_attackers_are_not_thrown_off_by_such_a_letter():
    """A column that never moves on their own records must not decide over a victim."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 900)
    letters = np.stack([2 * labels + rng.integers(0, 2, 900), np.zeros(900, np.int64)], axis=1)
    letters[600:, 1] = 3
    view, truth = view_of(letters[None, :, None], labels, Alphabet(4, groups=2), aux=600)
    for attack in (MlpAttack(target="gender", epochs=8), ATTACK):
        assert roc_auc_score(truth, attack.run(view).probabilities[:, 1]) > 0.99


def test_task_labels_are_letters_too():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    view, truth = view_of(rng.integers(0, 8, (1, 3000, 1, 1)), labels, Alphabet(8), aux=1500)
    task = np.where(rng.random(3000) < 0.9, labels, 1 - labels)[:, None]
    task[::10] = -1
    told = with_task_labels(view, victims=task[1500:], auxiliary=task[:1500], classes=[2])
    assert roc_auc_score(truth, ATTACK.run(view).probabilities[:, 1]) < 0.55
    assert roc_auc_score(truth, ATTACK.run(told).probabilities[:, 1]) > 0.85


def test_it_says_why_it_does_not_apply():
    view, _, _ = made_up(tables_of(4), n=200, aux=100)
    assert ATTACK.refuses(view) is None
    assert "no letters" in ATTACK.refuses(replace(view, alphabet=None))
    assert "2 letters of 4" in ATTACK.refuses(replace(view, alphabet=Alphabet(4, groups=2)))
    assert "one-hot" in ATTACK.refuses(replace(view, releases=view.releases[..., None, None]))
    assert "8 cells" in replace(ATTACK, max_cells=7).refuses(view)
    assert "no labels" in replace(ATTACK, target="age").refuses(view)


def test_an_alphabet_spells_and_reads():
    alphabet = Alphabet(letters=5, groups=3)
    letters = np.random.default_rng(0).integers(0, 5, (7, 2, 3))
    hot = alphabet.one_hot(letters)
    assert (hot.shape, hot.dtype) == ((7, 2, 15), np.float32)
    np.testing.assert_array_equal(hot.sum(axis=2), 3)
    assert hot[0, 0, letters[0, 0, 0]] == 1
    np.testing.assert_array_equal(alphabet.letters_of(hot), letters)
