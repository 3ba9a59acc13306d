"""Pictures of cases as they may be shown: made anew, with nothing of the original file but its pixels.

Comes in: a case's id. Goes out: a JPEG, or an evidence map as PNG; that somebody looked is in the audit trail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dermalert.clinic import worklist
from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.renditions import EDGES
from dermalert.clinic.routes.uploads import problems
from dermalert.clinic.schema import Case, Role
from dermalert.clinic.service import Here, Service
from dermalert.errors import DataError, NoSuchCase, NotNow
from dermalert.intake.decode import read_bytes

router = APIRouter(tags=["pictures"])

Reader = Annotated[Visitor, allow(Role.READER, Role.ADMIN)]
_LARGE = EDGES[-1]
_CACHE = "private, max-age=3600"  # by the reader's own browser, which forgets it at sign-out


def _answers(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {}}}, 304: {"description": "As before."}, **problems(401, 403, 404, 409, 422, 503)}


@router.get("/cases/{id}/picture", response_class=Response, responses=_answers("image/jpeg"))
def picture(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    edge: Annotated[int, Query(description=f"Pixels of the longer side: {', '.join(map(str, EDGES))}.")] = _LARGE,
) -> Response:
    """A case's picture. The large one counts as seen in the audit trail; the small ones, of lists, do not."""
    if edge not in EDGES:
        raise DataError(f"Pictures are shown at {', '.join(map(str, EDGES))} pixels, not at {edge}.")
    case = _case(service, visitor, id, "picture" if edge == _LARGE else "")
    name = f"{case.sha256}/{edge}"
    return _answer(request, name, "image/jpeg", lambda: service.renditions.picture(case.picture, edge))


@router.get("/cases/{id}/evidence", response_class=Response, responses=_answers("image/png"))
def evidence(
    id: str,  # noqa: A002
    request: Request,
    service: Here,
    visitor: Reader,
    diagnosis: Annotated[str, Query(max_length=60)] = "melanoma",
) -> Response:
    """A map to lay over the picture: what the model used for its probability of `diagnosis`, not where a disease is."""
    case = _case(service, visitor, id, "evidence")
    model = service.models.current()
    if case.finding is None or case.finding.melanoma is None:
        raise NotNow("No model has judged this picture: there is no evidence to show.")
    if case.finding.bundle_digest != model.digest:
        raise NotNow("Another model scores now than the one that scored this case: it has no reasons to show.")

    def make() -> bytes:
        return service.renditions.evidence(case.picture, model.engine, model.digest, diagnosis)

    return _answer(request, f"{case.sha256}/{model.digest}/{diagnosis}", "image/png", make)


@router.get("/references/{sha256}", response_class=Response, responses=_answers("image/jpeg"))
def reference(sha256: str, request: Request, service: Here, visitor: Reader) -> Response:  # noqa: ARG001
    """A picture of the reference collection, small."""
    file = service.references.file(sha256)
    if file is None:
        raise NoSuchCase("The reference collection has no such picture.")

    def make() -> bytes:
        return service.renditions.reference(sha256, read_bytes(file, service.settings.limits))

    return _answer(request, sha256, "image/jpeg", make)


def _case(service: Service, visitor: Visitor, id_: str, what: str) -> Case:
    """The case, and into the trail that it was seen; with `what` empty, only the case."""
    with service.store.session() if what else service.store.reading() as session:
        case = worklist.case_of(session, id_)
        if what:
            worklist.seen(session, visitor.name, id_, what)
        return case


def _answer(request: Request, name: str, kind: str, make: Callable[[], bytes]) -> Response:
    headers = {"ETag": f'"{hashlib.sha256(name.encode()).hexdigest()[:32]}"', "Cache-Control": _CACHE, "Vary": "Cookie"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=kind, headers=headers)
