"""What the clinic tells of itself: the dashboard, metrics, exports, reports on paper, and the pages of alerts."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, select
from tests.graphs import bundle

from clinics import Clinic, clinic, picture
from dermalert.clinic import alerts, dashboard, drift, exports, metering, reports
from dermalert.clinic.dashboard import Waits
from dermalert.clinic.model import Model
from dermalert.clinic.schema import (
    Alert,
    Case,
    Decision,
    Finding,
    Histology,
    Note,
    Picture,
    Role,
    Rule,
    TrailEntry,
    new_id,
    now,
)
from dermalert.clinic.store import Store
from dermalert.page import pdf

SPOILT = '=HYPERLINK("http://evil.example")'


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("figures")
    bundle().save(folder / "bundle")
    db = "" if request.param == "sqlite" else request.getfixturevalue("postgres").new_database()
    more = {"bundle": folder / "bundle", "smtp": "smtp://127.0.0.1:1", "webhook_secret": "x" * 20, "db": db}
    with clinic(folder / "data", **more) as running:
        fill(running)
        yield running


def fill(running: Clinic) -> None:
    """Twelve cases: scored, decided, some with histology; one refused, one of another model."""
    model = running.service.models.current()
    for number in range(12):
        sha256 = running.service.files.put(picture(number))
        with running.service.store.session() as session:
            session.add(Picture(sha256=sha256, size=1, width=64, height=48, format="JPEG", stored_at=now()))
            session.add(a_case(number, sha256, model))


def a_case(number: int, sha256: str, model: Model) -> Case:
    at = now() - timedelta(days=number % 3, seconds=4000)
    refers, is_other = number % 2 == 0, number == 11
    case = Case(
        id=new_id(), sha256=sha256, patient=SPOILT, lesion=f"L-{number // 2 if number < 4 else number}", site="back",
        age=50, origin="api", uploaded_by="Somebody", received_at=at, scored_at=at + timedelta(seconds=number / 4),
        score=0.9 if refers else 0.1, status="reviewed" if number < 8 else "scored",
    )  # fmt: skip
    case.finding = Finding(
        bundle="mean colour", bundle_digest="o" * 64 if is_other else model.digest, melanoma=case.score,
        probabilities={"melanoma": 0.9 if refers else 0.1, "nevus": 0.1 if refers else 0.9, "vascular lesion": 0.0},
        malignant=case.score, alert="refer" if refers else "none", diagnosis="melanoma" if refers else "nevus",
        possible=["melanoma", "nevus"], ood=0.2, quality=0.9, brightness=120.0, sharpness=9.0, contrast=20.0,
        colour=0.3, scored_at=case.scored_at,
    )  # fmt: skip
    if number < 8:
        decided = at + timedelta(hours=1)
        action = "biopsy" if refers or number == 7 else "no_action"
        case.decisions = [Decision(who="Dr. Who", action=action, at=decided)]
        case.notes = [Note(who="Dr. Who", text="Ulcerated " * 200, at=decided)]
    if number < 6:
        case.histologies = [
            Histology(who="Dr. Who", diagnosis="melanoma" if number in (0, 2, 3) else "nevus", at=now())
        ]
    return case


def case_ids(running: Clinic) -> list[str]:
    with running.service.store.reading() as session:
        return list(session.scalars(select(Case.id).order_by(Case.received_at, Case.id)))


def last_action(running: Clinic) -> TrailEntry:
    with running.service.store.reading() as session:
        entry = session.scalar(select(TrailEntry).order_by(TrailEntry.seq.desc()).limit(1))
    assert entry is not None
    return entry


# The dashboard


def test_the_figures_are_those_that_one_counts_by_hand(ours: Clinic) -> None:
    model = ours.service.models.current()
    with ours.service.store.reading() as session:
        found = dashboard.dashboard(session, model.digest, now(), 7)
    assert [day.received for day in found.days][-4:] == [0, 4, 4, 4] or sum(d.received for d in found.days) == 12
    assert sum(day.referred for day in found.days) == 6
    assert len(found.days) == 7
    assert found.by_others == 1
    agreement, truth = found.agreement, found.truth
    assert (agreement.both, agreement.model, agreement.reader, agreement.neither) == (4, 0, 1, 3)
    assert agreement.share.value == pytest.approx(7 / 8)
    assert agreement.kappa.value == pytest.approx((7 / 8 - 1 / 2) / (1 / 2))
    assert agreement.share.low < 7 / 8 < agreement.share.high
    assert (truth.cases, truth.melanomas) == (6, 3)
    assert truth.sensitivity.value == pytest.approx(2 / 3)  # 0 and 2 of 0, 2, 3
    assert truth.specificity.value == pytest.approx(2 / 3)  # 1 and 5 of 1, 4, 5
    assert found.open == 4
    assert found.to_decide.median == timedelta(hours=1)
    assert found.to_score.cases == 12


def test_without_cases_there_are_no_figures_and_no_error(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'empty.db'}")
    store.upgrade()
    with store.reading() as session:
        found = dashboard.dashboard(session, "d" * 64, now(), 30)
    assert found.agreement.share.value != found.agreement.share.value  # NaN, never 0 or 1
    assert found.truth.sensitivity.value != found.truth.sensitivity.value
    assert found.to_score == Waits(0, None, None)


@pytest.mark.parametrize("days", ["7", "365"])
def test_the_dashboard_shows_them_and_says_what_they_cannot(ours: Clinic, days: str) -> None:
    answer = ours.as_(Role.READER).get(f"/dashboard?days={days}")
    assert answer.status_code == 200
    for words in ("67\N{NO-BREAK SPACE}%", "verification bias", "This model brings no reference", "689 more"):
        assert words in answer.text
    assert SPOILT not in answer.text


def test_what_has_moved_is_told_on_the_page_and_to_prometheus(ours: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BASELINE", 4), ("WINDOW", 3), ("_LEAST", 2), ("FALSE_ALARMS", 100.0)):
        monkeypatch.setattr(drift, name, value)
    client = ours.as_(Role.READER)
    shown = client.get("/dashboard").text
    for words in ("Something has moved", "Against this clinic's first pictures", "Window 2", "Earlier windows"):
        assert words in shown.replace("’", "'").replace("&#39;", "'")
    found = {(each.name, each.labels.get("measure")): each.value for each in samples(client.get("/metrics").text)}
    assert found["dermalert_drift_alarm", None] == 1
    assert found["dermalert_drift_stability", "brightness"] == pytest.approx(0, abs=0.2)
    assert 0 <= found["dermalert_drift_distance", "melanoma"] <= 1


# Metrics


def test_prometheus_reads_the_metrics_with_an_uploaders_token(ours: Clinic) -> None:
    answer = ours.as_(Role.UPLOADER).get("/metrics")
    assert answer.status_code == 200
    found = {sample.name + str(sorted(sample.labels.values())): sample.value for sample in samples(answer.text)}
    assert found["dermalert_cases['reviewed']"] == 8
    assert found["dermalert_cases['scored']"] == 4
    assert found["dermalert_queue_depth[]"] == 0
    assert found["dermalert_scoring_seconds_count[]"] == 12
    assert found["dermalert_scoring_seconds_bucket['1.0']"] == 5  # 0, 0.25, 0.5, 0.75, 1
    assert found["dermalert_scoring_seconds_sum[]"] == pytest.approx(sum(range(12)) / 4)
    assert found["dermalert_drift_scored[]"] == 11
    assert found["dermalert_undecided_oldest_seconds[]"] > 3000
    assert not re.search(r"HYPERLINK|Somebody|Who|L-\d", answer.text)
    assert ours.client().get("/metrics").status_code == 401


def samples(text: str) -> Iterator[Any]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


def test_each_score_is_counted_once_however_often_one_asks(ours: Clinic) -> None:
    times = metering.ScoringTimes()
    with ours.service.store.reading() as session:
        half = times.family(session, now() - timedelta(days=1))
        whole = [times.family(session, now()) for _ in range(3)]
    counts = [family.samples[len(metering.BUCKETS)].value for family in (half, *whole)]
    assert 0 < counts[0] < 12
    assert counts[1:] == [12, 12, 12]


# Exports


def test_a_table_has_every_case_no_identifier_and_no_formula(ours: Clinic) -> None:
    answer = ours.as_(Role.READER).get("/export")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 12
    assert answer.headers["content-disposition"] == 'attachment; filename="cases.csv"'
    assert not re.search(r"HYPERLINK|Somebody|Dr\. Who|L-\d|Ulcerated", answer.text)
    assert {row["case"] for row in rows} == set(case_ids(ours))
    assert rows[0]["p_melanoma"] in ("0.900000", "0.100000")
    entry = last_action(ours)
    assert (entry.who, entry.action, entry.details["cases"]) == ("reader", "export", 12)


def test_identifiers_are_for_an_admin_who_asks_and_run_in_no_spreadsheet(ours: Clinic) -> None:
    refused = ours.as_(Role.READER).get("/export?identifiers=true")
    assert refused.status_code == 422
    assert "Only an admin" in refused.text
    rows = list(csv.DictReader(io.StringIO(ours.as_(Role.ADMIN).get("/export?identifiers=true").text)))
    assert {row["patient"] for row in rows} == {"'" + SPOILT}
    assert rows[0]["uploaded_by"] == "Somebody"
    assert last_action(ours).details["identifiers"] is True


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "  =1"])
def test_what_a_spreadsheet_would_run_is_told_as_text(text: str) -> None:
    assert exports.harmless(text) == f"'{text}"
    assert exports.harmless("nevus = mole") == "nevus = mole"


def test_filters_hold_and_parquet_keeps_types(ours: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_BLOCK", 3)  # several row groups
    client = ours.as_(Role.READER)
    table = pq.read_table(io.BytesIO(client.get("/export?kind=parquet&view=reviewed&alert=refer").content))
    assert table.num_rows == 4
    assert set(table["alert"].to_pylist()) == {"refer"}
    assert set(table["status"].to_pylist()) == {"reviewed"}
    assert table["received_at"].type.tz == "UTC"
    assert "patient" not in table.column_names
    day = (datetime.now(UTC) - timedelta(days=400)).date()
    assert pq.read_table(io.BytesIO(client.get(f"/export?kind=parquet&until={day}").content)).num_rows == 0
    assert pq.read_table(io.BytesIO(client.get(f"/export?kind=parquet&since={day}&until=").content)).num_rows == 12
    assert client.get("/export?kind=xls").status_code == 422


# Reports


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The HTML of each report that is printed: in a PDF, letters are numbers of glyphs."""
    kept: list[str] = []

    def to_pdf(html: str) -> bytes:
        kept.append(html)
        return pdf.to_pdf(html)

    monkeypatch.setattr(reports, "to_pdf", to_pdf)
    return kept


def structure(content: bytes) -> str:
    """A PDF without compression."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    return "".join(_inflated(each) for each in streams) + content.decode("latin-1")


def _inflated(stream: bytes) -> str:
    """Of a stream that is compressed; its last byte may be a line end that was taken for the file's."""
    try:
        return zlib.decompressobj().decompress(stream).decode("latin-1")
    except zlib.error:
        return ""


def pages(content: bytes) -> int:
    return len(re.findall(r"/Type /Page\b", structure(content)))


def test_a_report_of_a_case_is_one_page_with_its_picture_and_no_reference_unless_asked(
    ours: Clinic, printed: list[str]
) -> None:
    client = ours.as_(Role.READER)
    with ours.service.store.reading() as session:
        case = session.scalars(select(Case).where(Case.status == "reviewed", Case.score > 0.5)).first()
    assert case is not None
    plain = client.get(f"/cases/{case.id}/report.pdf")
    assert plain.headers["content-type"] == "application/pdf"
    assert pages(plain.content) == 1
    assert structure(plain.content).count("/Subtype /Image") >= 2  # the picture, and the evidence over it
    for words in ("Research software", "90.0", "Biopsy", "mean colour", case.id, "not where a disease is"):
        assert words in printed[0]
    assert not re.search("HYPERLINK|Ulcerated|L-0", printed[0])
    assert last_action(ours).details == {"references": False}
    named = client.get(f"/cases/{case.id}/report.pdf?references=true")
    assert "HYPERLINK" in printed[1]
    assert "Ulcerated" in printed[1]
    assert pages(named.content) == 1
    assert client.get("/cases/nothing/report.pdf").status_code == 404


def test_a_case_that_nothing_can_be_shown_of_is_printed_all_the_same(ours: Clinic, printed: list[str]) -> None:
    with ours.service.store.session() as session:
        session.add(Picture(sha256="0" * 64, size=1, stored_at=now()))
        session.add(
            Case(
                id="unseen",
                sha256="0" * 64,
                origin="api",
                uploaded_by="x",
                received_at=now() - timedelta(days=800),
                status="failed",
                problem="It was cut off.",
            )
        )
    assert pages(ours.as_(Role.READER).get("/cases/unseen/report.pdf").content) == 1
    for words in ("There is no picture to show", "no model has judged this picture", "It was cut off."):
        assert words in printed[0]
    with ours.service.store.session() as session:
        session.delete(session.get(Case, "unseen"))


def test_a_report_of_a_day_is_one_page_however_many_cases_there_were(ours: Clinic, printed: list[str]) -> None:
    with ours.service.store.session() as session:
        first = session.scalars(select(Case)).first()
        assert first is not None
        for number in range(40):
            row = {"sha256": first.sha256, "key": str(number), "patient": SPOILT, "status": "received"}
            at = datetime(2026, 2, 3, 12, number, tzinfo=UTC)
            session.add(Case(id=f"day{number}", origin="api", uploaded_by="x", received_at=at, **row))
    client = ours.as_(Role.READER)
    assert pages(client.get("/reports/2026-02-03.pdf").content) == 1
    assert "14 more" in printed[0]
    assert "HYPERLINK" not in printed[0]
    with ours.service.store.session() as session:
        session.execute(delete(Case).where(Case.id.startswith("day")))
    assert pages(client.get("/reports/2001-01-01.pdf").content) == 1
    assert "No picture was received" in printed[1]
    assert client.get("/reports/yesterday.pdf").status_code == 422


# Pages of alerts


def test_an_admin_makes_a_rule_tests_it_and_switches_it_off(ours: Clinic) -> None:
    admin = ours.as_(Role.ADMIN)
    form = {"name": "Ward <b>", "kind": "waiting", "hours": "24", "channel": "email", "target": "ward@clinic.example"}
    assert admin.post("/alerts/rules", data=form).status_code == 303
    with ours.service.store.reading() as session:
        (rule,) = session.scalars(select(Rule))
    assert (rule.hours, rule.threshold, rule.digest, rule.enabled) == (24.0, None, False, True)
    assert admin.post(f"/alerts/rules/{rule.id}/test").headers["location"] == "/alerts?told=tested"
    shown = admin.get("/alerts?told=tested").text
    assert "This is a test" in shown
    assert "Ward &lt;b&gt;" in shown
    assert "ward@clinic.example" in shown
    assert "ward@clinic.example" not in ours.as_(Role.READER).get("/alerts").text
    assert admin.post(f"/alerts/rules/{rule.id}/off").status_code == 303
    assert "Off" in admin.get("/alerts").text
    wrong = admin.post("/alerts/rules", data={**form, "hours": "many"})
    assert wrong.status_code == 422
    assert "must be a number" in wrong.text


def test_a_reader_takes_note_of_an_alert(ours: Clinic) -> None:
    with ours.service.store.session() as session:
        rule = Rule(
            id=new_id(), name="r", kind="risk", threshold=0.5, channel="email", target="a@b.example", digest=False,
            enabled=False, since=now(), created_at=now(),
        )  # fmt: skip
        session.add(rule)
        session.flush()
        alert = alerts._raise(session, rule, case_ids(ours)[0], "once", now(), now() + timedelta(days=1))
    reader = ours.as_(Role.READER)
    assert f"/alerts/{alert.id}/acknowledge" in reader.get("/alerts").text
    assert reader.post(f"/alerts/{alert.id}/acknowledge").status_code == 303
    assert f"/alerts/{alert.id}/acknowledge" not in reader.get("/alerts").text
    assert "reader" in reader.get("/alerts?which=all").text
    with ours.service.store.reading() as session:
        known = session.get(Alert, alert.id)
    assert known is not None
    assert known.acknowledged_by == "reader"
    assert reader.post("/alerts/nothing/acknowledge").status_code == 422
