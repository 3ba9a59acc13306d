"""Backup and restore: the database as it was at one moment and every picture it knows, in one tar file.

Comes in: the store and the files, or a tar. Goes out: the other one, each part held against its SHA-256. A backup may
run beside the service. It holds patients' pictures, unencrypted: keep it where the pictures may be kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import inspect, select

from dermalert import __version__
from dermalert.clinic.files import Files
from dermalert.clinic.schema import Picture
from dermalert.clinic.store import Store
from dermalert.disk import sync_folder
from dermalert.errors import ClinicError, Damaged, NoRoom

_FORMAT = 1
_FACTS, _SQLITE, _POSTGRES, _PICTURES = "backup.json", "clinic.db", "clinic.dump", "pictures"
_BLOCK = 1 << 20
_MAX_FACTS = 1 << 16


@dataclass(frozen=True)
class Backup:
    """What a backup holds: when it was made, how many pictures, and the database's SHA-256."""

    made: str
    pictures: int
    database: str
    kind: str


def write_backup(store: Store, files: Files, out: Path, made: datetime) -> Backup:
    """Writes `out`; a file of that name is replaced once the new one is whole.

    The database is copied first and no picture is ever removed, so that every picture it knows is there.

    Raises:
        ClinicError: PostgreSQL's pg_dump is not installed, or failed.
        Damaged: a picture is gone or altered; no backup is written.
    """
    part = out.with_name(f"{out.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as aside:
            kind = _SQLITE if store.is_sqlite else _POSTGRES
            copy = Path(aside) / kind
            _copy_database(store, copy)
            with store.reading() as session:
                known = sorted(session.scalars(select(Picture.sha256)))
            backup = Backup(made.isoformat(timespec="seconds"), len(known), _sha256(copy), kind)
            with part.open("wb") as stream:
                _pack(stream, backup, copy, files, known)
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(out)
        sync_folder(out.parent)
    finally:
        part.unlink(missing_ok=True)
    return backup


def restore_backup(archive: Path, store: Store, files: Files) -> Backup:
    """Brings a backup back, into an empty database and beside the pictures that are there; then upgrades the schema.

    Raises:
        Damaged: the file is no backup, or is cut off or altered. The database is still empty then.
        ClinicError: the database is not empty, or of another kind than the backup's, or pg_restore is not installed.
    """
    _refuse_if_used(store)
    with tempfile.TemporaryDirectory(dir=_made(files.root)) as aside, _opened(archive) as packed:
        backup = _facts(packed, archive)
        if (backup.kind == _SQLITE) != store.is_sqlite:
            raise ClinicError(f"{archive}: its database is of the other kind. Give --db one like it came from.")
        copy = Path(aside) / backup.kind
        _unpack(packed, archive, backup, copy, files)
        _put_database(store, copy)
    store.upgrade()
    return backup


def _copy_database(store: Store, copy: Path) -> None:
    if store.file is not None:
        with closing(sqlite3.connect(store.file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    else:
        _run("pg_dump", store, "--format=custom", "--no-owner", "--no-privileges", f"--file={copy}")


def _put_database(store: Store, copy: Path) -> None:
    if store.file is not None:
        store.close()
        store.file.parent.mkdir(parents=True, exist_ok=True)
        for stale in ("", "-wal", "-shm"):
            store.file.with_name(store.file.name + stale).unlink(missing_ok=True)
        shutil.move(copy, store.file)
        sync_folder(store.file.parent)
    else:
        _run(
            "pg_restore",
            store,
            "--no-owner",
            "--exit-on-error",
            "--single-transaction",
            f"--dbname={store.url.database}",
            str(copy),
        )


def _run(program: str, store: Store, *arguments: str) -> None:
    """Runs a program of PostgreSQL. Where to is told by variables: what is typed stands in the list of processes."""
    url = store.url
    if shutil.which(program) is None:
        raise ClinicError(
            f"{program} is not installed. Install PostgreSQL's client programs, of the server's version or newer."
        )
    told: dict[str, Any] = {f"PG{name.upper()}": value for name, value in url.query.items()}
    told |= {"PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password, "PGDATABASE": url.database}
    told["PGHOST"] = url.host or told.get("PGHOST")
    environment = os.environ | {name: str(value) for name, value in told.items() if value is not None}
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ClinicError(f"{program} failed: {' '.join(done.stderr.split())[:500]}")


def _pack(stream: IO[bytes], backup: Backup, copy: Path, files: Files, known: list[str]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as packed:
        facts = {"format": _FORMAT, "dermalert": __version__, **vars(backup)}
        _add(packed, _FACTS, json.dumps(facts, indent=1).encode())
        packed.add(copy, backup.kind)
        for sha256 in known:
            _add(packed, f"{_PICTURES}/{sha256}", files.read(sha256))


def _add(packed: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    packed.addfile(member, io.BytesIO(data))


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive, mode="r:") as packed:
            yield packed
    except (tarfile.TarError, EOFError) as error:
        raise Damaged(f"{archive}: is no backup, or one that is cut off ({error}). Copy it again.") from None


def _facts(packed: tarfile.TarFile, archive: Path) -> Backup:
    member = packed.next()
    try:
        if member is None or member.name != _FACTS or member.size > _MAX_FACTS:
            raise ValueError("no facts")
        facts: dict[str, Any] = json.loads(_content(packed, member).read())
        if facts["format"] != _FORMAT:
            raise ClinicError(f"{archive}: a backup of format {facts['format']}. Update Dermalert.")
        return Backup(*(facts[name] for name in Backup.__dataclass_fields__))
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{archive}: is no backup of this clinic.") from None


def _unpack(packed: tarfile.TarFile, archive: Path, backup: Backup, copy: Path, files: Files) -> None:
    """Every part goes where this program says, never where the archive's names would lead."""
    found = 0
    for member in packed:
        if member.name == _FACTS:
            continue
        if member.name == backup.kind:
            with copy.open("wb") as stream:
                shutil.copyfileobj(_content(packed, member), stream, _BLOCK)
                stream.flush()
                os.fsync(stream.fileno())
        else:
            sha256 = member.name.removeprefix(f"{_PICTURES}/")
            data = _content(packed, member).read()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise Damaged(f"{archive}: {member.name} is altered. Use another backup.")
            files.put(data)
            found += 1
    if not copy.exists() or _sha256(copy) != backup.database or found != backup.pictures:
        raise Damaged(f"{archive}: its database or pictures are not whole. Use another backup.")


def _content(packed: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = packed.extractfile(member) if member.isfile() else None
    if stream is None:
        raise tarfile.TarError(f"{member.name!r:.80} is no file")
    return stream


def _refuse_if_used(store: Store) -> None:
    if store.file is not None and not store.file.exists():
        return
    with store.reading() as session:
        if inspect(session.connection()).get_table_names():
            raise ClinicError("the database is not empty. Restore into a new one: name it by --db or --data.")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoRoom(f"{folder}: cannot be made ({error.strerror}).") from None
    return folder


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
