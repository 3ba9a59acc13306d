"""Reports: one page on paper, of a case or of a day, as PDF.

Comes in: a case and its picture as it may be shown, or the cases of a day. Goes out: the bytes of a PDF. References of
patients and lesions are on it only where asked for; the picture is made anew from its pixels, without EXIF.
"""

from __future__ import annotations

import base64
from collections import Counter
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from dermalert.clinic import wording
from dermalert.clinic.exports import start_of
from dermalert.clinic.model import Model
from dermalert.clinic.reading import Reading
from dermalert.clinic.renditions import Renditions
from dermalert.clinic.schema import Case
from dermalert.errors import ClinicError, NotNow, RefusedFile
from dermalert.page.page import render
from dermalert.page.pdf import to_pdf
from dermalert.taxonomy import MELANOMA

ROWS = 26  # cases that fit on the page of a day
_EDGE = 2048  # pixels of the picture
_NOTES = 700  # characters of the last notes that fit


def case_pdf(case: Case, model: Model, renditions: Renditions, made: datetime, *, references: bool = False) -> bytes:
    """One page on a case, with all its parts loaded: picture, evidence, the model's words, the decision.

    Args:
        references: whether the patient's and the lesion's are on it.

    Raises:
        MissingExtra: as `to_pdf`.
    """
    picture, evidence = _shown(case, model, renditions)
    html = render(
        "clinic/templates/report_case.html.j2",
        title=wording.name_of(case) if references else f"Case {case.id[-6:]}",
        command=f"/cases/{case.id}/report.pdf",
        made=made,
        case=case,
        finding=case.finding,
        reading=Reading.of(case, model),
        picture=picture,
        evidence=evidence,
        wording=wording,
        notes=_last_notes(case) if references else [],
    )
    return to_pdf(html)


def _shown(case: Case, model: Model, renditions: Renditions) -> tuple[str, str]:
    """The picture and the map as data URIs; empty where there is none to show, which the page says."""
    finding = case.finding
    is_explained = finding is not None and finding.melanoma is not None and finding.bundle_digest == model.digest
    try:
        picture = _uri("image/jpeg", renditions.picture(case.picture, _EDGE))
        if not is_explained:
            return picture, ""
        return picture, _uri("image/png", renditions.evidence(case.picture, model.engine, model.digest, MELANOMA))
    except (NotNow, RefusedFile, ClinicError):
        return "", ""


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _last_notes(case: Case) -> list[tuple[str, str]]:
    """Who wrote what, the last first, as far as the page has room."""
    room, kept = _NOTES, []
    for note in reversed(case.notes):
        if room <= 0:
            break
        text = note.text if len(note.text) <= room else note.text[:room] + " …"
        kept.append((f"{note.who}, {note.at:%Y-%m-%d}", text))
        room -= len(text)
    return kept


def day_pdf(session: Session, day: date, made: datetime) -> bytes:
    """One page on the cases received on a day, in UTC: how many stand where, and the dangerous first.

    Raises:
        MissingExtra: as `to_pdf`.
    """
    begin = start_of(day)
    asked = select(Case).where(Case.received_at >= begin, Case.received_at < begin + timedelta(days=1))
    cases = list(session.scalars(asked.options(joinedload(Case.finding), selectinload(Case.decisions))))
    cases.sort(key=lambda case: (-(case.score if case.score is not None else -1), case.received_at, case.id))
    html = render(
        "clinic/templates/report_day.html.j2",
        title=f"{day:%d %B %Y}",
        command=f"/reports/{day.isoformat()}.pdf",
        made=made,
        cases=cases[:ROWS],
        more=max(0, len(cases) - ROWS),
        total=len(cases),
        statuses=Counter(case.status for case in cases),
        referred=sum(case.finding is not None and case.finding.alert == "refer" for case in cases),
        decided=sum(bool(case.decisions) for case in cases),
        wording=wording,
    )
    return to_pdf(html)
