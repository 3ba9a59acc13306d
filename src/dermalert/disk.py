"""Files that are whole or absent, and on the disk before anybody is told of them.

Comes in: bytes. Goes out: a file that survives a crash of the machine. It knows nothing of what the bytes mean.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, content: bytes, *, part: Path) -> None:
    """The file is there whole, on the disk, or as it was before.

    Args:
        part: where it is made, in the same folder; no other writer may use that name.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    try:
        with part.open("wb") as stream:
            stream.write(content)
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
