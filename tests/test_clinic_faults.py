"""The clinic's processes, killed under load: what was acknowledged is there, scored once, and files and rows agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from postgres import Postgres

FAULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "faults.py"


@pytest.mark.slow
def test_no_kill_of_the_service_or_a_worker_loses_a_picture_or_scores_one_twice(postgres: Postgres) -> None:
    """The short form; `python benchmarks/faults.py` kills a hundred times on either kind of database."""
    asked = ["--kills", "6", "--on", postgres.new_database(), "--no-page"]
    done = subprocess.run([sys.executable, FAULTS, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
