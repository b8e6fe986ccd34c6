"""The code inside an edge, and how a tail reads letters."""

from __future__ import annotations

import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from privhier.errors import ConfigError, ReleaseError
from privhier.models.backbones import build_backbone
from privhier.models.codebook import fit_codebook
from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode
from privhier.models.letter_expander import LetterExpander
from privhier.models.split import split_backbone
from privhier.models.staged import backbones
from privhier.models.weights import load_weights, save_weights
from privhier.seeding import isolated_rng, torch_stream

SHAPE = {"groups": 2, "letters": 5, "size": 3}


def features(n: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch_stream(seed, "features"))


def code(learned: bool, settled: bool = True) -> LetterCode:
    with isolated_rng(0, "code"):
        made = LetterCode(**SHAPE, learned=learned)
    if settled:
        made.settle(fit_codebook(features(), letters=5, groups=2, seed=0).values)
    return made


@pytest.mark.parametrize("learned", [False, True])
def test_it_spells_as_its_codebook_does(learned):
    made, codebook = code(learned), fit_codebook(features(), letters=5, groups=2, seed=0)
    z = features(seed=1)
    assert torch.equal(made.values, codebook.values)
    assert torch.equal(made(z), codebook.letters_of(z))
    assert torch.equal(made.values_of(made(z)), codebook.values_of(codebook.letters_of(z)))


def test_a_fitted_code_says_nothing_before_it_is_settled():
    made = code(False, settled=False)
    for use in (
        lambda: made(features()),
        lambda: made.values_of(torch.zeros(1, 2).long()),
        lambda: made.values,
    ):
        with pytest.raises(ReleaseError, match="after pre-training"):
            use()
    code(True, settled=False)(features())  # a learned one has codes from the start


@pytest.mark.parametrize("learned", [False, True])
def test_weights_carry_the_code_settled_or_not(learned, tmp_path):
    for settled in (False, True):
        save_weights(code(learned, settled), tmp_path / "code.safetensors")
        back = LetterCode(**SHAPE, learned=learned)
        load_weights(back, tmp_path / "code.safetensors")
        assert bool(back.settled) == (settled or learned)
        if settled or learned:
            assert torch.equal(back.values, code(learned, settled).values)


def test_another_shape_is_not_settled():
    made = code(False, settled=False)
    with pytest.raises(ConfigError, match=r"must be \(2, 5, 3\)"):
        made.settle(fit_codebook(features(), letters=4, groups=2, seed=0).values)
    assert not bool(made.settled)


def test_a_fitted_code_is_no_parameter_and_a_learned_one_is():
    assert list(code(False).parameters()) == []
    assert [tuple(p.shape) for p in code(True).parameters()] == [(10, 3)]


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_pass_straight_through_and_reach_codes_that_learn(learned):
    made, z = code(learned), features().requires_grad_()
    answers = (made(z) + 1) % 5  # answered at random, whatever they were
    values = made.straight_through(z, answers)
    assert torch.equal(values, made.values_of(answers))
    weights = features(seed=2)
    (values * weights).sum().backward()
    assert torch.equal(z.grad, weights)
    if learned:
        moved = made.codes.weight.grad.reshape(2, 5, 3)[0].abs().sum(1) > 0
        assert torch.equal(moved, torch.bincount(answers[:, 0], minlength=5) > 0)


def judged() -> tuple[LetterCode, list[Exit]]:
    """A code of posteriors, settled on two exits."""
    with isolated_rng(0, "judges"):
        exits = [Exit((3,), 2, 4), Exit((3,), 3, 4)]
    made = LetterCode(groups=1, letters=4, size=3, learned=False, exits=exits)
    made.judge_as(exits)
    z = torch.randn(200, 3, generator=torch_stream(0, "judged"))
    centers = fit_codebook(made.seen_as(z).flatten(1), letters=4, fit="kmeans", seed=0).values
    made.settle(torch.randn(1, 4, 3, generator=torch_stream(0, "means")), centers=centers)
    return made, exits


def test_letters_of_posteriors_are_the_nearest_in_hellingers_distance():
    made, exits = judged()
    z = torch.randn(50, 3, generator=torch_stream(1, "judged"))
    roots = torch.cat([torch.softmax(head(z), 1).sqrt() for head in exits], dim=1)
    nearest = torch.cdist(roots.double(), made.centers[0].double()).argmin(dim=1)
    assert torch.equal(made.letters_of(z)[:, 0], nearest)
    assert len(nearest.unique()) > 1
    assert torch.equal(made.values_of(made.letters_of(z)), made.values[0][nearest])
    assert torch.equal(torch.cat([made.letters_of(row[None]) for row in z]), made.letters_of(z))


def test_letters_stay_when_the_exits_learn_on(tmp_path):
    made, exits = judged()
    z = torch.randn(50, 3, generator=torch_stream(1, "judged"))
    before = made.letters_of(z)
    for head in exits:
        for parameter in head.parameters():
            parameter.data.neg_()
    assert torch.equal(made.letters_of(z), before)
    assert not any(parameter.requires_grad for parameter in made.parameters())
    save_weights(made, tmp_path / "code.safetensors")
    with isolated_rng(1, "judges"):
        fresh = [Exit((3,), 2, 4), Exit((3,), 3, 4)]
    back = LetterCode(groups=1, letters=4, size=3, learned=False, exits=fresh)
    load_weights(back, tmp_path / "code.safetensors")
    assert torch.equal(back.letters_of(z), before)


def test_distortion_is_its_definition_and_each_records_own():
    made, z = code(True), features(seed=1).requires_grad_()
    nearest = made.values_of(made(z)).detach()
    distance = (z - nearest).square().sum(1)
    assert torch.allclose(made.distortion(z), 0.25 * distance)
    assert torch.allclose(torch.cat([made.distortion(row[None]) for row in z]), made.distortion(z))
    made.distortion(z).sum().backward()
    assert torch.allclose(z.grad, 0.25 * 2 * (z - nearest).detach())
    assert made.codes.weight.grad is None, "the codes learn from what is made of them"


class Both(nn.Module):
    """A linear edge with a learned code: the loss of a step, record by record."""

    def __init__(self) -> None:
        super().__init__()
        with isolated_rng(0, "both"):
            self.edge, self.exit = nn.Linear(4, 6), nn.Linear(6, 2)
            self.code = LetterCode(**SHAPE, learned=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.edge(x)
        logits = self.exit(self.code.straight_through(z, self.code(z)))
        return nn.functional.softplus(logits).sum(1) + self.code.distortion(z)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_per_record_gradients_of_a_learned_code_are_autograds():
    """What DP-SGD clips: by Opacus' hooks, against one record at a time."""
    x = torch.randn(8, 4, generator=torch_stream(0, "x"))
    plain, wrapped = Both(), GradSampleModule(Both(), loss_reduction="sum")
    wrapped(x).sum().backward()
    for row in range(8):
        plain.zero_grad()
        plain(x[row : row + 1]).sum().backward()
        for (name, one), sampled in zip(plain.named_parameters(), wrapped.parameters(), strict=True):
            gradient = sampled.grad_sample
            whole = sum(gradient) if isinstance(gradient, list) else gradient
            assert torch.allclose(whole[row], one.grad, atol=1e-5), name


# The tail


@pytest.mark.parametrize("name", sorted(backbones.names()))
def test_every_backbone_and_cut_reads_letters(name):
    with isolated_rng(0, "backbone"):
        backbone = build_backbone(
            name, n_outputs=3, image_size=32, norm="group", stem="small", weights="none"
        )
    for cut in backbone.stage_names:
        shape = backbone.feature_shapes[cut]
        small = (min(4, shape[1]), min(4, shape[2]))
        expander = LetterExpander(letters=7, groups=2, feature_shape=shape, small=small)
        letters = torch.tensor([[0, 6], [6, 0], [3, 3]])
        features = expander(letters)
        assert tuple(features.shape) == (3, *shape)
        assert split_backbone(backbone, cut)[1](features).shape == (3, 3)


def test_letters_are_numbers_of_any_type_and_each_its_own():
    with isolated_rng(0, "expander"):
        expander = LetterExpander(letters=4096, groups=2, feature_shape=(3, 5, 5), small=(2, 2))
    letters = torch.tensor([[4095, 0], [0, 4095], [17, 18]])
    made = expander(letters)
    for kind in (torch.float32, torch.int16, torch.float64):
        assert torch.equal(expander(letters.to(kind)), made)
    assert not torch.equal(made[0], made[1])
    made.sum().backward()
    touched = expander.values.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert set(touched) <= {4095, 0, 17, 4096, 8191, 4096 + 18}
    assert len(touched) >= 4
    assert "first" not in expander.state_dict()
