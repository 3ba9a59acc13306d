"""The service as a process: it listens, runs until it is told to stop, and ends in order.

Comes in: settings. Goes out: a server. On SIGTERM or Ctrl-C it takes no more requests, gives those at hand ten seconds,
lets the workers finish their cases, and closes the database.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import uvicorn

from dermalert.clinic import logs
from dermalert.clinic.app import make_app
from dermalert.clinic.settings import Settings
from dermalert.errors import DataError

_LAST_REQUESTS = 10  # seconds
_BACKLOG = 512  # connections that wait to be taken


@contextmanager
def listening(settings: Settings) -> Iterator[tuple[Settings, socket.socket]]:
    """A socket at the host and port of the settings, and these with the port it has: of port 0, a free one.

    Raises:
        DataError: another program listens there, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        taken = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise DataError(
            f"cannot listen on {settings.host}, port {settings.port} ({error.strerror}). Give another --port or --host."
        ) from None
    with taken:
        yield replace(settings, port=taken.getsockname()[1]), taken


def run(settings: Settings, taken: socket.socket, ready: Callable[[str], None]) -> None:
    """Serves until it is told to stop.

    Args:
        ready: is told the name of the model, once it is loaded and before the first request.

    Raises:
        BundleError: the model cannot be loaded.
    """
    app = make_app(settings)
    ready(app.state.service.models.current().bundle.name)
    logs.log_to()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies or None,
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )
    uvicorn.Server(config).run(sockets=[taken])
