"""Makes docs/images/: the main pages of the clinic, of a clinic that holds drawn pictures, in the system's Chromium.

python scripts/screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from dermalert.clinic.sample import fill  # noqa: E402
from dermalert.clinic.settings import Settings  # noqa: E402
from served import chromium, served, sign_in  # noqa: E402

OUT = ROOT / "docs" / "images"
DESK, PHONE = (1280, 860), (390, 844)
QUALITY = 82  # of WebP


def main() -> None:
    """Fills a clinic, serves it, and takes the pictures."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "clinic"
        fill(Settings(data=data))
        with served(data) as link, chromium() as browser:
            state = Path(folder) / "state.json"
            page = browser.new_page()
            sign_in(page, link)
            page.context.storage_state(path=state)
            take(browser, state, page.url.rsplit("/", 1)[0])


def take(browser: Browser, state: Path, address: str) -> None:
    """Every picture: its name, page, size and colours."""
    for name, path, size, colours in (
        ("worklist", "/worklist", DESK, "light"),
        ("worklist-dark", "/worklist", DESK, "dark"),
        ("worklist-phone", "/worklist", PHONE, "light"),
        ("case", "/worklist", DESK, "light"),
        ("case-dark", "/worklist", DESK, "dark"),
        ("case-phone", "/worklist", PHONE, "dark"),
        ("upload", "/upload", DESK, "light"),
        ("dashboard", "/dashboard", DESK, "light"),
        ("alerts", "/alerts", DESK, "light"),
    ):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=colours,  # type: ignore[arg-type]
            storage_state=state,
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(address + path)
        if name.startswith("case"):
            page.locator(".cases a").first.click()
            page.wait_for_url("**/cases/*")
            page.locator("#evidence").check()
        shown(page)
        store(page.screenshot(), OUT / f"{name}.webp")
        context.close()


def shown(page: Page) -> None:
    """Waits until every picture in sight is there; those below load when somebody scrolls to them."""
    page.screenshot()  # without a window, Chromium draws nothing until asked, and lazy pictures wait for that
    page.evaluate(
        """() => Promise.all([...document.images]
            .filter(one => { const box = one.getBoundingClientRect(); return box.width && box.top < innerHeight; })
            .map(one => one.complete || new Promise(done => { one.onload = one.onerror = done; })))"""
    )


def store(png: bytes, file: Path) -> None:
    """Writes a screenshot as WebP, and tells its size."""
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(file, "WEBP", quality=QUALITY, method=6)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
