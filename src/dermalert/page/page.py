"""The shell around every page.

Comes in: the name of a template and its values. Goes out: one HTML text that needs no network, no script and
no second file. It trusts no value: all text is escaped, and control and direction-changing characters shown as
escapes, so that a file name can neither run nor disguise itself.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

import dermalert
from dermalert.errors import printable

_ROOM = Path(__file__).parent


def render(template: str, *, title: str, command: str, made: datetime, **values: Any) -> str:
    """The page that `template` makes of `values`.

    Templates extend `base.html.j2` and lie in this room's `templates` folder or beside the code that uses them
    (`judge/report.html.j2`). Besides `values` they see the filters `percent`, `count` and `decimal`, and the
    macros of `macros.html.j2`.

    Args:
        title: of the page; its first heading.
        command: what the reader types to have this page again; stands in the footer.
        made: when; the clock is the caller's.
    """
    page = _environment().get_template(template)
    return page.render(title=title, command=command, made=made, version=dermalert.__version__, **values)


class Section(NamedTuple):
    """A part of a page that another room wrote.

    Attributes:
        title: its heading; the page makes its anchor of it.
        html: its content, from `fragment`; begins with one plain sentence, `<p class="plain">`.
    """

    title: str
    html: Markup


def fragment(template: str, **values: Any) -> Markup:
    """A part of a page: what `template` makes of `values`, which are escaped as in `render`."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704 (escaped by the template)


def write(file: Path, html: str) -> None:
    """Writes a page as UTF-8, whole or not at all: a reader never meets half of one."""
    part = file.with_name(file.name + ".part")
    part.write_text(html, encoding="utf-8", newline="\n")
    part.replace(file)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_ROOM / "templates", _ROOM.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, count=count, decimal=decimal)
    style = [(_ROOM / name).read_text(encoding="utf-8") for name in ("chart.css", "page.css")]
    environment.globals["css"] = Markup("".join(style))  # noqa: S704 (our own file)
    return environment


def _harmless(value: Any) -> Any:
    # Markup is text that a template or a figure of ours made; plain str may come from a file name.
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def percent(fraction: float, digits: int = 0) -> str:
    """`0.947` as `95 %`; never rounds a fraction short of 1 up to 100 %, nor one above 0 down to 0 %."""
    if math.isnan(fraction):
        return "cannot be computed"
    text = f"{100 * fraction:.{digits}f}"
    if float(text) in (0.0, 100.0) and fraction not in (0.0, 1.0) and digits < 2:
        return percent(fraction, digits + 1)
    return f"{text}\N{NO-BREAK SPACE}%"


def decimal(value: float, digits: int = 2) -> str:
    """`0.8567` as `0.86`, and `0.998` as `0.998`: what falls short of 1 is not shown as 1, nor what is above 0 as 0."""
    if math.isnan(value):
        return "cannot be computed"
    text = f"{value:.{digits}f}"
    rounded_away = (value < 1 <= float(text)) or (float(text) <= 0 < value)
    return decimal(value, digits + 1) if rounded_away and digits < 4 else text


def count(number: int) -> str:
    """`12345` as `12 345`, with a narrow space that does not break."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
