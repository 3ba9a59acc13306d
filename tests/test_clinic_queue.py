"""The queue: a case is with one worker at a time, is tried again after a wait, and is never lost or done twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dermalert.clinic import queue
from dermalert.clinic.files import Files
from dermalert.clinic.receiving import receive
from dermalert.clinic.schema import Case, Finding, Origin, Status, now
from dermalert.clinic.store import Store
from dermalert.errors import ClinicError
from pictures import picture
from postgres import Postgres

LASTING = timedelta(seconds=30)


@pytest.fixture
def waiting(clinic_store: Store, tmp_path: Path) -> list[str]:
    """The ids of three cases, the longest waiting first."""
    files = Files(tmp_path / "pictures")
    return [_received(clinic_store, files, number) for number in range(3)]


def _received(store: Store, files: Files, number: int) -> str:
    return receive(store, files, picture(number), who="anna", origin=Origin.API).case.id


def _leased(store: Store, worker: str, at: datetime, *, most: int = 8, max_attempts: int = 5) -> list[str]:
    with store.session() as session:
        cases = queue.lease(session, worker, at, lasting=LASTING, most=most, max_attempts=max_attempts)
        return [case.id for case in cases]


def _case(store: Store, case_id: str) -> Case:
    with store.reading() as session:
        return session.get_one(Case, case_id)


def _finished(store: Store, worker: str, case_id: str, melanoma: float = 0.5) -> bool:
    finding = Finding(
        bundle="b", bundle_digest="0" * 64, probabilities={}, melanoma=melanoma, possible=[], scored_at=now()
    )
    with store.session() as session:
        return queue.finish(session, worker, case_id, Status.SCORED, now(), finding=finding) is not None


def test_the_longest_waiting_is_first_and_nobody_gets_it_twice(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    assert _leased(clinic_store, "a", at, most=2) == waiting[:2]
    assert _leased(clinic_store, "b", at) == waiting[2:]
    assert _leased(clinic_store, "c", at) == []


def test_the_lease_of_a_dead_worker_ends_and_another_takes_the_case(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    _leased(clinic_store, "dead", at)
    assert _leased(clinic_store, "b", at + LASTING - timedelta(seconds=1)) == []
    assert sorted(_leased(clinic_store, "b", at + LASTING)) == sorted(waiting)


def test_a_worker_that_came_back_too_late_changes_nothing(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    first = waiting[0]
    _leased(clinic_store, "slow", at)
    _leased(clinic_store, "quick", at + LASTING)
    assert _finished(clinic_store, "quick", first, 0.25)
    assert not _finished(clinic_store, "slow", first, 0.75)
    assert not _finished(clinic_store, "quick", first, 0.75)
    assert _case(clinic_store, first).score == 0.25


def test_a_renewed_lease_lasts(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    _leased(clinic_store, "a", at)
    with clinic_store.session() as session:
        queue.renew(session, "a", waiting, at + 2 * LASTING)
        queue.renew(session, "b", waiting, at + 9 * LASTING)
    assert _leased(clinic_store, "b", at + LASTING) == []
    assert len(_leased(clinic_store, "b", at + 2 * LASTING)) == 3


def test_a_failed_attempt_waits_longer_each_time_and_then_is_laid_aside(clinic_store: Store, tmp_path: Path) -> None:
    case_id, at, waits = _received(clinic_store, Files(tmp_path / "pictures"), 1), now(), []
    for _ in range(3):
        assert _leased(clinic_store, "a", at) == [case_id]
        with clinic_store.session() as session:
            queue.fail(session, "a", case_id, "The decoder died.", at, max_attempts=4)
        due = _case(clinic_store, case_id).next_try_at
        assert due is not None
        assert _leased(clinic_store, "a", due - timedelta(seconds=1)) == []
        waits.append(due - at)
        at = due
    assert waits[0] < waits[1] < waits[2]
    _leased(clinic_store, "a", at)
    with clinic_store.session() as session:
        queue.fail(session, "a", case_id, "The decoder died.", at, max_attempts=4)
    case = _case(clinic_store, case_id)
    assert (case.status, case.problem, case.next_try_at) == (Status.FAILED, "The decoder died.", None)
    with clinic_store.reading() as session:
        assert queue.backlog(session) == queue.Backlog(0, None, 1)


def test_a_case_that_takes_its_worker_down_each_time_is_laid_aside(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    for _ in range(2):
        assert len(_leased(clinic_store, "dies", at, max_attempts=2)) == 3
        at += LASTING
    assert _leased(clinic_store, "b", at, max_attempts=2) == []
    case = _case(clinic_store, waiting[0])
    assert case.status == Status.FAILED
    assert "worker died" in (case.problem or "")


def test_a_failed_case_can_be_sent_back_and_no_other(clinic_store: Store, waiting: list[str]) -> None:
    at = now()
    first = waiting[0]
    _leased(clinic_store, "a", at)
    with clinic_store.session() as session:
        queue.fail(session, "a", first, "The decoder died.", at, max_attempts=1)
    with clinic_store.session() as session:
        queue.requeue(session, "anna", first, at)
    assert _leased(clinic_store, "b", at) == [first]
    assert _case(clinic_store, first).attempts == 1
    with pytest.raises(ClinicError, match="has not failed"), clinic_store.session() as session:
        queue.requeue(session, "anna", first, at)


@pytest.fixture
def postgres_store(postgres: Postgres) -> Iterator[Store]:
    store = Store(postgres.new_database())
    store.upgrade()
    yield store
    store.close()


def test_workers_on_postgresql_skip_what_another_is_taking(postgres_store: Store, tmp_path: Path) -> None:
    files = Files(tmp_path / "pictures")
    ids = [_received(postgres_store, files, number) for number in range(4)]
    with postgres_store.session() as one:
        first = queue.lease(one, "a", now(), lasting=LASTING, most=2, max_attempts=5)
        assert _leased(postgres_store, "b", now()) == ids[2:]  # while the first has not committed
        assert [case.id for case in first] == ids[:2]
