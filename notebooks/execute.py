"""Executes `nineteen_steps.py`, the notebook as plain text, and stores it with its outputs beside it, as `.ipynb`.

Comes in: the script, in which `# %%` begins a cell. Goes out: the notebook that people open. What a run leaves on
stderr (progress) is not kept, nor is anything that differs from run to run for no reason, so that differences can be
read.

    python notebooks/execute.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

SCRIPT = Path(__file__).with_name("nineteen_steps.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
SECONDS_A_CELL = 900


def written() -> Any:
    """The script as a notebook without outputs."""
    notebook = jupytext.read(SCRIPT)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number}"
    return notebook


def executed(folder: Path, changed: Callable[[str], str] = str) -> Any:
    """The notebook with its outputs, run in `folder`.

    Args:
        changed: what becomes of the code of each cell; by default it stays.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = written()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = changed(cell.source)
    client = NotebookClient(
        notebook, timeout=SECONDS_A_CELL, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    notebook.metadata = written().metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), NOTEBOOK)
