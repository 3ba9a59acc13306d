"""`dermalert audit`: a data set on disk in, `audit.json`, `audit.html` and `manifest.parquet` out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dermalert.intake.audit import AuditReport, audit
from dermalert.intake.audit_json import as_json
from dermalert.intake.audit_page import write_page
from dermalert.intake.index import Index, index
from dermalert.intake.sources import Listing, list_data


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
    listing = list_data(data, table=table, columns=columns)
    ours = examine(listing, workers=workers)
    theirs = examine(list_data(against), workers=workers) if against else None
    report = audit(ours, kind=listing.kind, against=theirs, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    report.manifest.write(out / "manifest.parquet")
    text = json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "audit.json").write_text(text + "\n", encoding="utf-8")
    write_page(report, out / "audit.html", command=command, made=made)
    return report


def examine(listing: Listing, *, workers: int | None = None) -> Index:
    """Indexes a listing with a progress bar on stderr."""

    def bar(results: Iterable[Any], total: int) -> Iterable[Any]:
        return tqdm(results, total=total, desc=f"examine {listing.name}", unit="picture")

    return index(listing, workers=workers, progress=bar)


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
    lines.append(f"{found['lesions']['groups']} lesions with several pictures")
    if found["against"]:
        lines.append(f"{found['against']['matched']} pictures stand in {found['against']['source']} too")
    if found["leak"]:
        leak = found["leak"]
        lines.append(f"{leak['leaked']} of {leak['test_pictures']} test pictures are known to Train")
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
