"""The service as one ASGI application: its routes, what guards them, and what runs beside them.

Comes in: settings. Goes out: a FastAPI app that opens the database and starts the background tasks when a server starts
it, and ends them when the server stops. A new router goes into `ROUTERS`, a new background task into `BACKGROUND`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.staticfiles import StaticFiles

import dermalert
from dermalert.clinic import access, accounts, logs, problems
from dermalert.clinic.delivery import telling
from dermalert.clinic.routes import admin, alerts, api, auth, events, health, images, metrics, pages, reports, uploads
from dermalert.clinic.service import Service
from dermalert.clinic.settings import Settings
from dermalert.clinic.templating import STATIC
from dermalert.clinic.watching import Watcher
from dermalert.clinic.worker import Workers

MOST_BODY = 1_000_000  # bytes of a request that brings no pictures

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    auth.router,
    admin.router,
    uploads.router,
    api.router,
    pages.router,
    images.router,
    events.router,
    alerts.router,
    reports.router,
    metrics.router,
)


@contextmanager
def _scoring(service: Service) -> Iterator[None]:
    workers = Workers(service.store, service.files, service.models, service.settings)
    workers.start()
    try:
        yield
    finally:
        workers.stop()


@contextmanager
def _watching(service: Service) -> Iterator[None]:
    if service.settings.watch is None:
        yield
        return
    watcher, stop = Watcher(service.store, service.files, service.settings.watch, service.bounds), threading.Event()
    thread = threading.Thread(target=watcher.run, args=(stop,), name="watching", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# Each runs as long as the service: it starts when entered, and has ended when left.
BACKGROUND: tuple[Callable[[Service], AbstractContextManager[object]], ...] = (
    _scoring,
    _watching,
    lambda service: service.references.kept_ready(),
    lambda service: telling(service.store, service.settings, service.drift),
)


def make_app(settings: Settings) -> FastAPI:
    """The application, not yet started.

    Raises:
        DataError: the database's URL is none.
        RuntimeError: a route does not say who may call it.
    """
    service = Service.of(settings)
    app = FastAPI(
        title="Dermalert",
        summary="Pictures in, worklist and decisions out.",
        description=(
            "Research software that supports a clinician and decides nothing alone. Send `Authorization: Bearer` with "
            "an API token. Errors are problem bodies (RFC 9457) whose `detail` says what to do."
        ),
        version=dermalert.__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # served by routes/api.py, under a rule
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its spans would hold addresses
        middleware=[
            Middleware(access.SecurityHeaders, https=settings.https),
            Middleware(logs.RequestLog),
            Middleware(problems.LastResort),
            Middleware(RequestBodyLimitMiddleware, max_body_size=MOST_BODY),
        ],
    )
    app.state.service = service
    problems.answer_with(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    access.check_every_route(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    running = ExitStack()
    await run_in_threadpool(_start, service, running)
    try:
        yield
    finally:
        await run_in_threadpool(running.close)


def _start(service: Service, running: ExitStack) -> None:
    service.settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    service.store.upgrade()
    running.callback(service.store.close)
    with service.store.session() as session:
        accounts.sweep(session)
    service.files.sweep()
    for each in BACKGROUND:
        running.enter_context(each(service))
