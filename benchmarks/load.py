"""The clinic under load, beside the plain way: FastAPI with Keras's `predict` in the handler, as public projects do it.

Starts each as a process on this machine and sends it the same load over HTTP: pictures at a fixed rate, whether or not
answers come (an open loop: a slow service is not spared), and looks at its page in between. Of the clinic, each picture
is stored, committed, scored by the model that ships, and listed; the plain service answers with the probabilities of
the same network at the same size, keeps nothing, and its page is one line. Then both get a burst, as fast as eight
clients can send.

    python benchmarks/load.py                              # 60 s of 10 uploads a second
    python benchmarks/load.py --minutes 30 --no-plain      # is memory flat?
    python benchmarks/load.py --seconds 8 --burst 40 --no-page

Writes the section `load` of docs/performance.md. Exit status 1 if a picture was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from sqlalchemy import func, select

from dermalert.clinic import accounts
from dermalert.clinic.schema import Case, Role, Status
from dermalert.clinic.store import Store
from dermalert.drawn import draw_lesion
from dermalert.taxonomy import NAMES
from section import measured_on, table, write_section

PAGES_PER_SECOND = 2
_RECIPE = "transfer"  # of the plain service: the network that ships
_SENDERS = 8  # of the burst
_START = 120.0  # seconds until a service must be up, on a busy machine
_PATIENCE = 60.0  # seconds for one answer
_WARM = 5  # seconds before memory is looked at
_PASSWORD = "a benchmark signs in here"

Send = Callable[[httpx.AsyncClient, str, bytes], Awaitable[str]]


@dataclass
class Measured:
    """What a load showed; seconds, from when a request was due.

    Attributes:
        acknowledged: by the service's id of the picture, when its answer came.
        failed: answers that were no success.
        scored_after: seconds from acknowledged to scored.
        memory: MB of the service with its children, second by second.
        burst: pictures scored a second when eight clients send as fast as they can.
        lost: acknowledged pictures that are not there, or were not scored. check: what `dermalert check` found.
    """

    acknowledged: dict[str, datetime] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    scored_after: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    burst: float = float("nan")
    lost: int = 0
    check: str = ""

    @property
    def growth(self) -> float:
        """MB a minute, by a line through the second half: what a service loads once comes before."""
        half = self.memory[len(self.memory) // 2 :]
        return float(np.polyfit(np.arange(len(half)), half, 1)[0]) * 60 if len(half) > 2 else float("nan")


def drawn(count: int = 24) -> list[bytes]:
    """JPEGs of drawn lesions, 600 × 450 pixels."""
    files = []
    for number in range(count):
        pixels = draw_lesion(NAMES[number % len(NAMES)], np.random.default_rng(number), width=600, height=450)
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def unique(jpeg: bytes) -> bytes:
    """The same picture as another file: with a comment of its own behind its first marker."""
    comment = secrets.token_hex(8).encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


# The load


async def load(
    client: httpx.AsyncClient, send: Send, page: str, measured: Measured, *, seconds: float, per_second: float
) -> None:
    """Sends pictures and looks at the page, each when it is due."""
    pictures = drawn()
    start = time.monotonic() + 0.1
    running = []

    async def upload(number: int) -> None:
        due = start + number / per_second
        await asyncio.sleep(due - time.monotonic())
        try:
            known = await send(client, f"load-{number}", unique(pictures[number % len(pictures)]))
        except (httpx.HTTPError, RuntimeError) as error:
            measured.failed.append(repr(error)[:200])
            return
        measured.acknowledged[known] = datetime.now(UTC)
        measured.uploads.append(time.monotonic() - due)

    async def look(number: int) -> None:
        due = start + number / PAGES_PER_SECOND
        await asyncio.sleep(due - time.monotonic())
        answer = await client.get(page)
        if answer.status_code != 200:
            measured.failed.append(f"{page}: {answer.status_code}")
        measured.pages.append(time.monotonic() - due)

    running += [asyncio.create_task(upload(number)) for number in range(round(seconds * per_second))]
    running += [asyncio.create_task(look(number)) for number in range(round(seconds * PAGES_PER_SECOND))]
    await asyncio.gather(*running)


async def burst(client: httpx.AsyncClient, send: Send, measured: Measured, count: int) -> None:
    """Sends `count` pictures as fast as it can."""
    pictures, numbers = drawn(), iter(range(count))

    async def sender() -> None:
        for number in numbers:
            known = await send(client, f"burst-{number}", unique(pictures[number % len(pictures)]))
            measured.acknowledged[known] = datetime.now(UTC)

    await asyncio.gather(*[sender() for _ in range(_SENDERS)])


async def watched(process: subprocess.Popen[bytes], measured: Measured, seconds: float) -> None:
    """Looks at the memory of a process and its children."""
    root = psutil.Process(process.pid)
    await asyncio.sleep(min(_WARM, seconds / 4))
    while True:
        processes = [root, *root.children(recursive=True)]
        measured.memory.append(sum(_resident(each) for each in processes) / 1e6)
        await asyncio.sleep(1)


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


async def run(
    process: subprocess.Popen[bytes],
    client: httpx.AsyncClient,
    send: Send,
    page: str,
    scored: Callable[[], int],
    *,
    seconds: float,
    per_second: float,
    burst_of: int,
) -> Measured:
    """The load, then the burst.

    Args:
        scored: how many pictures the service has scored.
    """
    measured = Measured()
    watching = asyncio.create_task(watched(process, measured, seconds))
    await load(client, send, page, measured, seconds=seconds, per_second=per_second)
    watching.cancel()
    await _until(scored, len(measured.acknowledged))
    if burst_of:
        start = time.monotonic()
        await burst(client, send, measured, burst_of)
        await _until(scored, len(measured.acknowledged))
        measured.burst = burst_of / (time.monotonic() - start)
    return measured


async def _until(scored: Callable[[], int], count: int) -> None:
    ends = time.monotonic() + _PATIENCE * 2
    while await asyncio.to_thread(scored) < count and time.monotonic() < ends:
        await asyncio.sleep(0.05)


# The clinic


def clinic(folder: Path, *, seconds: float, per_second: float, burst_of: int) -> Measured:
    """`dermalert serve` on SQLite, under load."""
    store = Store(f"sqlite:///{folder / 'clinic.db'}")
    store.upgrade()
    token, cookie = _people(store)

    async def send(client: httpx.AsyncClient, key: str, picture: bytes) -> str:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        answer = await client.post("/api/v1/pictures", files={"files": ("a.jpg", picture)}, headers=headers)
        if answer.status_code != 201:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:150]}")
        return str(answer.json()["results"][0]["id"])

    def scored() -> int:
        with store.reading() as session:
            return session.scalar(select(func.count()).where(Case.status != Status.RECEIVED)) or 0

    port = _free_port()
    command = [sys.executable, "-m", "dermalert.cli", "serve", "--data", str(folder), "--port", str(port)]
    with _process(command, port, "/readyz", folder / "log.txt") as process:
        measured = asyncio.run(
            _with_client(
                port,
                {"dermalert": cookie},
                lambda client: run(
                    process,
                    client,
                    send,
                    "/worklist",
                    scored,
                    seconds=seconds,
                    per_second=per_second,
                    burst_of=burst_of,
                ),
            )
        )
    with store.reading() as session:
        cases = {case.id: case for case in session.scalars(select(Case))}
    store.close()
    done = {known: at for known, at in measured.acknowledged.items() if known in cases and cases[known].scored_at}
    measured.lost = len(measured.acknowledged) - len(done)
    under_load = list(done.items())[: len(measured.uploads)]
    measured.scored_after = [max(0.0, (cases[known].scored_at - at).total_seconds()) for known, at in under_load]  # type: ignore[operator]
    command = [sys.executable, "-m", "dermalert.cli", "check", "--data", str(folder)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    measured.check = checked.stdout + checked.stderr if checked.returncode else ""
    return measured


def _people(store: Store) -> tuple[str, str]:
    with store.session() as session:
        camera = accounts.add_user(session, "load", "camera", Role.UPLOADER)
        token = accounts.new_token(session, "load", camera.id, "load")
        reader = accounts.add_user(session, "load", "reader", Role.READER)
        link = accounts.new_link(session, "load", reader.id)
    accounts.set_password_by_link(store, link, _PASSWORD)
    return token, accounts.sign_in(store, "reader", _PASSWORD, hours=12)


# The plain way


def plain(folder: Path, *, seconds: float, per_second: float, burst_of: int) -> Measured:
    """The service below, under the same load. A picture is scored once it is answered."""
    answered = 0

    async def send(client: httpx.AsyncClient, key: str, picture: bytes) -> str:
        nonlocal answered
        answer = await client.post("/predict", files={"file": ("a.jpg", picture)})
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:150]}")
        answered += 1
        return key

    port = _free_port()
    command = [sys.executable, __file__, "--serve-plain", str(port)]
    with _process(command, port, "/", folder / "log.txt") as process:
        measured = asyncio.run(
            _with_client(
                port,
                {},
                lambda client: run(
                    process,
                    client,
                    send,
                    "/",
                    lambda: answered,
                    seconds=seconds,
                    per_second=per_second,
                    burst_of=burst_of,
                ),
            )
        )
    measured.scored_after = [0.0] * len(measured.uploads)
    return measured


def serve_plain(port: int) -> None:
    """What tutorials show: the model is loaded once, and each request decodes, resizes and predicts."""
    import uvicorn
    from fastapi import FastAPI, UploadFile

    from dermalert.bundle.format import Bundle
    from dermalert.learn import networks
    from dermalert.learn.recipes import recipe_named

    size = Bundle.shipped().size
    model = networks.build(_sized(recipe_named(_RECIPE), size), len(NAMES))
    app = FastAPI()

    # The annotation is an object and not its name: it is imported in this function alone.
    async def predict(file: Any) -> dict[str, float]:
        image = Image.open(BytesIO(await file.read())).convert("RGB").resize(size)
        probabilities = model.predict(np.expand_dims(np.asarray(image, np.float32), 0), verbose=0)[0]
        return dict(zip(NAMES, map(float, probabilities), strict=True))

    async def index() -> str:
        return "Send a picture to /predict."

    predict.__annotations__["file"] = UploadFile
    app.post("/predict")(predict)
    app.get("/")(index)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def _sized(recipe: Any, size: tuple[int, int]) -> Any:
    from dataclasses import replace

    return replace(recipe, size=size, precision="float32")


# Processes


@contextmanager
def _process(command: list[str], port: int, ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    try:
        ends = time.monotonic() + _START
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}{ready}", timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"it does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def _with_client(
    port: int, cookies: dict[str, str], use: Callable[[httpx.AsyncClient], Awaitable[Measured]]
) -> Measured:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", cookies=cookies, timeout=_PATIENCE, limits=limits
    ) as client:
        return await use(client)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


# The table


def _row(name: str, found: Measured) -> list[object]:
    whole = [ack + after for ack, after in zip(found.uploads, found.scored_after, strict=False)]
    return [
        name,
        len(found.acknowledged),
        len(found.failed),
        found.lost if name.startswith("clinic") else "keeps none",
        _quantile(found.uploads, 0.95),
        _quantile(found.scored_after, 0.95) if name.startswith("clinic") else "–",
        _quantile(whole, 0.95),
        _quantile(found.pages, 0.99),
        f"{found.burst:.1f}",
        f"{np.median(found.memory):.0f}" if found.memory else "–",
        f"{found.growth:+.1f}",
    ]


def _quantile(seconds: list[float], share: float) -> str:
    return f"{np.quantile(seconds, share) * 1000:.0f}" if seconds else "–"


HEADER = (
    "service",
    "acknowledged",
    "failed",
    "lost",
    "upload, p95 ms",
    "acknowledged to scored, p95 ms",
    "sent to scored, p95 ms",
    "page, p99 ms",
    "burst, pictures/s",
    "memory, MB",
    "growth, MB/min",
)


def main() -> int:
    """Runs what was asked for; 1 if a picture was lost."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--minutes", type=float, help="instead of --seconds")
    options.add_argument("--per-second", type=float, default=10.0, help="uploads")
    options.add_argument("--burst", type=int, default=200, help="pictures; 0: none")
    options.add_argument("--no-plain", dest="plain", action="store_false", help="the clinic alone")
    options.add_argument("--no-page", dest="page", action="store_false", help="leave docs/performance.md alone")
    options.add_argument("--serve-plain", type=int, metavar="PORT", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.serve_plain:
        serve_plain(asked.serve_plain)
        return 0
    seconds = asked.minutes * 60 if asked.minutes else asked.seconds
    given: dict[str, Any] = {"seconds": seconds, "per_second": asked.per_second, "burst_of": asked.burst}
    with tempfile.TemporaryDirectory() as folder:
        ours = clinic(Path(folder), **given)
    rows = [_row("clinic: stored, committed, scored, listed", ours)]
    words = ""
    if asked.plain:
        with tempfile.TemporaryDirectory() as folder:
            theirs = plain(Path(folder), **given)
        rows.append(_row("plain: Keras `predict` in the handler", theirs))
        words = _compared(ours, theirs)
    shown = table(HEADER, rows)
    print(shown, words, sep="\n")
    for problem in [*ours.failed[:5], ours.check]:
        if problem:
            print(problem, file=sys.stderr)
    if asked.page:
        write_section("load", _words(shown, words, seconds, asked.per_second))
    return 1 if ours.lost or ours.check else 0


def _compared(ours: Measured, theirs: Measured) -> str:
    whole = [ack + after for ack, after in zip(ours.uploads, ours.scored_after, strict=False)]
    throughput = ours.burst / theirs.burst
    scored = np.quantile(theirs.uploads, 0.95) / np.quantile(whole, 0.95)
    page = np.quantile(theirs.pages, 0.99) / np.quantile(ours.pages, 0.99)
    return (
        f"The clinic scores {throughput:.1f} times as many pictures a second in the burst; under the steady load the "
        f"plain way takes {scored:.1f} times as long from sent to scored, and {page:.1f} times as long for its page."
    )


def _words(shown: str, compared: str, seconds: float, per_second: float) -> str:
    lasting = f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} s"
    return f"""## Under load

`python benchmarks/load.py`: {per_second:g} uploads and {PAGES_PER_SECOND} looks at the page a second for {lasting}, by
an open loop, then a burst from {_SENDERS} clients; the clients run on the same machine. The clinic runs on SQLite with
one scoring thread and keeps every picture; the plain service keeps nothing.

{shown}

{compared}

{measured_on("fastapi", "uvicorn", "SQLAlchemy", "onnxruntime", "keras")}"""


if __name__ == "__main__":
    sys.exit(main())
