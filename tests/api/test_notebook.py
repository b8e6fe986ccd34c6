"""The committed notebook runs to its end, holds no outputs, and is as short as it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

NAME = "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook(repository):
    return json.loads((repository / "examples" / NAME).read_text())


def test_it_is_committed_without_outputs_and_short(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert sum(len(cell["source"]) for cell in code) <= 15


@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
def test_it_runs_to_its_end(repository, smaller_debug, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(repository / "examples", tmp_path / "examples")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "debug.yaml").write_text(smaller_debug())
    book = nbformat.read(tmp_path / "examples" / NAME, as_version=4)
    place = {"metadata": {"path": str(tmp_path / "examples")}}
    done = nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()
    shown = [
        output.get("data", {}).keys()
        for cell in done["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "execute_result"
    ]
    assert any("image/svg+xml" in kinds for kinds in shown), "the plot is drawn"
    assert any("text/html" in kinds for kinds in shown), "the comparison is a table"
    texts = [output.get("text", "") for cell in done["cells"] for output in cell.get("outputs", ())]
    assert not any("error" in text or "Warning" in text for text in texts), texts
    assert (
        sorted(path.name for path in (tmp_path / "examples" / "runs").glob("*/report.html"))
        == ["report.html"] * 3
    )
    assert not list(Path(repository / "examples").glob("runs"))
