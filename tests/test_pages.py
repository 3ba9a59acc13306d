"""The pages: what a reader is told of a case, pictures without anything but their pixels, addresses without names."""

from __future__ import annotations

import html
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image
from sqlalchemy import select

import graphs
from clinics import ADDRESS, Clinic, clinic
from dermalert.clinic import wording
from dermalert.clinic.model import Model
from dermalert.clinic.reading import Reading
from dermalert.clinic.routes import events
from dermalert.clinic.schema import Case, Picture, Role, Status, TrailEntry
from dermalert.clinic.searches import MOST, Searches
from dermalert.clinic.worker import Worker
from dermalert.drawn import draw_class_folders
from dermalert.judge.calibration import Calibration
from dermalert.score.batch import Judge
from dermalert.score.engine import Engine

RED, GREEN = (200, 40, 40), (40, 190, 60)  # a melanoma and a nevus to the model of `graphs`


def photograph(colour: tuple[int, int, int], size: tuple[int, int] = (300, 200)) -> bytes:
    """A JPEG that tells where it was taken and by whom."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "Jane Doe", "Dr. Secret"
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", exif=exif, comment=b"Jane Doe")
    return file.getvalue()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A clinic with a red and a green picture of one patient, scored, and one that no decoder can open."""
    folder = tmp_path_factory.mktemp("clinic")
    graphs.bundle().save(folder / "bundle")
    references = draw_class_folders(
        folder / "references", per_class={"melanoma": 2, "nevus": 2}, test_per_class=0, faults=False
    )
    with clinic(folder / "data", bundle=folder / "bundle", neighbours=references.root) as made:
        for name, data in (("red", photograph(RED)), ("green", photograph(GREEN)), ("cut", photograph(RED)[:900])):
            sent = {"files": (f"{name}.jpg", data, "image/jpeg")}
            facts = {"patient": "P-100", "lesion": f"L-{name}", "site": "back"}
            assert made.as_(Role.READER).post("/api/v1/pictures", files=sent, data=facts).status_code == 201
        service = made.service
        worker = Worker(service.store, service.files, service.models, service.settings)
        while worker.step(threading.Event()):
            pass
        yield made


def case_of(here: Clinic, name: str) -> str:
    with here.service.store.reading() as session:
        return session.scalars(select(Case.id).where(Case.lesion == f"L-{name}")).one()


def shown(here: Clinic, address: str, status: int = 200) -> str:
    """What a page says, its tags and entities gone."""
    answer = here.as_(Role.READER).get(address, headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def seen(here: Clinic) -> list[tuple[str, str]]:
    with here.service.store.reading() as session:
        found = session.scalars(select(TrailEntry).where(TrailEntry.action == "seen").order_by(TrailEntry.seq))
        return [(line.subject, line.details["what"]) for line in found]


def test_a_case_tells_its_probability_in_words_and_what_the_alert_rests_on(here: Clinic) -> None:
    told = shown(here, f"/cases/{case_of(here, 'red')}")
    assert "Refer" in told
    assert re.search(r"Of lesions with this score, (about|more than) \d+ in 100 are melanomas", told)
    assert "as common as in the pictures it was calibrated on: 33 % of the lesions" in told
    assert "“screening”: refers from 50.0 %" in told
    assert "found 96 % of the melanomas (90 % to 100 %)" in told
    assert "mean colour" in told


def test_no_alert_is_never_called_healthy(here: Clinic) -> None:
    for address in ("/worklist", f"/cases/{case_of(here, 'green')}"):
        told = shown(here, address)
        assert "No alert" in told
        assert "“No alert” does not mean that a lesion is benign" in told
        assert not re.search(r"healthy|harmless|all clear", told, re.IGNORECASE)


def test_a_case_that_could_not_be_judged_is_open_and_says_what_to_do(here: Clinic) -> None:
    assert "Not judged" in shown(here, "/worklist?view=trouble")
    told = shown(here, f"/cases/{case_of(here, 'cut')}")
    assert "cut off or corrupt" in told
    assert "look yourself" in told
    assert here.as_(Role.READER).get(f"/cases/{case_of(here, 'cut')}/picture").status_code == 409


def test_a_failed_case_can_be_tried_again_from_its_page(here: Clinic) -> None:
    with here.service.store.session() as session:
        session.add(Picture(sha256="0" * 64, size=1, stored_at=datetime.now(UTC)))
        session.flush()
        session.add(
            Case(
                id="failed",
                sha256="0" * 64,
                origin="upload",
                uploaded_by="x",
                received_at=datetime.now(UTC),
                status=Status.FAILED,
                problem="The decoder died.",
            )
        )
    assert "The decoder died." in shown(here, "/cases/failed")
    assert here.as_(Role.READER).post("/cases/failed/requeue").status_code == 303
    with here.service.store.reading() as session:
        assert session.get_one(Case, "failed").status == Status.RECEIVED
    assert here.as_(Role.READER).post("/cases/failed/requeue").status_code == 409


def test_pictures_are_made_anew_without_exif_and_kept_by_the_reader_alone(here: Clinic) -> None:
    answer = here.as_(Role.READER).get(f"/cases/{case_of(here, 'red')}/picture")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"].startswith("private")
    assert b"Jane" not in answer.content
    assert b"Secret" not in answer.content
    with Image.open(io.BytesIO(answer.content)) as image:
        assert not image.getexif()
        assert "comment" not in image.info
        assert image.size == (300, 200)
        assert image.convert("RGB").getpixel((150, 100)) == pytest.approx(RED, abs=6)
    again = here.as_(Role.READER).get(
        f"/cases/{case_of(here, 'red')}/picture", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_an_evidence_map_has_the_shape_of_the_picture_and_hides_where_nothing_speaks(here: Clinic) -> None:
    red = case_of(here, "red")
    answer = here.as_(Role.READER).get(f"/cases/{red}/evidence?diagnosis=melanoma")
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.mode, image.size) == ("RGBA", (300, 200))
    none = here.as_(Role.READER).get(f"/cases/{red}/evidence?diagnosis=nevus")
    with Image.open(io.BytesIO(none.content)) as image:
        assert image.getextrema()[3] == (0, 0)
    assert here.as_(Role.READER).get(f"/cases/{red}/evidence?diagnosis=mumps").status_code == 422
    assert here.as_(Role.READER).get(f"/cases/{case_of(here, 'cut')}/evidence").status_code == 409


def test_every_look_at_a_case_its_picture_and_its_evidence_is_in_the_trail(here: Clinic) -> None:
    green = case_of(here, "green")
    before = len(seen(here))
    client = here.as_(Role.READER)
    for address in (f"/cases/{green}", f"/cases/{green}/picture", f"/cases/{green}/evidence", "/worklist"):
        client.get(address)
    client.get(f"/cases/{green}/picture?edge=160")
    assert seen(here)[before:] == [(green, "case"), (green, "picture"), (green, "evidence")]


def test_what_is_searched_for_stands_in_no_address_and_others_cannot_see_it(here: Clinic) -> None:
    answer = here.as_(Role.READER).post("/worklist/search", data={"text": "p-100 L-RED", "view": "all"})
    address = answer.headers["location"]
    assert answer.status_code == 303
    assert "100" not in address
    told = shown(here, address)
    assert "1 found for “p-100 L-RED”" in told
    other = here.as_(Role.ADMIN).get(address)
    assert other.status_code == 303
    assert "told=forgotten" in other.headers["location"]


def test_the_oldest_search_is_forgotten_first() -> None:
    searches = Searches()
    first, *_, last = [searches.keep("amara", str(number)) for number in range(MOST + 1)]
    assert (searches.text_of("amara", first), searches.text_of("amara", last)) == (None, str(MOST))


def test_after_a_decision_the_next_case_of_the_same_list_opens(here: Clinic) -> None:
    red, green = case_of(here, "red"), case_of(here, "green")
    client = here.as_(Role.READER)
    wrong = client.post(f"/cases/{red}/decision?order=risk", data={"action": "follow_up", "months": "0"})
    assert wrong.status_code == 409
    assert "1 to 120" in wrong.text
    answer = client.post(f"/cases/{red}/decision?order=risk&view=all", data={"action": "refer", "then": "next"})
    assert answer.headers["location"].startswith(f"/cases/{green}?view=all")
    stay = client.post(f"/cases/{red}/decision", data={"action": "follow_up", "months": "3", "then": "stay"})
    assert stay.headers["location"].startswith(f"/cases/{red}?")
    assert "Follow up in 3 months" in shown(here, f"/cases/{red}")


def test_a_note_is_shown_as_it_was_written_and_runs_nothing(here: Clinic) -> None:
    red = case_of(here, "red")
    text = "<script>alert(1)</script>\nsecond line\u202e"
    assert here.as_(Role.READER).post(f"/cases/{red}/notes", data={"text": text}).status_code == 303
    page = here.as_(Role.READER).get(f"/cases/{red}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\nsecond line\\u202e" in page
    assert "<script>alert" not in page


def test_similar_reference_cases_are_shown_with_their_labels(here: Clinic) -> None:
    references = here.service.references
    references.problem = ""
    for _ in range(200):
        told = here.as_(Role.READER).get(f"/cases/{case_of(here, 'red')}").text
        if "/references/" in told or references.problem:
            break
        threading.Event().wait(0.05)
    found = re.findall(r'src="(/references/\w+)"', told)
    assert len(found) == 4, references.problem
    picture = here.as_(Role.READER).get(found[0])
    assert picture.headers["content-type"] == "image/jpeg"
    assert here.as_(Role.READER).get("/references/" + "0" * 64).status_code == 404
    assert here.as_(Role.READER).get("/references/nothing").status_code == 404


def test_news_come_as_a_stamp_that_tells_nothing_of_cases(here: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LASTS", 0.01)
    monkeypatch.setattr(events, "EVERY", 0.0)
    client = here.as_(Role.READER)
    first = client.get("/events").text
    client.post(f"/cases/{case_of(here, 'red')}/notes", data={"text": "hello"})
    here.service.news._looked = float("-inf")
    second = client.get("/events").text
    assert re.fullmatch(r"retry: 1000\nevent: stamp\ndata: \d+\n\n", first)
    assert first != second
    assert client.get(f"/events?case={case_of(here, 'red')}").text == second


def test_colours_are_a_choice_that_stays(here: Clinic) -> None:
    client = here.as_(Role.READER)
    answer = client.post("/theme", data={"theme": "dark"}, headers={"Referer": f"{ADDRESS}/upload?x=1"})
    assert answer.headers["location"] == "/upload?x=1"
    assert 'data-theme="dark"' in client.get("/worklist").text
    elsewhere = client.post("/theme", data={"theme": ""}, headers={"Referer": "https://evil.example/"})
    assert elsewhere.headers["location"] == "/"
    assert "data-theme" not in client.get("/worklist").text


def test_an_empty_worklist_and_a_wrong_address_say_where_to_go(here: Clinic) -> None:
    assert "No case fits this view" in shown(here, "/worklist?view=closed")
    assert "Look at the address again" in shown(here, "/nowhere", 404)
    assert "There is no such case" in shown(here, "/cases/nobody", 404)


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "more than 99 in 100"),
        (0.5, "about 50 in 100"),
        (0.0096, "about 1 in 100"),
        (0.001, "about 1 in 1,000"),
        (0.0, "fewer than 1 in 1,000"),
    ],
)
def test_probabilities_become_counts_of_lesions(probability: float, words: str) -> None:
    assert wording.in_so_many(probability) == words


def test_no_map_is_offered_of_a_class_that_the_model_never_names() -> None:
    classes = {"melanoma": 0.3, "nevus": 0.7, "vascular lesion": 1e-12}
    plain = graphs.bundle(prevalence=classes)
    turned_off = replace(plain, calibration=Calibration(1.0, (5.0, 6.0, -11.0)))
    finding = SimpleNamespace(bundle_digest="0", probabilities=dict.fromkeys(classes, 1 / 3), possible=[])
    case = cast("Case", SimpleNamespace(finding=finding, decisions=[], notes=[], histologies=[]))
    for bundle, offered in ((plain, ["melanoma", "nevus", "vascular lesion"]), (turned_off, ["melanoma", "nevus"])):
        model = Model(bundle, Engine(bundle), Judge(bundle, bundle.operating_point), "0")
        assert Reading.of(case, model).explained == offered
