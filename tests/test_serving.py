"""`dermalert serve` as a process, and what it writes into its log."""

from __future__ import annotations

import io
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from clinics import clinic, picture
from dermalert.clinic import logs
from dermalert.clinic.schema import Role


@contextmanager
def _served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A service as a process: itself, its address, and the first admin's link."""
    command = [sys.executable, "-m", "dermalert.cli", "serve", "--data", str(folder), "--port", "0", *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        link = process.stdout.readline().split()[-1]
        yield process, link.partition("/welcome")[0], link
    finally:
        process.kill()
        process.wait()


def _is_ready(address: str) -> None:
    transport = httpx.HTTPTransport(retries=10)  # of connections; it listens before it answers
    with httpx.Client(transport=transport, timeout=60) as client:
        assert client.get(f"{address}/readyz").json()["ready"]


def _takes_no_more(address: str) -> None:
    try:
        while True:
            httpx.get(f"{address}/healthz", timeout=5)
    except httpx.TransportError:
        return


@pytest.mark.slow
def test_the_service_answers_a_request_at_hand_before_it_ends(tmp_path: Path) -> None:
    with _served(tmp_path, "--workers", "0") as (process, address, _):
        _is_ready(address)
        first, rest = threading.Event(), threading.Event()
        told: list[int] = []

        def body() -> Iterator[bytes]:
            yield b"name=x"
            first.set()
            rest.wait(30)
            yield b"&password=y"

        def ask() -> None:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            told.append(httpx.post(f"{address}/login", content=body(), headers=headers, timeout=60).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        first.wait(30)
        process.send_signal(signal.SIGTERM)
        _takes_no_more(address)
        rest.set()
        asking.join()
        assert told == [403]
        assert process.wait(30) in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert any(line.get("route") == "/login" and line["status"] == 403 for line in lines)


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "dermalert.cli", "serve", "--data", str(tmp_path), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "Give another --port" in ended.stderr


def test_the_log_has_a_line_for_each_request_and_no_name_in_it(tmp_path: Path) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        with clinic(tmp_path) as running:
            camera, reader = running.as_(Role.UPLOADER), running.as_(Role.READER)
            logs.log_to(stream)
            facts = {"patient": "MUSTERMANN-ERIKA", "lesion": "MUSTERMANN-1"}
            files = {"files": ("mustermann.jpg", picture(1), "image/jpeg")}
            sent = camera.post("/api/v1/pictures", data=facts, files=files)
            case_id = sent.json()["results"][0]["id"]
            assert reader.get(f"/api/v1/cases/{case_id}").json()["patient"] == "MUSTERMANN-ERIKA"
            reader.get("/api/v1/cases", params={"text": "mustermann"})
            reader.get("/mustermann")
            camera.post("/api/v1/pictures", files={"files": ("mustermann.pdf", b"%PDF", "image/jpeg")})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    asked = [(line["method"], line["route"], line["status"]) for line in lines if line["what"] == "request"]
    assert asked == [
        ("POST", "/api/v1/pictures", 201),
        ("GET", "/api/v1/cases/{id}", 200),
        ("GET", "/api/v1/cases", 200),
        ("GET", "-", 404),
        ("POST", "/api/v1/pictures", 415),
    ]
    whole = stream.getvalue().lower()
    for name in ("mustermann", case_id, "uploader", "reader", "testclient"):
        assert name not in whole


def test_an_error_is_logged_by_its_kind_and_place_and_not_by_its_words() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    log = logging.Logger("some.library")
    log.addHandler(handler)
    try:
        raise ValueError("of Erika Mustermann")
    except ValueError:
        log.exception("could not read %s", "mustermann.jpg")
    line = json.loads(stream.getvalue())
    assert line["error"] == "ValueError"
    assert "test_serving.py" in line["passed"][-1]
    assert "mustermann" not in stream.getvalue().lower()
