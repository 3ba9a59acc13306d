"""What all tests share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dermalert.clinic.store import Store
    from postgres import Postgres

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Workers that each start a thread a core stand in each other's way. The processes that tests start inherit it, as what
# is equal to the last bit is equal for one number of threads. Set before NumPy and TensorFlow load, which read it then.
if WORKERS > 1:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // WORKERS)))

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests go first, so that no worker is left alone with one at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real research pictures; its tests skip where it is not."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    data = Path(os.environ.get("DERMALERT_SHARED", beside)) / "data"
    if not (data / "isic9").is_dir():
        pytest.skip(f"no research pictures at {data}: set DERMALERT_SHARED to run the tests on real pictures")
    return data


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A private PostgreSQL server; what needs one is skipped where Debian's binaries are not installed."""
    from postgres import Postgres, binaries

    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is NOT TESTED: no server is installed. Debian: apt-get install postgresql")
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def clinic_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty clinic's database, of either kind."""
    from dermalert.clinic.store import Store

    url = (
        f"sqlite:///{tmp_path / 'clinic.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres").new_clinic()
    )
    store = Store(url)
    if store.is_sqlite:
        store.upgrade()
    yield store
    store.close()
