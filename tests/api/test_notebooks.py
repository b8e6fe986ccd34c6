"""The committed notebooks run to their ends, hold no outputs, and are short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

BOOKS = {
    "add_an_attack": 35,
    "add_a_defense": 45,
    "compare_runs": 35,
    "audit_a_run": 30,
}
"""Each with the most lines of code it may have. The quickstart is in ``test_notebook.py``, among the fast."""


def code_of(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_one_that_a_test_runs(repository):
    found = {path.stem for path in (repository / "examples").glob("*.ipynb")}
    assert found == {*BOOKS, "quickstart"}


@pytest.mark.parametrize("name", BOOKS)
def test_it_is_committed_without_outputs_and_short(name, repository):
    notebook = json.loads((repository / "examples" / f"{name}.ipynb").read_text())
    cells = code_of(notebook)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    lines = [line for cell in cells for line in cell["source"] if line.strip()]
    assert len(lines) <= BOOKS[name]
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "drawn" in "".join(first["source"]).lower(), "it says that its faces are nobody's"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
@pytest.mark.parametrize("name", BOOKS)
def test_it_runs_to_its_end(name, repository, smaller_debug, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for variable in ("MLFLOW_TRACKING_URI", "PRIVHIER_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PRIVHIER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "examples").mkdir()
    shutil.copy(repository / "examples" / f"{name}.ipynb", tmp_path / "examples")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "debug.yaml").write_text(smaller_debug(**{"tracking.enabled": False}))
    book = nbformat.read(tmp_path / "examples" / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path / "examples")}}
    done = nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in code_of(done) for output in cell["outputs"]]
    texts = [output.get("text", "") for output in outputs if output["output_type"] == "stream"]
    assert not any("error" in text or "Warning" in text for text in texts), texts
    shown = [text for one in outputs for text in one.get("data", {}).get("text/plain", "").splitlines()]
    check = CHECKS[name]
    check(tmp_path / "examples" / "runs", "\n".join([*texts, *shown]), outputs)


def _attack(runs: Path, said: str, outputs: list) -> None:
    (row,) = json.loads((runs / "attacked" / "result.json").read_text())["additions"]
    assert (row["attack"], row["options"]) == ("naive_bayes", {"smoothing": [0.1]})
    assert "naive_bayes" in said


def _defense(runs: Path, said: str, outputs: list) -> None:
    assert sorted(path.parent.name for path in runs.glob("by-defense/*/report.html")) == [
        "gradient_reversal",
        "mean_gap",
        "none",
    ]
    assert any("text/html" in one.get("data", {}) for one in outputs), "the comparison is a table"


def _compare(runs: Path, said: str, outputs: list) -> None:
    assert (runs / "compared" / "tradeoff.pdf").read_bytes().startswith(b"%PDF")
    assert any("image/png" in one.get("data", {}) for one in outputs), "the figure is shown"


def _audit(runs: Path, said: str, outputs: list) -> None:
    assert (runs / "audited" / "audit.json").is_file()
    assert "ok " in said
    assert "REFUTED" in said


CHECKS = {
    "add_an_attack": _attack,
    "add_a_defense": _defense,
    "compare_runs": _compare,
    "audit_a_run": _audit,
}
