"""The penalty on class means inside task cells: its definition, what it leaves alone, and that it works."""

from __future__ import annotations

import pytest
import torch

from privhier.config import Choice
from privhier.defenses.base import build_defense
from privhier.defenses.cell_means import between_classes
from privhier.seeding import torch_stream


def draw(n: int, d: int, seed: int, shift: float = 0.0):
    generator = torch_stream(seed, "cell means")
    cells = torch.randint(0, 3, (n,), generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    z = torch.randn(n, d, generator=generator) + 2 * cells[:, None] + shift * (labels == 2)[:, None]
    return z.double(), cells, labels, torch.ones(n, dtype=torch.bool)


def by_definition(z, cells, labels) -> float:
    """Squared distances of class means from all pairs of different records, pair of classes by pair."""
    total = 0.0
    for cell in cells.unique():
        inside = cells == cell
        classes = labels[inside].unique()
        for i, a in enumerate(classes):
            for b in classes[i + 1 :]:
                x, y = z[inside & (labels == a)], z[inside & (labels == b)]
                own = [
                    sum(float(u @ v) for j, u in enumerate(s) for k, v in enumerate(s) if j != k)
                    / (len(s) * (len(s) - 1))
                    for s in (x, y)
                ]
                distance = sum(own) - 2 * float(x.mean(0) @ y.mean(0))
                total += len(x) * len(y) / (int(inside.sum()) * len(z)) * distance
    return total


def test_the_mean_share_is_the_definition():
    z, cells, labels, known = draw(60, 3, 0, shift=1.0)
    assert float(between_classes(z, cells, labels, known).mean()) == pytest.approx(
        by_definition(z, cells, labels)
    )


def test_it_is_unbiased_where_nothing_is_to_be_found_and_blind_to_the_task():
    found = [float(between_classes(*draw(64, 4, seed)).mean()) for seed in range(400)]
    mean, error = sum(found) / 400, torch.tensor(found).std().item() / 20
    assert abs(mean) < 4 * error
    assert min(found) < 0 < max(found)
    shifted = [float(between_classes(*draw(64, 4, seed, shift=1.0)).mean()) for seed in range(50)]
    assert sum(shifted) / 50 > 0.3


def test_records_without_a_label_have_no_share_and_lone_classes_none_either():
    z, cells, labels, known = draw(40, 3, 1, shift=1.0)
    known[:10] = False
    shares = between_classes(z, cells, labels, known)
    assert not shares[:10].any()
    rest = between_classes(z[10:], cells[10:], labels[10:], known[10:])
    assert torch.allclose(shares[10:], rest)
    one = torch.zeros(4, dtype=torch.int64)
    assert not between_classes(z[:4], one, torch.tensor([0, 0, 0, 1]), torch.ones(4, dtype=torch.bool)).any()


@pytest.mark.parametrize(("strength", "share"), [(0.0, 0.0), (0.5, 0.0), (0.75, 0.5), (1.0, 1.0)])
def test_the_penalty_rises_after_its_share_of_the_warm_up(strength, share):
    from types import SimpleNamespace

    z, cells, labels, _ = draw(40, 3, 2, shift=1.0)
    z = z.float()
    edge = SimpleNamespace(
        task_logits=lambda z: [torch.zeros(len(z), 3)], adversary_logits=lambda z: [torch.zeros(len(z), 4)]
    )
    defense = build_defense(Choice(name="cell_means", options={"weight": 2.0}))

    def loss(at: float) -> torch.Tensor:
        batch = SimpleNamespace(z=z, task_labels=[cells], sensitive_labels=[labels], edge=edge, strength=at)
        return defense.loss(batch)

    scaled = z / z.std(dim=0)
    wanted = between_classes(scaled, cells, labels, torch.ones(40, dtype=torch.bool))
    assert torch.allclose(loss(strength) - loss(0.0), 2.0 * share * wanted, atol=1e-5)
