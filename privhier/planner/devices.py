"""Where the two sides are: on the machine that was profiled, or on others known by their speed alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError
from yaml import YAMLError, safe_load

from privhier.config import Section
from privhier.errors import ConfigError
from privhier.planner.line import FULL_SPEED, Slowdown
from privhier.planner.profile import CutProfile, WholeProfile
from privhier.planner.stages import CloudTimes, EdgeTimes, WholeTimes, scaled


class Device(Section):
    """A machine that is not this one: its counted operations, at a speed, stand for measured seconds."""

    name: str = "device"
    operations_per_second: float = Field(gt=0, allow_inf_nan=False)
    """Floating-point operations (a multiply-accumulate is two), as data sheets give them."""
    efficiency: float = Field(0.3, gt=0, le=1)
    """Share of that speed which training reaches."""
    memory_bytes: int | None = Field(None, ge=1)
    """A limit for the edge's memory; none: not known."""


def load_device(path: Path) -> Device:
    """Read a device file (YAML); raises ``ConfigError``."""
    try:
        return Device.model_validate(safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        rule, value = f"is not a readable YAML file: {error}", str(path)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        rule, value = f"does not describe a device: {where}: {first['msg']}", str(path)
    raise ConfigError(
        key="device",
        value=value,
        rule=rule,
        remedy="Give name, operations_per_second, and perhaps efficiency and memory_bytes",
    )


@dataclass(frozen=True)
class Machines:
    """Where edge and cloud are, if not both on the machine that was profiled.

    Attributes:
        edge: The edge's machine; None: this one.
        cloud: The cloud's machine; None: this one, ``cloud_speed`` times as fast.
        cloud_speed: Of the cloud against this machine.
    """

    edge: Device | None = None
    cloud: Device | None = None
    cloud_speed: float = 1.0

    @property
    def one(self) -> bool:
        """Whether both sides are on this machine, as it was profiled."""
        return self.edge is None and self.cloud is None and self.cloud_speed == 1

    def fit(self, cut: CutProfile, batch_size: int) -> tuple[EdgeTimes, CloudTimes, Slowdown]:
        """A cut's seconds on these machines."""
        edge_here, cloud_here = cut.edge.step, cut.cloud.cached or cut.cloud.step
        edge = scaled(cut.edge, _factor(self.edge, cut.edge_count.step * batch_size, edge_here))
        cloud = scaled(cut.cloud, self._cloud(cut.cloud_count.step * batch_size, cloud_here))
        return edge, cloud, cut.slowdown if self.one else FULL_SPEED

    def fit_whole(self, whole: WholeProfile, batch_size: int) -> tuple[WholeTimes, WholeTimes]:
        """The undivided network's seconds on the edge's and on the cloud's machine."""
        operations = whole.count.step * batch_size
        return (
            scaled(whole.edge, _factor(self.edge, operations, whole.edge.step)),
            scaled(whole.cloud, self._cloud(operations, whole.cloud.step)),
        )

    def _cloud(self, operations: float, here: float) -> float:
        return 1 / self.cloud_speed if self.cloud is None else _factor(self.cloud, operations, here)


HERE = Machines()
"""Both on the machine that was profiled."""


def _factor(device: Device | None, operations: float, here: float) -> float:
    """How many times as long as here; what is not counted (noise, codec, disk) is taken to scale alike."""
    if device is None:
        return 1.0
    return operations / (device.operations_per_second * device.efficiency) / here
