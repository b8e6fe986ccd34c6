"""The measured cells of a folder, and the model that fills the places between them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import CIFAR10, NETWORKS, OVERHEAD, Profile, config_path
from regimes import REGIMES, Curve, Plan, phase_ms, run_seconds
from stages import stages_of

from privhier.config import load_config

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """The run time of one regime at one bit rate, as measured or by the model."""

    network: str
    regime: str
    rate_mbit: float
    measured: bool
    seconds: float
    phases: dict[str, float]
    up: float
    down: float


class Study:
    """Everything measured of one network.

    Args:
        network: Its name.
        profiles: Width (False: with the bottleneck, True: without) to its parts by themselves.
        records: Its measured cells.
        plan: What a whole training is.
    """

    def __init__(
        self, network: str, profiles: dict[bool, Profile], records: list[Record], plan: Plan
    ) -> None:
        self.network, self.profiles, self.records, self.plan = network, profiles, records, plan
        self._measured = {(record["regime"], record["rate_mbit"]): record for record in records}

    @property
    def regimes(self) -> list[str]:
        """Those the model can answer for."""
        return [regime for regime in REGIMES if regime.endswith("_wide") in self.profiles]

    def sizes(self, regime: str) -> tuple[float, float]:
        """Bytes on the line per image, up and down: the mean of what was measured, else payload and a bit."""
        found = [record for record in self.records if record["regime"] == regime]
        if found:
            up, down = (sum(record[way] for record in found) / len(found) for way in ("up", "down"))
            return up, down
        up, down = self.profiles[regime.endswith("_wide")].payload(regime)
        return OVERHEAD * up, OVERHEAD * down

    def model(self, regime: str, rate_mbit: float, cloud_speed: float = 1.0) -> dict[str, float]:
        """Milliseconds per image of each phase."""
        stages = self.profiles[regime.endswith("_wide")].stages
        return phase_ms(regime, stages, *self.sizes(regime), rate_mbit, cloud_speed)

    def curve(self, regime: str, cloud_speed: float = 1.0) -> Curve:
        """The model's run time in seconds over the bit rate."""
        return lambda rate: run_seconds(regime, self.model(regime, rate, cloud_speed), self.plan)

    def record(self, regime: str, rate_mbit: float) -> Record | None:
        """A measured cell."""
        return self._measured.get((regime, rate_mbit))

    def row(self, regime: str, rate_mbit: float) -> Row:
        """Measured where there is a measurement, else the model's."""
        record = self.record(regime, rate_mbit)
        up, down = self.sizes(regime)
        if record is not None:
            phases, up, down = record["phases"], record["up"], record["down"]
        else:
            phases = self.model(regime, rate_mbit)
        seconds = run_seconds(regime, phases, self.plan)
        return Row(self.network, regime, rate_mbit, record is not None, seconds, phases, up, down)


def load_studies(
    out: Path, *, images: int, epochs: int | None, pretrain: int | None, cloud: int | None
) -> list[Study]:
    """Every network that was profiled in ``out``; epochs by default those of its configuration.

    Release-once by default spends half the epochs on the edge and half in the cloud, so that every regime
    looks at every image equally often.
    """
    studies = []
    for network in (*NETWORKS, *CIFAR10):
        profiles = {}
        for wide in (False, True):
            path = out / f"profile_{network}{'_wide' if wide else ''}.json"
            if path.exists():
                data = json.loads(path.read_text())
                profiles[wide] = Profile(stages_of(data["parts"]), data["parts"], data["sizes"])
        if False not in profiles:
            continue
        joint = epochs or load_config(config_path(network)).schedule.joint_epochs
        plan = Plan(images, joint, pretrain or joint // 2, cloud or joint // 2)
        cells = sorted((out / "cells").glob(f"{network}__*.json"))
        records = [json.loads(path.read_text()) for path in cells]
        studies.append(Study(network, profiles, records, plan))
    return studies
