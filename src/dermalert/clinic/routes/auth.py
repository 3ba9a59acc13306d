"""Signing in and out, setting a password, and one's own account: pages with plain forms."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from dermalert.clinic import access, accounts, oidc
from dermalert.clinic.access import allow, anyone, throttled
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.problems import Problem
from dermalert.clinic.schema import Role
from dermalert.clinic.service import Here, Service
from dermalert.clinic.templating import page
from dermalert.errors import DataError, SignInRefused

router = APIRouter(include_in_schema=False)

Me = Annotated[Visitor, allow(Role.READER, Role.ADMIN, tokens=False)]
Words = Annotated[str, Form(max_length=1000)]
SecretWords = Annotated[str, Form(max_length=4 * accounts.MAX_PASSWORD)]


@router.get("/login", dependencies=[anyone()])
def login_page(request: Request, service: Here, next: str = "/") -> Response:  # noqa: A002
    """The form to sign in; whoever is signed in goes on."""
    if request.state.me:
        return RedirectResponse(_inside(next), 303)
    return _form(request, service, "login.html.j2", next=_inside(next), wrong="")


@router.post("/login", dependencies=[anyone()])
def login(
    request: Request,
    service: Here,
    name: Words,
    password: SecretWords,
    next: Words = "/",  # noqa: A002
) -> Response:
    """Opens a session, always a new one."""
    throttled(service.sign_ins, access.address_of(request))
    try:
        cookie = accounts.sign_in(service.store, name.strip(), password, hours=service.settings.session_hours)
    except SignInRefused as refusal:
        return _form(request, service, "login.html.j2", status=401, next=_inside(next), wrong=str(refusal))
    return _signed_in(service, cookie, next)


@router.post("/logout")
def logout(request: Request, service: Here, visitor: Me) -> Response:  # noqa: ARG001
    """Ends the session."""
    accounts.sign_out(service.store, access.session_cookie(request, service.settings))
    response = RedirectResponse("/login", 303)
    access.end_session(response, service.settings)
    return response


@router.get("/welcome", dependencies=[anyone()])
def welcome_page(request: Request, service: Here, token: str = "") -> Response:
    """The form to set a password, where the link is good."""
    with service.store.reading() as session:
        name = accounts.name_by_link(session, token)
    if name is None:
        raise Problem(404, "This link was used before, or is too old. Ask an admin for a new one.")
    return _form(request, service, "welcome.html.j2", token=token, name=name, wrong="")


@router.post("/welcome", dependencies=[anyone()])
def welcome(request: Request, service: Here, token: Words, password: SecretWords) -> Response:
    """Sets the password; the link is then void."""
    throttled(service.sign_ins, access.address_of(request))
    try:
        accounts.set_password_by_link(service.store, token, password)
    except DataError as error:
        with service.store.reading() as session:
            name = accounts.name_by_link(session, token)
        if name is None:
            raise Problem(404, str(error)) from None
        return _form(request, service, "welcome.html.j2", status=422, token=token, name=name, wrong=str(error))
    return RedirectResponse("/login", 303)


@router.get("/account")
def account_page(request: Request, service: Here, visitor: Me) -> Response:
    """One's own account."""
    return _account(request, service, visitor)


@router.post("/account/password")
def change_password(request: Request, service: Here, visitor: Me, old: SecretWords, password: SecretWords) -> Response:
    """Sets another password, and ends all sessions, this one too."""
    throttled(service.sign_ins, access.address_of(request))
    try:
        accounts.change_password(service.store, visitor.user_id, old, password)
    except (SignInRefused, DataError) as error:
        return _account(request, service, visitor, status=422, wrong=str(error))
    response = RedirectResponse("/login", 303)
    access.end_session(response, service.settings)
    return response


@router.post("/account/tokens")
def new_token(request: Request, service: Here, visitor: Me, name: Words) -> Response:
    """Makes an API token of one's own and shows it, this once."""
    try:
        with service.store.session() as session:
            secret = accounts.new_token(session, visitor.name, visitor.user_id, name)
    except DataError as error:
        return _account(request, service, visitor, status=422, wrong=str(error))
    return _account(request, service, visitor, secret=secret)


@router.post("/account/tokens/{id}/revoke")
def revoke_token(id: str, service: Here, visitor: Me) -> Response:  # noqa: A002
    """Makes a token of one's own void."""
    with service.store.session() as session:
        accounts.revoke_token(session, visitor.name, id, of=visitor.user_id)
    return RedirectResponse("/account", 303)


@router.get("/login/oidc", dependencies=[anyone()])
async def to_provider(request: Request, service: Here, next: str = "/") -> Response:  # noqa: A002
    """Sends the browser to the OpenID provider."""
    throttled(service.sign_ins, access.address_of(request))
    return await oidc.to_provider(request, service.settings, _inside(next))


@router.get("/login/oidc/back", dependencies=[anyone()])
async def from_provider(request: Request, service: Here) -> Response:
    """The browser comes back; what it brings is checked with the provider."""
    throttled(service.sign_ins, access.address_of(request))
    settings = service.settings
    try:
        claims, next_ = await oidc.from_provider(request, settings)
        cookie = await run_in_threadpool(
            accounts.sign_in_by_oidc, service.store, claims, hours=settings.session_hours, role=settings.oidc_role
        )
    except SignInRefused as refusal:
        return _form(request, service, "login.html.j2", status=401, next="/", wrong=str(refusal))
    return _signed_in(service, cookie, next_)


def _signed_in(service: Service, cookie: str, next_: str) -> Response:
    response = RedirectResponse(_inside(next_), 303)
    access.keep_session(response, service.settings, cookie)
    return response


def _form(request: Request, service: Service, template: str, *, status: int = 200, **values: Any) -> Response:
    access.form_token(request)
    shown = page(request, template, status=status, oidc=bool(service.settings.oidc_issuer), **values)
    access.keep_form_token(shown, request, service.settings)
    return shown


def _account(
    request: Request, service: Service, visitor: Visitor, *, status: int = 200, wrong: str = "", secret: str = ""
) -> Response:
    with service.store.reading() as session:
        tokens = accounts.tokens(session, visitor.user_id)
    return page(request, "account.html.j2", status=status, tokens=tokens, wrong=wrong, secret=secret)


def _inside(address: str) -> str:
    """The address, where it leads to a page of ours; otherwise the first page."""
    good = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if good else "/"
