"""Every benchmark still runs: its `--quick` form does little of all it does, and writes nothing. Not how fast it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "performance.md"
# What starts servers has no quick form: CI runs the first as it is, and tests of the clinic start what the other does.
NOT_QUICK = {"faults", "load"}
QUICK = sorted(file.stem for file in BENCHMARKS.glob("*.py") if file.stem not in NOT_QUICK | {"section"})


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_benchmark_still_runs_and_its_quick_form_leaves_the_documentation_alone(name: str, tmp_path: Path) -> None:
    before = PAGE.read_bytes() if PAGE.exists() else None
    file = BENCHMARKS / f"{name}.py"
    done = subprocess.run([sys.executable, file, "--quick"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert (PAGE.read_bytes() if PAGE.exists() else None) == before
    assert list(tmp_path.iterdir()) == []
