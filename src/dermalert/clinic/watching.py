"""The watched folder: what a camera or a colleague puts there is taken in.

Comes in: a folder. Goes out: cases, as by an upload; each file is moved to `done/` once its case is committed, or to
`refused/` with the reason in a text file beside it. A crash in between is harmless: the same file is the same case.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from dermalert.clinic.files import Files
from dermalert.clinic.receiving import Bounds, receive, receive_zip
from dermalert.clinic.schema import Origin, new_id
from dermalert.clinic.store import Store
from dermalert.errors import ClinicError, KeyTaken, NotAPicture, RefusedFile
from dermalert.intake.decode import Limits, read_bytes

_log = logging.getLogger(__name__)
_EVERY = 1.0  # seconds between looks
_WHO = "watched folder"
_DONE, _REFUSED = "done", "refused"
_Stamp = tuple[int, int]


class Watcher:
    """Looks into one folder, not into those below it. Files whose names begin with a dot are left alone."""

    def __init__(self, store: Store, files: Files, folder: Path, bounds: Bounds) -> None:
        self._store, self._files, self._folder, self._bounds = store, files, folder, bounds
        self._seen: dict[str, _Stamp] = {}

    def run(self, stop: threading.Event) -> None:
        """Looks until told to stop."""
        while not stop.is_set():
            try:
                self.look()
            except (ClinicError, SQLAlchemyError, OSError) as error:
                _log.warning("the watched folder has to wait (%s)", type(error).__name__)
            except Exception:  # a watcher that is gone takes nothing in, and nobody would see
                _log.exception("a look into the watched folder failed")
            stop.wait(_EVERY)

    def look(self) -> int:
        """Takes what has not changed since the look before. Returns how many files it moved.

        Raises:
            Busy, NoRoom: as `receive`; the files stay where they are for the next look.
            OSError: the folder can't be read, or a file not be moved.
        """
        stamps = {file.name: _stamp(file) for file in sorted(self._folder.iterdir()) if _is_candidate(file)}
        still = [name for name, stamp in stamps.items() if self._seen.get(name) == stamp]
        self._seen = stamps
        for name in still:
            self._take(self._folder / name)
        return len(still)

    def _take(self, file: Path) -> None:
        try:
            if file.is_symlink() or not file.is_file():
                raise NotAPicture(file.name, "it is a link, a pipe or a device", "Put the picture itself there.")
            refusals = self._received(file)
        except (RefusedFile, KeyTaken) as refusal:
            refusals = [str(refusal)]
        if not refusals:
            self._move(file, _DONE)
        else:
            moved = self._move(file, _REFUSED)
            moved.with_name(f"{moved.name}.txt").write_text("\n".join(refusals) + "\n", encoding="utf-8")

    def _received(self, file: Path) -> list[str]:
        """Receives a picture, or the members of a zip; why those were refused that were."""
        if file.suffix.lower() == ".zip":
            with file.open("rb") as archive:
                members = receive_zip(self._store, self._files, archive, who=_WHO, bounds=self._bounds, name=file.name)
                return [str(found) for _, found in members if isinstance(found, RefusedFile)]
        data = read_bytes(file, Limits(max_bytes=self._bounds.max_bytes))
        receive(self._store, self._files, data, who=_WHO, origin=Origin.WATCH, bounds=self._bounds, name=file.name)
        return []

    def _move(self, file: Path, where: str) -> Path:
        folder = self._folder / where
        folder.mkdir(exist_ok=True)
        target = folder / file.name
        if target.exists():
            target = folder / f"{file.stem}-{new_id()}{file.suffix}"
        return file.rename(target)


def _is_candidate(file: Path) -> bool:
    return not file.name.startswith(".") and (file.is_symlink() or not file.is_dir())


def _stamp(file: Path) -> _Stamp:
    status = file.lstat()
    return status.st_size, status.st_mtime_ns
