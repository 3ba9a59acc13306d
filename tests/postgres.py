"""A private PostgreSQL for tests, from Debian's binaries, on a Unix socket that nobody else knows."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from dermalert.clinic.store import Store

_PLACES = "/usr/lib/postgresql/*/bin/initdb"
_READY = 30.0  # seconds


def binaries() -> Path | None:
    """Where the newest installed server's programs are."""
    found = sorted(Path("/").glob(_PLACES.lstrip("/")), key=lambda file: int(file.parts[4]))
    return found[-1].parent if found else None


class Postgres:
    """A cluster in a temporary folder. Root may not run one, so that it is run as Debian's user postgres."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="dermalert-postgres-"))
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._clinic: str | None = None
        made = [
            "-D",
            str(self._folder / "data"),
            "-U",
            "clinic",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        self._run("initdb", *made)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self._server = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder, "-h", "", "-c", "fsync=off"],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        self._run("pg_isready", "-h", str(self._folder), "-t", str(int(_READY)), tries=300)

    def stop(self) -> None:
        """Ends it at once, as a crash would: every connection breaks."""
        if self._server:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None

    def remove(self) -> None:
        """Stops it and removes everything."""
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, name: str) -> str:
        """Of one of its databases."""
        made = URL.create("postgresql", "clinic", database=name, query={"host": str(self._folder)})
        return made.render_as_string(hide_password=False)

    def new_database(self, template: str = "template1") -> str:
        """The URL of a database of its own, empty or a copy."""
        name = f"clinic_{next(self._numbers)}"
        engine = create_engine(self.url("postgres").replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        engine.dispose()
        return self.url(name)

    def new_clinic(self) -> str:
        """The URL of a database of its own with a clinic's tables."""
        if self._clinic is None:
            url = self.new_database()
            store = Store(url)
            store.upgrade()
            store.close()
            self._clinic = make_url(url).database
        assert self._clinic is not None
        return self.new_database(self._clinic)

    def _run(self, program: str, *arguments: str, tries: int = 1) -> None:
        for left in reversed(range(tries)):
            command = [self._programs / program, *arguments]
            done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, **self._as)
            if done.returncode == 0:
                return
            if left:
                signal.sigtimedwait([], 0.1)
        raise RuntimeError(f"{program}: {done.stderr}")
