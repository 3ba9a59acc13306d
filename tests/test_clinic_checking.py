"""`dermalert check` finds what does not agree, and a backup brings back all of it, or says that it can't."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from dermalert.cli import main
from dermalert.clinic import backup as backups
from dermalert.clinic import queue
from dermalert.clinic.backup import restore_backup, write_backup
from dermalert.clinic.checking import check
from dermalert.clinic.files import Files
from dermalert.clinic.receiving import receive
from dermalert.clinic.schema import Case, Finding, Origin, Picture, Status, now
from dermalert.clinic.store import Store
from dermalert.errors import ClinicError, Damaged
from pictures import picture
from postgres import Postgres

MADE = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Kept:
    """A store with a scored, a refused and a waiting case, and what belongs to them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.store, self.files = Store(url), Files(folder / "pictures")
        self.store.upgrade()
        for number in range(3):
            receive(self.store, self.files, picture(number), who="anna", origin=Origin.API)
        finding = Finding(
            bundle="b",
            bundle_digest="0" * 64,
            probabilities={"melanoma": 0.5},
            melanoma=0.5,
            possible=[],
            embedding=b"\0\1",
            scored_at=MADE,
        )
        with self.store.session() as session:
            one, other = queue.lease(session, "w", now(), lasting=timedelta(minutes=1), most=2, max_attempts=5)
            queue.finish(session, "w", one.id, Status.SCORED, MADE, finding=finding)
            queue.finish(session, "w", other.id, Status.REFUSED, MADE, problem="It is cut off.")

    def problems(self) -> tuple[str, ...]:
        return check(self.store, self.files).problems


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'clinic.db'}"
    else:
        url = request.getfixturevalue("postgres").new_clinic()
    made = Kept(tmp_path, url)
    yield made
    made.store.close()


def test_a_clinic_as_the_service_leaves_it_agrees(kept: Kept) -> None:
    found = check(kept.store, kept.files)
    assert (found.cases, found.pictures, found.lines, found.unclaimed, found.problems) == (3, 3, 5, 0, ())


def test_a_file_without_a_row_is_no_fault(kept: Kept) -> None:
    kept.files.put(b"of an upload that broke off")
    found = check(kept.store, kept.files)
    assert (found.unclaimed, found.problems) == (1, ())


def _no_file(kept: Kept) -> None:
    next(kept.files.root.rglob("*/*")).unlink()


def _other_file(kept: Kept) -> None:
    next(file for file in kept.files.root.rglob("*/*")).write_bytes(b"another")


def _sql(statement: str) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        with kept.store.session() as session:
            session.execute(text(statement))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_no_file, "is gone"),
        (_other_file, "not what was stored"),
        (_sql("UPDATE pictures SET size = size + 1"), "another size"),
        (_sql("DELETE FROM findings"), "is scored, with"),
        (_sql("UPDATE findings SET melanoma = 0.99"), "another score"),
        (_sql("UPDATE cases SET next_try_at = NULL WHERE status = 'received'"), "due at no time"),
        (_sql("UPDATE cases SET next_try_at = received_at WHERE status = 'scored'"), "in the queue"),
        (_sql("UPDATE cases SET status = 'failed', next_try_at = NULL WHERE status = 'received'"), "without a reason"),
        (_sql("UPDATE cases SET status = 'reviewed' WHERE status = 'scored'"), "without a decision"),
        (
            _sql("UPDATE cases SET status = 'scored', next_try_at = NULL, scored_at = received_at, problem = 'x'"),
            "by the trail 0 times, not 1, it was scored or refused",
        ),
        (_sql("UPDATE trail_head SET seq = 4"), "audit trail"),
    ],
)
def test_what_does_not_agree_is_told(kept: Kept, change: Callable[[Kept], None], told: str) -> None:
    change(kept)
    problems = kept.problems()
    assert any(told in problem for problem in problems), problems


# Backup


def _restored(kept: Kept, folder: Path, url: str) -> tuple[Store, Files]:
    store, files = Store(url), Files(folder / "pictures")
    write_backup(kept.store, kept.files, folder / "backup.tar", MADE)
    restore_backup(folder / "backup.tar", store, files)
    return store, files


def _rows(store: Store) -> list[tuple[object, ...]]:
    with store.reading() as session:
        rows = [
            *session.query(Case.id, Case.status, Case.received_at, Case.score).order_by(Case.id),
            *session.query(Finding.case_id, Finding.embedding, Finding.scored_at).order_by(Finding.case_id),
            *session.query(Picture.sha256, Picture.stored_at).order_by(Picture.sha256),
        ]
    return [tuple(row) for row in rows]


def test_what_is_restored_is_what_was_there(kept: Kept, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    again = tmp_path / "again"
    again.mkdir()
    sqlite = f"sqlite:///{again / 'clinic.db'}"
    url = sqlite if kept.store.is_sqlite else request.getfixturevalue("postgres").new_database()
    store, files = _restored(kept, again, url)
    assert _rows(store) == _rows(kept.store)
    assert check(store, files) == check(kept.store, kept.files)
    with pytest.raises(ClinicError, match="not empty"):
        restore_backup(again / "backup.tar", store, files)
    store.close()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    kept = Kept(tmp_path, f"sqlite:///{tmp_path / 'clinic.db'}")
    write_backup(kept.store, kept.files, tmp_path / "backup.tar", MADE)
    kept.store.close()
    return tmp_path / "backup.tar"


def _repacked(archive: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    with tarfile.open(archive) as packed:
        members = [(each.name, packed.extractfile(each).read()) for each in packed]  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as packed:
        for name, data in members:
            if changed := change(name, data):
                member = tarfile.TarInfo(changed[0])
                member.size = len(changed[1])
                packed.addfile(member, io.BytesIO(changed[1]))


@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: (name, data[:-1] + b"?"),
        lambda name, data: (name, data[:-1] + b"?") if name.startswith("pictures") else (name, data),
        lambda name, data: (name, data[:-1] + b"?") if name == "clinic.db" else (name, data),
        lambda name, data: None if name.startswith("pictures") else (name, data),
        lambda name, data: None if name == "clinic.db" else (name, data),
        lambda name, data: None if name == "backup.json" else (name, data),
        lambda name, data: ("../../x", data) if name.startswith("pictures") else (name, data),
    ],
)
def test_an_altered_backup_restores_no_database(
    packed: Path, tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]
) -> None:
    _repacked(packed, change)
    store = Store(f"sqlite:///{tmp_path / 'again' / 'clinic.db'}")
    with pytest.raises(Damaged):
        restore_backup(packed, store, Files(tmp_path / "again" / "pictures"))
    assert not (tmp_path / "again" / "clinic.db").exists()


def test_a_backup_that_is_cut_off_is_told(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    store = Store(f"sqlite:///{tmp_path / 'again' / 'clinic.db'}")
    for length in (0, 700, len(whole) // 2):
        packed.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            restore_backup(packed, store, Files(tmp_path / "again" / "pictures"))


def test_a_newer_backup_is_told(packed: Path, tmp_path: Path) -> None:
    _repacked(
        packed,
        lambda name, data: (
            (name, json.dumps(json.loads(data) | {"format": 2}).encode()) if name == "backup.json" else (name, data)
        ),
    )
    with pytest.raises(ClinicError, match="Update Dermalert"):
        restore_backup(packed, Store(f"sqlite:///{tmp_path / 'b.db'}"), Files(tmp_path / "again"))


def test_a_backup_of_a_damaged_clinic_is_not_written(kept: Kept, tmp_path: Path) -> None:
    _no_file(kept)
    with pytest.raises(Damaged, match="is gone"):
        write_backup(kept.store, kept.files, tmp_path / "backup.tar", MADE)
    assert list(tmp_path.glob("backup*")) == []


def test_without_postgresqls_programs_the_mend_is_told(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, postgres.new_clinic())
    monkeypatch.setattr(backups.shutil, "which", lambda _: None)
    with pytest.raises(ClinicError, match="pg_dump is not installed"):
        write_backup(kept.store, kept.files, tmp_path / "backup.tar", MADE)
    kept.store.close()


# The commands


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_commands_check_back_up_restore_and_verify(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, again = ("--data", str(tmp_path)), ("--data", str(tmp_path / "again"))
    status, out, _ = _run(capsys, "check", *here)
    assert status == 0
    head = out.split()[-1]
    assert _run(capsys, "audit-trail", "verify", *here, "--known", head)[0] == 0
    assert _run(capsys, "backup", str(tmp_path / "b.tar"), *here)[0] == 0
    status, out, _ = _run(capsys, "restore", str(tmp_path / "b.tar"), *again)
    assert (status, out.startswith("Restored 3 cases and 3 pictures")) == (0, True)
    assert _run(capsys, "check", *again)[0] == 0
    with Store(f"sqlite:///{tmp_path / 'again' / 'clinic.db'}").session() as session:
        session.execute(text("DROP TRIGGER trail_keeps_delete"))
        session.execute(text("DELETE FROM trail WHERE seq = 2"))
    status, _, err = _run(capsys, "audit-trail", "verify", *again)
    assert (status, "line 2 is gone" in err) == (1, True)
    status, out, err = _run(capsys, "check", *again)
    assert (status, "audit trail: line 2 is gone" in out) == (1, True)


def test_a_head_that_is_none_is_wrong_usage(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "audit-trail", "verify", "--data", str(tmp_path), "--known", "x")[0] == 2
