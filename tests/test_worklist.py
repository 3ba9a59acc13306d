"""The worklist: the dangerous first, nothing hidden, every change in the record and in the trail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from sqlalchemy import select

from dermalert.clinic import trail, worklist
from dermalert.clinic.schema import Case, Finding, Note, Picture, Status, TrailEntry
from dermalert.clinic.store import Store
from dermalert.clinic.worklist import Filters
from dermalert.errors import DataError, NoSuchCase, NotNow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(clinic_store: Store) -> Store:
    """Both databases."""
    return clinic_store


def add(
    store: Store, id_: str, *, score: float | None = None, waited: int = 0, alert: str | None = None, **more: object
) -> str:
    """A case that was received so many minutes before noon."""
    fields = {"status": Status.SCORED if score is not None else Status.RECEIVED, **more}
    with store.session() as session:
        if session.get(Picture, id_) is None:
            session.add(Picture(sha256=id_, size=1, stored_at=NOON))
            session.flush()
        received = NOON - timedelta(minutes=waited)
        case = Case(id=id_, sha256=id_, origin="upload", uploaded_by="x", received_at=received, score=score, **fields)
        if score is not None:
            case.finding = Finding(
                bundle="b",
                bundle_digest="d",
                probabilities={},
                melanoma=score,
                alert=alert,
                possible=[],
                scored_at=NOON,
            )
        session.add(case)
    return id_


def ids(store: Store, filters: Filters | None = None, **asked: object) -> list[str]:
    with store.reading() as session:
        return [case.id for case in worklist.worklist(session, filters or Filters(), **asked).cases]  # type: ignore[arg-type]


def lines(store: Store) -> list[tuple[str, str, str]]:
    with store.reading() as session:
        assert trail.verify(session).broken is None
        return [(line.who, line.action, line.subject) for line in session.scalars(select(TrailEntry))]


def test_the_most_dangerous_comes_first_and_of_equals_who_waits_longest(store: Store) -> None:
    for id_, score, waited in (("a", 0.2, 1), ("b", 0.9, 1), ("c", 0.2, 5), ("d", None, 9)):
        add(store, id_, score=score, waited=waited)
    assert ids(store) == ["b", "c", "a", "d"]
    assert ids(store, order="waiting")[0] == "d"
    assert ids(store, order="newest")[-1] == "d"
    assert ids(store, order="status")[0] == "d"


def test_refused_and_failed_cases_stay_open_until_somebody_decides(store: Store) -> None:
    add(store, "refused", status=Status.REFUSED)
    add(store, "failed", status=Status.FAILED)
    add(store, "scored", score=0.1)
    assert set(ids(store)) == {"refused", "failed", "scored"}
    assert set(ids(store, Filters("trouble"))) == {"refused", "failed"}
    with store.session() as session:
        worklist.decide(session, "amara", "refused", "refer")
    assert ids(store, Filters("reviewed")) == ["refused"]


def test_pages_hold_every_case_once_and_a_page_beyond_the_last_is_the_last(store: Store) -> None:
    for number in range(7):
        add(store, f"c{number}", score=0.5)
    pages = [ids(store, page=page, size=3) for page in (1, 2, 3)]
    assert sorted(id_ for page in pages for id_ in page) == [f"c{number}" for number in range(7)]
    assert ids(store, page=99, size=3) == pages[-1]


@pytest.mark.parametrize("order", worklist.ORDERS)
def test_stepping_through_neighbours_is_the_list_itself(store: Store, order: str) -> None:
    chance = Random(7)
    everything = Filters("all")
    for number in range(12):
        score, status = chance.choice([None, 0.1, 0.5]), chance.choice(list(Status))
        add(store, f"c{number}", score=score, waited=chance.randrange(3), status=status)
    listed = ids(store, everything, order=order)
    with store.reading() as session:
        cases = [worklist.case_of(session, id_) for id_ in listed]
        beside = [worklist.neighbours(session, case, everything, order=order) for case in cases]
    assert [each.next for each in beside] == [*listed[1:], None]
    assert [each.previous for each in beside] == [None, *listed[:-1]]


def test_after_a_decision_the_next_case_is_the_one_that_came_next(store: Store) -> None:
    for id_, score in (("a", 0.9), ("b", 0.5), ("c", 0.1)):
        add(store, id_, score=score)
    with store.session() as session:
        worklist.decide(session, "amara", "b", "no_action")
    with store.reading() as session:
        beside = worklist.neighbours(session, worklist.case_of(session, "b"))
    assert (beside.previous, beside.next) == ("a", "c")


def test_search_finds_references_sites_and_notes_in_any_case_of_letters(store: Store) -> None:
    add(store, "a", score=0.1, patient="P-100", lesion="L1", site="Left forearm")
    add(store, "b", score=0.1, patient="P-2%0", lesion="L1")
    with store.session() as session:
        worklist.note(session, "amara", "b", "Grown since spring.")
    assert ids(store, Filters(text="p-100")) == ["a"]
    assert ids(store, Filters(text="l1 FOREARM")) == ["a"]
    assert ids(store, Filters(text="spring")) == ["b"]
    assert ids(store, Filters(text="2%0")) == ["b"]  # no wildcard
    assert ids(store, Filters(text="_")) == []


def test_only_alerts_are_shown_where_that_is_asked(store: Store) -> None:
    add(store, "a", score=0.9, alert="refer")
    add(store, "b", score=0.1, alert="none")
    assert (ids(store, Filters(alert="refer")), ids(store, Filters(alert="none"))) == (["a"], ["b"])
    with store.reading() as session:
        assert worklist.counts(session)["refer"] == 1


def test_earlier_pictures_are_of_the_same_lesion_of_the_same_patient(store: Store) -> None:
    add(store, "a", patient="P1", lesion="L1", waited=9)
    add(store, "b", patient="P1", lesion="L1", waited=3)
    add(store, "c", patient="P1", lesion="L2")
    add(store, "d", patient="P2", lesion="L1")
    add(store, "e", lesion="L1")
    add(store, "f")
    with store.reading() as session:
        lesion, patient = worklist.earlier(session, worklist.case_of(session, "a"))
        alone = worklist.earlier(session, worklist.case_of(session, "f"))
    assert ([case.id for case in lesion], [case.id for case in patient]) == (["b"], ["c"])
    assert alone == ([], [])


def test_a_case_goes_from_decision_to_histology_and_the_trail_tells_each_step(store: Store) -> None:
    add(store, "a", score=0.9)
    with store.session() as session:
        worklist.seen(session, "amara", "a")
        worklist.decide(session, "amara", "a", "follow_up", 3)
        worklist.decide(session, "bo", "a", "biopsy")
    with store.session() as session:
        worklist.histology(session, "bo", "a", "mel")
        worklist.note(session, "bo", "a", "  told the patient ")
    with store.reading() as session:
        case = worklist.case_of(session, "a")
    assert [(one.action, one.months) for one in case.decisions] == [("follow_up", 3), ("biopsy", None)]
    assert (case.status, case.histologies[-1].diagnosis, case.notes[0].text) == (
        "closed",
        "melanoma",
        "told the patient",
    )
    assert case.reviewed_at
    assert case.closed_at
    assert lines(store) == [
        ("amara", "seen", "a"),
        ("amara", "decided", "a"),
        ("bo", "decided", "a"),
        ("bo", "histology", "a"),
        ("bo", "noted", "a"),
    ]


def test_the_trail_does_not_hold_what_a_note_says(store: Store) -> None:
    add(store, "a", score=0.9)
    with store.session() as session:
        worklist.note(session, "amara", "a", "Jane Doe")
    with store.reading() as session:
        assert all("Jane" not in str(line.details) for line in session.scalars(select(TrailEntry)))


def test_what_does_not_fit_where_a_case_stands_changes_nothing(store: Store) -> None:
    add(store, "new")
    add(store, "scored", score=0.3)
    for action, error in (
        (lambda s: worklist.decide(s, "x", "new", "refer"), NotNow),
        (lambda s: worklist.histology(s, "x", "scored", "nevus"), NotNow),
        (lambda s: worklist.close(s, "x", "scored"), NotNow),
        (lambda s: worklist.decide(s, "x", "scored", "follow_up"), DataError),
        (lambda s: worklist.decide(s, "x", "scored", "refer", 3), DataError),
        (lambda s: worklist.decide(s, "x", "scored", "follow_up", 121), DataError),
        (lambda s: worklist.decide(s, "x", "scored", "operate"), DataError),
        (lambda s: worklist.note(s, "x", "scored", "  "), DataError),
        (lambda s: worklist.case_of(s, "nobody"), NoSuchCase),
    ):
        with pytest.raises(error), store.session() as session:
            action(session)
    with store.reading() as session:
        assert worklist.case_of(session, "scored").status == Status.SCORED
        assert session.scalars(select(Note)).all() == []
    assert lines(store) == []


def test_histology_that_leaves_the_diagnosis_open_is_refused(store: Store) -> None:
    add(store, "a", score=0.9, status=Status.REVIEWED)
    with pytest.raises(DataError, match="bkl stands for"), store.session() as session:
        worklist.histology(session, "x", "a", "bkl")


def test_the_stamp_moves_with_changes_and_not_with_looks(store: Store) -> None:
    add(store, "a", score=0.9)
    add(store, "b", score=0.9)
    stamps = []
    for act in (
        lambda s: worklist.seen(s, "x", "a"),
        lambda s: worklist.note(s, "x", "a", "hello"),
        lambda s: worklist.seen(s, "x", "a"),
        lambda s: worklist.decide(s, "x", "b", "refer"),
    ):
        with store.session() as session:
            act(session)
        with store.reading() as session:
            stamps.append((worklist.stamp(session), worklist.stamp(session, "a")))
    assert stamps == [(0, 0), (2, 2), (2, 2), (4, 2)]
