"""A page of ours as PDF.

Comes in: the HTML of a page. Goes out: the bytes of a PDF on A4, by the style sheet's rules for print (WeasyPrint, the
optional part `pdf`). Nothing is fetched: what a page shows lies inside it.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from dermalert.errors import DataError, MissingExtra

_ROOM = Path(__file__).parent
_OURS = '<meta name="generator" content="Dermalert '
_CHART = re.compile(r"<svg [^>]*>")  # attributes are escaped: none holds a >
_ROOT = re.compile(r":root \{(.*?)\}", re.DOTALL)
_VARIABLE = re.compile(r"--([\w-]+):\s*([^;]+);")
_USE = re.compile(r"var\(--([\w-]+)\)")
_SHARE = re.compile(r'<td class="(right|wrong)" style="--share:([\d.]+)')  # of a confusion matrix


def to_pdf(html: str) -> bytes:
    """The page as PDF.

    Raises:
        DataError: no page that Dermalert made.
        MissingExtra: WeasyPrint is not installed, or not the Pango libraries that it draws with.
    """
    if _OURS not in html:
        raise DataError("Only a page that Dermalert made can be printed, such as a report.html.")
    weasyprint = _weasyprint()
    # WeasyPrint gives a chart none of the page's rules, only those that stand inside it, and computes no colour.
    styled = _CHART.sub(lambda opening: f"{opening[0]}<style>{_chart_style()}</style>", html)
    styled = _SHARE.sub(_shaded, styled)
    inside = weasyprint.urls.URLFetcher(allowed_protocols=("data",))
    printed: bytes = weasyprint.HTML(string=styled, url_fetcher=inside).write_pdf()
    return printed


def _weasyprint() -> Any:
    try:
        import weasyprint
    except (ImportError, OSError):  # OSError: Pango is a library of the system, which pip cannot install
        raise MissingExtra("Printing to PDF, with the system's Pango library,", "pdf") from None
    weasyprint.LOGGER.setLevel(logging.ERROR)  # it warns of each rule that is for screens alone
    return weasyprint


@lru_cache(maxsize=1)
def _on_paper() -> dict[str, str]:
    """The style sheet's variables, with those that it has for paper."""
    light, *_, paper = _ROOT.findall((_ROOM / "page.css").read_text(encoding="utf-8"))
    return dict(_VARIABLE.findall(light)) | dict(_VARIABLE.findall(paper))


@lru_cache(maxsize=1)
def _chart_style() -> str:
    # Without an outline behind the text: it would be drawn over the letters.
    rules = (_ROOM / "chart.css").read_text(encoding="utf-8") + ".chart .over { stroke: none; }"
    return _USE.sub(lambda use: _on_paper()[use[1]], rules)


def _shaded(cell: re.Match[str]) -> str:
    """The cell with the shade that the style sheet's `calc` gives it."""
    values = _on_paper()
    hue = values["heat" if cell[1] == "right" else "heat-wrong"]
    return f"{cell[0]}; background: rgba({hue}, {0.07 + float(cell[2]) * float(values['most']):.3f})"
