"""`dermalert audit`: a data set on disk in, `audit.json`, `audit.html` and `manifest.parquet` out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert import page
from dermalert.intake.audit import AuditReport, audit
from dermalert.intake.audit_json import as_json
from dermalert.intake.audit_page import write_page
from dermalert.intake.index import Index, index
from dermalert.intake.samelesion import SIDE, SameLesion, same_lesion_pairs
from dermalert.intake.sources import Listing, list_data

# The search for photographs of one lesion compares all pictures with all, in blocks.
SUSPECT_UP_TO = 20_000


def run_audit(
    data: Path,
    out: Path,
    *,
    against: Path | None = None,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> AuditReport:
    """Audits `data` and writes the three files into `out`.

    Args:
        against: another data set that may hold the same pictures or lesions.
        table, columns: as `intake.sources.list_data`, for `data`.
        command, made: stand in the page's footer.
    """
    report = audited(data, against=against, table=table, columns=columns, seed=seed, workers=workers)
    out.mkdir(parents=True, exist_ok=True)
    report.manifest.write(out / "manifest.parquet")
    text = json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False)
    page.write(out / "audit.json", text + "\n")
    write_page(report, out / "audit.html", command=command, made=made)
    return report


def audited(
    data: Path,
    *,
    against: Path | None = None,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> AuditReport:
    """The findings that `run_audit` writes; writes nothing."""
    listing = list_data(data, table=table, columns=columns)
    ours, suspected = examine_and_suspect(listing, workers=workers)
    theirs = examine(list_data(against), workers=workers).manifest if against else None
    return audit(ours, kind=listing.kind, against=theirs, suspected=suspected, seed=seed)


def examine_and_suspect(listing: Listing, *, workers: int | None = None) -> tuple[Index, SameLesion | None]:
    """The listing's index and the pairs of pictures that look like one lesion; each picture is decoded once.

    None in place of the pairs for a set too large to search.
    """
    if len(listing.items) > SUSPECT_UP_TO:
        told = f"More than {SUSPECT_UP_TO:,} pictures: not searched for photographs that look like one lesion."
        tqdm.write(told, file=sys.stderr)
        return examine(listing, workers=workers), None
    with TemporaryFile() as file:
        thumbnails = np.memmap(file, np.uint8, "w+", shape=(max(len(listing.items), 1), SIDE, SIDE, 3))
        found = examine(listing, workers=workers, thumbnails=thumbnails)
        return found, _suspect(thumbnails[: len(found.manifest)], workers)


def examine(listing: Listing, *, workers: int | None = None, thumbnails: NDArray[np.uint8] | None = None) -> Index:
    """Indexes a listing with a progress bar on stderr; `thumbnails` as `intake.index.index`."""

    def bar(results: Iterable[Any], total: int) -> Iterable[Any]:
        return tqdm(results, total=total, desc=f"examine {listing.name}", unit="picture")

    return index(listing, workers=workers, thumbnails=thumbnails, progress=bar)


def _suspect(thumbnails: NDArray[np.uint8], workers: int | None) -> SameLesion:
    with tqdm(total=len(thumbnails), desc="find lesions shown twice", unit="picture") as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        return same_lesion_pairs(thumbnails, workers=workers, progress=show)


def summary(report: AuditReport) -> list[str]:
    """The findings, a line each, for a terminal."""
    found = as_json(report)
    lines = [f"{found['data']['pictures']} pictures, {found['data']['refused']} files refused"]
    for key, what in (
        ("identical", "groups of byte-identical files"),
        ("similar", "groups of nearly the same picture"),
    ):
        part = found[key]
        lines.append(
            f"{part['groups']} {what} ({part['contradictory']} under contradictory labels, "
            f"{part['across_parts']} across Train and Test)"
        )
    lines.append(
        f"{found['lesions']['groups']} lesions with several pictures; "
        f"{found['suspected']['groups']} pairs of pictures that may be of one lesion"
    )
    if found["against"]:
        lines.append(f"{found['against']['matched']} pictures stand in {found['against']['source']} too")
    if found["leak"]:
        leak = found["leak"]
        perhaps = f", {leak['suspected']} more perhaps" if leak["suspected"] else ""
        lines.append(f"{leak['leaked']} of {leak['test_pictures']} test pictures are known to Train{perhaps}")
    if report.shift and report.shift.auc.value == report.shift.auc.value:
        lines.append(f"Train told from Test by picture statistics: AUC {report.shift.auc} (0.5 is best)")
    if found["copy_names"]:
        lines.append(f"{len(found['copy_names'])} file names say “copy”: {', '.join(found['copy_names'][:4])}")
    if report.balance:
        lines.append(
            f"largest class {report.balance.ratio:.1f} times the smallest; always saying "
            f"“{report.balance.majority}” is {report.balance.majority_accuracy:.0%} accurate"
        )
    counts = found["resolutions"]["counts"]
    lines.append("proposed: " + ", ".join(f"{number} {action}" for action, number in counts.items()))
    return lines
