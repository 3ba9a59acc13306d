"""`dermalert serve` as a process of its own, and a Chromium to look at it, for tests and screenshots."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ADMIN, PASSWORD = "admin", "seven green boats at noon"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def served(data: Path, **variables: str) -> Iterator[str]:
    """Serves a new clinic on a free port, and ends it in order; the link that sets the admin's password."""
    command = [sys.executable, "-m", "dermalert.cli", "serve", "--data", str(data), "--port", "0"]
    with (data.parent / f"{data.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **variables}
        )
        assert process.stdout
        try:
            told = process.stdout.readline()
            found = re.search(r"http://\S+", told)
            assert found, f"{told!r}: {(data.parent / f'{data.name}.log').read_text()[-2000:]}"
            yield found[0]
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    # It refuses to run as root in its sandbox; CI's container is its own.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


def sign_in(page: Page, link: str) -> None:
    """Sets the admin's password by the link, and signs in with it."""
    page.goto(link)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    page.get_by_label("Name").fill(ADMIN)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/worklist")
