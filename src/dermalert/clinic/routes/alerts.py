"""Alerts for people: what was raised, taking note of it, and for admins the rules."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from dermalert.clinic import alerts
from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.schema import Role, now
from dermalert.clinic.service import Here, Service
from dermalert.clinic.templating import page
from dermalert.errors import DataError

router = APIRouter(prefix="/alerts", include_in_schema=False)

Reader = Annotated[Visitor, allow(Role.READER, Role.ADMIN)]
Admin = Annotated[Visitor, allow(Role.ADMIN, tokens=False)]
Words = Annotated[str, Form(max_length=600)]
_TOLD = {
    "noted": "You have taken note of it. Nothing more is sent of it.",
    "added": "The rule is on.",
    "tested": "A test is on its way: whether it arrived stands in the list below, in some seconds.",
    "on": "The rule is on.",
    "off": "The rule is off. What was raised before is still sent.",
}


@router.get("")
def alerts_page(
    request: Request,
    service: Here,
    visitor: Reader,  # noqa: ARG001
    told: Annotated[str, Query(max_length=20)] = "",
    which: Annotated[str, Query(max_length=10)] = "open",
) -> Response:
    """What was raised, and the rules."""
    return _shown(request, service, told=_TOLD.get(told, ""), only_open=which != "all")


@router.post("/{id}/acknowledge")
def acknowledge(id: str, request: Request, service: Here, visitor: Reader) -> Response:  # noqa: A002
    """Takes note of an alert."""
    return _done(request, service, "noted", alerts.acknowledge, visitor.name, id)


@router.post("/rules")
def add_rule(
    request: Request,
    service: Here,
    visitor: Admin,
    name: Words = "",
    kind: Words = "",
    channel: Words = "",
    target: Words = "",
    percent: Words = "",
    hours: Words = "",
    digest: Words = "",
) -> Response:
    """Makes a rule."""
    try:
        share = _number(percent, "The probability")
        more = {"threshold": None if share is None else share / 100, "hours": _number(hours, "The hours")}
    except DataError as error:
        return _shown(request, service, wrong=str(error), status=422)
    given = {"name": name, "kind": kind, "channel": channel, "target": target, "digest": bool(digest), **more}
    return _done(request, service, "added", alerts.add_rule, visitor.name, service.settings, **given)


@router.post("/rules/{id}/test")
def test(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Sends a test to the rule's target."""
    return _done(request, service, "tested", alerts.send_test, visitor.name, id, now())


@router.post("/rules/{id}/on")
def switch_on(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Switches a rule on."""
    return _done(request, service, "on", alerts.switch, visitor.name, id, on=True)


@router.post("/rules/{id}/off")
def switch_off(id: str, request: Request, service: Here, visitor: Admin) -> Response:  # noqa: A002
    """Switches a rule off."""
    return _done(request, service, "off", alerts.switch, visitor.name, id, on=False)


def _number(text: str, what: str) -> float | None:
    """None where nothing was given."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise DataError(f"{what} must be a number.") from None


def _done(request: Request, service: Service, told: str, change: Any, *arguments: Any, **named: Any) -> Response:
    try:
        with service.store.session() as session:
            change(session, *arguments, **named)
    except DataError as error:
        return _shown(request, service, wrong=str(error), status=422)
    return RedirectResponse(f"/alerts?told={told}", 303)


def _shown(
    request: Request, service: Service, *, told: str = "", wrong: str = "", only_open: bool = True, status: int = 200
) -> Response:
    with service.store.reading() as session:
        rules, raised = alerts.rules(session), alerts.raised(session, unacknowledged=only_open)
    return page(
        request,
        "alerts.html.j2",
        status=status,
        here="alerts",
        told=told,
        wrong=wrong,
        only_open=only_open,
        rules=rules,
        raised=raised,
        kinds=alerts.KINDS,
        channels=alerts.CHANNELS,
        words=alerts.told_of,
        is_admin=request.state.me.role == Role.ADMIN,
    )
