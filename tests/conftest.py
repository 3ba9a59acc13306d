"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real research pictures; its tests skip where it is not."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    data = Path(os.environ.get("DERMALERT_SHARED", beside)) / "data"
    if not (data / "isic9").is_dir():
        pytest.skip(f"no research pictures at {data}: set DERMALERT_SHARED to run the tests on real pictures")
    return data
