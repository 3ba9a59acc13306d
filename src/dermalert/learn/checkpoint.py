"""What a run folder keeps so that training can go on after any interruption.

Comes in: arrays and JSON values. Goes out: files that are whole or absent, never half written, never pickled.
It does not know what the arrays mean.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.disk import written_whole
from dermalert.errors import RunError

_ABOUT = "about"


def write_text(file: Path, text: str) -> None:
    """Writes text, in UTF-8."""
    with written_whole(file, part=_aside(file)) as stream:
        stream.write(text.encode("utf-8"))


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON object into one uncompressed .npz."""
    note = np.frombuffer(json.dumps(about).encode("utf-8"), dtype=np.uint8)
    with written_whole(file, part=_aside(file)) as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{_ABOUT: note})


def fingerprint(about: object, arrays: Iterable[NDArray[Any]]) -> str:
    """What tells one training from another: the SHA-256 of `about`, as `repr` has it, and of the arrays' bytes."""
    digest = hashlib.sha256(repr(about).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _aside(file: Path) -> Path:
    return file.with_name(file.name + ".partial")


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
