"""The PDF of a page: all of it, on paper, charts in their colours, and nothing fetched."""

from __future__ import annotations

import re
import socket
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dermalert import page
from dermalert.cli import main
from dermalert.errors import DataError, MissingExtra
from dermalert.page.pdf import to_pdf

try:
    import weasyprint  # noqa: F401
except OSError as missing:
    pytest.skip(f"the Pango libraries are not on this system: {missing}", allow_module_level=True)

BLUE = (0x00, 0x72, 0xB2)  # of the second series, and of what a confusion matrix has right


def html(body: str, *, title: str = "A title") -> str:
    """A page of ours whose main part is `body`."""
    shell: dict[str, Any] = {"command": "dermalert", "made": datetime(2026, 3, 1, 12, 0, tzinfo=UTC)}
    return page.render("base.html.j2", title=title, **shell).replace("</main>", f"{body}</main>")


def drawn(printed: bytes) -> str:
    """What a PDF draws, and its structure, without compression."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", printed, re.DOTALL)
    return "\n".join(_inflated(stream) for stream in streams) + printed.decode("latin-1")


def _inflated(stream: bytes) -> str:
    try:
        return zlib.decompress(stream).decode("latin-1")
    except zlib.error:
        return ""


def pages(printed: bytes) -> int:
    return len(re.findall(r"/Type /Page\b", drawn(printed)))


def colours(printed: bytes, operator: str) -> set[tuple[int, ...]]:
    """The colours that are set, in [0, 255]: by "rg" to fill, by "RG" to draw lines."""
    found = re.findall(rf"([\d.]+) ([\d.]+) ([\d.]+) {operator}\b", drawn(printed))
    return {tuple(round(255 * float(part)) for part in colour) for colour in found}


def test_a_page_becomes_a_pdf_that_goes_on_over_as_many_pages_as_it_takes() -> None:
    rows = "".join(f"<tr><th>{row}</th><td>{'words ' * 60}</td></tr>" for row in range(60))
    short, long = to_pdf(html("<p>Short.</p>")), to_pdf(html(f"<section><table>{rows}</table></section>"))
    assert short.startswith(b"%PDF-")
    assert pages(short) == 1
    assert pages(long) > 3


def test_charts_keep_the_colours_of_their_series() -> None:
    curve = ([0.0, 0.2, 1.0], [0.0, 0.8, 1.0])
    chart = page.roc({"one": curve, "other": curve}, question="melanoma")
    assert BLUE in colours(to_pdf(html(str(chart))), "RG")
    assert BLUE not in colours(to_pdf(html("")), "RG")


def test_a_confusion_matrix_is_shaded_as_on_the_screen() -> None:
    cell = '<table><tr><td class="{}" style="--share:1.000">9</td></tr></table>'
    right, wrong = (colours(to_pdf(html(cell.format(kind))), "rg") for kind in ("right", "wrong"))
    assert BLUE in right - wrong
    assert (194, 73, 10) in wrong - right


def test_nothing_outside_the_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "secret.txt").write_text("a secret")
    asks = f'<a rel="attachment" href="{(tmp_path / "secret.txt").as_uri()}">x</a><img src="http://example.org/x.png">'
    assert "a secret" not in drawn(to_pdf(html(asks)))


def test_every_variable_that_a_chart_uses_has_a_value_on_paper() -> None:
    from dermalert.page import pdf

    assert "var(" not in pdf._chart_style()
    assert "#000" in pdf._chart_style()  # ink, as it is on paper


def test_a_page_of_others_is_not_printed() -> None:
    with pytest.raises(DataError, match="page that Dermalert made"):
        to_pdf("<html><body>Hello</body></html>")


def test_without_weasyprint_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtra, match=r"Pango.*\[pdf\]"):
        to_pdf(html(""))


def test_the_command_writes_it_beside_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text(html("<p>Hello.</p>"), "utf-8")
    main(["pdf", str(tmp_path / "report.html")])
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'report.pdf'}\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.pdf"]
    assert pages((tmp_path / "report.pdf").read_bytes()) == 1


@pytest.mark.parametrize(
    ("content", "told"), [(b"<p>Hello.</p>", "page that Dermalert made"), (b"\xff\xfe", "no text in UTF-8")]
)
def test_the_command_names_a_file_that_is_no_page_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str
) -> None:
    (tmp_path / "other.html").write_bytes(content)
    with pytest.raises(SystemExit, match="1"):
        main(["pdf", str(tmp_path / "other.html")])
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'other.html'}: " in shown
    assert told in shown
    assert not (tmp_path / "other.pdf").exists()
