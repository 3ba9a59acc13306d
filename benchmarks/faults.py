"""The clinic under load while its processes are killed: is every acknowledged picture there, and scored once?

Starts `dermalert serve` (and `dermalert worker` processes) on a drawn clinic, sends pictures over HTTP, and sends
SIGKILL to one of the processes at random moments; each is started again at once, as systemd would. A picture whose
answer was lost is sent again under the same key, as a camera would. At the end, `dermalert check` proves that files,
rows and the trail agree, and every acknowledged picture is looked for.

    python benchmarks/faults.py                          # 100 kills on SQLite, 100 on a private PostgreSQL
    python benchmarks/faults.py --kills 8 --on sqlite --no-page

Writes the section `faults` of docs/performance.md. Exit status 1 if anything was lost or done twice.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import func, select

from dermalert.clinic import accounts
from dermalert.clinic.schema import Case, Role, Status, TrailEntry
from dermalert.clinic.store import Store
from dermalert.drawn import draw_class_folders
from section import measured_on, table, write_section

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

_CLIENTS = 4
_START = 60.0  # seconds until a process must be up, on a busy machine
_DRAIN = 120.0  # seconds until all cases must be scored, after the load
_LEASE = 3  # seconds, so that a dead worker's cases are soon taken up


@dataclass
class Outcome:
    """What became of the pictures."""

    kills: int = 0
    acknowledged: int = 0
    repeated: int = 0
    cases: int = 0
    scored: int = 0
    lost: int = 0
    twice: int = 0
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    check: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing was lost, and nothing done twice."""
        return self.lost == self.twice == 0 and self.cases == self.scored == self.acknowledged and not self.check


class Fleet:
    """The clinic's processes, the service first, then workers; one that has ended is started again, as systemd does."""

    def __init__(self, data: Path, db: str, workers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        place = ["--data", str(data), "--db", db]
        serve = ["serve", *place, "--port", str(self.port), "--workers", "0" if workers else "1"]
        self._commands = [serve, *[["worker", *place] for _ in range(workers)]]
        self._environment = os.environ | {"DERMALERT_LEASE_SECONDS": str(_LEASE), "DERMALERT_MAX_ATTEMPTS": "50"}
        self._log = (data / "log.txt").open("ab")
        self._running = [self._started(command) for command in self._commands]
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()
        self.wait()

    def kill_one(self) -> None:
        """SIGKILL to one of them by chance."""
        number = random.randrange(len(self._running))
        self._running[number].kill()
        if number == 0:
            time.sleep(0.5)  # until it is gone and started again
            self.wait()

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            for number, process in enumerate(self._running):
                if process.poll() is not None:
                    self._running[number] = self._started(self._commands[number])

    def wait(self) -> None:
        """Until the service answers."""
        until = time.monotonic() + _START
        while time.monotonic() < until:
            try:
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise RuntimeError(f"the service does not start: see {self._log.name}")

    def stop(self) -> None:
        """In order."""
        self._over.set()
        self._keeper.join()
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait(60)
        self._log.close()

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "dermalert.cli", *command]
        return subprocess.Popen(line, env=self._environment, stdout=self._log, stderr=self._log)


class Load:
    """Clients that send pictures, each until it is acknowledged."""

    def __init__(self, address: str, token: str, pictures: Sequence[bytes], per_second: float) -> None:
        self._address, self._token, self._pictures = address, token, pictures
        self._every = _CLIENTS / per_second
        self._stop = threading.Event()
        self.acknowledged: dict[str, str] = {}  # key: case
        self.repeated = 0
        self._threads = [threading.Thread(target=self._send_many, args=(number,)) for number in range(_CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send_many(self, client: int) -> None:
        number, due = 0, time.monotonic()
        with httpx.Client(base_url=self._address, headers={"Authorization": f"Bearer {self._token}"}) as http:
            while not self._stop.is_set():
                self._send(http, f"{client}-{number}", unique(self._pictures[number % len(self._pictures)]))
                number, due = number + 1, due + self._every
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _send(self, http: httpx.Client, key: str, picture: bytes) -> None:
        while True:
            try:
                files = {"files": ("a.jpg", picture)}
                answer = http.post("/api/v1/pictures", files=files, headers={"Idempotency-Key": key})
                if answer.status_code in (200, 201):
                    self.acknowledged[key] = answer.json()["results"][0]["id"]
                    return
                if answer.status_code != 503:
                    raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
            except httpx.TransportError:
                pass
            self.repeated += 1
            time.sleep(0.1)


def unique(jpeg: bytes) -> bytes:
    """The same picture as another file: with a comment of its own behind its first marker."""
    comment = secrets.token_hex(8).encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def run(
    folder: Path, db: str, *, kills: int, workers: int, per_second: float, away: Callable[[], None] | None
) -> Outcome:
    """One clinic under load and kills.

    Args:
        away: takes the database away for a while, after the kills.
    """
    store = Store(db)
    store.upgrade()
    with store.session() as session:
        user = accounts.add_user(session, "faults", "camera", Role.UPLOADER)
        session.flush()
        token = accounts.new_token(session, "faults", user.id, "faults")
    draw_class_folders(folder / "drawn", per_class=3, seed=0)
    pictures = [data for file in sorted(folder.rglob("*.jpg")) if (data := file.read_bytes())[:3] == b"\xff\xd8\xff"]
    fleet = Fleet(folder, db, workers)
    try:
        with Load(fleet.address, token, pictures, per_second) as load:
            for _ in range(kills):
                time.sleep(random.uniform(0.1, 1.5))
                fleet.kill_one()
            if away:
                away()
            time.sleep(1)
        _drained(store)
    finally:
        fleet.stop()
    outcome = _outcome(store, load)
    outcome.kills = kills
    command = [sys.executable, "-m", "dermalert.cli", "check", "--data", str(folder), "--db", db]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    outcome.check = (checked.stdout + checked.stderr).strip() if checked.returncode else ""
    store.close()
    return outcome


def _drained(store: Store) -> None:
    until = time.monotonic() + _DRAIN
    while time.monotonic() < until:
        with store.reading() as session:
            if not session.scalar(select(func.count()).where(Case.status == Status.RECEIVED)):
                return
        time.sleep(0.1)


def _outcome(store: Store, load: Load) -> Outcome:
    with store.reading() as session:
        rows = {case.id: case for case in session.scalars(select(Case))}
        ends = TrailEntry.action.in_([Status.SCORED, Status.REFUSED])
        lines = list(session.scalars(select(TrailEntry.subject).where(ends)))
    done = [case for case in rows.values() if case.scored_at]
    return Outcome(
        acknowledged=len(load.acknowledged),
        repeated=load.repeated,
        cases=len(rows),
        scored=len(done),
        lost=sum(case_id not in rows for case_id in load.acknowledged.values()),
        twice=len(lines) - len(set(lines)) + len(load.acknowledged) - len(set(load.acknowledged.values())),
        seconds=np.array([(case.scored_at - case.received_at).total_seconds() for case in done if case.scored_at]),
    )


@contextmanager
def _database(kind: str, folder: Path, seconds: float) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """A database's URL and, of a server of our own, what takes it away for so many seconds."""
    with ExitStack() as stack:
        if kind == "sqlite":
            yield f"sqlite:///{folder / 'clinic.db'}", None
            return
        if kind != "postgresql":
            yield kind, None
            return
        from postgres import Postgres, binaries

        programs = binaries()
        if programs is None:
            raise SystemExit("no PostgreSQL server is installed. Debian: apt-get install postgresql")
        server = Postgres(programs)
        stack.callback(server.remove)
        server.start()

        def away() -> None:
            server.stop()
            time.sleep(seconds)
            server.start()

        yield server.new_database(), away


def main() -> int:
    """Runs what was asked for; 1 if anything was lost or done twice."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--on", nargs="+", default=["sqlite", "postgresql"], help="sqlite, postgresql, or a URL")
    options.add_argument("--per-second", type=float, default=10.0, help="uploads")
    options.add_argument(
        "--away", type=float, default=20.0, help="seconds that our PostgreSQL is stopped after the kills"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--no-page", dest="page", action="store_false", help="leave docs/performance.md alone")
    asked = options.parse_args()
    random.seed(asked.seed)
    rows, whole = [], True
    for kind in asked.on:
        workers = 0 if kind == "sqlite" else 2
        with tempfile.TemporaryDirectory() as folder, _database(kind, Path(folder), asked.away) as (db, away):
            found = run(Path(folder), db, kills=asked.kills, workers=workers, per_second=asked.per_second, away=away)
            if not found.whole:
                print(Path(folder, "log.txt").read_text(errors="replace")[-20000:], file=sys.stderr)
        name = "SQLite, one process" if kind == "sqlite" else "PostgreSQL, service and two workers"
        p50, p95 = np.quantile(found.seconds, [0.5, 0.95]) if len(found.seconds) else (np.nan, np.nan)
        figures = [found.kills, found.acknowledged, found.repeated, found.lost, found.twice, f"{p50:.1f}", f"{p95:.1f}"]
        name += f", then {asked.away:g} s without its server" if away else ""
        rows.append([name, *figures, "agree" if not found.check else "DO NOT AGREE"])
        whole &= found.whole
        print(found.check or f"{name}: {found.acknowledged} acknowledged, {found.scored} scored", flush=True)
    header = "clinic, kills, acknowledged, sent again, lost, twice, s to scored (median), (95 %), files and rows"
    shown = table(header.split(", "), rows)
    print(shown)
    if asked.page:
        write_section("faults", _words(shown, asked.per_second))
    return 0 if whole else 1


def _words(shown: str, per_second: float) -> str:
    return f"""## Killed at random moments

`python benchmarks/faults.py`: {per_second:g} pictures a second are sent over HTTP while one of the clinic's processes
is killed (`SIGKILL`) every second or two, and started again. A picture without an answer is sent again under its key.
The time from acknowledged to scored holds the restarts and the lease of {_LEASE} s of the worker that died.

{shown}

{measured_on("SQLAlchemy", "uvicorn", "onnxruntime")}"""


if __name__ == "__main__":
    sys.exit(main())
