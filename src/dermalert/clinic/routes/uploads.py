"""Bringing pictures: one, several or a zip of them in one request, read as a stream within bounds.

Comes in: multipart forms that anybody may have made. Goes out: for each picture its case, or why it was not taken. What
is acknowledged is stored and committed (`receiving`); nothing here opens a picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from dermalert.clinic.access import allow, check_csrf, throttled
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.problems import Problem, status_of
from dermalert.clinic.receiving import About, Receipt, receive, receive_zip
from dermalert.clinic.schema import Case, Origin, Role, Status
from dermalert.clinic.service import Here, Service
from dermalert.errors import NoSuchCase, RefusedFile, TooLarge

router = APIRouter(prefix="/api/v1", tags=["pictures"])

MOST = 2**40  # a route that calls `bring` sets no bound of its own: `Settings.max_request` is counted there
_ZIP = b"PK\x03\x04"

Word = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Facts(BaseModel):
    """What the sender tells of the pictures of one request."""

    patient: Word | None = Field(default=None, description="An opaque reference. Not a name.", examples=["P-0815"])
    lesion: Word | None = Field(default=None, description="An opaque reference.", examples=["L-3"])
    site: Annotated[Word, StringConstraints(max_length=100)] | None = Field(default=None, examples=["back"])
    sex: Literal["female", "male", "other"] | None = None
    age: Annotated[int, Field(ge=0, le=120)] | None = Field(default=None, description="In years.")
    taken_on: date | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value


class Result(BaseModel):
    """What became of one picture."""

    name: str = Field(description="Of the file, as it was sent.")
    id: str | None = Field(default=None, description="Of its case; null where it was not taken.")
    is_new: bool = Field(default=False, description="False where this picture has a case under this key already.")
    address: str | None = Field(default=None, description="Where the case is shown.")
    problem: str | None = Field(default=None, description="Why it was not taken, and what to do.")


class Results(BaseModel):
    """What became of the pictures of one request, in their order; of a zip, of its members."""

    results: list[Result]


class State(BaseModel):
    """Where a picture that you sent stands."""

    id: str
    status: Status
    problem: str | None = Field(description="Why it was refused, or why it failed.")


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do.")
    request: str = Field(description="The request's id, to name in a report.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    body = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}}
    meaning = {
        400: "The body can't be read.",
        401: "No sign-in, or an unknown token.",
        403: "Not for this role.",
        404: "There is no such case.",
        408: "The request took too long to arrive.",
        409: "It does not fit where the case stands, or this picture has a case of other facts under this key.",
        413: "Too large, or too many at once.",
        415: "No picture of a format that is read here.",
        422: "A value does not fit.",
        429: "Too many requests: see Retry-After.",
        501: "An optional part is not installed.",
        503: "Too many cases wait to be scored, or the database is away: see Retry-After. Nothing was lost.",
        507: "The disk is full.",
    }
    return {status: {"description": meaning[status], **body} for status in statuses}


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "Pictures, and zips of pictures.",
                        },
                        **{
                            name: {key: value for key, value in schema.items() if key != "title"}
                            for name, schema in Facts.model_json_schema()["properties"].items()
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "/pictures",
    summary="Send pictures",
    status_code=201,
    responses={
        200: {"model": Results, "description": "All of them were received before."},
        **problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra=_BODY,
    max_body_size=MOST,
)
async def send_pictures(
    request: Request,
    response: Response,
    service: Here,
    visitor: Annotated[Visitor, allow(*Role)],
    idempotency_key: Annotated[str, Header(max_length=200, pattern=r"^[\x20-\x7e]*$", examples=["visit-17"])] = "",
) -> Results:
    """One picture, several, or zips of them; JPEG, PNG, TIFF, WebP, DICOM and what else is read here.

    What is acknowledged is stored. Sent again under the same `Idempotency-Key`, the same picture is the same case, so
    that a request whose answer was lost can be repeated. Where none of several pictures could be taken, the answer is
    a problem; where some could, each result says which.
    """
    results = await bring(request, service, visitor, key=idempotency_key, origin=Origin.API)
    response.status_code = 201 if any(each.is_new for each in results) else 200
    return Results(results=results)


@router.get(
    "/pictures/{id}", summary="Where a picture that you sent stands", responses=problems(401, 403, 404, 429, 503)
)
def state(id: str, service: Here, visitor: Annotated[Visitor, allow(*Role)]) -> State:  # noqa: A002
    """For whoever sent it; what the model found is for readers."""
    with service.store.reading() as session:
        case = session.get(Case, id)
        if case is None or case.uploaded_by != visitor.name:
            raise NoSuchCase("You sent no picture of this id.")
        return State(id=case.id, status=Status(case.status), problem=case.problem)


async def bring(
    request: Request, service: Service, visitor: Visitor, *, key: str = "", origin: Origin, csrf: bool = False
) -> list[Result]:
    """Reads the form of a request and takes in its pictures.

    The route must set `max_body_size=MOST`; the bounds are those of the settings.

    Args:
        key: as for `receive`.
        csrf: whether the form must carry the CSRF token, for a rule with `csrf_in_body`.

    Raises:
        Problem: 400 to 429, 503: nothing, or not all, was taken; sending it again is harmless.
        DermalertError: as `receive`, of a request of one picture.
    """
    throttled(service.uploads, visitor.user_id)
    with _place(service):
        form = await _read(request, service)
        try:
            if csrf and visitor.by == "session" and "x-csrf-token" not in request.headers:
                check_csrf(visitor, str(form.get("csrf", "")))
            sent = [each for each in form.getlist("files") if isinstance(each, UploadFile) and (each.filename or "")]
            if not sent:
                raise Problem(422, "The form has no file. Send pictures as its field `files`.")
            about = _about(form)
            results = await run_in_threadpool(_take_in, service, visitor, sent, key, about, origin)
        finally:
            await form.close()
    return results


@contextmanager
def _place(service: Service) -> Iterator[None]:
    if not service.places.acquire(blocking=False):
        raise Problem(503, "Too many uploads at once. Try again in a second.", headers={"Retry-After": "1"})
    try:
        yield
    finally:
        service.places.release()


async def _read(request: Request, service: Service) -> FormData:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise Problem(415, "Send pictures as multipart/form-data, in the field `files`.")
    settings = service.settings
    stream = _bounded(request, settings.max_request)
    try:
        async with asyncio.timeout(settings.upload_seconds):
            parser = MultiPartParser(
                request.headers, stream, max_files=settings.max_files, max_fields=20, max_part_size=10_000
            )
            return await parser.parse()
    except TimeoutError:
        raise Problem(408, f"The request took over {settings.upload_seconds:.0f} s. Send fewer at a time.") from None
    except MultiPartException as error:
        status = 413 if error.message.startswith("Too many files") else 400
        detail = f"The form cannot be read: {error.message} Up to {settings.max_files} files are taken at once."
        raise Problem(status, detail) from None
    except (ValueError, LookupError):  # a name or boundary in no encoding
        raise Problem(400, "The form cannot be read. Send it as multipart/form-data, in UTF-8.") from None


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size <= most:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                break
            yield chunk
    if size > most:
        raise Problem(413, f"A request may have {most:,} bytes. Send fewer pictures at a time.")


def _about(form: FormData) -> About:
    try:
        facts = Facts.model_validate({name: form[name] for name in Facts.model_fields if name in form})
    except ValidationError as error:
        wrong = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())
        raise Problem(422, f"The form does not fit: {wrong}.") from None
    return About(**facts.model_dump())


def _take_in(
    service: Service, visitor: Visitor, sent: list[UploadFile], key: str, about: About, origin: Origin
) -> list[Result]:
    taken = [each for file in sent for each in _taken(service, visitor, file, key, about, origin)]
    refusals = [outcome for _, outcome in taken if isinstance(outcome, RefusedFile)]
    results = [_result(name, outcome) for name, outcome in taken]
    if len(refusals) == len(taken):
        if len(sent) == len(taken) == 1:
            raise refusals[0]
        status = status_of(refusals[0]) if refusals else 422
        detail = "No picture could be taken: see the results." if refusals else "The archive holds no file."
        raise Problem(status, detail, results=[each.model_dump() for each in results])
    return results


def _taken(
    service: Service, visitor: Visitor, file: UploadFile, key: str, about: About, origin: Origin
) -> Iterator[tuple[str, Receipt | RefusedFile]]:
    name, bounds = file.filename or "", service.bounds
    try:
        if file.file.read(len(_ZIP)) == _ZIP:
            yield from receive_zip(
                service.store,
                service.files,
                file.file,
                who=visitor.name,
                key=key,
                about=about,
                bounds=bounds,
                name=name,
            )
            return
        if (file.size or 0) > bounds.max_bytes:
            reason = f"it has {file.size:,} bytes, and {bounds.max_bytes:,} are allowed"
            raise TooLarge(name, reason, "Save it as JPEG, or at a lower resolution.")
        file.file.seek(0)
        yield (
            name,
            receive(
                service.store,
                service.files,
                file.file.read(),
                who=visitor.name,
                origin=origin,
                key=key,
                about=about,
                bounds=bounds,
                name=name,
            ),
        )
    except RefusedFile as refusal:
        yield name, refusal


def _result(name: str, outcome: Receipt | RefusedFile) -> Result:
    if isinstance(outcome, RefusedFile):
        return Result(name=name, problem=f"{outcome.reason}. {outcome.mend}")
    return Result(name=name, id=outcome.case.id, is_new=outcome.is_new, address=f"/cases/{outcome.case.id}")
