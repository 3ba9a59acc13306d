"""What the user gave to be scored, one picture after another, whatever it lies in.

Comes in: arguments of the command line: pictures, folders, manifests. Goes out: a lazy stream of `Given`, in an
order that does not change from run to run, and a `RefusedFile` for what is no picture. No picture is opened before
`load_given`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dermalert.errors import DataError, RefusedFile, printable
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture, decode, load
from dermalert.intake.manifest import Manifest
from dermalert.intake.sources import walk


@dataclass(frozen=True)
class Given:
    """One picture to score: its name in the output, and where its bytes are. One of the other three is set.

    Attributes:
        name: the path as given, `shards/0.tar::img/1.jpg` for a member of an archive, or the URL.
        path: a local file, which `load_given` opens.
        data: bytes that were read already: a member of an archive that is read as a stream.
        url: something remote, which `load_given` fetches.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None
    url: str | None = None


Found: TypeAlias = Given | RefusedFile


def given_at(arguments: Iterable[str | Path]) -> Iterator[Found]:
    """Every picture that the arguments mean, in their order.

    Checks all arguments at once, before the first picture comes; then goes through them lazily.

    Args:
        arguments: pictures, folders (walked) and manifests (*.parquet).

    Raises:
        DataError: there is no such file or folder, or a manifest cannot be read.
    """
    ways = [_found_at(os.fspath(argument)) for argument in arguments]
    return (found for way in ways for found in way)


def load_given(given: Given, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture, decoded at `size`, (width, height).

    Raises:
        RefusedFile: it cannot be read or is no picture; the error names it as `given.name`.
    """
    if given.path is not None:
        return load(given.path, size=size, limits=limits)
    return decode(given.data or b"", path=given.name, size=size, limits=limits)


def _found_at(argument: str) -> Iterator[Found]:
    path = Path(argument)
    if not os.path.lexists(path):
        raise DataError(f"{printable(argument)}: there is no such file or folder.")
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == ".parquet":
        return map(_local, Manifest.read(path).paths())
    return iter([_local(path)])


def _in_folder(folder: Path) -> Iterator[Found]:
    for found in walk(folder):
        yield _local(folder / found) if isinstance(found, str) else found


def _local(path: Path) -> Given:
    return Given(str(path), path=path)
