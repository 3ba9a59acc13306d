"""Managing accounts and tokens, and reading the audit trail: for admins, in a browser."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from dermalert.clinic import accounts
from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.schema import Role, TrailEntry
from dermalert.clinic.service import Here, Service
from dermalert.clinic.templating import page
from dermalert.errors import DataError

router = APIRouter(prefix="/admin", include_in_schema=False)

Admin = Annotated[Visitor, allow(Role.ADMIN, tokens=False)]
Words = Annotated[str, Form(max_length=1000)]
_LINES = 200  # of the trail, on its page


@router.get("")
def first_page(visitor: Admin) -> Response:  # noqa: ARG001
    """Leads to the accounts."""
    return RedirectResponse("/admin/users", 303)


@router.get("/users")
def users_page(request: Request, service: Here, visitor: Admin) -> Response:  # noqa: ARG001
    """All accounts and tokens."""
    return _users(request, service)


@router.post("/users")
def add_user(request: Request, service: Here, visitor: Admin, name: Words, role: Words, email: Words = "") -> Response:
    """Makes an account, and shows the link that sets its password; of an uploader, its first token."""
    try:
        with service.store.session() as session:
            user = accounts.add_user(session, visitor.name, name, role, email)
            uploads = user.role == Role.UPLOADER
            secret = (
                accounts.new_token(session, visitor.name, user.id, "first")
                if uploads
                else accounts.new_link(session, visitor.name, user.id)
            )
    except DataError as error:
        return _users(request, service, status=422, wrong=str(error))
    if uploads:
        return _users(request, service, of=user.name, secret=secret)
    return _users(request, service, of=user.name, link=_address(service, secret))


@router.post("/users/{id}/link")
def new_link(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Shows a link that sets a new password."""
    try:
        with service.store.session() as session:
            link = accounts.new_link(session, visitor.name, id)
    except DataError as error:
        return _users(request, service, status=422, wrong=str(error))
    return _users(request, service, link=_address(service, link), of=_name(service, id))


@router.post("/users/{id}/token")
def new_token(id: str, request: Request, service: Here, visitor: Admin, name: Words) -> Response:  # noqa: A002
    """Makes an API token of a user and shows it, this once."""
    try:
        with service.store.session() as session:
            secret = accounts.new_token(session, visitor.name, id, name)
    except DataError as error:
        return _users(request, service, status=422, wrong=str(error))
    return _users(request, service, secret=secret, of=_name(service, id))


@router.post("/users/{id}/role")
def set_role(id: str, request: Request, service: Here, visitor: Admin, role: Words) -> Response:  # noqa: A002
    """Gives a user another role."""
    return _changed(request, service, accounts.set_role, visitor.name, id, role)


@router.post("/users/{id}/disable")
def disable(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Ends a user's sessions and tokens, and lets nobody in by that name."""
    return _changed(request, service, accounts.set_disabled, visitor.name, id, True)


@router.post("/users/{id}/enable")
def enable(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Lets a user in again."""
    return _changed(request, service, accounts.set_disabled, visitor.name, id, False)


@router.post("/tokens/{id}/revoke")
def revoke(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Makes a token void."""
    return _changed(request, service, accounts.revoke_token, visitor.name, id)


@router.get("/trail")
def trail_page(request: Request, service: Here, visitor: Admin, before: int = 0) -> Response:  # noqa: ARG001
    """The last lines of the audit trail, or those before one."""
    lines = select(TrailEntry).order_by(TrailEntry.seq.desc()).limit(_LINES)
    if 0 < before < 2**62:
        lines = lines.where(TrailEntry.seq < before)
    with service.store.reading() as session:
        entries = list(session.scalars(lines))
    return page(request, "trail.html.j2", here="admin", entries=entries)


def _changed(request: Request, service: Service, change: Any, *arguments: Any) -> Response:
    try:
        with service.store.session() as session:
            change(session, *arguments)
    except DataError as error:
        return _users(request, service, status=422, wrong=str(error))
    return RedirectResponse("/admin/users", 303)


def _users(
    request: Request,
    service: Service,
    *,
    status: int = 200,
    wrong: str = "",
    link: str = "",
    secret: str = "",
    of: str = "",
) -> Response:
    with service.store.reading() as session:
        users, tokens = accounts.users(session), accounts.tokens(session)
    return page(
        request,
        "users.html.j2",
        status=status,
        here="admin",
        users=users,
        tokens=tokens,
        roles=list(Role),
        wrong=wrong,
        link=link,
        secret=secret,
        of=of,
    )


def _address(service: Service, link: str) -> str:
    return f"{service.settings.link_base}/welcome?token={link}"


def _name(service: Service, user_id: str) -> str:
    with service.store.reading() as session:
        return next((user.name for user in accounts.users(session) if user.id == user_id), "")
