"""What edge and cloud must agree on, and all that a cloud is told of a run's configuration.

Where the images are, what must be hidden, how the edge is trained and defended, and the seed of its noise
stay on the edge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field, model_validator
from yaml import safe_dump

from privhier.config import (
    ModelConfig,
    OptimizerConfig,
    ReleaseConfig,
    RunConfig,
    ScheduleConfig,
    Section,
    parse_config,
    read_config,
)
from privhier.config.errors import validated
from privhier.config.expressions import Expressions
from privhier.config.letters import check_letters, settled

_ONLY_SHARED = ("image_size", "task")
"""Keys that a shared file has at its top and a run configuration has not."""


class SharedPrivacy(Section):
    """The part of the privacy section that the cloud learns; see ``PrivacyConfig``."""

    noise_source: Literal["seeded", "system"] = "seeded"
    label_epsilon: float | None = Field(None, gt=0, le=30, allow_inf_nan=False)
    """The cloud corrects its loss for randomized labels, so it has to know how random they are."""


class SharedConfig(Section):
    """The part of a run's configuration that both sides know; keys mean what they mean in ``RunConfig``."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    seed: int = Field(0, ge=0)
    """Of initial weights, dropout and the order of batches; the noise may have a seed of its own."""
    image_size: int = Field(ge=16, le=512)
    task: Expressions = Field(min_length=1)
    """Attribute expressions the tail predicts, in column order."""
    model: ModelConfig
    schedule: ScheduleConfig
    release: ReleaseConfig
    """As configured: a clip bound drawn from private data (``release.clip.quantile``) is not in it."""
    privacy: SharedPrivacy
    batch_size: int = Field(ge=1)
    cloud: OptimizerConfig

    @model_validator(mode="after")
    def _letters(self) -> SharedConfig:
        check_letters(self.model, self.release, self.schedule, dp_sgd=None)
        model = settled(self.model, self.release, self.schedule, dp_sgd=None)
        object.__setattr__(self, "model", model)  # frozen from here on
        return self

    @property
    def matched_filter(self) -> bool:
        """Whether the tail begins with a matched filter; only who knows the defense resolves ``auto``."""
        return self.model.filters(shaped=False)

    def hash(self) -> str:
        """SHA-256 of its canonical JSON, 64 hexadecimal digits.

        Of a weights file only the name counts: the two machines may keep it in different folders.
        """
        data = self.model_dump(mode="json", exclude={"model": {"matched_filter"}})
        if self.matched_filter:
            data["model"]["matched_filter"] = True
        data["model"]["weights"] = PurePath(self.model.weights).name
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Names the run on the line, and nothing else about it: the first 16 digits of the hash."""
        return self.hash()[:16]

    def to_yaml(self) -> str:
        """As YAML that ``load_shared`` reads back: the file to hand to whoever runs the cloud.

        Of a weights file only the name is in it; the cloud says where its copy is: ``model.weights=PATH``.
        """
        data = self.model_dump(mode="json")
        data["model"]["weights"] = PurePath(self.model.weights).name
        return str(safe_dump(data, sort_keys=False))


def shared_part(config: RunConfig) -> SharedConfig:
    """What the cloud may know of a run."""
    return SharedConfig(
        name=config.name,
        seed=config.seed,
        image_size=config.dataset.image_size,
        task=config.dataset.task,
        model=config.model.model_copy(update={"matched_filter": config.matched_filter or "auto"}),
        schedule=config.schedule,
        release=config.release,
        privacy=SharedPrivacy(
            noise_source=config.privacy.noise_source, label_epsilon=config.privacy.label_epsilon
        ),
        batch_size=config.training.batch_size,
        cloud=config.training.cloud,
    )


def load_shared(path: str | Path, overrides: Sequence[str] = ()) -> SharedConfig:
    """Read a file written by ``to_yaml``, or a whole run configuration, of which it takes the shared part.

    Args:
        path: A YAML file.
        overrides: ``key.path=value``, in the keys of that file.

    Raises:
        ConfigError: Unreadable file, malformed override, unknown key, wrong type or broken rule.
    """
    data = read_config(path, overrides)
    if isinstance(data, dict) and all(key in data for key in _ONLY_SHARED):
        return validated(SharedConfig, data)
    return shared_part(parse_config(data))
