"""What the user gave to be scored, one picture after another, whatever it lies in.

Comes in: arguments of the command line: pictures, folders, globs, lists, archives, URLs. Goes out: a lazy stream of
`Given`, in an order that does not change from run to run, and a `RefusedFile` for what is no picture. No picture is
opened before `load_given`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from dermalert.errors import DataError, DermalertError, NotAPicture, RefusedFile, Unreadable, printable
from dermalert.intake import remote
from dermalert.intake.archives import members
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture, decode, read_bytes
from dermalert.intake.lists import named_in
from dermalert.intake.patience import PATIENCE, may_pass
from dermalert.intake.patterns import Lister, has_braces, has_wildcards, in_braces, matching
from dermalert.intake.ranged import open_ranged
from dermalert.intake.sources import is_archive_name, is_passed_over, is_picture_name, names_in, walk


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


@dataclass(frozen=True)
class Archive:
    """A tar or zip that was given, not opened yet.

    Attributes:
        name: as given, or the URL; the names of its pictures begin with it.
        path: a local file; or
        url: something remote.
    """

    name: str
    path: Path | None = None
    url: str | None = None


Found: TypeAlias = Given | RefusedFile
Place: TypeAlias = Given | Archive | RefusedFile


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
    places = places_at(arguments)
    return (found for place in places for found in _pictures_of(place, limits))


def places_at(arguments: Iterable[str | Path]) -> Iterator[Place]:
    """As `given_at`, with each archive left closed, for `given_in` to read it wherever that is done."""
    ways = [_argument(os.fspath(argument)) for argument in arguments]
    return (place for way in ways for place in way)


def given_in(archive: Archive, limits: Limits = DEFAULT_LIMITS) -> Iterator[Found]:
    """The pictures of one archive, in its order; `limits.max_bytes` is that of one member."""
    try:
        file, size = remote.open_url(archive.url) if archive.url is not None else open_ranged(_path(archive))
    except RefusedFile as refusal:
        yield refusal
        return
    with file:
        for found in members(archive.name, file, size, limits):
            yield found if isinstance(found, RefusedFile) else Given(found[0], data=found[1])


def load_given(given: Given, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture, decoded at `size`, (width, height). What may pass, such as a busy store, is tried again.

    Raises:
        RefusedFile: it cannot be read or is no picture; the error names it as `given.name`.
    """
    return decode(_bytes_of(given, limits), path=given.name, size=size, limits=limits)


def _pictures_of(place: Place, limits: Limits) -> Iterator[Found]:
    return given_in(place, limits) if isinstance(place, Archive) else iter([place])


def _bytes_of(given: Given, limits: Limits) -> bytes:
    if given.data is not None:
        return given.data
    if given.url is not None:
        return remote.read_url(given.url, limits)
    path = _path(given)
    return PATIENCE(lambda: read_bytes(path, limits), passes=lambda refusal: may_pass(refusal.__cause__))


def _path(place: Given | Archive) -> Path:
    if place.path is None:
        raise ValueError(f"{place.name}: nothing says where it is")
    return place.path


def _argument(argument: str) -> Iterator[Place]:
    argument = _without_scheme(argument)
    if remote.is_url(argument):
        return _remote(argument)
    path = Path(argument)
    if os.path.lexists(path):
        return _local(path)
    if has_braces(argument):
        return (place for one in in_braces(argument) for place in _pattern(one))
    if has_wildcards(argument):
        return _pattern(argument)
    raise DataError(f"{printable(argument)}: there is no such file or folder.")


def _without_scheme(name: str) -> str:
    """The path that a `file://` address means; anything else as it is."""
    return unquote(f"/{name[7:].partition('/')[2]}") if name.lower().startswith("file://") else name


# Local


def _local(path: Path) -> Iterator[Place]:
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == ".parquet":
        from dermalert.intake.manifest import paths_in  # loads pyarrow, which one picture can do without

        return map(_single, paths_in(path))
    if path.suffix.lower() == ".csv":
        return map(_listed, named_in(path))
    return iter([_single(path)])


def _single(path: Path) -> Given | Archive:
    kind = Archive if is_archive_name(path.name) else Given
    return kind(str(path), path=path)


def _listed(name: str | RefusedFile) -> Place:
    if isinstance(name, RefusedFile):
        return name
    name = _without_scheme(name)
    if not remote.is_url(name):
        return _single(Path(name))
    try:
        remote.check(name)
    except DermalertError as error:  # of an argument the user hears at once; a row must not stop the others
        return Unreadable(remote.shown(name), f"it can't be read: {str(error).rstrip('.')}", "Or remove the row.")
    return _remote_single(name)


def _in_folder(folder: Path) -> Iterator[Place]:
    for found in walk(folder, also=is_archive_name):
        yield found if isinstance(found, RefusedFile) else _on_the_way(_single(folder / found))


def _is_wanted(name: str) -> bool:
    return is_picture_name(name) or is_archive_name(name)


def _on_the_way(place: Given | Archive) -> Found:
    """An archive in a folder is not opened: it is often a copy of the folder. Nor is it passed over in silence."""
    if isinstance(place, Given):
        return place
    mend = "To score what is in it, give it by its own name."
    return NotAPicture(place.name, "it is an archive inside a folder", mend)


def _pattern(pattern: str) -> Iterator[Place]:
    if has_wildcards(pattern):
        return _fitting(pattern, _names_in, lambda name: _in_folder(Path(name)), lambda name: _single(Path(name)))
    path = Path(pattern)
    return _in_folder(path) if path.is_dir() else iter([_single(path)])


def _names_in(folder: str) -> tuple[list[str], list[str]]:
    try:
        return PATIENCE(lambda: names_in(Path(folder), is_archive_name))
    except OSError as error:
        reason = f"the folder cannot be listed ({error.strerror})"
        raise Unreadable(folder or ".", reason, "Check its name and permissions.") from error


def _fitting(
    pattern: str,
    listed: Lister,
    in_folder: Callable[[str], Iterator[Place]],
    single: Callable[[str], Place],
) -> Iterator[Place]:
    """All that fits a pattern: pictures and archives by their names, and folders, walked."""
    nothing = True
    for found in matching(pattern, listed):
        if isinstance(found, RefusedFile):
            yield found
            nothing = False
            continue
        name, is_folder = found
        if is_folder or _is_wanted(name.rpartition("/")[2]):
            yield from in_folder(name) if is_folder else [single(name)]
            nothing = False
    if nothing:
        mend = "Check the pattern; a list or manifest is given by its own name."
        yield NotAPicture(pattern, "no picture, archive or folder fits it", mend)


# Remote


def _remote(url: str) -> Iterator[Place]:
    remote.check(url)
    path = remote.named(url)
    if path.lower().endswith((".csv", ".parquet")):
        raise DataError(f"{printable(remote.shown(url))}: a list or manifest is read from disk only. Download it.")
    if remote.is_web(url) and ("*" in path or path.endswith("/")):
        raise DataError(
            f"{printable(remote.shown(url))}: a web server does not say what lies there. Give the addresses of "
            "pictures or archives, or a CSV that lists them."
        )
    return (place for one in in_braces(url) for place in _remote_pattern(one))


def _remote_pattern(url: str) -> Iterator[Place]:
    if not remote.is_web(url) and has_wildcards(url):
        return _fitting(url, remote.listed, _in_remote_folder, _remote_single)
    return _remote_any(url)


def _remote_any(url: str) -> Iterator[Place]:
    """A URL that names a picture or an archive is taken at its word; of another, the store is asked."""
    try:
        below = not remote.is_web(url) and not _is_wanted(url.rpartition("/")[2]) and remote.is_folder(url)
    except RefusedFile as refusal:
        yield refusal
        return
    yield from _in_remote_folder(url) if below else [_remote_single(url)]


def _remote_single(url: str) -> Given | Archive:
    kind = Archive if is_archive_name(remote.named(url)) else Given
    return kind(remote.shown(url), url=url)


def _in_remote_folder(url: str) -> Iterator[Place]:
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
            yield _on_the_way(_remote_single(f"{folder}/{name}"))
        pending.extend(f"{folder}/{name}" for name in reversed(folders) if not is_passed_over(name))
