"""Letters that are balanced: the closed form, the prototypes, and the optimal attacker at the floor."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privhier.config import Choice, RunConfig
from privhier.datasets.load import load_dataset
from privhier.defenses.base import DefenseBatch, DefenseData, build_defense
from privhier.defenses.letters_balance import LettersBalance, log_ratios
from privhier.defenses.prototypes import moved, soft_letters
from privhier.errors import ConfigError
from privhier.metrics.optimal import best_balanced_accuracy
from privhier.models.codebook import fit_codebook
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.private_plan import check_private
from privhier.training.trainer import Trainer

K = 6


def toy_edge(*, posteriors: bool = True, learned: bool = False, groups: int = 1, classes: int = 2) -> Any:
    with isolated_rng(0, "letters toy"):
        exits = {"t": Exit((2 * groups,), 2, 0)}
        code = LetterCode(
            groups=groups,
            letters=K,
            size=2,
            learned=learned,
            exits=list(exits.values()) if posteriors else (),
        )
        return EdgeSegment(
            torch.nn.Linear(2, 24),
            torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(24, 2 * groups)),
            task_exits=exits,
            adversarial_exits={"s": Exit((2 * groups,), classes, 0)},
            feature_shape=(2 * groups,),
            description={},
            code=code,
        )


def toy(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One input shows the task badly and one the secret well; they agree on 70 % of all records.

    So the secret helps at the task, and what does the task best says more of the secret than the task does.
    """
    stream = torch_stream(seed, "letters toy")
    task = torch.randint(0, 2, (n,), generator=stream)
    secret = torch.where(torch.rand(n, generator=stream) < 0.7, task, 1 - task)
    noise = torch.randn(n, 2, generator=stream)
    return (
        torch.stack([2 * task + 1.5 * noise[:, 0], 2 * secret + 0.3 * noise[:, 1]], dim=1) - 1,
        task,
        secret,
    )


def batch_of(edge: EdgeSegment, rows: Any, strength: float = 1.0) -> DefenseBatch:
    x, task, secret = rows
    z = edge.features(x)
    return DefenseBatch(
        z=z, task_labels=[task], sensitive_labels=[secret], edge=edge, strength=strength, clipped=z
    )


def prepared(
    edge: EdgeSegment, rows: Any, kind: type[LettersBalance] | None = None, **options: object
) -> Any:
    choice = Choice(name="letters_balance", options=options)
    defense = build_defense(choice)
    if kind is not None:
        defense = kind(defense.options)
    defense.attach(edge)
    x, task, secret = rows
    defense.begin(
        edge,
        DefenseData(
            task_labels=[task],
            sensitive_labels=[secret],
            task_classes=[2],
            sensitive_classes=[edge.adversarial_exits[0].n_classes],
            persons=torch.full((len(x),), -1),
            mean_image=lambda: torch.zeros(3, 2, 2),
            seed=0,
            features=lambda: edge.inner_features(x).detach(),
        ),
    )
    return defense


def information(soft: torch.Tensor, secret: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """I(letter; secret | cell) in nats of soft letters ``(n, K)``, from its definition."""
    total = soft.new_zeros(())
    for cell in cells.unique():
        inside = cells == cell
        whole = soft[inside].mean(0)
        for k in secret[inside].unique():
            rows = inside & (secret == k)
            mean = soft[rows].mean(0)
            total = total + rows.float().mean() * (mean * (mean / whole).log()).sum()
    return total


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("posteriors", [True, False])
def test_the_penalty_and_its_slope_are_those_of_the_information(within, posteriors):
    rows = toy(600, 1)
    edge = toy_edge(posteriors=posteriors)
    defense = prepared(edge, rows, weight=3.0, within_task=within)
    cells = rows[1] if within else torch.zeros_like(rows[1])
    batch = batch_of(edge, rows)
    penalty = (defense.loss(batch) - defense.loss(replace(batch, strength=0.0))).mean()
    wanted = 3 * information(defense.soft_letters(edge, batch.clipped)[:, 0], rows[2], cells)
    assert wanted.item() > 0.01
    assert penalty.item() == pytest.approx(wanted.item(), rel=0.01)
    parameters = list(edge.trunk.parameters())
    got = torch.cat([g.flatten() for g in torch.autograd.grad(penalty, parameters, retain_graph=True)])
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(wanted, parameters)])
    assert (got - slope).norm() < 0.02 * slope.norm()


def test_groups_are_summed_and_unknown_labels_have_no_share():
    rows = toy(300, 2)
    edge = toy_edge(posteriors=False, groups=3)
    defense = prepared(edge, rows, weight=1.0)
    batch = batch_of(edge, rows)
    penalty = (defense.loss(batch) - defense.loss(replace(batch, strength=0.0))).mean()
    soft = defense.soft_letters(edge, batch.clipped)
    wanted = sum(information(soft[:, group], rows[2], rows[1]).item() for group in range(3))
    assert penalty.item() == pytest.approx(wanted, rel=0.02)
    task, secret = rows[1].clone(), rows[2].clone()
    task[:50], secret[50:100] = -1, -1
    holes = replace(batch, task_labels=[task], sensitive_labels=[secret])
    shares = defense.loss(holes) - defense.loss(replace(holes, strength=0.0))
    assert not shares[:100].any()
    before = defense.table(0).clone()
    with torch.no_grad():
        defense.after_step(holes)
    assert float(defense.table(0).sum()) == pytest.approx(3 * (0.98 + 0.02 * 200 / 300), rel=1e-4)
    assert not torch.equal(before, defense.table(0))


def test_what_was_not_seen_says_nothing():
    table = torch.zeros(1, 3, 2, 2)
    assert not log_ratios(table).any()
    table[0, 0, 0] = torch.tensor([0.5, 0.25])
    table[0, 1, 0] = torch.tensor([0.0, 0.25])
    found = log_ratios(table)
    assert not found[:, 2].any()
    assert not found[:, :, 1].any()
    assert found[0, 0, 0].tolist() == pytest.approx(np.log([1 / 0.75, 0.5 / 0.75]).tolist(), abs=1e-3)
    assert found[0, 1, 0, 0] < -5
    rare = torch.full((1, 2, 1, 2), 0.25)
    rare[0, :, 0, 1] = torch.tensor([1e-6, 0.0])  # a class of which next to nothing was seen
    assert log_ratios(rare)[0, :, 0, 1].abs().max() < 0.05


def test_prototypes_follow_and_the_dead_are_put_on_a_record():
    generator = torch_stream(0, "prototypes")
    seen = torch.tensor([-1.0, 1.0]).repeat(50)[:, None, None] + 0.01 * torch.randn(
        100, 1, 1, generator=generator
    )
    centers, filled = torch.tensor([[[-0.5], [0.5], [30.0]]]), torch.full((1, 3), 1 / 3)
    revived = 0
    for step in range(300):
        with isolated_rng(0, "step", step):
            revived += int(moved(centers, filled, seen, decay=0.9).sum())
    assert 1 <= revived < 60
    assert float((centers[0, :, 0].abs() - 1).abs().max()) < 0.05
    soft = soft_letters(torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([[[0.0], [1.0]]]), 0.5)
    weight = float(torch.sigmoid(torch.tensor(2.0)))
    assert soft[:, 0].flatten().tolist() == pytest.approx([weight, 1 - weight, 1 - weight, weight])


class Frozen(LettersBalance):
    """Sabotage: averages that never move."""

    @property
    def reads_data(self) -> bool:
        """Never called after a step."""
        return False


def attackers_best(kind: type[LettersBalance] | None = None, **options: object) -> tuple[float, float]:
    """Balanced accuracies: the secret's by the optimal attacker on the letters, the task's."""
    edge, train = toy_edge(), toy(3000, 3)
    defense = prepared(edge, train, kind, **options)
    optimizer = torch.optim.Adam(edge.parameters(), lr=0.01)
    for step in range(220):
        rows = torch.randint(0, 3000, (256,), generator=torch_stream(step, "rows"))
        batch = batch_of(edge, [column[rows] for column in train])
        optimizer.zero_grad()
        defense.loss(batch).mean().backward()
        optimizer.step()
        if defense.reads_data:
            with torch.no_grad(), isolated_rng(0, "step", step):
                defense.after_step(batch)
    code = edge.code
    with torch.no_grad():  # as training.code settles it
        code.judge_as(edge.task_heads)
        centers = fit_codebook(
            code.seen_as(edge.features(train[0])).flatten(1), letters=K, fit="kmeans", seed=0
        ).values
        code.settle(torch.zeros(1, K, 2), centers=centers)
        x, task, secret = toy(20_000, 4)
        letters = code.letters_of(edge.features(x))[:, 0].numpy()
        guess = edge.task_logits(edge.features(x))[0].argmax(1)

    def shares(label: torch.Tensor, of: np.ndarray, count: int) -> np.ndarray:
        return np.stack([np.bincount(of[label.numpy() == k], minlength=count) for k in (0, 1)])

    def best(counts: np.ndarray) -> float:
        return float(best_balanced_accuracy(counts / counts.sum(1, keepdims=True)))

    return best(shares(secret, letters, K)), float((guess == task).float().mean())


def test_the_optimal_attacker_falls_to_the_floor_that_the_task_sets():
    """The floor is 70 %: whoever knows the true task label says it of the secret."""
    plain, task = attackers_best(weight=0.0)
    leaked, kept = attackers_best(weight=3.0)
    assert plain > 0.73
    assert leaked < 0.67
    assert kept > task - 0.06
    frozen, _ = attackers_best(Frozen, weight=3.0)
    assert frozen > 0.7


def test_a_learned_code_is_used_as_it_is_and_a_found_one_starts_anew():
    rows = toy(200, 5)
    learned = toy_edge(posteriors=False, learned=True)
    defense = prepared(learned, rows)
    batch = batch_of(learned, rows)
    own = learned.codebook.places
    assert torch.allclose(
        defense.soft_letters(learned, batch.clipped), soft_letters(batch.clipped[:, None], own, 0.5)
    )
    assert bool(defense.of_code)
    edge = toy_edge()
    defense = prepared(edge, rows)
    edge.code.judge_as(edge.task_heads)
    edge.code.settle(torch.zeros(1, K, 2), centers=torch.rand(1, K, 2))
    batch = batch_of(edge, rows)
    quiet = defense.loss(replace(batch, strength=0.0))
    assert torch.equal(defense.loss(batch), quiet)
    with torch.no_grad():
        defense.after_step(batch)
    assert float(defense.table(0).sum()) == pytest.approx(0.02, rel=1e-4)
    assert not torch.equal(defense.loss(batch), quiet)


SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))


def configured(**changes: Any) -> RunConfig:
    base = {
        "model": {"bottleneck": {"kind": "letters", "size": 2, "letters": 4}},
        "release": {"mechanism": "randomized_response", "target_epsilon": 6.0},
        "defense": {"name": "letters_balance", "options": {"weight": 2.0}},
    }
    merged = SMALL["merged"](base, changes)
    return SMALL["small_config"](epochs=(1, 1, 0), images=160, size=16, **merged)


class StoppedError(Exception):
    """As if the process were killed."""


def trained(config: RunConfig, folder: Path, stop: str | None = None) -> dict[str, torch.Tensor]:
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    mechanism = build_mechanism(config, len(data.splits.train))

    def on_epoch(phase: str, epoch: int, metrics: dict[str, float]) -> None:
        if phase == stop:
            raise StoppedError

    trainer = Trainer(
        config,
        data,
        mechanism,
        run,
        device=torch.device("cpu"),
        keep=data.splits.train[:20],
        on_epoch=on_epoch,
    )
    trainer.run()
    return {**trainer.edge.edge.state_dict(), **trainer.edge.defense.state_dict()}


def test_it_trains_through_the_finding_of_letters_and_resumes_bit_for_bit(tmp_path):
    whole = trained(configured(), tmp_path / "whole")
    assert bool(whole["of_code"])
    assert float(whole["table_0"].sum()) > 0
    with pytest.raises(StoppedError):
        trained(configured(), tmp_path / "stopped", "joint")
    resumed = trained(configured(), tmp_path / "stopped")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_it_is_refused_where_there_are_no_letters_and_under_dp_sgd():
    defense = build_defense(configured().defense)
    values = {"kind": "dimension", "size": 2, "letters": None}
    plain = configured(model={"bottleneck": values}, release={"mechanism": "none", "target_epsilon": None})
    with pytest.raises(ConfigError, match=r"model\.bottleneck\.kind: 'dimension' - must be letters"):
        check_private(plain, 100, defense)
    private = configured(model={"bottleneck": {"fit": "learned"}}, edge={"dp_sgd": {"noise_multiplier": 1.0}})
    with pytest.raises(ConfigError, match="learns from private records outside the one loss"):
        check_private(private, 100, defense)
