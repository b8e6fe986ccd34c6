"""The typed run configuration: YAML in, overrides merged, every error saying key, value, rule, remedy.

Knows nothing of torch: names of backbones, data sets, defenses and attacks are checked by their
registries when the run is built, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, field_validator, model_validator
from yaml import YAMLError, safe_dump

from privhier.config_attacks import AttacksConfig, EvaluationConfig
from privhier.config_base import Choice, Scalar, Section
from privhier.config_errors import validated
from privhier.config_expressions import EXPRESSIONS, Expressions, quote_calls
from privhier.config_link import LinkConfig
from privhier.config_privacy import DpSgdConfig, EdgeConfig, PrivacyConfig, ReleaseConfig
from privhier.cores import usable_cores
from privhier.errors import ConfigError

__all__ = [
    "AttacksConfig",
    "AugmentConfig",
    "BottleneckConfig",
    "Choice",
    "DatasetConfig",
    "DpSgdConfig",
    "EdgeConfig",
    "EvaluationConfig",
    "LinkConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PrivacyConfig",
    "ReleaseConfig",
    "RunConfig",
    "RuntimeConfig",
    "Scalar",
    "ScheduleConfig",
    "Section",
    "SplitsConfig",
    "TrackingConfig",
    "TrainingConfig",
    "load_config",
    "parse_config",
    "read_config",
]


HASHLESS: dict[str, Any] = {
    "report": True,
    "tracking": True,
    "link": True,
    "dataset": {"root", "cache"},
    "runtime": {"threads", "device"},
}
"""What the hash leaves out: paths, report, tracking, link, and what only changes last digits."""


class SplitsConfig(Section):
    """Shares of the groups (or images, known people) that go to each split; they sum to 1."""

    train: float = Field(0.5, gt=0, lt=1)
    val: float = Field(0.1, gt=0, lt=1)
    aux: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _sum(self) -> SplitsConfig:
        total = self.train + self.val + self.aux + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + aux + test must sum to 1, they sum to {total:g}")
        return self


class DatasetConfig(Section):
    """Which faces, which attributes, which split."""

    name: str
    root: str | None = None
    """Folder of the data set; default: the data set's folder under ``$PRIVHIER_DATA``."""
    cache: str | None = None
    """Folder of the decoded cache; default: ``$PRIVHIER_CACHE``, else ``~/.cache/privhier``."""
    image_size: int = Field(64, ge=16, le=512)
    """Height and width in pixels after decoding."""
    crop: Literal["none", "mtcnn"] = "none"
    """``mtcnn``: detect the face with facenet-pytorch's MTCNN before resizing."""
    limit: int | None = Field(None, ge=1)
    """Keep about this many images (whole groups, drawn with the seed); none: all."""
    min_images_per_identity: int = Field(1, ge=1)
    """Drop people with fewer images (data sets with identities)."""
    task: Expressions = Field(min_length=1)
    """Attribute expressions to be predicted, e.g. ``gender`` or ``bin(age, 20, 40, 60)``."""
    sensitive: Expressions = Field(min_length=1)
    """Attribute expressions to be hidden, e.g. ``race==0`` or ``identity``."""
    identity_protocol: Literal["unknown_people", "known_people"] = "unknown_people"
    splits: SplitsConfig = SplitsConfig()
    options: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Options of the data set itself (see ``privhier list datasets``)."""

    @model_validator(mode="after")
    def _disjoint(self) -> DatasetConfig:
        names = [*self.task, *self.sensitive]
        if len(set(names)) < len(names):
            raise ValueError("an attribute expression may appear only once in task and sensitive")
        if "identity" in self.task:
            raise ValueError("identity can be sensitive, never a task")
        return self


class BottleneckConfig(Section):
    """The optional layer before the release."""

    kind: Literal["none", "dimension", "channels"] = "none"
    size: int | None = Field(None, ge=1)
    """Values (``dimension``) or channels (``channels``) per record."""

    @model_validator(mode="after")
    def _size(self) -> BottleneckConfig:
        if (self.kind == "none") != (self.size is None):
            raise ValueError("size is given exactly when kind is not 'none'")
        return self


class ModelConfig(Section):
    """The split network."""

    backbone: str = "small_cnn"
    cut: str = "stage2"
    """Name of the last stage on the edge."""
    norm: Literal["group", "batch"] = "group"
    stem: Literal["small", "torchvision"] = "small"
    weights: str = "none"
    """``none``, or the path of a state dict of torchvision's own model (.pth or .safetensors)."""
    bottleneck: BottleneckConfig = BottleneckConfig()
    exit_hidden: int = Field(64, ge=0)
    """Hidden width of the task exit and the adversarial exits; 0: linear."""


class ScheduleConfig(Section):
    """Three numbers describe every regime (edge alone; both at once; edge frozen, released once)."""

    pretrain_epochs: int = Field(0, ge=0)
    joint_epochs: int = Field(0, ge=0)
    cloud_epochs: int = Field(0, ge=0)

    @property
    def releases_per_record(self) -> int:
        """Releases of one training record: one per joint epoch, one for all cloud epochs."""
        return self.joint_epochs + (1 if self.cloud_epochs else 0)

    @model_validator(mode="after")
    def _something_goes_up(self) -> ScheduleConfig:
        if self.releases_per_record == 0:
            raise ValueError("joint_epochs or cloud_epochs must be above 0: nothing would reach the cloud")
        return self


class OptimizerConfig(Section):
    """One optimizer and its learning-rate schedule over its own phase."""

    name: Literal["adam", "sgd"] = "adam"
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"


class AugmentConfig(Section):
    """Augmentation of whole batches on the edge."""

    flip: bool = True
    shift: int = Field(2, ge=0)
    """Random translation of at most this many pixels."""


class TrainingConfig(Section):
    """How edge and cloud are trained."""

    batch_size: int = Field(128, ge=1)
    edge: OptimizerConfig = OptimizerConfig()
    cloud: OptimizerConfig = OptimizerConfig()
    augment: AugmentConfig = AugmentConfig()


class TrackingConfig(Section):
    """MLflow. The store is sqlite beside the run folder unless ``MLFLOW_TRACKING_URI`` is set."""

    enabled: bool = True
    experiment: str = "privhier"


class ReportConfig(Section):
    """What the report shows."""

    pictures: Literal["all", "none"] = "all"
    """``all``: originals of test victims beside their reconstructions, also in the copy that MLflow keeps.
    ``none``: no picture of anyone; the scores stay."""


class RuntimeConfig(Section):
    """Where and how it runs. Threads and device change last digits only: they are not in the hash, and a run
    that goes on with others says so in its warnings.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16``: autocast, CUDA only."""
    threads: int | Literal["auto"] = Field("auto", validate_default=True)

    @field_validator("threads")
    @classmethod
    def _threads(cls, value: int | str) -> int:
        if value == "auto":
            return usable_cores()
        if not isinstance(value, int) or value < 1:
            raise ValueError("threads must be 'auto' or at least 1")
        return value


LEFT_OUT = "(left out)"
"""Stands where a secret stood; no configuration takes it, so nothing runs on it by mistake."""


class RunConfig(Section):
    """One run: a point on the privacy-utility tradeoff."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    seed: int = Field(0, ge=0)
    dataset: DatasetConfig
    model: ModelConfig = ModelConfig()
    schedule: ScheduleConfig
    release: ReleaseConfig = ReleaseConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    edge: EdgeConfig = EdgeConfig()
    defense: Choice = Choice(name="none")
    training: TrainingConfig = TrainingConfig()
    attacks: AttacksConfig = AttacksConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
    tracking: TrackingConfig = TrackingConfig()
    link: LinkConfig = LinkConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _precision(self) -> RunConfig:
        if self.edge.dp_sgd is not None and self.runtime.precision == "bfloat16":
            raise ValueError("runtime.precision must be float32 under edge.dp_sgd: norms are clipped exactly")
        return self

    @model_validator(mode="after")
    def _batch_norm(self) -> RunConfig:
        if self.model.norm == "batch" and self.training.batch_size == 1:
            raise ValueError(
                "training.batch_size must be at least 2 where model.norm is batch: BatchNorm takes its "
                "statistics from the records of a batch"
            )
        return self

    @property
    def noise_seed(self) -> int:
        """Seed of everything private that is drawn under ``seeded``."""
        chosen = self.privacy.noise_seed
        return self.seed if chosen is None else chosen

    def hash(self) -> str:
        """SHA-256 of everything that can change more of a number than its last digits; see ``HASHLESS``."""
        skipped = dict(HASHLESS)
        if self.privacy.noise_seed is None:  # as before the key existed: older run folders go on
            skipped["privacy"] = {"noise_seed"}
        data = self.model_dump(mode="json", exclude=skipped)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that ``load_config`` reads back."""
        return str(safe_dump(self.model_dump(mode="json"), sort_keys=False))

    def to_publish(self) -> dict[str, Any]:
        """The resolved configuration as plain data for report and tracking: without the noise's own seed."""
        data = self.model_dump(mode="json")
        if self.privacy.noise_seed is not None:
            data["privacy"]["noise_seed"] = LEFT_OUT
        return data


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, merge ``key.path=value`` overrides and validate.

    An override of ``dataset.name`` or ``defense.name`` drops the options that the file gives the old name.

    Raises:
        ConfigError: Unreadable file, malformed override, unknown key, wrong type or broken rule.
    """
    return parse_config(read_config(path, overrides))


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """What ``load_config`` validates, as plain data.

    Raises:
        ConfigError: Unreadable file or malformed override.
    """
    try:
        base = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(
            key="CONFIG",
            value=str(path),
            rule="must be a readable YAML file",
            remedy="Give the path of a configuration, e.g. configs/quickstart.yaml",
        ) from error
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(
            key="CONFIG", value=str(path), rule=f"is not valid YAML: {error}", remedy="Mend the file"
        ) from error
    if not isinstance(base, DictConfig):
        return OmegaConf.to_container(base)
    for item in overrides:
        if "=" not in item or item.startswith("="):
            raise ConfigError(
                key="override",
                value=item,
                rule="must read key.path=value",
                remedy="For instance: release.sigma=0.3",
            )
        if not item.isascii() and item != item.encode(errors="replace").decode():
            raise ConfigError(
                key=item.partition("=")[0],
                value=item.partition("=")[2],
                rule="holds bytes that are not UTF-8; a configuration is text",
                remedy="Rename that folder, or give it a link whose own name is UTF-8: ln -s OLD NEW",
            )
    try:
        changes = OmegaConf.from_dotlist([_quoted(item) for item in overrides])
        _forget_options(base, changes)
        return OmegaConf.to_container(OmegaConf.merge(base, changes), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(
            key="override",
            value=" ".join(overrides),
            rule=f"cannot be merged: {error}",
            remedy="Check the key path against the configuration file",
        ) from error


def _quoted(item: str) -> str:
    """An override of a list of attribute expressions with the quotes that YAML needs."""
    key, _, value = item.partition("=")
    return f"{key}={quote_calls(value)}" if key in EXPRESSIONS else item


def _forget_options(base: DictConfig, changes: DictConfig) -> None:
    """Options belong to a name: an override that names another data set or defense drops the file's."""
    for key in ("dataset", "defense"):
        old, new = base.get(key), changes.get(key)
        both = isinstance(old, DictConfig) and isinstance(new, DictConfig)
        if both and new.get("name", old.get("name")) != old.get("name"):
            old.pop("options", None)


def parse_config(data: Any) -> RunConfig:
    """Validate plain data; the first error becomes a ``ConfigError`` that counts the others."""
    return validated(RunConfig, data)
