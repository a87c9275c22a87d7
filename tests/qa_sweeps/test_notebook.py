"""The notebook of the docs runs as it is: in a kernel with a running event loop, whose cells show what is printed."""

import json
import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = '"examples": 768'
NOTEBOOK = PROJECT / "docs" / "notebooks" / "quickstart.ipynb"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) >= 8
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel are in the extra dev")
    nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel are in the extra dev")
    pytest.importorskip("ipykernel", reason="nbclient and ipykernel are in the extra dev")
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (training,) = [cell for cell in notebook.cells if EXAMPLES in cell.source]
    training.source = training.source.replace(
        EXAMPLES, '"examples": 64'
    )  # what it learns is not the question here
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,  # on a machine with other work
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    texts = ["".join(str(output) for output in cell.get("outputs", [])) for cell in notebook.cells]
    run, front, plot, export, answer, answers = [text for text in texts if text][1:]
    assert "t0001  finished" in run  # what the sweep prints is shown in its cell
    assert "em_percent" in front
    assert "<iframe srcdoc=" in plot
    assert "best em_percent with memory_mb <= 10 MB" in export
    assert "Answer(text=" in answer
    assert answers.count(",") >= 1
