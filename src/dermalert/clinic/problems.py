"""What went wrong, as an answer: a page for people, a problem body (RFC 9457) for programs, each with what to do.

Comes in: errors that routes raise. Goes out: responses. What nobody foresaw is logged by its kind and place alone, for
the words of an error may hold a patient's name; the caller gets the request's id to name in a report.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dermalert.clinic.templating import page
from dermalert.errors import (
    Busy,
    ClinicError,
    Damaged,
    DataError,
    DermalertError,
    KeyTaken,
    MissingExtra,
    NoRoom,
    NoSuchCase,
    NotAPicture,
    NotNow,
    RefusedFile,
    SignInRefused,
    TooLarge,
)

log = logging.getLogger("dermalert.clinic")

# The first that fits counts; what a user cannot cause or mend, such as a damaged store, is a 500.
_STATUS: tuple[tuple[type[DermalertError], int], ...] = (
    (NotAPicture, 415),
    (TooLarge, 413),
    (RefusedFile, 422),
    (NoSuchCase, 404),
    (NotNow, 409),
    (KeyTaken, 409),
    (SignInRefused, 401),
    (DataError, 422),
    (Busy, 503),
    (NoRoom, 507),
    (Damaged, 500),
    (ClinicError, 409),
    (MissingExtra, 501),
)


class Problem(HTTPException):
    """An answer that says what is wrong and what to do.

    Attributes:
        more: further members of the problem body, plain JSON values.
    """

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(status, detail, headers)
        self.more = more


class SignInFirst(Problem):
    """Nobody is signed in, and the route is not for everybody."""

    def __init__(self, detail: str = "Sign in, or send an API token: Authorization: Bearer …") -> None:
        super().__init__(401, detail, headers={"WWW-Authenticate": "Bearer"})


def status_of(error: DermalertError) -> int:
    """The HTTP status that tells of this error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def answer_with(app: FastAPI) -> None:
    """Has `app` answer every error so."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DermalertError, _ours)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(DBAPIError, _database)


def problem(request: Request, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """The answer itself: a page where the caller is a browser that wants one, and a problem body otherwise."""
    title = HTTPStatus(status).phrase
    reference = getattr(request.state, "request_id", "")
    if wants_page(request):
        back = "/" if getattr(request.state, "me", None) else "/login"
        shown = reference if status >= 500 else ""
        answer: Response = page(
            request, "error.html.j2", status=status, title=title, text=detail, back=back, reference=shown
        )
        answer.headers.update(headers or {})
        return answer
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request": reference, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def wants_page(request: Request) -> bool:
    """Whether the caller is a browser that shows what comes; programs, and the pages' own scripts, ask for JSON."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, SignInFirst) and wants_page(request) and request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login" if asked == "/" else f"/login?next={quote(asked, safe='')}", 303)
    more = error.more if isinstance(error, Problem) else {}
    detail = error.detail if isinstance(error, Problem) else _plain(error)
    return problem(request, error.status_code, detail, dict(error.headers or {}), **more)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Without what was sent: it may be a name, and an answer may be logged by the caller.
    wrong = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in wrong)
    return problem(request, 422, f"The request does not fit: {detail}.", wrong=wrong)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, DermalertError)
    status = status_of(error)
    if status == 500:
        return await _unforeseen(request, error)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else None
    return problem(request, status, str(error), headers)


async def _database(request: Request, error: Exception) -> Response:
    if not isinstance(error, OperationalError | PoolTimeout) and not getattr(error, "connection_invalidated", False):
        return await _unforeseen(request, error)
    log.error("the database does not answer", extra={"error": type(error).__name__})
    detail = "The database does not answer. What was acknowledged is safe. Send it again in some seconds."
    return problem(request, 503, detail, {"Retry-After": "5"})


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    detail = "Something failed on our side. Try again; if it stays, tell an admin the reference."
    return problem(request, 500, detail)


class LastResort:
    """ASGI middleware: an error that nobody foresaw is logged and answered here, where the headers are still to come.

    Starlette's own comes after all other middleware, and has the server log the error's words.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            answer = await _unforeseen(Request(scope, receive), error)
            await answer(scope, receive, send)


def _plain(error: HTTPException) -> str:
    said = {
        400: "The body cannot be read. Send it in the form that the API's description names, in UTF-8.",
        404: "There is nothing here. Look at the address again.",
        405: "This address does not take that method. Look at the API's description: /api/v1/openapi.json",
        413: "This is more than the service takes in one request. Send less at a time.",
    }
    return said.get(error.status_code, error.detail)
