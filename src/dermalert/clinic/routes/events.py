"""News for open pages: a stream of server-sent events that tells when cases have changed, and nothing about them.

Comes in: a reader's page. Goes out: a stamp whenever it moves; the page then fetches what it shows. All pages of a
service share one look at the database a second. A stream ends after a minute, and the browser asks for another: so a
session that has ended hears no more, and the server is never kept from stopping for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from dermalert.clinic.access import allow
from dermalert.clinic.accounts import Visitor
from dermalert.clinic.news import EVERY
from dermalert.clinic.schema import Role
from dermalert.clinic.service import Here, Service

router = APIRouter(include_in_schema=False)

LASTS = 60.0  # seconds of a stream
_STREAMS = 200  # at one moment


@router.get("/events")
async def events(
    request: Request,
    service: Here,
    visitor: Annotated[Visitor, allow(Role.READER, Role.ADMIN, tokens=False)],  # noqa: ARG001
    case: Annotated[str, Query(max_length=32)] = "",
) -> StreamingResponse:
    """The stamp of all cases, or of one."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would keep the news for itself
    return StreamingResponse(_stream(request, service, case), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, service: Service, case: str) -> AsyncIterator[str]:
    news = service.news
    if news.streams >= _STREAMS:
        yield "retry: 30000\n\n"
        return
    news.streams += 1
    try:
        yield "retry: 1000\n"
        ends, told, seen = time.monotonic() + LASTS, None, -1
        while time.monotonic() < ends and not await request.is_disconnected():
            stamp = await run_in_threadpool(news.stamp)
            if case and stamp != seen:  # something has changed: was it this case?
                seen, stamp = stamp, await run_in_threadpool(news.stamp_of, case)
            elif case:
                stamp = told or 0
            if stamp != told:
                told = stamp
                yield f"event: stamp\ndata: {stamp}\n\n"
            await asyncio.sleep(EVERY)
    finally:
        news.streams -= 1
