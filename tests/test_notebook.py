"""The notebook's cells run, in order, in one namespace."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def cells() -> list[dict]:
    return [
        cell
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_was_run_in_order_to_its_end():
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    kinds = {output["output_type"] for cell in cells() for output in cell["outputs"]}
    assert kinds == {"stream", "display_data", "execute_result"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_cell_runs(one_thread):
    pytest.importorskip("pandas")
    matplotlib.use("Agg")
    scope: dict = {}
    for cell in cells():
        exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), scope)
    assert scope["scores"].values.shape == (12, 96)
    assert scope["diagnosis"].grade in ("good", "doubtful", "bad")
