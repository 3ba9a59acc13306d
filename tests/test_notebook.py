"""The notebook runs from its first cell to its last, and what is stored is what it does."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from dermalert.learn.recipes import differences, recipe_named

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "notebooks" / "nineteen_steps.ipynb"
_STEP = re.compile(r"^## (\d+\. .+)$", re.MULTILINE)
# Where files lie on the machine of whoever executed it.
_MACHINE = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|var|work|opt|usr|mnt|private)/|\b[A-Z]:\\\\?\w")


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What `notebooks/execute.py` defines."""
    return runpy.run_path(str(ROOT / "notebooks" / "execute.py"))


@pytest.fixture(scope="module")
def stored() -> Any:
    notebook = nbformat.read(STORED, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_the_stored_notebook_is_the_script_executed(made: dict[str, Any], stored: Any) -> None:
    script = made["written"]()
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], "stale: run `make notebook`"
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_the_stored_notebook_shows_text_and_pictures_and_no_error(stored: Any) -> None:
    outputs = [output for cell in stored.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    shown = "".join(output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert "data:image/jpeg" in shown
    assert "data:image/svg+xml" in shown
    assert any(output.get("name") == "stdout" for output in outputs)


def test_what_the_stored_notebook_says_of_recipes_still_holds(stored: Any) -> None:
    outputs = [output for cell in stored.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    stale = "stale: run `make notebook`"
    assert recipe_named("plain").to_json() in said, stale
    assert "\n".join(differences(recipe_named("transfer"), recipe_named("augmented"))) in said, stale


def test_the_stored_notebook_is_small_and_tells_nothing_of_the_machine_it_ran_on() -> None:
    text = STORED.read_text("utf-8")
    assert len(text.encode()) < 1_000_000
    assert _MACHINE.search(text) is None
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_the_notebook_takes_the_nineteen_steps_of_the_tutorial(stored: Any) -> None:
    steps = _STEP.findall("\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown"))
    assert steps == _STEP.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    assert [int(step.partition(".")[0]) for step in steps] == list(range(1, 20))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_cell_of_the_notebook_runs(made: dict[str, Any], tmp_path: Path) -> None:
    try:
        # Raises on the first error. What more epochs would do, the stored notebook shows.
        notebook = made["executed"](tmp_path, lambda source: re.sub(r"epochs=\d+", "epochs=1", source))
        assert [each.name for each in tmp_path.iterdir()] == ["nineteen-steps"]
    finally:
        shutil.rmtree(tmp_path / "nineteen-steps", ignore_errors=True)  # checkpoints of several hundred megabytes
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
