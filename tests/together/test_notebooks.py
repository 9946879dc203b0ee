"""Pictures in a real kernel: what the cells of a notebook show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
ROOT = Path(__file__).parents[2]

SETUP = """
from ignite_lr import RangeTestResult, schedules
lrs = tuple(1e-6 * 10 ** (i / 20) for i in range(121))
losses = tuple(2.0 - 1.5 / (1 + (3e-3 / lr) ** 2) + (lr / 0.3) ** 2 for lr in lrs)
result = RangeTestResult(lrs, losses, losses, "num_iter", lrs[-1])
"""


def executed(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cells with their outputs, run by a fresh kernel with the inline backend."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    return [cell for cell in client.execute().cells if cell.cell_type == "code"]


def pictures(cell: Any) -> int:
    """How many pictures the outputs of a cell hold."""
    data = [output.get("data", {}) for output in cell.outputs]
    return sum("image/png" in found or "data:image/png" in str(found.get("text/html", "")) for found in data)


@pytest.mark.parametrize("pyplot", [False, True], ids=["without pyplot", "with pyplot"])
def test_cells_show_each_picture_once(pyplot: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ("result", "result.plot()", "schedules.Linear(100)", "schedules.Linear(100).plot(100)")
    count = "len(__import__('sys').modules['matplotlib.pyplot'].get_fignums())" if pyplot else "0"
    sources = [SETUP + ("import matplotlib.pyplot as plt" if pyplot else ""), *shown, count]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    _, *cells, last = executed(notebook, tmp_path, monkeypatch)
    assert [pictures(cell) for cell in cells] == [1, 1, 1, 1]
    assert last.outputs[0]["data"]["text/plain"] == "0"  # no figure is left open


def test_the_tour_runs_and_shows_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")  # made by whoever runs it
    cells = executed(notebook, tmp_path, monkeypatch)
    by_source = {cell.source.splitlines()[-1]: cell for cell in cells}
    for last in ("result", "study", "schedule", 'logger.plot(title="The rates that the updates used")', "clipper"):
        assert pictures(by_source[last]) == 1, last
    assert (tmp_path / "run.html").stat().st_size > 100_000
