"""The pages' templates: values in, an HTML response out.

Comes in: a request, the name of a template and its values. Goes out: HTML in which every value is escaped, and control
and direction-changing characters shown as escapes, so that nothing a sender wrote can run or disguise itself. Static
files are named with a digest of their content, so that browsers may keep them for ever.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

import dermalert
from dermalert.clinic import wording
from dermalert.clinic.schema import Role, now
from dermalert.errors import printable
from dermalert.page.page import count, decimal, percent

STATIC = Path(__file__).parent / "static"
THEME = "theme"  # the cookie of a reader's choice of colours
SHORTCUTS = (
    (("J", "K"), "Next, previous case"),
    (("O",), "Open the marked case"),
    (("/",), "Search"),
    (("W",), "Back to the worklist"),
    (("R",), "Choose “Refer”"),
    (("B",), "Choose “Biopsy”"),
    (("F",), "Choose “Follow up”"),
    (("N",), "Choose “No action”"),
    (("↵",), "Record what is chosen, and open the next"),
    (("Z",), "Zoom in; at the closest, back to the whole picture"),
    (("+", "−", "0"), "Zoom in, out, whole picture"),
    (("E",), "Evidence map on or off"),
    (("?",), "This list"),
)


def page(request: Request, template: str, *, status: int = 200, here: str = "", **values: Any) -> HTMLResponse:
    """The response that `template` makes of `values`, for whoever asks.

    Besides `values`, templates see `me` (the person signed in, or None), `csrf` (for the forms), `theme`, `here` and
    `now`. Pages are never cached: a worklist on a shared computer is gone with the session.

    Args:
        here: the entry of the navigation that this page belongs to.
    """
    state = request.state
    html = (
        environment()
        .get_template(template)
        .render(
            me=getattr(state, "me", None),
            csrf=getattr(state, "csrf", ""),
            theme=theme_of(request),
            here=here,
            status=status,
            now=now(),
            **values,
        )
    )
    return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})


def theme_of(request: Request) -> str:
    """ "light" or "dark" where the reader chose one; empty: as the system has it."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in ("light", "dark") else ""


def navigation(me: Any) -> list[tuple[str, str, str]]:
    """What the person may open: the entry's name, its address and its words."""
    entries = [
        ("worklist", "/worklist", "Worklist", {Role.READER, Role.ADMIN}),
        ("upload", "/upload", "Upload", set(Role)),
        ("dashboard", "/dashboard", "Dashboard", {Role.READER, Role.ADMIN}),
        ("alerts", "/alerts", "Alerts", {Role.READER, Role.ADMIN}),
        ("admin", "/admin", "Administration", {Role.ADMIN}),
    ]
    return [(name, address, words) for name, address, words, roles in entries if me.role in roles]


def static(name: str) -> str:
    """The address of a static file, with a digest of what is in it."""
    return f"/static/{name}?v={_digest(name)}"


@lru_cache(maxsize=64)
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Jinja with our filters; templates that ask for a value nobody gave raise."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(percent=percent, count=count, decimal=decimal, how_long=wording.how_long)
    made.globals.update(
        static=static, navigation=navigation, shortcuts=SHORTCUTS, version=dermalert.__version__, wording=wording
    )
    return made


def _harmless(value: Any) -> Any:
    # Markup is text that a template of ours made; plain str may come from a sender. Lines of a note stay lines.
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.splitlines()))
