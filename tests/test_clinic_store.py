"""The database: sessions that are whole or not at all, and a schema that only goes upwards, on both kinds."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dermalert.clinic.schema import Base, Case, Origin, Picture, Status, now
from dermalert.clinic.store import Store, alembic_config
from dermalert.errors import ClinicError, DataError, NoRoom
from postgres import Postgres

SCRIPTS = ScriptDirectory.from_config(alembic_config(None))


def test_the_migrated_schema_is_that_of_the_tables(clinic_store: Store) -> None:
    with clinic_store.session() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, Base.metadata) == []


def test_an_upgrade_of_the_newest_schema_changes_nothing(clinic_store: Store) -> None:
    clinic_store.require()
    clinic_store.upgrade()
    clinic_store.require()


@pytest.mark.parametrize("start", [each.revision for each in SCRIPTS.walk_revisions()])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_schema_there_was_can_be_upgraded(
    start: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sqlite = f"sqlite:///{tmp_path / 'clinic.db'}"
    store = Store(sqlite if kind == "sqlite" else request.getfixturevalue("postgres").new_database())
    with store.session() as session:
        command.upgrade(alembic_config(session.connection()), start)
        session.execute(text("INSERT INTO pictures (sha256, size, stored_at) VALUES ('a', 1, '2026-11-24 12:00:00')"))
    store.upgrade()
    store.require()
    with store.session() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
        assert session.get_one(Picture, "a").size == 1
    store.close()


def test_processes_that_start_at_once_upgrade_one_by_one(postgres: Postgres) -> None:
    url = postgres.new_database()
    stores = [Store(url) for _ in range(4)]
    failures: list[Exception] = []

    def upgrade(store: Store) -> None:
        try:
            store.upgrade()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    stores[0].require()
    for store in stores:
        store.close()


def test_a_database_of_a_newer_version_is_left_alone(clinic_store: Store) -> None:
    with clinic_store.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ClinicError, match="made by a newer Dermalert"):
        clinic_store.upgrade()
    with pytest.raises(ClinicError, match="has schema 9999"):
        clinic_store.require()


def test_where_there_is_no_clinic_none_is_made_by_looking(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'clinic.db'}")
    with pytest.raises(ClinicError, match="there is no clinic"):
        store.require()
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_told_in_one_line_without_its_password() -> None:
    store = Store("postgresql://clinic:secret@127.0.0.1:1/clinic")
    assert not store.healthy()
    with pytest.raises(ClinicError, match="cannot be reached") as told:
        store.upgrade()
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("url", ["clinic.db", "mysql://clinic@127.0.0.1/clinic"])
def test_other_kinds_of_database_are_refused(url: str) -> None:
    with pytest.raises(DataError, match="--db"):
        Store(url)


def test_a_session_that_fails_leaves_nothing(clinic_store: Store) -> None:
    def fail_half_way() -> None:
        with clinic_store.session() as session:
            session.add(Picture(sha256="a" * 64, size=1, stored_at=now()))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with clinic_store.reading() as session:
        assert session.get(Picture, "a" * 64) is None


def test_a_full_disk_is_told_and_keeps_what_there_was(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'clinic.db'}")
    store.upgrade()

    def fill() -> None:
        with store.session() as session:
            pages = session.scalar(text("PRAGMA page_count"))
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.add_all(Picture(sha256=f"{number:064}", size=1, stored_at=now()) for number in range(2000))

    with pytest.raises(NoRoom, match="Make room"):
        fill()
    with store.reading() as session:
        assert session.query(Picture).count() == 0


def test_a_case_needs_its_picture(clinic_store: Store) -> None:
    with pytest.raises(IntegrityError), clinic_store.session() as session:
        session.add(
            Case(sha256="b" * 64, origin=Origin.API, uploaded_by="x", received_at=now(), status=Status.RECEIVED)
        )


def test_times_come_back_aware_and_in_utc(clinic_store: Store) -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with clinic_store.session() as session:
        session.add(Picture(sha256="a" * 64, size=1, stored_at=noon))
    with clinic_store.reading() as session:
        found = session.get_one(Picture, "a" * 64).stored_at
    assert found == noon
    assert found.tzinfo == UTC


def test_readers_do_not_wait_for_a_writer(clinic_store: Store) -> None:
    with clinic_store.session() as writing:
        writing.add(Picture(sha256="a" * 64, size=1, stored_at=now()))
        writing.flush()
        with clinic_store.reading() as reading:
            assert reading.get(Picture, "a" * 64) is None
