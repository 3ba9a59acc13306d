"""What leaves the clinic on paper or as a table; each in the audit trail, and none too often."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from dermalert.clinic import reports, trail, worklist
from dermalert.clinic.access import allow, throttled
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.exports import FORMATS, Asked, export
from dermalert.clinic.routes.uploads import problems
from dermalert.clinic.schema import Role, now
from dermalert.clinic.service import Here

router = APIRouter(tags=["reports"], responses=problems(401, 403, 422, 429, 501, 503))

Reader = Annotated[Visitor, allow(Role.READER, Role.ADMIN)]
PDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/pdf": {}}}}


@router.get("/cases/{id}/report.pdf", response_class=Response, responses={**PDF, **problems(404)})
def case_report(
    id: str,  # noqa: A002
    service: Here,
    visitor: Reader,
    references: Annotated[bool, Query(description="Whether references and notes are on it.")] = False,
) -> Response:
    """One page on a case."""
    throttled(service.exports, visitor.user_id)
    with service.store.session() as session:
        case = worklist.case_of(session, id)
        trail.append(session, visitor.name, "report", id, references=references)
    content = reports.case_pdf(case, service.models.current(), service.renditions, now(), references=references)
    return _file(content, "application/pdf", f"case-{id[-6:]}.pdf")


@router.get("/reports/{day}.pdf", response_class=Response, responses=PDF)
def day_report(day: date, service: Here, visitor: Reader) -> Response:
    """One page on the cases received on a day, in UTC."""
    throttled(service.exports, visitor.user_id)
    with service.store.session() as session:
        trail.append(session, visitor.name, "report", "", day=day.isoformat())
    with service.store.reading() as session:
        content = reports.day_pdf(session, day, now())
    return _file(content, "application/pdf", f"day-{day.isoformat()}.pdf")


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}, "application/vnd.apache.parquet": {}}}},
)
def table(
    service: Here,
    visitor: Reader,
    kind: Annotated[Literal["csv", "parquet"], Query()] = "csv",
    view: Annotated[Literal["open", "trouble", "reviewed", "closed", "all"], Query()] = "all",
    since: Annotated[date | Literal[""], Query(description="First day of receipt, in UTC.")] = "",
    until: Annotated[date | Literal[""], Query(description="Last day of receipt.")] = "",
    alert: Annotated[Literal["", "refer", "none"], Query()] = "",
    identifiers: Annotated[bool, Query(description="References and names, for admins alone.")] = False,
) -> Response:
    """Cases as a table."""
    throttled(service.exports, visitor.user_id)
    asked = Asked(kind, view, since or None, until or None, alert, identifiers)
    return _file(export(service.store, visitor.name, visitor.role, asked), FORMATS[kind], f"cases.{kind}")


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
