"""The worklist for programs: cases, and what readers do with them, as JSON; and the description of it all.

Comes in: requests of readers and admins. Goes out: what `worklist` finds and does, in plain values. It decides nothing.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dermalert.clinic import queue, worklist
from dermalert.clinic.access import allow, anyone
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.routes.uploads import ProblemBody, problems
from dermalert.clinic.schema import Case, Origin, Role, Status, now
from dermalert.clinic.service import Here
from dermalert.clinic.worklist import Filters

router = APIRouter(prefix="/api/v1", tags=["worklist"], responses=problems(400, 401, 403, 413, 422, 429, 503))

Reader = Annotated[Visitor, allow(Role.READER, Role.ADMIN)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class FindingOut(_Row):
    """What the model said. Probabilities are calibrated; no alert does not mean that a lesion is benign."""

    bundle: str
    bundle_digest: str
    melanoma: float | None = Field(description="Probability; null where the picture was not judged.")
    malignant: float | None
    alert: Literal["refer", "none"] | None
    diagnosis: str | None = Field(description="The likeliest; not the answer.")
    possible: list[str] = Field(description="Diagnoses left open, likeliest first.")
    probabilities: dict[str, float]
    ood: float | None = Field(description="How unlike dermoscopic pictures it is; refused from 1.")
    quality: float | None = Field(description="From 0, refused, to 1.")
    message: str = Field(description="What the gate warns of, or why it refused.")
    scored_at: datetime


class DecisionOut(_Row):
    """A reader's decision; the last one counts."""

    who: str
    action: str
    months: int | None
    at: datetime


class NoteOut(_Row):
    """What somebody wrote."""

    who: str
    text: str
    at: datetime


class HistologyOut(_Row):
    """What the pathologist found; the last one counts."""

    who: str
    diagnosis: str
    at: datetime


class CaseOut(_Row):
    """A case in a list."""

    id: str
    status: Status
    origin: Origin
    patient: str | None
    lesion: str | None
    site: str | None
    sex: str | None
    age: int | None
    taken_on: date | None
    uploaded_by: str
    received_at: datetime
    reviewed_at: datetime | None
    closed_at: datetime | None
    problem: str | None = Field(description="Why it was refused, or why it failed.")
    finding: FindingOut | None
    decisions: list[DecisionOut]


class CaseDetail(CaseOut):
    """A case with all that is known of it."""

    sha256: str
    notes: list[NoteOut]
    histologies: list[HistologyOut]


class PageOut(BaseModel):
    """A page of the worklist."""

    cases: list[CaseOut]
    page: int
    pages: int
    total: int


class DecisionIn(BaseModel):
    """A decision: a follow-up takes `months`, and no other has it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "follow_up", "months": 3}]})

    action: Literal["refer", "biopsy", "follow_up", "no_action"]
    months: Annotated[int, Field(ge=1, le=worklist.MOST_MONTHS)] | None = None


class NoteIn(BaseModel):
    """A note."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=worklist.LONGEST_NOTE, pattern=r"^[^\x00]*$")] = (
        Field(examples=["Grown since spring, says the patient."])
    )


class HistologyIn(BaseModel):
    """A pathologist's finding."""

    diagnosis: Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00]*$")] = Field(
        description="One of the nine diagnoses, or another word for one.", examples=["melanoma"]
    )


@router.get("/cases", summary="A page of the worklist")
def list_cases(
    service: Here,
    visitor: Reader,  # noqa: ARG001
    view: Literal["open", "trouble", "reviewed", "closed", "all"] = "open",
    alert: Literal["", "refer", "none"] = "",
    text: Annotated[Line, Query(description="In a reference, the site or a note.")] = "",
    order: Literal["risk", "waiting", "newest", "status"] = "risk",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    size: Annotated[int, Query(ge=1, le=200)] = worklist.PAGE,
) -> PageOut:
    """The cases that wait, the dangerous ones first. A page beyond the last is the last."""
    with service.store.reading() as session:
        found = worklist.worklist(session, Filters(view, alert, text), order=order, page=page, size=size)
    cases = [CaseOut.model_validate(each) for each in found.cases]
    return PageOut(cases=cases, page=found.number, pages=found.pages, total=found.total)


@router.get("/cases/{id}", summary="One case", responses=problems(404))
def read_case(id: Id, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """Everything known of a case. That you looked is written into the audit trail."""
    with service.store.session() as session:
        found = worklist.case_of(session, id)
        worklist.seen(session, visitor.name, id)
        return _detail(found)


@router.post("/cases/{id}/decisions", status_code=201, summary="Decide on a case", responses=problems(404, 409))
def decide(id: Id, given: DecisionIn, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """Records what is to be done. An earlier decision stays in the record, and the last counts."""
    with service.store.session() as session:
        worklist.decide(session, visitor.name, id, given.action, given.months)
        return _detail(worklist.case_of(session, id))


@router.post("/cases/{id}/notes", status_code=201, summary="Add a note", responses=problems(404))
def add_note(id: Id, given: NoteIn, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """Adds a note; it can't be taken back."""
    with service.store.session() as session:
        worklist.note(session, visitor.name, id, given.text)
        return _detail(worklist.case_of(session, id))


@router.post("/cases/{id}/histology", status_code=201, summary="Record the histology", responses=problems(404, 409))
def add_histology(id: Id, given: HistologyIn, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """Records what the pathologist found, and closes the case; the model is audited against it."""
    with service.store.session() as session:
        worklist.histology(session, visitor.name, id, given.diagnosis)
        return _detail(worklist.case_of(session, id))


@router.post("/cases/{id}/close", summary="Close a case", responses=problems(404, 409))
def close(id: Id, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """For a case that was decided on and needs no histology."""
    with service.store.session() as session:
        worklist.close(session, visitor.name, id)
        return _detail(worklist.case_of(session, id))


@router.post("/cases/{id}/requeue", summary="Have a failed case scored again", responses=problems(404, 409))
def requeue(id: Id, service: Here, visitor: Reader) -> CaseDetail:  # noqa: A002
    """Sends a case that could not be scored back to the queue."""
    with service.store.session() as session:
        worklist.case_of(session, id)
        queue.requeue(session, visitor.name, id, now())
        return _detail(worklist.case_of(session, id))


@router.get("/openapi.json", include_in_schema=False, dependencies=[anyone()])
def openapi(request: Request) -> dict[str, Any]:
    """The description of the API, in OpenAPI 3.1; it holds nothing that is secret."""
    return description(request.app)


@lru_cache(maxsize=4)
def description(app: FastAPI) -> dict[str, Any]:
    """What programs may ask for; pages are not part of it (`include_in_schema=False`)."""
    whole = app.openapi()
    whole["components"]["schemas"]["ProblemBody"] = ProblemBody.model_json_schema()
    return whole


def _detail(found: Case) -> CaseDetail:
    return CaseDetail.model_validate(found)
