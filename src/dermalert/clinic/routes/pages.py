"""The pages: the worklist, a case, bringing pictures. Plain forms and links; scripts only make them quicker.

Comes in: requests of readers. Goes out: HTML, or the way to the next page. What a list shows (view, alert, order, page,
search) travels in the address, so that a case knows its neighbours; what is searched for does not (`searches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.orm import Session

from dermalert.clinic import queue, wording, worklist
from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.problems import Problem, wants_page
from dermalert.clinic.reading import Reading
from dermalert.clinic.routes.uploads import MOST, Result, bring
from dermalert.clinic.schema import Origin, Role, now
from dermalert.clinic.service import Here, Service
from dermalert.clinic.templating import THEME, page
from dermalert.clinic.worklist import Filters
from dermalert.errors import ClinicError, DataError, NoSuchCase, RefusedFile
from dermalert.taxonomy import NAMES

router = APIRouter(include_in_schema=False)

Reader = Annotated[Visitor, allow(Role.READER, Role.ADMIN, tokens=False)]
View = Literal["open", "trouble", "reviewed", "closed", "all"]
Order = Literal["risk", "waiting", "newest", "status"]
_YEAR = 365 * 24 * 3600
_TOLD = {
    "decided": "Your decision is recorded.",
    "noted": "Your note is recorded.",
    "histology": "The histology is recorded, and the case is closed.",
    "closed": "The case is closed.",
    "requeued": "The picture is scored again.",
    "end": "Recorded. That was the last case of the list.",
    "forgotten": "That search is over. Search again.",
}
Told = Annotated[str, Query(max_length=20)]


@dataclass(frozen=True)
class Place:
    """Where in the worklist a reader is; what is as by default stays out of addresses."""

    view: View = "open"
    alert: Literal["", "refer", "none"] = ""
    order: Order = "risk"
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
    search: Annotated[str, Query(max_length=40)] = ""

    def fields(self) -> dict[str, str]:
        """The parts of the address."""
        usual = asdict(Place())
        return {name: str(value) for name, value in asdict(self).items() if value != usual[name]}

    def address(self, path: str = "/worklist", **more: str) -> str:
        """The address of a page that knows this place."""
        fields = self.fields() | more
        return f"{path}?{urlencode(fields)}" if fields else path

    def at(self, **changes: Any) -> str:
        """The address of the worklist with some of it changed; from its first page."""
        return replace(self, **({"page": 1} | changes)).address()

    def filters(self, service: Service, visitor: Visitor) -> Filters | None:
        """What the list shows; None where its search is forgotten."""
        text = service.searches.text_of(visitor.user_id, self.search) if self.search else ""
        return None if text is None else Filters(self.view, self.alert, text)


At = Annotated[Place, Depends()]


@router.get("/")
def first_page(visitor: Reader) -> Response:  # noqa: ARG001
    """Leads to the worklist."""
    return RedirectResponse("/worklist", 303)


@router.get("/worklist")
def worklist_page(request: Request, service: Here, visitor: Reader, place: At, told: Told = "") -> Response:
    """A page of the worklist."""
    filters = place.filters(service, visitor)
    if filters is None:
        return RedirectResponse(replace(place, search="").address(told="forgotten"), 303)
    with service.store.reading() as session:
        found = worklist.worklist(session, filters, order=place.order, page=place.page)
        counts = worklist.counts(session)
    point = service.models.current().judge.point
    return page(
        request,
        "worklist.html.j2",
        here="worklist",
        told=_TOLD.get(told, ""),
        page=found,
        size=worklist.PAGE,
        filters=filters,
        order=place.order,
        search=place.search,
        counts=counts,
        views=list(_views(counts)),
        threshold=point.threshold if point else None,
        link=place.at,
        case_link=lambda case: place.address(f"/cases/{case.id}"),
    )


@router.post("/worklist/search")
def search(
    service: Here,
    visitor: Reader,
    text: Annotated[str, Form(max_length=200)] = "",
    view: Annotated[View, Form()] = "open",
    alert: Annotated[Literal["", "refer", "none"], Form()] = "",
    order: Annotated[Order, Form()] = "risk",
) -> Response:
    """Looks for words in references, sites and notes; the address that follows does not hold them."""
    words = text.replace("\x00", " ").strip()
    kept = service.searches.keep(visitor.user_id, words) if words else ""
    return RedirectResponse(Place(view, alert, order, search=kept).address(), 303)


@router.get("/cases/{id}")
def case_page(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    place: At,
    told: Told = "",
) -> Response:
    """A case; that somebody looked is in the audit trail."""
    return _case(request, service, visitor, id, place, told=_TOLD.get(told, ""))


@router.post("/cases/{id}/decision")
def decide(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    place: At,
    action: Annotated[str, Form(max_length=20)] = "",
    months: Annotated[str, Form(max_length=5)] = "",
    then: Annotated[Literal["next", "stay"], Form()] = "stay",
) -> Response:
    """Records a decision, and opens the next case where that is asked for."""
    filters = place.filters(service, visitor) or Filters(place.view, place.alert)
    try:
        with service.store.session() as session:
            beside = worklist.neighbours(session, worklist.case_of(session, id), filters, order=place.order)
            span = int(months) if action == "follow_up" and months.isdecimal() else None
            worklist.decide(session, visitor.name, id, action, span)
    except DataError as error:
        return _not_recorded(request, service, visitor, id, place, error)
    if then == "stay":
        return RedirectResponse(place.address(f"/cases/{id}", told="decided"), 303)
    if beside.next is None:
        return RedirectResponse(place.address(told="end"), 303)
    return RedirectResponse(place.address(f"/cases/{beside.next}", told="decided"), 303)


@router.post("/cases/{id}/notes")
def add_note(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    place: At,
    text: Annotated[str, Form(max_length=2 * worklist.LONGEST_NOTE)] = "",
) -> Response:
    """Adds a note."""
    words = text.replace("\x00", "")
    return _record(request, service, visitor, id, place, "noted", partial(worklist.note, text=words))


@router.post("/cases/{id}/histology")
def add_histology(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    place: At,
    diagnosis: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    """Records what the pathologist found."""
    found = partial(worklist.histology, diagnosis=diagnosis)
    return _record(request, service, visitor, id, place, "histology", found)


@router.post("/cases/{id}/close")
def close(id: str, request: Request, service: Here, visitor: Reader, place: At) -> Response:  # noqa: A002
    """Closes a case without histology."""
    return _record(request, service, visitor, id, place, "closed", worklist.close)


@router.post("/cases/{id}/requeue")
def requeue(id: str, request: Request, service: Here, visitor: Reader, place: At) -> Response:  # noqa: A002
    """Has a failed case scored again."""

    def again(session: Session, actor: str, case: str) -> None:
        worklist.case_of(session, case)
        queue.requeue(session, actor, case, now())

    return _record(request, service, visitor, id, place, "requeued", again)


@router.get("/upload")
def upload_page(request: Request, service: Here, visitor: Reader) -> Response:  # noqa: ARG001
    """The form that brings pictures."""
    return _upload(request, service)


@router.post("/upload", max_body_size=MOST)
async def upload(
    request: Request,
    service: Here,
    visitor: Annotated[Visitor, allow(Role.READER, Role.ADMIN, tokens=False, csrf_in_body=True)],
) -> Response:
    """Takes pictures in; a script gets JSON for each file, a plain form the page again with what became of them."""
    if not wants_page(request):
        results = await bring(request, service, visitor, origin=Origin.UPLOAD, csrf=True)
        return JSONResponse({"results": [each.model_dump() for each in results]}, 201)
    try:
        results = await bring(request, service, visitor, origin=Origin.UPLOAD, csrf=True)
    except Problem as problem:
        refused = [Result.model_validate(each) for each in problem.more.get("results", ())]
        return _upload(request, service, results=refused, problem=problem.detail, status=problem.status_code)
    except (RefusedFile, ClinicError) as error:
        return _upload(request, service, problem=str(error), status=422)
    return _upload(request, service, results=results)


@router.post("/theme")
def choose_theme(
    request: Request,
    service: Here,
    visitor: Reader,  # noqa: ARG001
    theme: Annotated[Literal["", "light", "dark"], Form()] = "",
) -> Response:
    """Keeps a reader's choice of colours in a cookie, and shows the page again."""
    back = request.headers.get("referer", "")
    ours = f"{request.url.scheme}://{request.url.netloc}/"
    answer = RedirectResponse("/" + back.removeprefix(ours) if back.startswith(ours) else "/", 303)
    if theme:
        answer.set_cookie(THEME, theme, max_age=_YEAR, samesite="lax", secure=service.settings.https, httponly=True)
    else:
        answer.delete_cookie(THEME, samesite="lax", secure=service.settings.https, httponly=True)
    return answer


def _views(counts: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    words = {"open": "Open", "trouble": "Not judged", "reviewed": "Reviewed", "closed": "Closed", "all": "All"}
    for name, statuses in worklist.VIEWS.items():
        yield name, words[name], sum(counts[status] for status in statuses)


def _case(
    request: Request,
    service: Service,
    visitor: Visitor,
    id_: str,
    place: Place,
    *,
    told: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    filters = place.filters(service, visitor) or Filters(place.view, place.alert)
    with service.store.session() as session:
        found = worklist.case_of(session, id_)
        worklist.seen(session, visitor.name, id_)
        lesion, patient = worklist.earlier(session, found)
        beside = worklist.neighbours(session, found, filters, order=place.order)
    reading = Reading.of(found, service.models.current())
    return page(
        request,
        "case.html.j2",
        status=status,
        here="worklist",
        told=told,
        problem=problem,
        case=found,
        finding=found.finding,
        name=wording.name_of(found),
        reading=reading,
        previous=beside.previous and place.address(f"/cases/{beside.previous}"),
        next=beside.next and place.address(f"/cases/{beside.next}"),
        back=place.address(),
        here_again=place.address(f"/cases/{id_}"),
        action=lambda what: place.address(f"/cases/{id_}/{what}"),
        lesion=lesion,
        patient=patient,
        similar=service.references.like(found),
        references=service.references,
        diagnoses=NAMES,
    )


def _record(
    request: Request,
    service: Service,
    visitor: Visitor,
    id_: str,
    place: Place,
    told: str,
    change: Callable[[Session, str, str], object],
) -> Response:
    """Makes a change in the name of the visitor and shows the case: with a word of it, or with what was wrong."""
    try:
        with service.store.session() as session:
            change(session, visitor.name, id_)
    except (DataError, ClinicError) as error:
        return _not_recorded(request, service, visitor, id_, place, error)
    return RedirectResponse(place.address(f"/cases/{id_}", told=told), 303)


def _not_recorded(
    request: Request, service: Service, visitor: Visitor, id_: str, place: Place, error: DataError | ClinicError
) -> Response:
    """The case again, with what was wrong."""
    if isinstance(error, NoSuchCase):
        raise error
    return _case(request, service, visitor, id_, place, problem=str(error), status=409)


def _upload(
    request: Request, service: Service, *, results: list[Result] | None = None, problem: str = "", status: int = 200
) -> Response:
    return page(
        request,
        "upload.html.j2",
        status=status,
        here="upload",
        bounds=service.bounds,
        results=results or [],
        problem=problem,
    )
