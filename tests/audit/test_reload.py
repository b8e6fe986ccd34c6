"""The audit of a reloaded edge, whatever its wire: sound noise passes, missing and shared noise does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from privhier.audit import reload as reload_module
from privhier.audit.reload import audit_reload
from privhier.config import BottleneckConfig, ModelConfig
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.deploy import ReleasingEdge

WIRES = ["float32", "float16", "int8", "int4"]
KINDS = ["gaussian", "laplace"]
SIZE = 8


@pytest.fixture(scope="module")
def edge():
    return build_network(
        ModelConfig(
            backbone="small_cnn", cut="stage2", bottleneck=BottleneckConfig(kind="dimension", size=8)
        ),
        image_size=SIZE,
        task_classes={"smiling": 2},
        sensitive_classes={},
        seed=0,
    )[0].eval()


def row(monkeypatch, edge, kind, wire, *, claimed=0.3, sigma=0.3, clip=1.0, noise=None):
    """The audit's row for an edge whose noise has ``sigma`` where ``claimed`` is claimed."""
    mechanism = ReleaseMechanism(kind, clip, sigma, wire)
    monkeypatch.setattr(
        reload_module,
        "load_edge",
        lambda run: ReleasingEdge(edge, mechanism, noise and noise(), image_size=SIZE),
    )
    return audit_reload(Path("run"), kind=kind, scale=claimed, image_size=SIZE)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1e-4, 0.03, 0.3, 30.0])
def test_sound_noise_passes_however_coarse_the_steps(monkeypatch, edge, kind, wire, sigma):
    found = row(monkeypatch, edge, kind, wire, claimed=sigma, sigma=sigma)
    assert not found.refuted, found.note


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.03, 0.3])
def test_missing_noise_is_caught(monkeypatch, edge, kind, wire, sigma):
    found = row(monkeypatch, edge, kind, wire, claimed=sigma, sigma=0.0)
    assert found.refuted
    assert "first call and second call differ by 0 of" in found.note


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.8, 1.25])
def test_noise_of_another_scale_is_caught(monkeypatch, edge, kind, wire, share):
    assert row(monkeypatch, edge, kind, wire, sigma=0.3 * share).refuted


@pytest.mark.parametrize("wire", WIRES)
def test_noise_that_repeats_is_caught(monkeypatch, edge, wire):
    class Again:
        kind = "seeded"

        def gaussian(self, shape):
            return SeededNoise(0, "again").gaussian(shape)

        laplace = gaussian

    assert "second call differ by 0 of" in row(monkeypatch, edge, "gaussian", wire, noise=Again).note
    loads = row(monkeypatch, edge, "gaussian", wire, noise=lambda: SeededNoise(0, "load")).note
    assert "first call and second load differ by 0 of" in loads
    assert "first call and second call" not in loads
