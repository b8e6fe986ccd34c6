"""The typed run configuration: YAML in, overrides merged, every error saying key, value, rule, remedy."""

from privhier.config.attacks import AttacksConfig, EvaluationConfig
from privhier.config.base import Choice, Scalar, Section
from privhier.config.data import DatasetConfig, SplitsConfig
from privhier.config.link import LinkConfig
from privhier.config.network import BottleneckConfig, ModelConfig
from privhier.config.privacy import DpSgdConfig, EdgeConfig, PrivacyConfig, ReleaseConfig
from privhier.config.reading import load_config, load_dataset_section, parse_config, read_config
from privhier.config.run import (
    HASHLESS,
    LEFT_OUT,
    ReportConfig,
    RunConfig,
    RuntimeConfig,
    TrackingConfig,
    hashless,
)
from privhier.config.training import AugmentConfig, OptimizerConfig, ScheduleConfig, TrainingConfig

__all__ = [
    "HASHLESS",
    "LEFT_OUT",
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
    "ReportConfig",
    "RunConfig",
    "RuntimeConfig",
    "Scalar",
    "ScheduleConfig",
    "Section",
    "SplitsConfig",
    "TrackingConfig",
    "TrainingConfig",
    "hashless",
    "load_config",
    "load_dataset_section",
    "parse_config",
    "read_config",
]
