"""The data sets by name; ``builtin.py`` lists ours."""

from __future__ import annotations

from privhier.config.contracts import faults_of_class
from privhier.datasets.listing import Source
from privhier.registry import Registry

datasets: Registry[type[Source]] = Registry(
    "datasets",
    key="dataset.name",
    builtin="privhier.datasets.builtin",
    check=lambda entry: faults_of_class(entry, Source),
)
