"""Findings on disk, durable block by block, so that a run that was broken off goes on where it was.

Comes in: findings, in the order of the pictures. Goes out: the file or folder, which takes its name when it is whole.
Until then two others stand beside it:

    alerts.csv.part            what is written so far; of Parquet, a folder with a file for each block
    alerts.csv.progress.json   the journal: how much of that counts, of which run, and for which pictures

A block is written and forced to the disk, then the journal that counts it replaces the one before. Whatever stops the
run, and at whatever moment, the journal that is there fits what is written; what stands behind that was of a block that
never counted, and is cut off. The journal holds a digest of the names of the pictures that are done, not the names.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dermalert.disk import sync_folder, written_whole
from dermalert.errors import OutputError, RefusedFile, printable
from dermalert.intake.given import Found
from dermalert.score.batch import Finding
from dermalert.score.output import PARQUET, Lines, lines_of, table_of

if sys.platform != "win32":  # where nobody replaces a file that is open
    import fcntl

BLOCK = 1024  # findings: what an interruption can cost, some seconds of work
JOURNAL_FORMAT = 1
PLAN = "_plan.arrow"  # of a run on a cluster, which may have filled the folder before


@dataclass(frozen=True)
class Progress:
    """What of an unfinished output counts.

    Attributes:
        job: what decides on the findings, apart from the pictures; a run of another job must not go on here.
        done: pictures whose findings are durable.
        names: digest of their names, in order.
        position: how far the output counts: bytes of a file, files of a folder.
        counts: their findings by status, and under "refer" the alerts.
    """

    job: Mapping[str, Any]
    done: int = 0
    names: str = ""
    position: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def after(self, findings: Sequence[Finding], position: int) -> Progress:
        """The progress once these findings, too, are durable."""
        counts, names = Counter(self.counts), self.names
        for finding in findings:
            counts[finding.status] += 1
            counts["refer"] += finding.alert == "refer"
            names = _chained(names, finding.path)
        return Progress(self.job, self.done + len(findings), names, position, dict(counts))


class Output:
    """The output of one run, to be written in a `with` statement and finished in it."""

    def __init__(self, out: Path, form: str, classes: tuple[str, ...], job: Mapping[str, Any]) -> None:
        """
        Args:
            out: the file, or the folder of a Parquet output.
            form: of `output.FORMATS`.
            job: what else decides on the findings, in JSON's types.

        Raises:
            OutputError: `out` cannot be written or must not be replaced, another run is writing it, or what is
                unfinished there belongs to another one.
            DataError: the format asks for a diagnosis that is none of `classes`.
        """
        self.out = out
        self._part = out.with_name(f"{out.name}.part")
        self._journal = out.with_name(f"{out.name}.progress.json")
        self._progress = Progress({**job, "format": form})
        self._waiting: list[Finding] = []
        self._lock: int | None = None
        _refuse_to_replace(out, is_folder=form == PARQUET)
        with self._told():
            self._sink: Sink = (
                Parts(self._part, classes) if form == PARQUET else Text(self._part, lines_of(form, classes))
            )
        try:
            self._lock = _locked(self._part)
            self._progress = self._taken_up()
            with self._told():
                self._sink.cut(self._progress.position)
        except BaseException:
            self._release()
            raise

    @property
    def done(self) -> int:
        """Pictures whose findings are durable."""
        return self._progress.done

    def remaining(self, given: Iterator[Found]) -> Iterator[Found]:
        """What of the pictures is left to do.

        Raises:
            OutputError: those that are done were others.
        """
        names = ""
        for _, found in zip(range(self.done), given, strict=False):
            names = _chained(names, found.path if isinstance(found, RefusedFile) else found.name)
        if names != self._progress.names:
            raise OutputError(
                f"{printable(str(self._part))}: the {self.done:,} pictures that are done are not the first ones now. "
                f"{self._mend()}"
            )
        yield from given

    def write(self, finding: Finding) -> None:
        """Takes the next finding; every `BLOCK` of them become durable.

        Raises:
            OutputError: the disk is full or gone; what was durable stays so.
        """
        self._waiting.append(finding)
        if len(self._waiting) == BLOCK:
            self._flush()

    def finish(self) -> Counter[str]:
        """Writes what is left and gives the output its name.

        Returns:
            how many pictures there were of each status, and under "refer" how many alerts, over all attempts.

        Raises:
            OutputError: as `write`.
        """
        if self._waiting or not self.done:
            self._flush()
        with self._told():
            self._sink.close()
            _give_name(self._part, self.out)
            self._journal.unlink()
        return Counter(self._progress.counts)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done:
            _remove(self._part)
        self._release()

    def _flush(self) -> None:
        with self._told():
            progress = self._progress.after(self._waiting, self._sink.append(self._waiting))
            content = json.dumps({"journal": JOURNAL_FORMAT, **vars(progress)}, indent=1)
            _write(self._journal, content.encode())
        self._progress, self._waiting = progress, []

    def _taken_up(self) -> Progress:
        """The progress of a run that was broken off, or that of one that begins."""
        begun = self._progress
        try:
            plain = json.loads(self._journal.read_bytes())
            if plain.pop("journal") != JOURNAL_FORMAT:
                raise ValueError("another format")
            found = Progress(**plain)
            differs = [key for key in begun.job if found.job.get(key) != begun.job[key]]
            gone = self._sink.length() < found.position  # it got its name, or somebody deleted it
        except FileNotFoundError:
            return begun
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputError(f"{printable(str(self._journal))}: cannot be read ({error}). {self._mend()}") from None
        if gone:
            self._journal.unlink()
            return begun
        if differs:
            raise OutputError(
                f"{printable(str(self._part))}: the run that stopped here after {found.done:,} pictures had another "
                f"{' and another '.join(differs)}. {self._mend()}"
            )
        return found

    def _release(self) -> None:
        with suppress(OSError):  # a full disk fails again when what could not be written is given up
            self._sink.close()
        if self._lock is not None:
            os.close(self._lock)

    def _mend(self) -> str:
        return f"Give the command as it was given then, or delete {printable(self._part.name)} to begin anew."

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            safe = f": it goes on after {self.done:,} pictures" if self.done else ""
            raise OutputError(
                f"{printable(str(self.out))}: cannot be written ({error.strerror or error}). "
                f"Mend that and give the same command again{safe}."
            ) from None


class Sink(Protocol):
    """Where blocks go."""

    def length(self) -> int:
        """How much is there, as `append` counts."""

    def cut(self, position: int) -> None:
        """Keeps what `append` had written up to there; 0 begins anew."""

    def append(self, findings: Sequence[Finding]) -> int:
        """Writes a block, and gives the position behind it once it is on the disk."""

    def close(self) -> None:
        """Needs no more to be written."""


class Text:
    """One file of lines; positions are bytes."""

    def __init__(self, file: Path, lines: Lines) -> None:
        self._lines = lines
        self._file = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")

    def length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def cut(self, position: int) -> None:
        self._file.truncate(position)
        self._file.seek(position)

    def append(self, findings: Sequence[Finding]) -> int:
        head = "" if self._file.tell() else self._lines.head
        self._file.write((head + "".join(map(self._lines.line, findings))).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class Parts:
    """A folder of Parquet files, a block and a row group each; positions are their number."""

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._classes, self._next = folder, classes, 0

    def length(self) -> int:
        return len([*self._folder.glob("part-*.parquet")])

    def cut(self, position: int) -> None:
        kept = {part_name(number) for number in range(position)}
        for file in self._folder.iterdir():
            if file.name not in kept:
                file.unlink()
        self._next = position

    def append(self, findings: Sequence[Finding]) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = pa.BufferOutputStream()
        pq.write_table(table_of(findings, self._classes), content, compression="zstd")
        _write(self._folder / part_name(self._next), content.getvalue().to_pybytes())
        self._next += 1
        return self._next

    def close(self) -> None:
        """Every file is closed once it is written."""


def part_name(number: int) -> str:
    """The name of a block's file in a Parquet folder."""
    return f"part-{number:06d}.parquet"


def _chained(digest: str, name: str) -> str:
    return hashlib.sha256(f"{digest}\0{name}".encode(errors="surrogateescape")).hexdigest()


def _refuse_to_replace(out: Path, *, is_folder: bool) -> None:
    if out.is_dir() and not is_folder:
        raise OutputError(f"{printable(str(out))}: is a folder. Name a file, or give --format parquet.")
    if is_folder and out.exists() and not (out.is_dir() and all(map(_is_ours, out.iterdir()))):
        raise OutputError(
            f"{printable(str(out))}: holds something else than findings. Name a folder that is yet to be made."
        )


def _is_ours(file: Path) -> bool:
    return file.name == PLAN or (file.name.startswith("part-") and file.suffix == ".parquet")


def _locked(part: Path) -> int | None:
    """Keeps other runs from writing the same output until the handle is closed; None where the system has no locks."""
    if sys.platform == "win32":
        return None
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), part.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):  # in use; or finished by the other run since it was opened here
        os.close(handle)
        raise OutputError(f"{printable(str(part))}: another run is writing it. Wait for it, or stop it.") from None
    except OSError:  # a share that knows no locks: nothing keeps two runs apart there
        os.close(handle)
        return None
    return handle


def _write(file: Path, content: bytes) -> None:
    with written_whole(file, part=file.with_name(f"{file.name}.tmp")) as stream:
        stream.write(content)


def _give_name(part: Path, out: Path) -> None:
    """Puts the whole output in the place of an older one."""
    if out.is_dir():
        old = out.with_name(f"{out.name}.old")
        _remove(old)
        out.replace(old)
        part.replace(out)
        _remove(old)
    else:
        part.replace(out)
    sync_folder(out.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
