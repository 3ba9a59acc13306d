"""The service's log: a line of JSON for each thing that happened, without a name, an address or a word that was sent.

Comes in: log records and requests. Goes out: lines on stderr. A request is told by its route ("/cases/{id}"), not by
its address; an error by its kind and the lines of code it passed, not by its words. Who did what to which case stands
in the audit trail.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("dermalert.clinic")

_SHOWN = ("request", "method", "route", "status", "ms", "bytes", "error", "worker", "case", "seconds", "count")


class JsonLines(logging.Formatter):
    """A record as one line: when, how grave, from where, what; of its extras only those that are known here."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            # Other libraries' words hold values; ours do not, and stand whole.
            "what": record.getMessage() if record.name.startswith("dermalert") else str(record.msg),
        }
        line.update((name, getattr(record, name)) for name in _SHOWN if hasattr(record, name))
        if record.exc_info and record.exc_info[1]:
            line["error"] = type(record.exc_info[1]).__name__
            line["passed"] = _passed(record.exc_info[2])
        return json.dumps(line, ensure_ascii=True, default=str)


def log_to(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Has everything logged as JSON lines; the server's own line for each request, which holds addresses, is off."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    for name in (
        "httpx",
        "httpcore",
        "fontTools",
        "weasyprint",
        "alembic",
    ):  # theirs would name addresses, or say too much
        logging.getLogger(name).setLevel(logging.WARNING)


class RequestLog:
    """ASGI middleware: gives each request an id, which its response carries, and a line once it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)  # never the caller's, who may have put a name there
        scope.setdefault("state", {})["request_id"] = request_id
        status, size, start = 0, 0, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            extra = {
                "request": request_id,
                "method": scope["method"],
                "route": route_of(scope),
                "status": status,
                "ms": round((time.perf_counter() - start) * 1000, 1),
                "bytes": size,
            }
            log.info("request", extra=extra)


def route_of(scope: Scope) -> str:
    """The path's pattern, as "/cases/{id}"; "-" where no route fits."""
    return getattr(scope.get("route"), "path", "-")


def _passed(trace: TracebackType | None) -> list[str]:
    return [f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in traceback.extract_tb(trace)[-12:]]
