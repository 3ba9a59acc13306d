"""From a page that Dermalert wrote to a PDF beside it: `dermalert pdf`."""

from __future__ import annotations

from pathlib import Path

from dermalert.errors import DataError
from dermalert.page.pdf import to_pdf


def run_pdf(file: Path, out: Path | None = None) -> Path:
    """Writes the page in `file` as PDF to `out`, by default beside it, whole or not at all, and says where it lies.

    Raises:
        DataError: no page that Dermalert made.
        MissingExtra: what prints is not installed.
    """
    try:
        printed = to_pdf(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{file}: is no text in UTF-8. Give a page that Dermalert made.") from None
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    made = out or file.with_suffix(".pdf")
    part = made.with_name(made.name + ".part")
    part.write_bytes(printed)
    part.replace(made)
    return made
