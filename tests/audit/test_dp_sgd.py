"""The one-run audit of DP-SGD: it proves something, never too much, and sees a broken mechanism."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest
import torch

from privhier.audit.audit import AuditContext
from privhier.audit.dp_sgd import CanaryDpSgd, canary_rows
from privhier.audit.row import AuditRow
from privhier.config import parse_config
from privhier.training.private_edge import PrivateEdgeTrainer

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def context(**dp_sgd) -> AuditContext:
    dp_sgd = {"target_epsilon": 2.0, "adjacency": "add_remove", **dp_sgd}
    config = small_config(
        images=600,
        size=16,
        epochs=(4, 1, 0),
        batch=50,
        release={"mechanism": "gaussian", "sigma": 1.0},
        edge={"dp_sgd": dp_sgd},
    )
    return AuditContext(Path("unused"), config, None, 0, 0)


def audited(mechanism: type[CanaryDpSgd] = CanaryDpSgd, **dp_sgd) -> AuditRow:
    (row,) = canary_rows(context(**dp_sgd), canaries=3000, mechanism=mechanism)
    return row


@pytest.mark.parametrize("physical", [16, 256])
def test_an_honest_mechanism_passes_and_the_bound_says_something(physical):
    row = audited(physical_batch_size=physical)
    assert not row.refuted
    assert row.claimed_epsilon == pytest.approx(2.0, abs=0.05)
    assert 0.1 < row.lower_95 < row.claimed_epsilon
    assert row.adjacency == "add or remove one training record"


def test_a_run_without_dp_sgd_has_no_row():
    plain = context()
    config = plain.config.model_copy(update={"edge": plain.config.edge.model_copy(update={"dp_sgd": None})})
    assert canary_rows(AuditContext(plain.run, config, None, 0, 0)) == []


def test_sabotage_no_noise_on_the_gradients():
    class Silent(CanaryDpSgd):
        def descend(self, losses: torch.Tensor, generator: torch.Generator) -> None:
            def keep_quiet() -> None:
                for parameter in self.optimizer.params:
                    parameter.grad = parameter.summed_grad.view_as(parameter)

            self.optimizer.add_noise = keep_quiet  # type: ignore[method-assign]
            super().descend(losses, generator)

    row = audited(Silent, target_epsilon=None, noise_multiplier=3.0)
    assert row.refuted
    assert row.lower_alarm > row.claimed_epsilon


def test_sabotage_gradients_are_not_clipped():
    class Unclipped(CanaryDpSgd):
        def descend(self, losses: torch.Tensor, generator: torch.Generator) -> None:
            optimizer, bound = self.optimizer, self.optimizer.max_grad_norm

            def add_up() -> None:
                optimizer.max_grad_norm = 1e6
                type(optimizer).clip_and_accumulate(optimizer)
                optimizer.max_grad_norm = bound

            optimizer.clip_and_accumulate = add_up  # type: ignore[method-assign]
            super().descend(losses, generator)

    row = audited(Unclipped, target_epsilon=None, noise_multiplier=3.0)
    assert row.refuted


def test_canaries_are_drawn_at_the_executed_rate_whatever_is_charged(monkeypatch):
    """Half the rate is charged: the canaries must still enter as often as records do, or nobody is told."""
    whole, charged = PrivateEdgeTrainer._event, []

    def half(self, phase, epoch, records, steps):
        event = whole(self, phase, epoch, records, steps)
        charged.append(event)
        return event if phase == "joint" else dataclasses.replace(event, sample_rate=event.sample_rate / 2)

    monkeypatch.setattr(PrivateEdgeTrainer, "_event", half)
    monkeypatch.setattr("privhier.training.private_edge.check_participation", lambda *_: None)
    entered: list[int] = []
    inside: list[int] = []

    class StopError(Exception):
        pass

    class Watched(CanaryDpSgd):
        def plant(self, canaries, seed):
            included = super().plant(canaries, seed)
            inside.append(int(included.sum()))
            return included

        def descend(self, losses, generator):
            if self._first:
                entered.append(len(self.rows))
            super().descend(losses, generator)

    def enough(*_):
        raise StopError

    chosen = context()
    config = chosen.config.model_dump(mode="json")
    config["privacy"]["noise_source"] = "system"
    short = AuditContext(chosen.run, parse_config(config), None, 0, 0, enough)
    with pytest.raises(StopError):  # after the first epoch, which is Poisson sampled
        canary_rows(short, canaries=3000, mechanism=Watched)
    assert len(entered) == charged[0].steps
    mean = len(entered) * inside[0] * 50 / charged[0].records
    assert abs(sum(entered) - mean) < 6 * mean**0.5
