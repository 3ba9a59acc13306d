"""Who may do what: every route says for whom it is, and one that does not keeps the service from starting.

Comes in: requests that anybody may have made. Goes out: a `Visitor` that the route may trust, or 401, 403, 429. Three
things are checked before a route runs, and before its body is read: who it is (`accounts`), whether the route is for
such a person, and whether the request comes from a page of ours: one with a cookie that changes something must carry
the session's CSRF token (the header X-CSRF-Token, or the form field `csrf`) and must not come from another site.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from hmac import compare_digest
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dermalert.clinic import accounts
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.problems import Problem, SignInFirst
from dermalert.clinic.schema import Role
from dermalert.clinic.service import Here, Service
from dermalert.clinic.settings import Settings
from dermalert.clinic.throttle import Throttle

SESSION = "dermalert"
FORM = "dermalert-form"  # of who has not signed in: what the form of signing in must carry
_SAFE = ("GET", "HEAD", "OPTIONS")

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="An API token, made by an admin.")
_cookie = APIKeyCookie(name=SESSION, auto_error=False, scheme_name="session", description="A browser's session.")


class Rule:
    """A dependency that lets only some visitors pass, and gives the route its `Visitor`.

    Use `allow` or `anyone`.
    """

    def __init__(self, roles: frozenset[Role | None], *, tokens: bool, csrf_in_body: bool) -> None:
        self.roles = roles
        self.tokens = tokens
        self.csrf_in_body = csrf_in_body

    async def __call__(
        self,
        request: Request,
        service: Here,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        _: Annotated[str | None, Security(_cookie)],
    ) -> Visitor:
        visitor = await run_in_threadpool(_who, request, service, bearer.credentials if bearer else None)
        request.state.me = visitor if visitor.role else None
        request.state.csrf = visitor.csrf
        if visitor.role not in self.roles:
            if visitor.role is None:
                raise SignInFirst
            raise Problem(403, f"This is not for the role {visitor.role}. Ask an admin, or sign in as somebody else.")
        if visitor.by == "token":
            if not self.tokens:
                raise Problem(403, "API tokens cannot do this. Sign in with a browser.")
        elif request.method not in _SAFE:
            await self._check_origin(request, visitor, service.settings.link_base)
        return visitor

    async def _check_origin(self, request: Request, visitor: Visitor, ours: str) -> None:
        if not _from_our_pages(request, ours):
            raise Problem(403, "This came from another site's page. Open the page here and send it again.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        sent = request.headers.get("x-csrf-token")
        if sent is None and kind == "application/x-www-form-urlencoded":
            sent = str((await request.form()).get("csrf", ""))
        if sent is None and kind == "multipart/form-data" and self.csrf_in_body:
            return
        check_csrf(visitor, sent)


def allow(*roles: Role, tokens: bool = True, csrf_in_body: bool = False) -> Any:
    """A route's rule: only these roles may call it. Give it as a dependency, or as a parameter's annotation:

        visitor: Annotated[Visitor, allow(Role.READER, Role.ADMIN)]

    Args:
        tokens: whether API tokens may; not where accounts are managed.
        csrf_in_body: the route takes multipart forms, which are read as a stream, and calls `check_csrf` itself.
    """
    return Depends(Rule(frozenset(roles), tokens=tokens, csrf_in_body=csrf_in_body))


def anyone() -> Any:
    """A route's rule: everybody may call it, signed in or not."""
    return Depends(Rule(frozenset({*Role, None}), tokens=True, csrf_in_body=False))


def check_csrf(visitor: Visitor, sent: str | None) -> None:
    """Sees that a form was made by a page of ours for this visitor.

    Raises:
        Problem: 403.
    """
    if not visitor.csrf or not compare_digest((sent or "").encode(), visitor.csrf.encode()):
        raise Problem(403, "The form is too old, or was not made here. Load the page again and send it once more.")


def check_every_route(app: FastAPI, public: tuple[str, ...] = ("/static",)) -> None:
    """Fails where a route says not for whom it is.

    Args:
        public: the mounts that serve files to everybody.

    Raises:
        RuntimeError: of a programmer's making: it names the routes.
    """
    bare = [path for path, rule in rules(app) if rule is None and path not in public]
    if bare:
        raise RuntimeError(f"these routes do not say who may call them: {', '.join(bare)}. Give them access.allow(…).")


def rules(app: FastAPI) -> Iterator[tuple[str, Rule | None]]:
    """Each route as "GET /path", or "/path" of a mount, and its rule; None where it has none or several."""
    for route in iter_route_contexts(app.routes):
        if not isinstance(route.original_route, APIRoute):
            yield str(route.path), None
            continue
        found = list(_rules_in(route.dependant))
        for method in sorted(route.methods or ()):
            yield f"{method} {route.path}", found[0] if len(found) == 1 else None


def throttled(throttle: Throttle, key: str) -> None:
    """Sees that `key` does not ask too often.

    Raises:
        Problem: 429, with Retry-After.
    """
    seconds = throttle.wait(key)
    if seconds:
        wait = str(int(seconds) + 1)
        raise Problem(429, f"Too many requests. Try again in {wait} s.", headers={"Retry-After": wait})


def address_of(request: Request) -> str:
    """Where the request comes from: the address, or of IPv6 the network, for one person has a whole one."""
    host = request.client.host if request.client else ""
    return ":".join(host.split(":")[:4]) if ":" in host else host


# Cookies


def keep_session(response: Response, settings: Settings, cookie: str) -> None:
    """Has the browser keep the session until it is closed."""
    _set_cookie(response, settings, SESSION, cookie)


def end_session(response: Response, settings: Settings) -> None:
    """Has the browser forget the session and all that it keeps of our pages."""
    response.delete_cookie(_named(settings, SESSION), secure=settings.https, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'


def session_cookie(request: Request, settings: Settings) -> str:
    """What the browser sent as its session; empty where it has none."""
    return request.cookies.get(_named(settings, SESSION), "")


def form_token(request: Request) -> str:
    """What the forms of this visitor must carry, signed in or not; give `keep_form_token` the response."""
    request.state.csrf = request.state.csrf or secrets.token_urlsafe(24)
    token: str = request.state.csrf
    return token


def keep_form_token(response: Response, request: Request, settings: Settings) -> None:
    """Has the browser of somebody who has not signed in send the form's token back by itself, too."""
    if getattr(request.state, "me", None) is None:
        _set_cookie(response, settings, FORM, form_token(request))


def _set_cookie(response: Response, settings: Settings, name: str, value: str) -> None:
    # Lax, so that a link in an e-mail opens the case; what changes something is guarded by the token.
    response.set_cookie(_named(settings, name), value, path="/", secure=settings.https, httponly=True, samesite="lax")


def _named(settings: Settings, name: str) -> str:
    return f"__Host-{name}" if settings.https else name


def _who(request: Request, service: Service, token: str | None) -> Visitor:
    if token is not None:
        visitor = accounts.visitor_by_token(service.store, token)
        if visitor is None:
            raise SignInFirst("This API token is unknown or was revoked. Ask an admin for another.")
        return visitor
    cookie = session_cookie(request, service.settings)
    known = accounts.visitor_by_session(service.store, cookie) if cookie else None
    return known or Visitor(csrf=request.cookies.get(_named(service.settings, FORM), ""))


def _from_our_pages(request: Request, ours: str) -> bool:
    # Browsers tell one or the other of every request that changes something; what tells neither is no browser.
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or origin == ours or urlsplit(origin).netloc == request.headers.get("host")


def _rules_in(dependant: Dependant | None) -> Iterator[Rule]:
    for each in dependant.dependencies if dependant else ():
        if isinstance(each.call, Rule):
            yield each.call
        yield from _rules_in(each)


# Headers

_HEADERS = {
    # Nothing but our own files; no script or style within a page; nobody frames us, no form leads elsewhere.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer", with which browsers hide the origin of forms, too.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """ASGI middleware: every response, an error too, carries them; and none is cached unless its route says so."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self.app = app
        self.headers = dict(_HEADERS)
        if https:
            self.headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, sending)
