"""Exports: cases as a table, CSV for spreadsheets or Parquet for programs.

Comes in: what is asked for, and by whom. Goes out: bytes, and a line in the audit trail. References of patients and
lesions, what senders call their uploads, and readers' names are in it only for an admin who asks; notes never are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from dermalert.clinic import trail
from dermalert.clinic.schema import Case, Finding, Role
from dermalert.clinic.store import Store
from dermalert.clinic.worklist import VIEWS
from dermalert.errors import DataError
from dermalert.score.output import RowWriter
from dermalert.taxonomy import NAMES

FORMATS: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what spreadsheets run (OWASP, CSV injection)
_TIME = pa.timestamp("us", tz="UTC")
_BLOCK = 1000  # cases held in memory at once

_CASE: dict[str, Any] = {
    "case": pa.string(),
    "received_at": _TIME,
    "status": pa.string(),
    "origin": pa.string(),
    "site": pa.string(),
    "sex": pa.string(),
    "age": pa.int32(),
    "taken_on": pa.date32(),
    "scored_at": _TIME,
    "bundle": pa.string(),
    "bundle_digest": pa.string(),
    "melanoma": pa.float64(),
    "malignant": pa.float64(),
    "alert": pa.string(),
    "diagnosis": pa.string(),
    **{f"p_{name.replace(' ', '_')}": pa.float64() for name in NAMES},
    "set": pa.string(),
    "ood": pa.float64(),
    "quality": pa.float64(),
    "brightness": pa.float64(),
    "sharpness": pa.float64(),
    "contrast": pa.float64(),
    "colour": pa.float64(),
    "decision": pa.string(),
    "months": pa.int32(),
    "decided_at": _TIME,
    "histology": pa.string(),
    "histology_at": _TIME,
}
_IDENTIFIERS: dict[str, Any] = {
    "patient": pa.string(),
    "lesion": pa.string(),
    "key": pa.string(),
    "uploaded_by": pa.string(),
    "decided_by": pa.string(),
}
_OF_THE_FINDING = (
    *("bundle", "bundle_digest", "melanoma", "malignant", "alert", "diagnosis"),
    *("ood", "quality", "brightness", "sharpness", "contrast", "colour"),
)
_OF_THE_CASE = (
    *("received_at", "status", "origin", "site", "sex", "age", "taken_on", "scored_at"),
    *("patient", "lesion", "key", "uploaded_by"),
)


@dataclass(frozen=True)
class Asked:
    """Which cases, and how.

    Attributes:
        kind: a key of `FORMATS`.
        view: a key of `worklist.VIEWS`.
        since, until: days of receipt, in UTC, both included; None: no bound.
        alert: "refer" or "none"; empty: both, and cases without one.
        identifiers: whether references and names are in it.
    """

    kind: str = "csv"
    view: str = "all"
    since: date | None = None
    until: date | None = None
    alert: str = ""
    identifiers: bool = False


def export(store: Store, who: str, role: Role | str | None, asked: Asked) -> bytes:
    """The table, the longest waiting first, and a line in the trail.

    Raises:
        DataError: no such format, view or alert; or identifiers for somebody who is no admin.
    """
    if asked.kind not in FORMATS or asked.view not in VIEWS or asked.alert not in ("", "refer", "none"):
        raise DataError(
            f"An export is of the format {' or '.join(FORMATS)}, of the view {', '.join(VIEWS)}, and of the alert "
            "refer, none or any."
        )
    if asked.identifiers and role != Role.ADMIN:
        raise DataError("Only an admin may export references and names. Ask for the table without them.")
    schema = pa.schema(list({**_CASE, **(_IDENTIFIERS if asked.identifiers else {})}.items()))
    with store.reading() as session:
        rows = (_row(case, schema.names) for case in _cases(session, asked))
        content, number = (_csv if asked.kind == "csv" else _parquet)(rows, schema)
    bounds = {"since": str(asked.since or ""), "until": str(asked.until or ""), "alert": asked.alert}
    shown = {"format": asked.kind, "view": asked.view, **bounds, "identifiers": asked.identifiers}
    with store.session() as session:
        trail.append(session, who, "export", "", cases=number, **shown)
    return content


def _cases(session: Session, asked: Asked) -> Iterator[Case]:
    cases = select(Case).order_by(Case.received_at, Case.id).execution_options(yield_per=_BLOCK)
    cases = cases.options(joinedload(Case.finding), selectinload(Case.decisions), selectinload(Case.histologies))
    if asked.view != "all":
        cases = cases.where(Case.status.in_(VIEWS[asked.view]))
    if asked.since:
        cases = cases.where(Case.received_at >= start_of(asked.since))
    if asked.until:
        cases = cases.where(Case.received_at < start_of(asked.until) + timedelta(days=1))
    if asked.alert:
        cases = cases.where(Case.finding.has(Finding.alert == asked.alert))
    return iter(session.scalars(cases))


def start_of(day: date) -> datetime:
    """When a day begins, in UTC."""
    return datetime.combine(day, time(), UTC)


def _row(case: Case, names: list[str]) -> dict[str, Any]:
    finding = case.finding
    decision = case.decisions[-1] if case.decisions else None
    histology = case.histologies[-1] if case.histologies else None
    values = {
        "case": case.id,
        **{name: getattr(case, name) for name in _OF_THE_CASE},
        **{name: getattr(finding, name, None) for name in _OF_THE_FINDING},
        **{f"p_{name.replace(' ', '_')}": finding.probabilities.get(name) if finding else None for name in NAMES},
        "set": "; ".join(finding.possible) if finding else None,
        "decision": decision and decision.action,
        "months": decision and decision.months,
        "decided_at": decision and decision.at,
        "decided_by": decision and decision.who,
        "histology": histology and histology.diagnosis,
        "histology_at": histology and histology.at,
    }
    return {name: values[name] for name in names}


def _csv(rows: Iterator[dict[str, Any]], schema: Any) -> tuple[bytes, int]:
    stream, number = io.StringIO(newline=""), 0
    writer = RowWriter(stream)
    writer.write(schema.names)
    for row in rows:
        writer.write(map(_cell, row.values()))
        number += 1
    return stream.getvalue().encode(), number


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return harmless(value) if isinstance(value, str) else str(value)


def harmless(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula: an apostrophe before what begins like one.

    >>> harmless("=1+1"), harmless("nevus")
    ("'=1+1", 'nevus')
    """
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


def _parquet(rows: Iterator[dict[str, Any]], schema: Any) -> tuple[bytes, int]:
    stream, number = io.BytesIO(), 0
    with pq.ParquetWriter(stream, schema) as writer:
        block: list[dict[str, Any]] = []
        for row in rows:
            block.append(row)
            number += 1
            if len(block) == _BLOCK:
                writer.write_table(pa.Table.from_pylist(block, schema))
                block = []
        writer.write_table(pa.Table.from_pylist(block, schema))
    return stream.getvalue(), number
