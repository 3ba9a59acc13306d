"""The pictures in tar and zip archives, read as a stream and never unpacked to disk.

Comes in: the bytes of an archive that anybody may have made. Goes out: each picture's name and bytes, in the order of
the archive, and a `RefusedFile` for what cannot be used. Opens no picture, follows no link, opens no archive in an
archive.

Read are tar, plain or packed with gzip, bzip2, xz or Zstandard, WebDataset shards among them, and zip, stored or
deflated. The content decides which of them it is, not the name.

What hostile archives do, and what stops it here: a member or a header that unpacks to more than memory holds (each
bounded before it is read); nested or overlapping members that unpack to petabytes (Fifield, "A better zip bomb",
WOOT 2019; all that is unpacked is bounded by the archive's own size); an xz dictionary of gigabytes (bounded); names
that climb out of a folder (nothing is written, and they are shown escaped).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Protocol, TypeAlias

from dermalert.errors import BrokenArchive, BrokenPicture, NotAPicture, RefusedFile, TooLarge, printable
from dermalert.intake.decode import DEFAULT_LIMITS, Limits
from dermalert.intake.sources import is_archive_name, is_passed_over, is_picture_name

_RATIO = 100  # unpacked bytes for each byte of the archive, over all of it; photographs have about 1
_SLACK = 100_000_000  # that may be unpacked in any case: a small archive may hold one drawn, even picture
_HEADER = 16_384  # bytes of one tar header with its extensions: names and attributes
_DIGITS = re.compile(rb"\d{300}")  # no name has as many; tarfile takes quadratic time over them before Python 3.11.10
_DIRECTORY = 64_000_000  # bytes of a zip's directory, some 500,000 members, all of which are held in memory
_XZ_MEMORY = 128 * 2**20  # `xz -9` takes half of it
_NAME = 4096  # characters
_BLOCK = 512

Found: TypeAlias = tuple[str, bytes] | RefusedFile


def members(archive: str, file: io.BufferedReader, size: int, limits: Limits = DEFAULT_LIMITS) -> Iterator[Found]:
    """Each picture in an archive as its name, `archive::member`, and its bytes.

    What cannot be read to its end gives what came before, then one refusal with the archive's name.

    Args:
        archive: its path or URL, for the names.
        file: at its start.
        size: bytes of the archive.
        limits: `max_bytes` is that of one member.
    """
    found = 0
    try:
        for one in (_in_zip if file.peek(4)[:2] == b"PK" else _in_tar)(_Naming(archive), file, size, limits):
            found += 1
            yield one
    except RefusedFile as refusal:
        yield refusal
    except MemoryError:
        yield TooLarge(archive, "it needs more memory than there is", "Unpack it and give the folder.")
    except Exception as error:  # archive readers raise whatever a malformed header makes them trip over
        reason = f"it is cut off or corrupt after {found:,} pictures ({' '.join(str(error).split())[:120]})"
        yield BrokenArchive(archive, reason, "Copy it again; the pictures before that place have their rows.")
    else:
        if not found:
            yield NotAPicture(archive, "there is no picture in it", "Check that it is the right archive.")


class _Naming:
    """Gives each picture of an archive a name that is one line, unique, and no way out of a folder."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self._seen: set[str] = set()
        self._repeated: dict[str, int] = {}

    def __call__(self, member: str) -> str:
        parts = ["%2E%2E" if part == ".." else part for part in member.split("/") if part not in ("", ".")]
        name = printable("/".join(parts))
        if len(name) > _NAME:
            name = f"{name[:_NAME]}…"
        if name not in self._seen:
            self._seen.add(name)
            return f"{self.archive}::{name}"
        self._repeated[name] = self._repeated.get(name, 1) + 1
        return f"{self.archive}::{name}#{self._repeated[name]}"


def _is_wanted(member: str) -> bool:
    """As in a folder: pictures by their ending, outside hidden folders and those of masks; and archives, to refuse."""
    *folders, name = PurePosixPath(member).parts or ("",)
    if any(is_passed_over(folder) for folder in folders if folder not in ("/", "..")):
        return False
    return is_picture_name(name) or is_archive_name(name)


def _refusal(name: str, member: str, size: int, limits: Limits, *, is_file: bool) -> RefusedFile | None:
    """Why a member is not even read, if so."""
    if not is_file:
        return NotAPicture(name, "it is a link or a device in an archive", "Pack the picture itself.")
    if is_archive_name(member):
        return NotAPicture(name, "it is an archive in an archive", "Unpack the outer one and give the inner one.")
    if size > limits.max_bytes:
        reason = f"it has {size:,} bytes, and {limits.max_bytes:,} are allowed"
        return TooLarge(name, reason, "Save it as JPEG, or at a lower resolution.")
    return None


def _allowance(size: int) -> int:
    return _SLACK + _RATIO * size


def _bomb(archive: str, size: int) -> TooLarge:
    reason = f"its {size:,} bytes unpack to more than {_allowance(size):,}, which no photographs do"
    return TooLarge(archive, reason, "If you trust it, unpack it and give the folder.")


# Zip


def _in_zip(naming: _Naming, file: io.BufferedReader, size: int, limits: Limits) -> Iterator[Found]:
    _check_directory(naming.archive, file, size)
    unpacked = 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir() or not _is_wanted(info.filename):
                continue
            name = naming(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            refusal = _refusal(name, info.filename, info.file_size, limits, is_file=kind in (0, stat.S_IFREG))
            if refusal is not None:
                yield refusal
                continue
            unpacked += info.file_size
            if unpacked > _allowance(size):
                raise _bomb(naming.archive, size)
            yield _zip_member(archive, info, name)


def _check_directory(archive: str, file: io.BufferedReader, size: int) -> None:
    """Refuses a directory that is too large to be held, before `zipfile` reads it whole (APPNOTE 6.3.10, 4.3.14-16)."""
    file.seek(max(0, size - 65_557 - 76))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise zipfile.BadZipFile("the directory at its end is missing")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if length == 0xFFFFFFFF:
        end = tail.rfind(b"PK\x06\x06", 0, end)
        length = int.from_bytes(tail[end + 40 : end + 48], "little") if end >= 0 else size
    if length > _DIRECTORY:
        reason = f"its directory has {length:,} bytes, and {_DIRECTORY:,} are allowed"
        raise TooLarge(archive, reason, "Pack fewer pictures in one zip, or pack a tar.")
    file.seek(0)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Found:
    if info.flag_bits & 0x1:
        return NotAPicture(name, "it is encrypted", "Pack it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return NotAPicture(name, "it is packed by a method that is not read here", "Pack it as an ordinary zip.")
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size)
            member.read(1)  # to its end, where the checksum is compared
    except RefusedFile:
        raise
    except Exception as error:  # this member's own header, data or checksum; the others may be whole
        reason = f"it is cut off or corrupt in the archive ({' '.join(str(error).split())[:120]})"
        return BrokenPicture(name, reason, "Pack it again, or copy the archive again.")
    if len(data) < info.file_size:
        return BrokenPicture(name, "it is cut off in the archive", "Pack it again, or copy the archive again.")
    return name, data


# Tar


def _in_tar(naming: _Naming, file: io.BufferedReader, size: int, limits: Limits) -> Iterator[Found]:
    stream = _Stream(naming.archive, file, size)
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            archive.members = []  # which it would keep for a later look, all of them
            if info.isdir() or not _is_wanted(info.name):
                continue
            name = naming(info.name)
            refusal = _refusal(name, info.name, info.size, limits, is_file=info.isreg() and not info.issparse())
            yield refusal or (name, stream.member(info))
    stream.check_end()


class _Stream:
    """What `tarfile` reads from: forward only, bounded, and it knows whether the end was the archive's own."""

    def __init__(self, archive: str, file: io.BufferedReader, size: int) -> None:
        self._archive = archive
        self._size = size
        self._file = _unpacked(file)
        self._plain = file if self._file is file else None
        self._position = 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise TooLarge(self._archive, f"a header has {size:,} bytes", "Pack it again without attributes.")
        self._last = self._read(size)
        if _DIGITS.search(self._last):
            raise tarfile.ReadError("a header is damaged")
        return self._last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        if self._plain is not None:
            self._position = self._plain.seek(position)
        while self._position < position and self._read(min(2**20, position - self._position)):
            pass

    def member(self, info: tarfile.TarInfo) -> bytes:
        self.seek(info.offset_data)
        data = self._read(info.size)
        if len(data) != info.size:  # or the size is below zero
            raise tarfile.ReadError("the archive ends in the middle of a picture")
        return data

    def check_end(self) -> None:
        """Two blocks of zeros end a tar; `tarfile` takes any bytes that are no header for its end."""
        if self._last != b"\0" * _BLOCK:
            raise tarfile.ReadError("a header is damaged" if len(self._last) == _BLOCK else "its end is missing")
        while rest := self._read(2**20):  # of a packed one, this compares the checksum too
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something stands behind its end")

    def _read(self, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := self._file.read(size)):
            pieces.append(piece)
            size -= len(piece)
            self._position += len(piece)
            if self._position > _allowance(self._size):
                raise _bomb(self._archive, self._size)
        return b"".join(pieces)


class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _unpacked(file: io.BufferedReader) -> _Bytes:
    magic = file.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(_Xz(file), 2**20)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa  # slow to load, and needed for this alone

        return pa.CompressedInputStream(file, "zstd")  # type: ignore[no-any-return]
    return file


class _Xz(io.RawIOBase):
    """As `lzma.LZMAFile`, which cannot be told how much memory the file may ask for."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._file = file
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        self._behind = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            packed = self._behind or (self._file.read1(65_536) if self._stream.needs_input else b"")
            self._behind = b""
            if not packed and self._stream.needs_input:
                raise EOFError("the compressed data end too early")
            data = self._stream.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bool:
        """Several may stand one behind another, with zeros between them."""
        self._behind = self._stream.unused_data.lstrip(b"\0")
        while not self._behind and (packed := self._file.read1(65_536)):
            self._behind = packed.lstrip(b"\0")
        if self._behind:
            self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        return bool(self._behind)
