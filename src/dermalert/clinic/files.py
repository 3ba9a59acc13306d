"""Stored pictures: files named by the SHA-256 of their content.

Comes in: bytes. Goes out: the same bytes, or `Damaged`. A file is written aside, forced onto the disk and only then
given its name, so that a name never stands for half a picture, whenever the power fails. It opens no picture.
"""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from dermalert.disk import sync_folder, written_whole
from dermalert.errors import Damaged, NoRoom

_NAME = re.compile(r"[0-9a-f]{64}")
_PART = ".part"
_ABANDONED = 3600  # seconds


class Files:
    """A folder of content-addressed files, in 256 folders by the first two digits."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the file of that digest lies, or would."""
        if not _NAME.fullmatch(sha256):
            raise ValueError(f"{sha256!r:.80} is no SHA-256")
        return self.root / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Stores `data`; it is on the disk when this returns. What is stored already is not written again.

        Returns:
            the SHA-256 in hex.

        Raises:
            NoRoom: the disk is full; nothing half-written is left.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        file = self.path(sha256)
        try:
            if not _holds(file, data):
                _make_folder(file.parent)
                _write(file, data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(
                    f"the disk of {self.root} is full, and the picture was not taken. Make room, then send it again."
                ) from error
            raise
        return sha256

    def read(self, sha256: str) -> bytes:
        """The content of a stored file.

        Raises:
            Damaged: it is gone, or its content is not what was stored.
        """
        file = self.path(sha256)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{file}: is gone. Restore it from a backup.") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"{file}: its content is not what was stored. Restore it from a backup.")
        return data

    def walk(self) -> Iterator[str]:
        """The digests by which files are stored, in order; the content is not looked at."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(file.name for file in folder.iterdir() if _NAME.fullmatch(file.name))

    def sweep(self) -> int:
        """Removes what a killed process left half-written an hour ago or more. Returns how many files it were."""
        before = time.time() - _ABANDONED
        parts = [part for part in self.root.glob(f"*/*{_PART}") if part.stat().st_mtime < before]
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)


def _holds(file: Path, data: bytes) -> bool:
    try:
        return file.stat().st_size == len(data) and file.read_bytes() == data
    except FileNotFoundError:
        return False


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def _write(file: Path, data: bytes) -> None:
    with written_whole(file, part=file.with_name(f"{file.name}.{secrets.token_hex(8)}{_PART}")) as stream:
        stream.write(data)
