"""What a run folder keeps so that training can go on after any interruption.

Comes in: arrays and JSON values. Goes out: files that are whole or absent, never half written, never pickled.
It does not know what the arrays mean.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError

_ABOUT = "about"


def write_whole(file: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes `file` so that a reader, or a crash, meets the old content or the new, nothing between."""
    aside = file.with_name(file.name + ".partial")
    with aside.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)


def write_text(file: Path, text: str) -> None:
    """`write_whole` for text, in UTF-8."""
    write_whole(file, lambda stream: stream.write(text.encode("utf-8")))


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON object into one uncompressed .npz."""
    note = np.frombuffer(json.dumps(about).encode("utf-8"), dtype=np.uint8)
    write_whole(file, lambda stream: np.savez(stream, allow_pickle=False, **arrays, **{_ABOUT: note}))


def read_arrays(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What `write_arrays` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about: dict[str, Any] = json.loads(arrays.pop(_ABOUT).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{file}: not a readable checkpoint ({error}). Train again into another folder.") from None
    return arrays, about
