"""Reads a page as a parser and a screen reader would, and lists what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "hr", "link", "input", "path", "circle", "rect"}
_FETCHES = ("src", "href", "srcset", "data", "poster", "action", "xlink:href")


@dataclass
class Reading(HTMLParser):
    """What was found: `headings` as (level, text), `text` of everything, and `problems`."""

    headings: list[tuple[int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._ids: set[str] = set()
        self._needs: dict[str, bool] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._first_child(tag)
        if tag not in _VOID or (
            tag in {"path", "circle", "rect"} and not (self.get_starttag_text() or "").endswith("/>")
        ):
            self._open.append(tag)
        if tag == "img" and not given.get("alt"):
            self.problems.append("img without alt")
        if tag == "th" and given.get("scope") not in {"col", "row"}:
            self.problems.append("th without scope")
        if tag in {"script", "iframe", "object", "embed", "link", "base", "form"}:
            self.problems.append(f"<{tag}> in the page")
        for name, value in given.items():
            if name.startswith("on"):
                self.problems.append(f"handler {name}")
            if name in _FETCHES and not (value or "").startswith(("#", "data:")):
                self.problems.append(f"{name} leaves the page: {value}")
        if (mark := given.get("id")) is not None:
            if mark in self._ids:
                self.problems.append(f"id {mark} twice")
            self._ids.add(mark)
        if tag[0] == "h" and tag[1:].isdigit():
            if self.headings and int(tag[1]) > self.headings[-1][0] + 1:
                self.problems.append(f"h{tag[1]} right after h{self.headings[-1][0]}")
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def _first_child(self, tag: str) -> None:
        if self._open and self._open[-1] == "svg" and not self._needs.get("svg"):
            self._needs["svg"] = True
            if tag != "title":
                self.problems.append("svg without title")
        if tag == "svg":
            self._needs["svg"] = False
        if self._open and self._open[-1] == "table" and not self._needs.get("table"):
            self._needs["table"] = True
            if tag != "caption":
                self.problems.append("table without caption")
        if tag == "table":
            self._needs["table"] = False

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.headings and self._open and self._open[-1][0] == "h" and self._open[-1][1:].isdigit():
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)


def read(html: str) -> Reading:
    """Parses `html` to its end."""
    reading = Reading()
    reading.feed(html)
    reading.close()
    if reading._open:
        reading.problems.append(f"never closed: {', '.join(reading._open)}")
    return reading
