"""The database: SQLite in a file, or PostgreSQL.

Comes in: a URL. Goes out: sessions that commit whole or not at all. It knows no table; `migrations` make them.

SQLite runs in WAL mode with `synchronous=FULL`, so that what is committed survives a loss of power, and takes the write
lock at the start of a transaction, so that none fails half way because another wrote in between.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from dermalert.errors import ClinicError, DataError, NoRoom

_BUSY = 30_000  # milliseconds that SQLite waits for another process's write
_UPGRADE_LOCK = 3_137_264  # of PostgreSQL's advisory locks: processes that start at once upgrade one by one
_POSTGRES_FULL = "53100"  # SQLSTATE disk_full
_POOL = 20  # connections to PostgreSQL; the threads that answer requests are not many more


class Store:
    """A database of the clinic. One store may be shared by threads, but not with a forked process."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: `sqlite:///clinic.db`, or `postgresql://user@host/name`.

        Raises:
            DataError: no such kind of database.
        """
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise DataError("--db is no URL of a database: give sqlite:///FILE or postgresql://…") from None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._engine = create_engine(self.url)
            event.listen(self._engine, "connect", _prepare)
            event.listen(self._engine, "begin", _begin)
        elif self.url.get_backend_name() == "postgresql":
            url_of_driver = self.url.set(drivername="postgresql+psycopg")
            self._engine = create_engine(url_of_driver, pool_size=_POOL, max_overflow=_POOL, pool_pre_ping=True)
        else:
            raise DataError(f"--db: {self.url.get_backend_name()} is not supported. Give sqlite or postgresql.")
        self._write = sessionmaker(self._engine, expire_on_commit=False)
        reader = self._engine.execution_options(reading=True, postgresql_readonly=True)
        self._read = sessionmaker(reader, expire_on_commit=False)
        # Within this process writers wait in a line here; SQLite's own waiting sleeps up to 0.1 s at a time.
        self._line = threading.Lock() if self.is_sqlite else nullcontext()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction that may write: commits at the end, rolls back on an error. Do not nest. Keep it short.

        What was loaded in it stays usable after the end.

        Raises:
            NoRoom: the database's disk is full; nothing of the transaction is kept.
        """
        try:
            with self._line, self._write.begin() as session:
                yield session
        except OperationalError as error:
            if _is_full(error):
                raise NoRoom("the database's disk is full, and nothing was kept. Make room, then try again.") from error
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads: one view of the data, and nobody waits for it."""
        with self._read() as session:
            yield session

    def upgrade(self) -> None:
        """Brings the tables to the newest schema, in one transaction; harmless where they have it.

        Raises:
            ClinicError: the database cannot be reached, or is of a newer Dermalert.
        """
        try:
            with self.session() as session:
                if not self.is_sqlite:
                    session.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
                command.upgrade(alembic_config(session.connection()), "head")
        except OperationalError as error:
            raise self._away(error) from None
        except CommandError:
            raise ClinicError("the database was made by a newer Dermalert. Install that one.") from None

    def require(self) -> None:
        """Makes sure that a clinic's tables are there, of this version.

        Raises:
            ClinicError: they are not, or the database cannot be reached.
        """
        if self.file is not None and not self.file.exists():
            raise ClinicError(f"{self.file}: there is no clinic. `dermalert serve` starts one; or name it by --data.")
        try:
            with self.reading() as session:
                found = MigrationContext.configure(session.connection()).get_current_revision()
        except OperationalError as error:
            raise self._away(error) from None
        newest = ScriptDirectory.from_config(alembic_config(None)).get_current_head()
        if found != newest:
            raise ClinicError(
                f"the database has schema {found or 'none'}, and this Dermalert needs {newest}. "
                "Start `dermalert serve` once: it upgrades an older one."
            )

    def _away(self, error: OperationalError) -> ClinicError:
        told = " ".join(str(error.orig).split())[:200]
        return ClinicError(f"{self.url.render_as_string()}: the database cannot be reached ({told}).")

    def healthy(self) -> bool:
        """Whether the database answers."""
        try:
            with self.reading() as session:
                session.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def alembic_config(connection: Connection | None) -> Config:
    """What Alembic needs to know of the migrations, and the transaction that they run in."""
    config = Config()
    config.set_main_option("script_location", "dermalert.clinic:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _is_full(error: OperationalError) -> bool:
    full = (sqlite3.SQLITE_FULL, _POSTGRES_FULL)
    return any(getattr(error.orig, name, None) in full for name in ("sqlite_errorcode", "sqlstate"))


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
