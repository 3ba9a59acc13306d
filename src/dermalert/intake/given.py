"""What the user gave to be scored, one picture after another, whatever it lies in.

Comes in: arguments of the command line: pictures, folders, globs, lists, archives, URLs. Goes out: a lazy stream of
`Given`, in an order that does not change from run to run, and a `RefusedFile` for what is no picture. No picture is
opened before `load_given`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from dermalert.errors import DataError, NotAPicture, RefusedFile, Unreadable, printable
from dermalert.intake import remote
from dermalert.intake.archives import is_archive_name, members
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture, decode, read_bytes
from dermalert.intake.lists import named_in
from dermalert.intake.patience import PATIENCE, may_pass
from dermalert.intake.patterns import Lister, has_braces, has_wildcards, in_braces, matching
from dermalert.intake.ranged import open_ranged
from dermalert.intake.sources import is_passed_over, is_picture_name, names_in, walk


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


def given_at(arguments: Iterable[str | Path], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Found]:
    """Every picture that the arguments mean, in their order.

    All arguments are checked before the first picture comes; then each is gone through as pictures are asked for.
    What turns out to be missing or broken on the way is a `RefusedFile` among the others.

    Args:
        arguments: pictures, folders (walked), patterns (`*`, `?`, `[a-z]`, `**`, `{00..09}`, `{a,b}`), manifests
            (*.parquet), lists (*.csv), archives (tar and zip), and URLs of the same.
        limits: `max_bytes` is that of one member of an archive.

    Raises:
        DataError: there is no such file or folder, or a list or manifest cannot be read.
        MissingExtra: a URL needs the extra [cloud].
    """
    ways = [_argument(os.fspath(argument), limits) for argument in arguments]
    return (found for way in ways for found in way)


def load_given(given: Given, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture, decoded at `size`, (width, height). What may pass, such as a busy store, is tried again.

    Raises:
        RefusedFile: it cannot be read or is no picture; the error names it as `given.name`.
    """
    return decode(_bytes_of(given, limits), path=given.name, size=size, limits=limits)


def _bytes_of(given: Given, limits: Limits) -> bytes:
    if given.data is not None:
        return given.data
    if given.url is not None:
        return remote.read_url(given.url, limits)
    if given.path is None:
        raise ValueError(f"{given.name}: neither a path nor bytes nor a URL")
    path = given.path
    return PATIENCE(lambda: read_bytes(path, limits), passes=lambda refusal: may_pass(refusal.__cause__))


def _argument(argument: str, limits: Limits) -> Iterator[Found]:
    if remote.is_url(argument) and urlsplit(argument).scheme.lower() == "file":
        argument = unquote(urlsplit(argument).path)
    if remote.is_url(argument):
        return _remote(argument, limits)
    path = Path(argument)
    if os.path.lexists(path):
        return _local(path, limits)
    if has_braces(argument):
        return (found for one in in_braces(argument) for found in _pattern(one, limits))
    if has_wildcards(argument):
        return _pattern(argument, limits)
    raise DataError(f"{printable(argument)}: there is no such file or folder.")


# Local


def _local(path: Path, limits: Limits) -> Iterator[Found]:
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == ".parquet":
        from dermalert.intake.manifest import paths_in  # loads pyarrow, which one picture can do without

        return map(_file, paths_in(path))
    if path.suffix.lower() == ".csv":
        return _in_list(named_in(path), limits)
    return _single(path, limits)


def _file(path: Path) -> Given:
    return Given(str(path), path=path)


def _single(path: Path, limits: Limits) -> Iterator[Found]:
    if is_archive_name(path.name):
        return _in_archive(str(path), partial(open_ranged, path), limits)
    return iter([_file(path)])


def _in_folder(folder: Path) -> Iterator[Found]:
    for found in walk(folder, wanted=_is_wanted):
        if isinstance(found, RefusedFile):
            yield found
        elif is_picture_name(found.rpartition("/")[2]):
            yield _file(folder / found)
        else:
            yield _archive_on_the_way(str(folder / found))


def _is_wanted(name: str) -> bool:
    return is_picture_name(name) or is_archive_name(name)


def _archive_on_the_way(name: str) -> RefusedFile:
    """Not opened: it is often a copy of the folder. Not silent either: it may be what was meant."""
    return NotAPicture(name, "it is an archive inside a folder", "To score what is in it, give it by its own name.")


def _pattern(pattern: str, limits: Limits) -> Iterator[Found]:
    if not has_wildcards(pattern):
        yield from _local(Path(pattern), limits) if Path(pattern).is_dir() else _single(Path(pattern), limits)
        return
    yield from _fitting(
        pattern, _names_in, lambda name: _in_folder(Path(name)), lambda name: _single(Path(name), limits)
    )


def _names_in(folder: str) -> tuple[list[str], list[str]]:
    try:
        return names_in(Path(folder), _is_wanted)
    except OSError as error:
        reason = f"the folder cannot be listed ({error.strerror})"
        raise Unreadable(folder or ".", reason, "Check its name and permissions.") from error


Opened: TypeAlias = Callable[[str], Iterator[Found]]


def _fitting(pattern: str, listed: Lister, in_folder: Opened, single: Opened) -> Iterator[Found]:
    """All that fits a pattern: pictures and archives by their names, and folders, walked."""
    nothing = True
    for found in matching(pattern, listed):
        if isinstance(found, RefusedFile):
            yield found
            nothing = False
            continue
        name, is_folder = found
        if is_folder or _is_wanted(name.rpartition("/")[2]):
            yield from in_folder(name) if is_folder else single(name)
            nothing = False
    if nothing:
        mend = "Check the pattern; a list or manifest is given by its own name."
        yield NotAPicture(pattern, "no picture, archive or folder fits it", mend)


def _in_list(names: Iterator[str | RefusedFile], limits: Limits) -> Iterator[Found]:
    for name in names:
        if isinstance(name, RefusedFile):
            yield name
        elif remote.is_url(name):
            yield from _remote_single(name, limits)
        else:
            yield from _single(Path(name), limits)


def _in_archive(name: str, opened: Callable[[], tuple[BufferedReader, int]], limits: Limits) -> Iterator[Found]:
    try:
        file, size = opened()
    except RefusedFile as refusal:
        yield refusal
        return
    with file:
        for found in members(name, file, size, limits):
            yield found if isinstance(found, RefusedFile) else Given(found[0], data=found[1])


# Remote


def _remote(url: str, limits: Limits) -> Iterator[Found]:
    remote.check(url)
    path = urlsplit(url).path if remote.is_web(url) else url
    if path.lower().endswith((".csv", ".parquet")):
        raise DataError(f"{printable(remote.shown(url))}: a list or manifest is read from disk only. Download it.")
    if remote.is_web(url) and ("*" in path or path.endswith("/")):
        raise DataError(
            f"{printable(remote.shown(url))}: a web server does not say what lies there. Give the addresses of "
            "pictures or archives, or a CSV that lists them."
        )
    if has_braces(url):
        return (found for one in in_braces(url) for found in _remote_pattern(one, limits))
    return _remote_pattern(url, limits)


def _remote_pattern(url: str, limits: Limits) -> Iterator[Found]:
    if not remote.is_web(url) and has_wildcards(url):
        return _fitting(url, remote.listed, _in_remote_folder, lambda one: _remote_single(one, limits))
    return _remote_any(url, limits)


def _remote_any(url: str, limits: Limits) -> Iterator[Found]:
    """A URL that names a picture or an archive is taken at its word; of another, the store is asked."""
    try:
        below = not remote.is_web(url) and not _is_wanted(url.rpartition("/")[2]) and remote.is_folder(url)
    except RefusedFile as refusal:
        yield refusal
        return
    yield from _in_remote_folder(url) if below else _remote_single(url, limits)


def _remote_single(url: str, limits: Limits) -> Iterator[Found]:
    if is_archive_name(urlsplit(url).path if remote.is_web(url) else url):
        return _in_archive(remote.shown(url), partial(remote.open_url, url), limits)
    return iter([Given(remote.shown(url), url=url)])


def _in_remote_folder(url: str) -> Iterator[Found]:
    """As `_in_folder`, of a store."""
    pending = [url.rstrip("/")]
    while pending:
        folder = pending.pop()
        try:
            files, folders = remote.listed(folder)
        except RefusedFile as refusal:
            yield refusal
            continue
        for name in filter(_is_wanted, files):
            one = f"{folder}/{name}"
            yield Given(remote.shown(one), url=one) if is_picture_name(name) else _archive_on_the_way(remote.shown(one))
        pending.extend(f"{folder}/{name}" for name in reversed(folders) if not is_passed_over(name))
