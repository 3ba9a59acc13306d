"""`dermalert score`: pictures in, a CSV of findings out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from dermalert.bundle.format import Bundle
from dermalert.errors import DataError, printable
from dermalert.intake.decode import EXTENSIONS
from dermalert.score.batch import Finding, pictures_at, score, write_csv, write_json


def run_score(
    paths: Sequence[Path],
    bundle_folder: Path | None,
    out: Path | None,
    *,
    as_json: bool = False,
    workers: int | None = None,
    point: str | None = None,
    prevalence: float | None = None,
) -> dict[str, int]:
    """Scores what lies at `paths` and writes the CSV (or a JSON object a line) to `out`, or to stdout.

    Args:
        bundle_folder: None for the bundle that comes with the package.
        point, prevalence: as `score.batch.score`.

    Returns:
        how many pictures were scored, were rejected, were errors, and raised the alert.

    Raises:
        DataError: nothing there, not one file could be read, `out` is named like a picture, or the probabilities
            cannot be adjusted to the prevalence.
        BundleError: the bundle cannot be used, or has no such operating point.
    """
    missing = [path for path in paths if not path.exists() and not path.is_symlink()]
    if missing:
        raise DataError(f"{printable(str(missing[0]))}: there is no such file or folder.")
    if out is not None and out.suffix.lower() in EXTENSIONS:
        raise DataError(f"{printable(str(out))}: is named like a picture, and no picture is ever replaced. Name a CSV.")
    bundle = Bundle.load(bundle_folder) if bundle_folder else Bundle.shipped()
    found = score(pictures_at(paths), bundle, workers=workers, point=point, prevalence=prevalence)
    with _writer(out) as stream:
        findings = tqdm(found, desc="score", unit="picture")
        write = write_json if as_json else write_csv
        counts = write(_told(findings), bundle.classes, stream)
    judged = counts["scored"] + counts["rejected"]
    if not judged + counts["error"]:
        raise DataError(f"{printable(', '.join(map(str, paths)))}: no pictures there.")
    if not judged:
        raise DataError(f"Not one of {counts['error']} files could be scored; the rows say why for each.")
    return counts


def _told(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Passes findings on, and tells of errors and rejections as they come."""
    for finding in findings:
        if finding.status != "scored":
            tqdm.write(f"{printable(finding.path)}: {finding.message}", file=sys.stderr)
        yield finding


@contextmanager
def _writer(out: Path | None) -> Iterator[TextIO]:
    """The file, in UTF-8, taking its name only when it is whole; stdout where none is named."""
    if out is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        yield sys.stdout
        return
    part = out.with_name(out.name + ".part")
    try:
        with part.open("w", newline="", encoding="utf-8") as stream:
            yield stream
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
