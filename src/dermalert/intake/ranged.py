"""A file that is read in pieces, each of them tried again when reading fails for a moment.

Comes in: a function that fetches bytes from an offset to another. Goes out: what Python's archive readers take.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

from dermalert.intake.decode import Limits, check_file, unreadable
from dermalert.intake.patience import PATIENCE, Patience

PIECE = 2**20  # bytes fetched at a time from a disk


class Ranged(io.RawIOBase):
    """A seekable file of `size` bytes over `fetch(start, end)`, which returns fewer bytes only where the file ends."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as files do, which zipfile counts on
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_ranged(path: Path, *, patience: Patience = PATIENCE) -> tuple[io.BufferedReader, int]:
    """A local file and its size in bytes. It is opened anew for each piece, as a share that came back wants it.

    Raises:
        RefusedFile: no regular file, empty, or the operating system refuses; also while it is read.
    """

    def fetch(start: int, end: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def patiently(start: int, end: int) -> bytes:
        try:
            return patience(lambda: fetch(start, end))
        except OSError as error:
            unreadable(path, error)

    try:
        status = patience(path.stat)
    except OSError as error:
        unreadable(path, error)
    check_file(path, status, Limits(max_bytes=status.st_size))
    return io.BufferedReader(Ranged(patiently, status.st_size), PIECE), status.st_size
