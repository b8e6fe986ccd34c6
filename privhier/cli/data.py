"""The verbs ``privhier data check`` and ``data cache``."""

from __future__ import annotations

from privhier.cli.arguments import ConfigArgument, Overrides
from privhier.cli.console import progress_bar, say


def check(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Count images, people, labels and problems of a data set; a `dataset:` section is enough."""
    from privhier.config import load_dataset_section
    from privhier.datasets.check import check_dataset

    dataset, seed = load_dataset_section(config, overrides or ())
    with progress_bar() as progress:
        report = check_dataset(dataset, seed=seed, progress=progress)
    say("\n".join(report.lines()))


def cache(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Decode the configured data set into its memory-mapped cache."""
    from privhier.config import load_dataset_section
    from privhier.datasets.load import load_dataset

    section, seed = load_dataset_section(config, overrides or ())
    with progress_bar() as progress:
        dataset = load_dataset(section, seed=seed, progress=progress)
    say(f"cached: {len(dataset)} images of {dataset.name}, {len(dataset.problems)} skipped")
