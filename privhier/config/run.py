"""One run's typed configuration and its hash.

Knows nothing of torch: names of backbones, data sets, defenses and attacks are checked by their
registries when the run is built, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from yaml import safe_dump

from privhier.config.attacks import AttacksConfig, EvaluationConfig
from privhier.config.base import Choice, Section
from privhier.config.data import DatasetConfig
from privhier.config.letters import check_letters, settled
from privhier.config.link import LinkConfig
from privhier.config.network import ModelConfig, shapes_noise
from privhier.config.privacy import EdgeConfig, PrivacyConfig, ReleaseConfig
from privhier.config.training import ScheduleConfig, TrainingConfig
from privhier.process.cores import usable_cores

HASHLESS: dict[str, Any] = {
    "report": True,
    "tracking": True,
    "link": True,
    "dataset": {"root", "cache"},
    "runtime": {"threads", "device", "channels_last", "resident"},
}
"""What the hash leaves out: paths, report, tracking, link, and what only changes last digits."""


def hashless(runtime: RuntimeConfig) -> dict[str, Any]:
    """``HASHLESS``, and what is as it was before there was a key for it: older run folders go on."""
    return HASHLESS | {"runtime": HASHLESS["runtime"] | (set() if runtime.compile else {"compile"})}


class TrackingConfig(Section):
    """MLflow. The store is sqlite beside the run folder unless ``MLFLOW_TRACKING_URI`` is set."""

    enabled: bool = True
    """Whether the run is logged to MLflow."""
    experiment: str = "privhier"
    """Name of MLflow's experiment."""


class ReportConfig(Section):
    """What the report shows."""

    pictures: Literal["all", "none"] = "all"
    """``all``: originals of test victims beside their reconstructions, also in the copy that MLflow keeps.
    ``none``: no picture of anyone; the scores stay."""


class RuntimeConfig(Section):
    """Where and how it runs. Threads, device and layout change last digits only: they are not in the
    hash, and a run that goes on with others says so in its warnings.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: CUDA where there is a card, else the CPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16``: autocast, on CUDA or on a CPU with AVX512-BF16 or AMX. Pays for wide networks; on a CPU
    small_cnn is slower by it."""
    channels_last: bool | Literal["auto"] = "auto"
    """Whether the edge's maps lie pixel by pixel while it is trained; ``auto``: where that was measured to be
    faster (``small_cnn`` on a CPU), and never under ``edge.dp_sgd``."""
    resident: bool | Literal["auto"] = "auto"
    """Whether all pixels lie on the CUDA device while the edge is trained; ``auto``: where they take at most
    half of its free memory. Else batches are read ahead into pinned memory. On a CPU: neither."""
    compile: bool = False
    """Whether the edge's layers run through torch.compile, which fuses them and rounds otherwise. Part of the
    hash where it is set; not under ``edge.dp_sgd``."""
    threads: int | Literal["auto"] = Field("auto", validate_default=True)
    """Of the CPU; ``auto``: as many as cores may be used."""

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
    """Of the run: letters, digits, ``_``, ``.`` and ``-``."""
    seed: int = Field(0, ge=0)
    """Of everything that is drawn: weights, order, noise (under ``seeded``), attackers, intervals."""
    dataset: DatasetConfig
    """Which faces, which attributes, which split."""
    model: ModelConfig = ModelConfig()
    """The network, where it is cut, and what is released."""
    schedule: ScheduleConfig
    """How many epochs of what."""
    release: ReleaseConfig = ReleaseConfig()
    """How features become a release."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Accounting constants, label privacy, source of the noise."""
    edge: EdgeConfig = EdgeConfig()
    """How the edge segment is trained."""
    defense: Choice = Choice(name="none")
    """The penalty against adversaries on the edge (``privhier list defenses``)."""
    training: TrainingConfig = TrainingConfig()
    """Batches, optimizers, augmentation."""
    attacks: AttacksConfig = AttacksConfig()
    """Who attacks, with how much."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Intervals and reference networks."""
    report: ReportConfig = ReportConfig()
    """What the report shows."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    link: LinkConfig = LinkConfig()
    """Edge and cloud as two processes."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Device, precision, threads."""

    @model_validator(mode="after")
    def _precision(self) -> RunConfig:
        chosen = self.edge.dp_sgd
        if chosen is not None and chosen.mode == "ghost" and self.runtime.precision == "bfloat16":
            raise ValueError(
                "runtime.precision must be float32 under edge.dp_sgd.mode=ghost: its norms are of another "
                "backward than the gradients that are added up; bfloat16 rounds the two apart"
            )
        return self

    @model_validator(mode="after")
    def _layout(self) -> RunConfig:
        if self.edge.dp_sgd is not None and self.runtime.channels_last is True:
            raise ValueError(
                "runtime.channels_last must be auto or false under edge.dp_sgd: gradients of single records "
                "are found by Opacus' own layers"
            )
        return self

    @model_validator(mode="after")
    def _compiled(self) -> RunConfig:
        if self.edge.dp_sgd is not None and self.runtime.compile:
            raise ValueError(
                "runtime.compile must be false under edge.dp_sgd: what is compiled passes Opacus' hooks by"
            )
        if self.runtime.channels_last is True and self.runtime.compile:
            raise ValueError("runtime.channels_last must be auto or false under runtime.compile")
        return self

    @model_validator(mode="after")
    def _batch_norm(self) -> RunConfig:
        if self.model.norm == "batch" and self.training.batch_size == 1:
            raise ValueError(
                "training.batch_size must be at least 2 where model.norm is batch: BatchNorm takes its "
                "statistics from the records of a batch"
            )
        return self

    @model_validator(mode="after")
    def _letters(self) -> RunConfig:
        dp_sgd = self.edge.dp_sgd is not None
        check_letters(self.model, self.release, self.schedule, dp_sgd=dp_sgd)
        model = settled(self.model, self.release, self.schedule, dp_sgd=dp_sgd)
        object.__setattr__(self, "model", model)  # frozen from here on
        return self

    @model_validator(mode="after")
    def _warmup(self) -> RunConfig:
        asked, epochs = self.edge.warmup_epochs, self.schedule.pretrain_epochs
        if isinstance(asked, int) and asked > epochs:
            raise ValueError(
                f"edge.warmup_epochs must be at most schedule.pretrain_epochs, {epochs}: only what stays on "
                "the edge is warmed up"
            )
        return self

    @property
    def warmup_epochs(self) -> int:
        """Pre-training epochs that are warmed up: ``edge.warmup_epochs`` with ``auto`` resolved."""
        asked = self.edge.warmup_epochs
        if isinstance(asked, int):
            return asked
        noisy = self.release.mechanism in ("gaussian", "laplace") and self.release.sigma != 0
        return self.schedule.pretrain_epochs // 2 if noisy or self.defense.name != "none" else 0

    @property
    def attackers(self) -> AttacksConfig:
        """``attacks`` with the attackers who adapt to the defense, where they run (``attacks.adaptive``)."""
        return self.attacks.completed(defended=self._defended, unknown_people=self._unknown_people)

    @property
    def _defended(self) -> bool:
        return self.defense.name != "none"

    @property
    def _unknown_people(self) -> bool:
        """Whether a secret is who people are, of whom the attacker owns no photo."""
        return "identity" in self.dataset.sensitive and self.dataset.identity_protocol == "unknown_people"

    @property
    def matched_filter(self) -> bool:
        """Whether the tail begins with a matched filter: ``model.matched_filter`` with ``auto`` resolved."""
        return self.model.filters(shaped=shapes_noise(self.defense))

    @property
    def noise_seed(self) -> int:
        """Seed of everything private that is drawn under ``seeded``."""
        chosen = self.privacy.noise_seed
        return self.seed if chosen is None else chosen

    def hash(self) -> str:
        """SHA-256 of everything that can change more of a number than its last digits; see ``HASHLESS``."""
        skipped = hashless(self.runtime)
        if self.privacy.noise_seed is None:  # as before the key existed: older run folders go on
            skipped["privacy"] = {"noise_seed"}
        if not self.warmup_epochs:
            skipped["edge"] = {"warmup_epochs"}
        skipped["attacks"] = {"adaptive"}
        skipped["model"] = {"matched_filter"}
        data = self.model_dump(mode="json", exclude=skipped)
        if self.matched_filter:
            data["model"]["matched_filter"] = True
        if self.attacks.adapts(defended=self._defended):
            data["attacks"]["adaptive"] = True  # else as before the key existed
            if self._unknown_people:  # as before anybody adapted to a defense of who people are
                data["attacks"]["adaptive_verification"] = True
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """What its run folder is called that is not told otherwise."""
        return f"{self.name}-{self.hash()[:10]}"

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that ``load_config`` reads back."""
        return str(safe_dump(self.model_dump(mode="json"), sort_keys=False))

    def to_publish(self) -> dict[str, Any]:
        """The resolved configuration as plain data for report and tracking: without the noise's own seed."""
        data = self.model_dump(mode="json")
        if self.privacy.noise_seed is not None:
            data["privacy"]["noise_seed"] = LEFT_OUT
        return data
