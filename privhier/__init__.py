"""Train split, sanitize, attack, prove, compare: privacy research on face-attribute networks.

The front door: what is named here is loaded when it is first asked for, so that the import itself takes
no time and loads no torch. It limits how long OpenMP's threads spin (``privhier.process.openmp``), which
must come before torch is loaded.

Example:
    >>> import tempfile
    >>> import privhier as ph
    >>> config = ph.load_config(
    ...     {
    ...         "name": "first",
    ...         "dataset": {
    ...             "name": "synthetic", "image_size": 16, "task": ["smiling"], "sensitive": ["male"],
    ...             "options": {"images": 240, "identities": 60},
    ...         },
    ...         "model": {"bottleneck": {"kind": "dimension", "size": 4}, "exit_hidden": 8},
    ...         "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
    ...         "release": {"mechanism": "gaussian", "clip": 4.0, "sigma": 2.0},
    ...         "attacks": {"attribute": [{"name": "logistic_regression"}], "reconstruction": []},
    ...         "evaluation": {"bootstrap": 100, "references": []},
    ...         "tracking": {"enabled": False},
    ...     }
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = ph.run(config, out=f"{folder}/first", progress=False)
    >>> sorted(done.result.leakage), done.result.uplink.releases_per_record
    (['male'], 1)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from privhier.process.openmp import limit_spinning

if TYPE_CHECKING:
    from privhier import attacks, datasets, defenses
    from privhier.api import (
        FinishedRun,
        FinishedSweep,
        compare,
        load_config,
        load_edge,
        load_tail,
        open_run,
        run,
        sweep,
    )
    from privhier.config import RunConfig
    from privhier.datasets.base import FaceDataset
    from privhier.errors import PrivhierError
    from privhier.evaluation.result import (
        AttackScores,
        AttributeLeakage,
        GuaranteeRow,
        PropertyInference,
        Reconstruction,
        Result,
        Score,
    )

__version__ = "0.1.0"
__all__ = [
    "AttackScores",
    "AttributeLeakage",
    "FaceDataset",
    "FinishedRun",
    "FinishedSweep",
    "GuaranteeRow",
    "PrivhierError",
    "PropertyInference",
    "Reconstruction",
    "Result",
    "RunConfig",
    "Score",
    "attacks",
    "compare",
    "datasets",
    "defenses",
    "load_config",
    "load_edge",
    "load_tail",
    "open_run",
    "run",
    "sweep",
]

_RESULTS = "privhier.evaluation.result"
_HOME = {
    "AttackScores": _RESULTS,
    "AttributeLeakage": _RESULTS,
    "FaceDataset": "privhier.datasets.base",
    "GuaranteeRow": _RESULTS,
    "PrivhierError": "privhier.errors",
    "PropertyInference": _RESULTS,
    "Reconstruction": _RESULTS,
    "Result": _RESULTS,
    "RunConfig": "privhier.config",
    "Score": _RESULTS,
}
"""Where a name lives that does not live in ``privhier.api``."""
_ROOMS = ("attacks", "datasets", "defenses")

limit_spinning()


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"privhier.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'privhier' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME.get(name, "privhier.api")), name)

    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
