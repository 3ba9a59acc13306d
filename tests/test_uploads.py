"""Bringing pictures by REST: what is acknowledged, what is turned away, and how it is said."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from clinics import Clinic, clinic, picture
from dermalert.clinic.routes import uploads
from dermalert.clinic.schema import Case, Role
from dermalert.clinic.throttle import Throttle

WHERE = "/api/v1/pictures"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    bounds = {"max_bytes": 30_000, "max_files": 4, "max_request": 60_000, "max_waiting": 100}
    with clinic(tmp_path_factory.mktemp("clinic"), **bounds) as running:
        yield running


@pytest.fixture
def camera(ours: Clinic) -> TestClient:
    return ours.as_(Role.UPLOADER)


def _files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (f"{number}.jpg", content, "image/jpeg")) for number, content in enumerate(contents)]


def _zip(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _cases(ours: Clinic) -> int:
    with ours.service.store.reading() as session:
        return session.scalar(select(func.count(Case.id))) or 0


def test_a_picture_is_stored_with_its_facts_before_it_is_acknowledged(ours: Clinic, camera: TestClient) -> None:
    facts = {"patient": "P-1", "lesion": "L-2", "site": "back", "sex": "female", "age": "55", "taken_on": "2026-11-02"}
    answer = camera.post(WHERE, files=_files(picture(1)), data=facts, headers={"Idempotency-Key": "visit-1"})
    assert answer.status_code == 201
    (result,) = answer.json()["results"]
    with ours.service.store.reading() as session:
        case = session.get_one(Case, result["id"])
    assert (case.patient, case.age, case.key, case.uploaded_by) == ("P-1", 55, "visit-1", "uploader")
    assert ours.service.files.read(case.sha256) == picture(1)
    assert camera.get(f"{WHERE}/{case.id}").json() == {"id": case.id, "status": "received", "problem": None}


def test_the_same_picture_under_the_same_key_is_the_same_case(camera: TestClient) -> None:
    first = camera.post(WHERE, files=_files(picture(2)), headers={"Idempotency-Key": "a"})
    again = camera.post(WHERE, files=_files(picture(2)), headers={"Idempotency-Key": "a"})
    other = camera.post(WHERE, files=_files(picture(2)), headers={"Idempotency-Key": "b"})
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    ids = [each.json()["results"][0]["id"] for each in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    taken = camera.post(WHERE, files=_files(picture(2)), data={"patient": "P-9"}, headers={"Idempotency-Key": "a"})
    assert taken.status_code == 409


def test_of_several_pictures_each_has_its_result(camera: TestClient) -> None:
    answer = camera.post(WHERE, files=_files(picture(3), b"no picture", picture(4)))
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [bool(each["id"]) for each in results] == [True, False, True]
    assert results[1]["problem"]


def test_a_zip_is_taken_member_by_member(camera: TestClient) -> None:
    archive = _zip({"a/1.jpg": picture(5), "../2.jpg": picture(6), "notes.txt": b"hello"})
    answer = camera.post(WHERE, files=[("files", ("visit.zip", archive, "application/zip"))])
    assert answer.status_code == 201
    assert [(each["name"], bool(each["id"])) for each in answer.json()["results"]] == [
        ("a/1.jpg", True),
        ("../2.jpg", False),
        ("notes.txt", False),
    ]


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"files": _files(b"")}, 415, "empty"),
        ({"files": _files(b"%PDF-1.7 and so on")}, 415, ""),
        ({"files": _files(b"\xff\xd8\xff" + bytes(40_000))}, 413, "30,000 are allowed"),
        ({"files": _files(*[picture(7)] * 5)}, 413, "Up to 4 files"),
        ({"files": _files(b"x" * 70_000)}, 413, "60,000 bytes"),
        ({"data": {"patient": "P-1"}}, 415, "multipart/form-data"),
        ({"files": {"files": (None, "text")}}, 422, "no file"),
        ({"files": _files(picture(8)), "data": {"age": "old"}}, 422, "age"),
        ({"files": _files(picture(8)), "data": {"patient": "a\x00b"}}, 422, "patient"),
        ({"files": _files(picture(8)), "headers": {"Idempotency-Key": "k" * 201}}, 422, "idempotency"),
        ({"content": b"no boundary", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422, "no file"),
        ({"files": [("files", ("v.zip", _zip({}), "application/zip"))]}, 415, ""),
        ({"files": [("files", ("v.zip", _zip({"a": b"x"}), "application/zip"))]}, 415, "a: "),
    ],
    ids=str,
)
def test_what_cannot_be_taken_is_refused_with_what_to_do_and_leaves_nothing(
    ours: Clinic, camera: TestClient, sent: dict[str, Any], status: int, words: str
) -> None:
    before = _cases(ours)
    answer = camera.post(WHERE, **sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words.lower() in problem["detail"].lower()
    assert _cases(ours) == before


def _status_of_a_stream(ours: Clinic, receive: Callable[[], Awaitable[dict[str, Any]]]) -> int:
    """What the service answers to an upload whose body is `receive`, and whose length is not known."""
    token = ours.token(Role.UPLOADER)
    headers = {"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=x"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": WHERE,
        "raw_path": WHERE.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    answered = []

    async def send(message: dict[str, Any]) -> None:
        answered.append(message)

    asyncio.run(ours.app(scope, receive, send))
    return answered[0]["status"]


def test_a_body_that_declares_no_length_is_bounded_as_it_arrives(ours: Clinic) -> None:
    begins = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    chunks = iter([begins, *[bytes(10_000)] * 10])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    assert _status_of_a_stream(ours, receive) == 413
    assert len(list(chunks)) == 4


def test_a_body_that_does_not_arrive_in_time_is_given_up(tmp_path) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("it waited")

    with clinic(tmp_path, upload_seconds=0.01) as running:
        assert _status_of_a_stream(running, receive) == 408


def test_who_may_not_send_pictures_has_none_of_them_read(ours: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: object) -> None:
        raise AssertionError("the body was read")

    monkeypatch.setattr(uploads, "_read", read)
    assert ours.client().post(WHERE, files=_files(picture(9))).status_code == 401


def test_a_full_queue_and_too_many_uploads_ask_to_come_again_later(tmp_path) -> None:
    with clinic(tmp_path, max_waiting=1) as running:
        camera = running.as_(Role.UPLOADER)
        assert camera.post(WHERE, files=_files(picture(1))).status_code == 201
        full = camera.post(WHERE, files=_files(picture(2)))
        assert full.status_code == 503
        assert int(full.headers["retry-after"]) >= 1
        object.__setattr__(running.service, "uploads", Throttle(1, per=3600))
        statuses = [camera.post(WHERE, files=_files(picture(1))).status_code for _ in range(2)]
        assert statuses == [503, 429]


def test_more_requests_at_once_than_there_are_places_wait(ours: Clinic, camera: TestClient) -> None:
    places = ours.service.places
    held = 0
    while places.acquire(blocking=False):
        held += 1
    try:
        assert camera.post(WHERE, files=_files(picture(10))).status_code == 503
    finally:
        for _ in range(held):
            places.release()
    assert camera.post(WHERE, files=_files(picture(10))).status_code == 201


def test_what_others_sent_is_none_of_an_uploaders_business(ours: Clinic, camera: TestClient) -> None:
    sent = ours.as_(Role.READER).post(WHERE, files=_files(picture(11))).json()["results"][0]["id"]
    assert camera.get(f"{WHERE}/{sent}").status_code == 404
    assert camera.get(f"/api/v1/cases/{sent}").status_code == 403
