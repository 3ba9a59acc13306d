"""The clinic as a reader meets it: a real server, a real Chromium, from the first link to the export."""

from __future__ import annotations

import csv
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from aiosmtpd.controller import Controller
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dermalert.drawn import draw_lesion
from served import CHROMIUM, chromium, served, sign_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1440, "height": 900}
SECONDS = 60_000  # that a slow machine may take, in milliseconds


@dataclass
class Inbox:
    """A mail server's handler that keeps what arrives."""

    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(BytesParser(policy=default).parsebytes(envelope.content))  # type: ignore[arg-type]
        return "250 OK"


@dataclass
class Seen:
    """A served clinic, a browser in which the admin is signed in, what it asked for, and the mails that were sent."""

    address: str
    browser: Browser
    context: BrowserContext
    page: Page
    inbox: Inbox
    asked: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    data = tmp_path_factory.mktemp("served") / "clinic"
    with served(data, DERMALERT_SMTP=f"smtp://127.0.0.1:{port}") as link, chromium() as browser:
        context = browser.new_context(viewport=DESK, reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        parts = urlsplit(link)
        made = Seen(f"{parts.scheme}://{parts.netloc}", browser, context, page, inbox)
        context.on("request", lambda request: made.asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(f"a script failed: {error}"))
        sign_in(page, link)
        expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
        accessible(page)
        yield made
    controller.stop()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven drawn lesions; the shipped model says refer of the first, and of no other."""
    folder = tmp_path_factory.mktemp("drawn")
    files = []
    for number, name in (
        (1, "melanoma"),
        (3, "nevus"),
        (7, "vascular lesion"),
        (9, "nevus"),
        (5, "nevus"),
        (2, "nevus"),
        (8, "nevus"),
    ):
        pixels = draw_lesion(name, np.random.default_rng(number), width=640, height=480)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=92)
    return files


def accessible(page: Page) -> None:
    """Nothing that axe finds against WCAG 2.2 AA, in light and in dark."""
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
        found = Axe().run(page, options={"runOnly": RULES})
        assert not found.violations_count, f"{page.url}, {colours}: {found.generate_report()}"
    page.emulate_media(color_scheme="light")


def test_from_an_upload_to_a_decision_an_alert_and_an_export(seen: Seen, drawn: list[Path], tmp_path: Path) -> None:
    page = seen.go("/alerts")
    page.get_by_label("Name", exact=True).fill("Melanoma to see")
    page.get_by_label("To", exact=True).fill("derma@clinic.example")
    page.get_by_role("button", name="rule").first.click()
    page.wait_for_url("**/alerts?told=added")
    accessible(page)

    # The list is open in another tab, and fills without being loaded again.
    beside = seen.context.new_page()
    beside.goto(f"{seen.address}/worklist")
    expect(beside.get_by_text("Live", exact=True)).to_be_visible(timeout=SECONDS)
    already = beside.locator(".cases li").count()
    seen.go("/upload")
    accessible(page)
    page.get_by_label("Patient’s reference").fill("P-1187")
    page.get_by_label("Site of the body").fill("left forearm")
    wrong = tmp_path / "notes.pdf"
    wrong.write_bytes(b"%PDF-1.7 no picture")
    page.get_by_label("Drop pictures here, or choose them").set_input_files([*drawn[:4], wrong])
    expect(page.get_by_text("4 received, 1 not: see the list.")).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("it is a PDF document")).to_be_visible()
    accessible(page)
    expect(beside.locator(".cases li")).to_have_count(already + 4, timeout=SECONDS)
    expect(beside.locator(".tag.waiting")).to_have_count(0, timeout=SECONDS)
    expect(beside.locator(".cases li").first).to_contain_text("Refer")
    accessible(beside)
    beside.close()

    # Opened, looked at and decided by the keyboard alone.
    seen.go("/worklist")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_url("**/cases/*")
    zoomed = page.locator(".viewer output")
    page.keyboard.press("z")
    expect(zoomed).to_have_text("200 %")
    before = page.locator(".picture").get_attribute("style")
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".picture").get_attribute("style") != before
    page.keyboard.press("0")
    expect(zoomed).to_have_text("100 %")
    evidence = page.locator(".map")
    expect(evidence).to_be_hidden()
    page.keyboard.press("e")
    expect(evidence).to_be_visible()
    page.get_by_label("Opacity").fill("20")
    expect(evidence).to_have_css("opacity", "0.2")
    with page.expect_response("**/evidence?diagnosis=nevus") as answer:
        page.get_by_label("What speaks for").select_option("nevus")
    assert answer.value.ok
    accessible(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    accessible(page)
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.get_by_label("Refer")).to_be_checked()
    page.keyboard.press("Enter")
    page.wait_for_url("**told=decided**")
    expect(page.get_by_text("Your decision is recorded.")).to_be_visible()

    expect_mail(seen.inbox, seen.address)
    seen.go("/dashboard")
    accessible(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    with download.value.path().open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= already + 4
    assert [row["decision"] for row in rows].count("refer") == 1


def expect_mail(inbox: Inbox, address: str) -> None:
    """One mail of one case, with a link and nothing that tells of whom it is."""
    until = time.monotonic() + 30
    while not inbox.mails and time.monotonic() < until:
        time.sleep(0.1)
    (mail,) = inbox.mails
    text = mail.get_content()
    assert f"{address}/cases/" in text
    assert not list(mail.iter_attachments())
    assert "P-1187" not in f"{mail}"


def one_case(seen: Seen, file: Path) -> str:
    """The address of a case that is scored, of a picture of its own."""
    page = seen.go("/upload")
    page.get_by_label("Drop pictures here, or choose them").set_input_files([file])
    link = page.get_by_role("link", name="received")
    address = str(link.get_attribute("href"))
    seen.go(address)
    for _ in range(300):
        if page.get_by_label("No action").count():
            return address
        time.sleep(0.1)
        page.reload()
    raise AssertionError("it was not scored in half a minute")


def test_it_works_without_javascript(seen: Seen, drawn: list[Path]) -> None:
    case = one_case(seen, drawn[4])
    context = seen.browser.new_context(java_script_enabled=False, storage_state=seen.context.storage_state())
    page = context.new_page()
    page.goto(f"{seen.address}/upload")
    page.get_by_label("Drop pictures here, or choose them").set_input_files([drawn[4]])
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("link", name="received before: the same case").click()
    assert page.url == f"{seen.address}{case}"
    page.get_by_label("No action").check()
    page.get_by_role("button", name="Record", exact=True).click()
    # The next case opens, or the worklist after the last: which of the two, the model's scores decide.
    expect(page.get_by_text(re.compile(r"decision is recorded\.|That was the last case of the list\."))).to_be_visible()
    page.goto(f"{seen.address}{case}")
    page.get_by_label("What the pathologist found").select_option("nevus")
    page.get_by_role("button", name="Record histology").click()
    expect(page.get_by_text("The histology is recorded, and the case is closed.")).to_be_visible()
    context.close()


def test_every_page_fits_a_phone_and_asks_nobody_else(seen: Seen, drawn: list[Path]) -> None:
    case = one_case(seen, drawn[5])
    seen.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    paths = ("/worklist", case, "/upload", "/dashboard", "/alerts", "/account", "/admin/users", "/admin/trail", "/no")
    for path in paths:
        page = seen.go(path)
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        if path.startswith(("/account", "/admin", "/no")):  # the others are looked at on their way
            accessible(page)
    seen.page.set_viewport_size(DESK)  # type: ignore[arg-type]
    assert {url for url in seen.asked if not url.startswith((seen.address, "data:"))} == set()


def test_shortcuts_keep_out_of_text_and_can_be_switched_off(seen: Seen, drawn: list[Path]) -> None:
    page = seen.go(one_case(seen, drawn[6]))
    note = page.get_by_label("Note", exact=True)
    note.fill("")
    note.press_sequentially("ejw?r")
    expect(note).to_have_value("ejw?r")
    expect(page.locator("#evidence")).not_to_be_checked()
    page.locator("h1").click()
    page.keyboard.press("?")
    page.get_by_label("Shortcuts of single letters are on").uncheck()
    page.get_by_role("button", name="Close", exact=True).click()
    page.keyboard.press("e")
    expect(page.locator("#evidence")).not_to_be_checked()
    page.evaluate("localStorage.clear()")


def test_axe_finds_what_is_wrong(seen: Seen) -> None:
    page = seen.browser.new_page()
    page.set_content("<html><body><img src='x.png'><input></body></html>")
    with pytest.raises(AssertionError, match="image-alt"):
        accessible(page)
    page.close()
