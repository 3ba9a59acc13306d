"""Taking pictures in: when a function here returns, the picture is on the disk and its case is committed.

Comes in: bytes that anybody may have made. Goes out: a `Receipt` each, or the reason why not. The content is looked at
only to see whether it begins like a picture; a worker's decoder opens it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import IO

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dermalert.clinic import queue, trail
from dermalert.clinic.files import Files
from dermalert.clinic.schema import Case, Origin, Picture, Status, now
from dermalert.clinic.store import Store
from dermalert.errors import Busy, KeyTaken, NotAPicture, RefusedFile, TooLarge
from dermalert.intake.containers import format_of, what_else

_TRIES = 3  # of a commit, when another process receives the same picture at the same moment
_RETRY_AFTER = 10  # seconds
_MAX_RATIO = 200  # of a zip member's size to its packed size; photographs hardly shrink


@dataclass(frozen=True, kw_only=True)
class About:
    """What the sender tells of a picture; None where it does not.

    Attributes:
        patient, lesion: opaque names that the sender uses for them.
        site: of the body. sex: "female", "male" or "other". age: in years.
    """

    patient: str | None = None
    lesion: str | None = None
    site: str | None = None
    sex: str | None = None
    age: int | None = None
    taken_on: date | None = None


@dataclass(frozen=True)
class Bounds:
    """What is taken in: bytes a picture, pictures in a request or zip, and cases that may wait to be scored."""

    max_bytes: int = 30_000_000
    max_files: int = 200
    max_waiting: int = 2000


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True)
class Receipt:
    """A stored picture's case, and whether it is a new one."""

    case: Case
    is_new: bool


def receive(
    store: Store,
    files: Files,
    data: bytes,
    *,
    who: str,
    origin: Origin,
    key: str = "",
    about: About = About(),
    bounds: Bounds = DEFAULT_BOUNDS,
    name: str = "the picture",
) -> Receipt:
    """Stores a picture and opens its case. The same picture under the same key again is the same case.

    Args:
        data: the file's content.
        who: the user who brings it.
        key: what the sender calls this upload, at most 200 characters.
        name: of the file, in errors; it is not kept.

    Raises:
        NotAPicture: it is empty, or does not begin like a picture of a format read here.
        TooLarge: over `bounds.max_bytes`.
        KeyTaken: this picture has a case under this key, of another patient, lesion, site, sex, age or date.
        Busy: too many cases wait to be scored. Nothing was stored; send it again later.
        NoRoom: the disk is full. Nothing was stored.
    """
    _check(data, name, bounds)
    with store.reading() as session:
        waiting = queue.backlog(session).waiting
    if waiting >= bounds.max_waiting:
        raise Busy(waiting, _RETRY_AFTER)
    sha256 = files.put(data)
    for last in (*[False] * (_TRIES - 1), True):
        try:
            with store.session() as session:
                return _opened(session, sha256, len(data), key, who, origin, about)
        except IntegrityError:
            if last:
                raise
    raise AssertionError("the last try returns or raises")


def receive_zip(
    store: Store,
    files: Files,
    archive: IO[bytes],
    *,
    who: str,
    key: str = "",
    about: About = About(),
    bounds: Bounds = DEFAULT_BOUNDS,
    name: str = "the archive",
) -> Iterator[tuple[str, Receipt | RefusedFile]]:
    """`receive` of each member of a zip: its name, and its receipt or why it was refused. Nothing is unpacked to disk.

    Raises:
        NotAPicture: no zip, or none that can be read.
        TooLarge: more members than `bounds.max_files`.
        KeyTaken, Busy, NoRoom: as `receive`; the members before are stored, and sending the archive again is harmless.
    """
    try:
        members = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise NotAPicture(name, f"it is no zip archive, or a broken one ({error})", "Pack it anew.") from None
    with members:
        inside = [each for each in members.infolist() if not each.is_dir()]
        if len(inside) > bounds.max_files:
            reason = f"it holds {len(inside)} files, and {bounds.max_files} are allowed"
            raise TooLarge(name, reason, "Pack fewer into one archive.")
        for each in inside:
            try:
                data = _unpacked(members, each, bounds)
                yield (
                    each.filename,
                    receive(
                        store,
                        files,
                        data,
                        who=who,
                        origin=Origin.ZIP,
                        key=key,
                        about=about,
                        bounds=bounds,
                        name=each.filename,
                    ),
                )
            except RefusedFile as refusal:
                yield each.filename, refusal


def _check(data: bytes, name: str, bounds: Bounds) -> None:
    if not data:
        raise NotAPicture(name, "it is empty", "Copy it again from the camera.")
    if len(data) > bounds.max_bytes:
        reason = f"it has {len(data):,} bytes, and {bounds.max_bytes:,} are allowed"
        raise TooLarge(name, reason, "Save it as JPEG, or at a lower resolution.")
    if format_of(data) is None:
        raise NotAPicture(name, *what_else(data))


def _opened(session: Session, sha256: str, size: int, key: str, who: str, origin: Origin, about: About) -> Receipt:
    known = session.scalar(select(Case).where(Case.sha256 == sha256, Case.key == key))
    if known:
        if any(getattr(known, name) != value for name, value in asdict(about).items()):
            raise KeyTaken(
                "this picture was received before, with other facts of its patient or lesion. "
                "If it is meant so, send it under another key."
            )
        return Receipt(known, is_new=False)
    at = now()
    if session.get(Picture, sha256) is None:
        session.add(Picture(sha256=sha256, size=size, stored_at=at))
    case = Case(
        sha256=sha256,
        key=key,
        origin=origin,
        uploaded_by=who,
        received_at=at,
        next_try_at=at,
        status=Status.RECEIVED,
        **asdict(about),
    )
    session.add(case)
    session.flush()
    trail.append(session, who, Status.RECEIVED, case.id, origin=origin, sha256=sha256)
    return Receipt(case, is_new=True)


def _unpacked(members: zipfile.ZipFile, member: zipfile.ZipInfo, bounds: Bounds) -> bytes:
    name = member.filename
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise NotAPicture(name, "its name points outside the archive", "Pack it anew.")
    if member.flag_bits & 1:
        raise NotAPicture(name, "it is encrypted", "Pack it without a password.")
    if member.file_size > bounds.max_bytes:
        reason = f"it has {member.file_size:,} bytes, and {bounds.max_bytes:,} are allowed"
        raise TooLarge(name, reason, "Save it as JPEG, or at a lower resolution.")
    if member.file_size > _MAX_RATIO * max(member.compress_size, 1024):
        raise TooLarge(name, "it unpacks to far more than a photograph does", "Save the picture anew.")
    try:
        with members.open(member) as stream:
            return stream.read(bounds.max_bytes + 1)  # whatever the header says of its size
    except Exception as error:  # zipfile, zlib, lzma and bz2 each have errors of their own
        raise NotAPicture(name, f"it can't be unpacked ({error})", "Pack it anew.") from None
