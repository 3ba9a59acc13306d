"""The clinic under a steady load: nothing is lost. How fast it is, tells the benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[1] / "benchmarks" / "load.py"


@pytest.mark.slow
def test_under_ten_uploads_a_second_every_acknowledged_picture_is_kept_and_scored() -> None:
    asked = ["--seconds", "5", "--burst", "0", "--no-plain", "--no-page"]
    done = subprocess.run([sys.executable, LOAD, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 | 0 | 0 |" in done.stdout, done.stdout + done.stderr
