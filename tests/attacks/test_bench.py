"""The bench and the view builders: nothing run twice, nothing of the victims beyond their releases."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from privhier.attacks.base import AttackResult
from privhier.attacks.bench import run_bench, stored_result
from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view, raw_image_view
from privhier.attacks.view import AuxiliarySet, View
from privhier.config import ModelConfig
from privhier.models.network import build_network
from privhier.privacy.release import ReleaseMechanism

CPU = torch.device("cpu")
CALLS: list[str] = []


@dataclass(frozen=True)
class Constant:
    """Says the same of everybody."""

    kind: ClassVar = "attribute"
    target: str = "a"
    value: float = 0.5
    refuse: bool = False

    def refuses(self, view: View) -> str | None:
        return "told to" if self.refuse else None

    def run(self, view: View) -> AttackResult:
        CALLS.append(repr(self))
        n = len(view.releases)
        probabilities = np.tile(np.float32([1 - self.value, self.value]), (n, 1))
        return AttackResult(
            probabilities=probabilities,
            predictions=np.zeros(n, dtype=np.int64),
            validation=0.5,
            selected={"c": np.float64(0.1)},
            queries=3,
        )


IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
LABELS = {"a": np.arange(30) % 2, "identity": np.arange(30) // 3}
GROUPS = np.arange(30) // 3


@pytest.fixture(scope="module")
def edge():
    config = ModelConfig(bottleneck={"kind": "dimension", "size": 4}, exit_hidden=8)
    return build_network(config, image_size=32, task_classes={"t": 2}, sensitive_classes={"a": 2}, seed=0)[
        0
    ].eval()


def cloud_view(edge, sigma=0.3, draws=3):
    mechanism = ReleaseMechanism("gaussian", clip=1.0, sigma=sigma)
    return curious_cloud_view(
        edges=[edge, edge],
        mechanism=mechanism,
        victims=np.zeros((5, 2, 4), dtype=np.float32),
        source=AuxiliarySource(IMAGES, np.arange(15, 30), LABELS, {"a": 2, "identity": 10}, GROUPS),
        draws=draws,
        seed=0,
        device=CPU,
        tail=None,
    )


def test_finished_attacks_are_read_not_run_again(edge, tmp_path):
    CALLS.clear()
    view = cloud_view(edge)
    plan = [("one", Constant()), ("two", Constant(value=0.7)), ("no", Constant(refuse=True))]
    first = run_bench(plan, view, tmp_path)
    again = run_bench(plan, view, tmp_path)
    assert len(CALLS) == 2
    assert [entry.refusal for entry in again] == [None, None, "told to"]
    for a, b in zip(first[:2], again[:2], strict=True):
        assert np.array_equal(a.result.probabilities, b.result.probabilities)
        assert b.result.selected == {"c": 0.1}
        assert b.result.seconds == a.result.seconds
    assert stored_result(tmp_path, "one", Constant(value=0.9)) is None


def test_auxiliary_draws_are_fresh_repeatable_and_of_the_right_size(edge):
    view = cloud_view(edge, sigma=0.3)
    first, second = view.aux.releases(0), view.aux.releases(1)
    assert first.shape == (15, 2, 4)
    assert first.dtype == np.float32
    assert np.array_equal(first, view.aux.releases(0))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[:, 0], first[:, 1])
    many = np.stack([view.aux.releases(k) for k in range(100)])
    assert many.std(axis=0).mean() == pytest.approx(0.3, rel=0.05)


def test_a_deterministic_release_has_one_draw(edge):
    assert cloud_view(edge, sigma=0.0, draws=16).aux.draws == 1


def test_the_view_holds_labels_of_auxiliary_records_only(edge):
    view = cloud_view(edge)
    assert all(len(values) == 15 for values in view.aux.labels.values())
    names = {field.name for field in fields(View)} | {field.name for field in fields(AuxiliarySet)}
    assert not names & {"truth", "victim_labels", "victim_images", "features", "edge"}
    assert is_dataclass(view)
    with pytest.raises(ValueError, match="read-only"):
        view.releases[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        view.aux.images[0] = 1


def test_raw_images_are_scaled_to_one():
    view = raw_image_view(
        victims=np.arange(4),
        source=AuxiliarySource(IMAGES, np.arange(15, 30), LABELS, {"a": 2}, GROUPS),
        seed=0,
        device=CPU,
    )
    assert view.releases.shape == (4, 1, 3, 32, 32)
    assert np.allclose((view.releases[:, 0] + 1) * 127.5, IMAGES[:4], atol=1e-3)
    assert view.aux.draws == 1
