"""A CSV that names pictures: one a row, in a column that says so by its name.

Comes in: a table that anybody may have made. Goes out: each row's path or URL, as text; paths are below the table's
folder. Reads no diagnosis: a table of labelled pictures is a data set, which `sources` reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermalert.errors import BrokenArchive, DataError, NotAPicture, RefusedFile, printable
from dermalert.intake.remote import is_url
from dermalert.intake.sources import read_header, rows_of

COLUMNS = ("path", "image", "filename", "file", "url")


def named_in(table: Path) -> Iterator[str | RefusedFile]:
    """What each row names. The header is read at once, the rows as they are asked for.

    Raises:
        DataError: it cannot be read, or no column names pictures.
    """
    header = read_header(table)
    lower = {name.strip().lower(): name for name in reversed(header)}
    column = next((lower[name] for name in COLUMNS if name in lower), None)
    if column is None:
        raise DataError(
            f"{printable(str(table))}: no column names the pictures (looked for {', '.join(COLUMNS)}). It has: "
            f"{printable(', '.join(header)) or 'nothing'}. Rename the one that does to path."
        )
    return _named(table, column)


def _named(table: Path, column: str) -> Iterator[str | RefusedFile]:
    try:
        for line, row in rows_of(table):
            name = (row.get(column) or "").strip()
            if not name:
                yield NotAPicture(f"{table} line {line}", "the row names no picture", "Name one, or remove the row.")
            else:
                yield name if is_url(name) else str(table.parent / name)
    except DataError as error:
        reason = "it " + str(error).removeprefix(f"{printable(str(table))}: ").rstrip(".")
        yield BrokenArchive(table, reason, "Save it anew as CSV in UTF-8; the rows before that place were used.")
