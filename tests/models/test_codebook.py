"""Codebooks: fits that are good and deterministic, ties and collapse, nearest letters, the file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from privhier.errors import CheckpointError, ConfigError, DataError, PrivhierError
from privhier.models.codebook import (
    SCHEMA,
    Codebook,
    codebook_bytes,
    fit_codebook,
    load_codebook,
    nearest_letters,
    save_codebook,
    usage_of,
)
from privhier.seeding import torch_stream

KINDS = (torch.float32, torch.float64)


def features(n: int = 2000, width: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch_stream(seed, "features"))


def blobs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """800 points about five centers far apart in three dimensions, and the centers."""
    generator = torch_stream(seed, "blobs")
    centers = 10 * torch.randn(5, 3, generator=generator)
    return centers.repeat(160, 1) + 0.1 * torch.randn(800, 3, generator=generator), centers


# Fits


@pytest.mark.parametrize("letters", [2, 4, 16, 64])
def test_quantiles_fill_the_letters_alike_and_in_order(letters):
    z = features().sigmoid()
    codebook = fit_codebook(z, letters=letters, seed=0)
    assert codebook.values.shape == (1, letters, 1)
    assert bool((codebook.values[0, 1:, 0] > codebook.values[0, :-1, 0]).all())
    (usage,) = codebook.usage(z)
    assert (usage.used, usage.share) == (letters, 1.0)
    assert usage.entropy > 0.98 * math.log2(letters)
    assert usage.largest < 2 / letters


def test_k_means_finds_centers():
    z, centers = blobs()
    codebook = fit_codebook(z, letters=5, seed=0)
    distance = torch.cdist(centers, codebook.values[0])
    assert float(distance.min(dim=1).values.max()) < 0.05
    (usage,) = codebook.usage(z)
    assert usage.entropy == pytest.approx(math.log2(5), abs=1e-6)
    letters = codebook.letters_of(z)[:, 0]
    assert all(len(letters[blob::5].unique()) == 1 for blob in range(5))


def test_k_means_serves_one_value_too_and_loses_less_of_it():
    z = features().exp()

    def lost(fit):
        codebook = fit_codebook(z, letters=8, fit=fit, seed=0)
        return float((z - codebook.values_of(codebook.letters_of(z))).square().mean())

    assert lost("kmeans") < lost("quantiles")
    assert lost("quantiles") < float(z.var())


@pytest.mark.parametrize("width", [1, 3])
def test_the_same_seed_gives_the_same_codes_and_nothing_global_moves(width):
    z = features(3000, width)
    global_state = np.random.get_state()[1].copy()  # noqa: NPY002  (that it is not touched)
    torch_state = torch.random.get_rng_state()
    first, again = (codebook_bytes(fit_codebook(z.to(kind), letters=16, seed=5)) for kind in KINDS)
    assert first == again
    assert (np.random.get_state()[1] == global_state).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_k_means_adds_up_on_one_thread_and_gives_the_others_back(monkeypatch):
    """Two threads add a center's records up in whichever order they come."""
    seen, fit = [], KMeans.fit

    def watched(model, rows):
        seen.append({pool["num_threads"] for pool in threadpool_info()})
        return fit(model, rows)

    monkeypatch.setattr(KMeans, "fit", watched)
    with threadpool_limits(limits=2):
        fit_codebook(features(200, 2), letters=4, groups=1, seed=0)
        assert seen == [{1}]
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}


def test_another_seed_begins_elsewhere():
    z = features(500, 4)
    made = {codebook_bytes(fit_codebook(z, letters=32, seed=seed)) for seed in range(3)}
    assert len(made) == 3


def test_letters_of_several_values_lie_along_their_main_axis():
    along = torch.linspace(-5, 5, 400)[:, None] * torch.tensor([[1.0, -2.0]])
    z = along + 0.01 * features(400, 2)
    (codes,) = fit_codebook(z, letters=8, seed=0).values
    position = codes @ torch.tensor([1.0, -2.0])
    steps = position[1:] - position[:-1]
    assert bool((steps > 0).all()) or bool((steps < 0).all())


def test_every_group_has_a_codebook_of_its_own():
    z = torch.cat([features(), 100 + features(seed=1)], dim=1)
    codebook = fit_codebook(z, letters=4, groups=2, seed=0)
    assert (codebook.groups, codebook.letters, codebook.size) == (2, 4, 1)
    alone = fit_codebook(z[:, 1:], letters=4, seed=0)
    assert torch.equal(codebook.values[1], alone.values[0])
    letters = codebook.letters_of(z)
    assert letters.shape == (2000, 2)
    assert torch.equal(letters[:, 1:], alone.letters_of(z[:, 1:]))
    assert codebook.values_of(letters).shape == z.shape
    assert len(codebook.usage(z)) == 2


def test_many_records_are_fitted_on_a_drawn_part(monkeypatch):
    monkeypatch.setattr("privhier.models.codebook._MOST_ROWS", 300)
    z = features(2000, 2)
    one, again = (fit_codebook(z, letters=8, seed=0) for _ in range(2))
    assert torch.equal(one.values, again.values)
    assert not torch.equal(one.values, fit_codebook(z[:300], letters=8, seed=0).values)


# Ties and collapse


@pytest.mark.parametrize("width", [1, 2])
def test_fewer_different_features_than_letters_leave_letters_unused(width):
    z = torch.tensor([-1.0, 0.5, 3.0]).repeat(50)[:, None].expand(150, width)
    codebook = fit_codebook(z, letters=8, seed=0)
    (usage,) = codebook.usage(z)
    assert (usage.used, usage.letters, usage.collapsed) == (3, 8, True)
    assert usage.entropy == pytest.approx(math.log2(3))
    assert torch.equal(codebook.values_of(codebook.letters_of(z)), z)
    assert set(codebook.letters_of(100 * features(500, width))[:, 0].tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("width", [1, 2])
def test_a_feature_that_says_nothing_is_one_letter(width):
    codebook = fit_codebook(torch.full((30, width), 0.25), letters=4, seed=0)
    (usage,) = codebook.usage(torch.full((30, width), 0.25))
    assert (usage.used, usage.entropy, usage.largest) == (1, 0.0, 1.0)
    assert usage.collapsed


def test_a_heavy_value_takes_one_letter_and_the_others_share_the_rest():
    z = features(1000)
    z[:700] = 0.125
    codebook = fit_codebook(z, letters=16, seed=0)
    (usage,) = codebook.usage(z)
    assert usage.used == 16
    assert not usage.collapsed
    assert 0.7 <= usage.largest < 0.75
    assert 0.125 in codebook.values


def test_one_record_is_enough():
    assert fit_codebook(torch.tensor([[2.0]]), letters=2, seed=0).values.flatten().tolist() == [2.0, 2.0]


# Nearest letters


def test_the_nearest_code_wins_and_of_equals_the_first():
    codes = torch.tensor([[[0.0], [1.0], [1.0], [3.0]]])
    z = torch.tensor([[-9.0], [0.5], [0.51], [1.0], [2.0], [2.1], [9.0]])
    assert nearest_letters(z, codes).flatten().tolist() == [0, 0, 1, 1, 1, 3, 3]


def test_nearest_is_the_definition_and_a_record_does_not_feel_the_others(monkeypatch):
    z, codes = features(300, 6), torch.randn(2, 20, 3, generator=torch_stream(1, "codes"))
    whole = nearest_letters(z, codes)
    blocks = z.reshape(300, 2, 3).double()
    exact = torch.stack([torch.cdist(blocks[:, m], codes[m].double()).argmin(1) for m in (0, 1)], dim=1)
    assert torch.equal(whole, exact)
    alone = torch.cat([nearest_letters(row[None], codes) for row in z])
    assert torch.equal(whole, alone)
    monkeypatch.setattr("privhier.models.codebook._BLOCK", 64)
    assert torch.equal(nearest_letters(z, codes), whole)


def test_huge_features_have_a_nearest_letter_too():
    z = torch.tensor([[3e38], [-3e38]])
    codebook = fit_codebook(torch.tensor([[-3e38], [0.0], [3e38]]), letters=3, seed=0)
    assert codebook.letters_of(z).flatten().tolist() == [2, 0]


def test_a_letters_value_is_its_code():
    codebook = fit_codebook(features(200, 4), letters=6, groups=2, seed=0)
    letters = torch.tensor([[0, 5], [3, 3]])
    expected = torch.cat([codebook.values[0, [0, 3]], codebook.values[1, [5, 3]]], dim=1)
    assert torch.equal(codebook.values_of(letters), expected)
    assert torch.equal(codebook.letters_of(codebook.values_of(letters)), letters)


def test_usage_counts():
    usage = usage_of(np.array([0, 0, 0, 2]), 4)
    assert (usage.used, usage.share, usage.largest, usage.collapsed) == (2, 0.5, 0.75, False)
    assert usage.entropy == pytest.approx(0.811278, abs=1e-6)


# The file


def test_a_codebook_survives_its_file_bit_for_bit(tmp_path):
    codebook = fit_codebook(features(300, 6), letters=7, groups=3, seed=0)
    save_codebook(codebook, tmp_path / "codebook.safetensors")
    back = load_codebook(tmp_path / "codebook.safetensors")
    assert torch.equal(back.values.view(torch.int32), codebook.values.view(torch.int32))
    assert codebook_bytes(back) == (tmp_path / "codebook.safetensors").read_bytes()


WRONG = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(b"\xff" * 100),
    "cut off": lambda path: path.write_bytes(
        codebook_bytes(fit_codebook(features(), letters=4, seed=0))[:-3]
    ),
    "no schema": lambda path: save_file({"values": torch.zeros(1, 4, 1)}, path),
    "another schema": lambda path: save_file({"values": torch.zeros(1, 4, 1)}, path, {"schema": "a/2"}),
    "another tensor": lambda path: save_file({"codes": torch.zeros(1, 4, 1)}, path, {"schema": SCHEMA}),
    "one tensor more": lambda path: save_file(
        {"values": torch.zeros(1, 4, 1), "x": torch.zeros(1)}, path, {"schema": SCHEMA}
    ),
    "float64": lambda path: save_file({"values": torch.zeros(1, 4, 1).double()}, path, {"schema": SCHEMA}),
    "two axes": lambda path: save_file({"values": torch.zeros(4, 1)}, path, {"schema": SCHEMA}),
    "one letter": lambda path: save_file({"values": torch.zeros(1, 1, 1)}, path, {"schema": SCHEMA}),
    "too many": lambda path: save_file({"values": torch.zeros(1, 4097, 1)}, path, {"schema": SCHEMA}),
    "not finite": lambda path: save_file(
        {"values": torch.full((1, 4, 1), math.nan)}, path, {"schema": SCHEMA}
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_codebook_is_refused(name, tmp_path):
    path = tmp_path / "codebook.safetensors"
    WRONG[name](path)
    with pytest.raises(CheckpointError, match="codebook"):
        load_codebook(path)


@pytest.mark.parametrize(
    ("given", "options", "error"),
    [
        (features(), {"letters": 1}, ConfigError),
        (features(), {"letters": 4097}, ConfigError),
        (features(), {"letters": 4.0}, ConfigError),
        (features(width=3), {"letters": 4, "groups": 2}, ConfigError),
        (features(width=3), {"letters": 4, "groups": 0}, ConfigError),
        (features(width=2), {"letters": 4, "fit": "quantiles"}, ConfigError),
        (features(), {"letters": 4, "fit": "means"}, ConfigError),
        (torch.zeros(0, 1), {"letters": 4}, DataError),
        (torch.full((9, 1), math.inf), {"letters": 4}, DataError),
        (torch.full((9, 1), 1e300, dtype=torch.float64), {"letters": 4}, DataError),
        (features()[:, 0], {"letters": 4}, ConfigError),
    ],
)
def test_what_cannot_be_fitted_is_refused(given, options, error):
    with pytest.raises(error) as caught:
        fit_codebook(given, seed=0, **options)
    assert isinstance(caught.value, PrivhierError)
    assert caught.value.rule


def test_features_of_another_width_are_refused():
    codebook = fit_codebook(features(), letters=4, seed=0)
    with pytest.raises(ConfigError, match=r"\(B, 1\)"):
        codebook.letters_of(features(width=2))
    with pytest.raises(ConfigError, match="finite"):
        Codebook(torch.full((1, 2, 1), math.inf))
