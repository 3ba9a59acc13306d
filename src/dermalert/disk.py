"""Files that are whole or absent, and on the disk before anybody is told of them.

Comes in: what a caller writes into a stream. Goes out: a file that survives a crash of the machine. It knows nothing of
what the bytes mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(file: Path, *, part: Path) -> Iterator[IO[bytes]]:
    """A stream to write to; once it is left, the file is there whole, on the disk. Before that it is as it was.

    Args:
        part: where it is made, in the same folder; no other writer may use that name.

    Raises:
        OSError: it cannot be written; nothing of it stays. Likewise if what writes to the stream raises.
    """
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder onto the disk, where the operating system has a way to."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
