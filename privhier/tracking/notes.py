"""The notes that MLflow's page shows above a run's or an experiment's numbers: text and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from privhier.tracking.view import view_path

NOTE = "mlflow.note.content"
"""The tag, markdown."""
LONGEST = 6000
"""Characters of a note; MLflow takes 8000."""


def experiment_note(experiment: str) -> str:
    """Where the experiment's tradeoff is."""
    return f"[Utility against leakage, colored by defense]({view_path(experiment)})"


def run_note(sentences: Iterable[str], pictures: Sequence[str], *, run_id: str, experiment: str) -> str:
    """Sentences, pictures among the run's artifacts, and the way to all other runs.

    Args:
        sentences: A paragraph each; what does not fit is cut.
        pictures: Artifact paths. The page asks its own server for them, wherever that is.
        run_id: Whose artifacts.
        experiment: Id of its experiment.
    """
    shown = [_picture(path, run_id) for path in pictures]
    end = "\n\n".join([*shown, f"[Among the other runs]({view_path(experiment)})"])
    return "\n\n".join(sentences)[: LONGEST - len(end) - 2] + f"\n\n{end}"


def _picture(path: str, run_id: str) -> str:
    return f"![{path}](get-artifact?{urlencode({'path': path, 'run_uuid': run_id})})"
