"""The three numbers of a schedule, spelled out as epochs."""

from __future__ import annotations

from privhier.config.training import ScheduleConfig


def phases_of(schedule: ScheduleConfig) -> list[tuple[str, int]]:
    """The schedule's epochs in order, as ``(phase, epoch)``; ``release`` and ``test`` train nothing."""
    phases = [("pretrain", epoch) for epoch in range(schedule.pretrain_epochs)]
    phases += [("joint", epoch) for epoch in range(schedule.joint_epochs)]
    if schedule.cloud_epochs:
        phases += [("release", 0)]
        phases += [("cloud", epoch) for epoch in range(schedule.cloud_epochs)]
    return [*phases, ("test", 0)]
