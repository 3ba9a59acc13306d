"""How the clinic fares: the dashboard for people, and metrics for Prometheus, which signs in with an API token."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dermalert.clinic import drift
from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.dashboard import dashboard
from dermalert.clinic.schema import Role, now
from dermalert.clinic.service import Here
from dermalert.clinic.templating import page
from dermalert.clinic.worklist import VIEWS

router = APIRouter(include_in_schema=False)

PERIODS = (7, 30, 90, 365)  # days


@router.get("/dashboard")
def dashboard_page(
    request: Request,
    service: Here,
    visitor: Annotated[Visitor, allow(Role.READER, Role.ADMIN)],  # noqa: ARG001
    days: Annotated[Literal["7", "30", "90", "365"], Query()] = "30",
) -> Response:
    """Volumes, waiting times, agreement, sensitivity against histology, and drift."""
    model = service.models.current()
    with service.store.reading() as session:
        figures = dashboard(session, model.digest, now(), int(days))
        moved = service.drift(session)
    return page(
        request,
        "dashboard.html.j2",
        here="dashboard",
        figures=figures,
        drift=moved,
        about=drift,
        days=int(days),
        periods=PERIODS,
        bundle=model.bundle,
        digest=model.digest,
        views=list(VIEWS),
        today=now().date(),
    )


@router.get("/metrics")
def metrics(service: Here, visitor: Annotated[Visitor, allow(*Role)]) -> Response:  # noqa: ARG001
    """In Prometheus' text format: counts and times alone, so that an uploader's token is enough to read them."""
    registry = CollectorRegistry()
    registry.register(service.collector)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
