"""What every MLflow run of ours says about where it came from."""

from __future__ import annotations

from privhier.process.source import git_state


def source_tags() -> dict[str, str]:
    """The tags of a new MLflow run that name its source; outside a repository, the program only.

    ``mlflow.source.git.commit`` is what MLflow's own pages show; ``git_dirty`` says whether tracked files
    differed from it.
    """
    known = {key: str(value) for key, value in git_state().items() if value is not None}
    tags = {"mlflow.source.name": "privhier", **{f"git_{key}": value for key, value in known.items()}}
    if "commit" in known:
        tags["mlflow.source.git.commit"] = known["commit"]
    return tags
