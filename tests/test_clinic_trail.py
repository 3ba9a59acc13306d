"""The audit trail: only ever longer, and whatever was done to it is found."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dermalert.clinic import trail
from dermalert.clinic.schema import Picture, now
from dermalert.clinic.store import Store


def _filled(store: Store, lines: int = 5) -> trail.Verified:
    for number in range(lines):
        with store.session() as session:
            trail.append(session, "anna", "viewed", f"case{number}", place=number / 3, words=["ä", None, True])
    return _verified(store)


def _verified(store: Store, known: tuple[int, str] | None = None) -> trail.Verified:
    with store.reading() as session:
        return trail.verify(session, known)


def _unlocked(store: Store, *statements: str) -> None:
    """Changes by somebody who may do anything in the database."""
    dropped = (
        ("DROP TRIGGER trail_keeps_update", "DROP TRIGGER trail_keeps_delete")
        if store.is_sqlite
        else ("DROP TRIGGER trail_keeps ON trail",)
    )
    with store.session() as session:
        for statement in (*dropped, *statements):
            session.execute(text(statement))


def test_a_trail_as_it_was_written_is_whole(clinic_store: Store) -> None:
    assert _verified(clinic_store) == trail.Verified(0, "")
    found = _filled(clinic_store)
    assert (found.seq, found.broken) == (5, None)


@pytest.mark.parametrize("statement", ["UPDATE trail SET who = 'bob'", "DELETE FROM trail WHERE seq = 2"])
def test_the_database_itself_refuses_to_change_a_line(clinic_store: Store, statement: str) -> None:
    _filled(clinic_store)
    with pytest.raises(DBAPIError, match="append-only"), clinic_store.session() as session:
        session.execute(text(statement))
    assert _verified(clinic_store).broken is None


_SWAP = (
    "UPDATE trail SET seq = 99 WHERE seq = 2",
    "UPDATE trail SET seq = 2 WHERE seq = 3",
    "UPDATE trail SET seq = 3 WHERE seq = 99",
)
_CUT = ("DELETE FROM trail WHERE seq > 3",)


@pytest.mark.parametrize(
    ("statements", "seq", "why"),
    [
        (("UPDATE trail SET who = 'bob' WHERE seq = 3",), 3, "altered"),
        (("UPDATE trail SET details = '{}' WHERE seq = 3",), 3, "altered"),
        (("UPDATE trail SET at = '2020-01-01 00:00:00.000000' WHERE seq = 3",), 3, "altered"),
        (("DELETE FROM trail WHERE seq = 1",), 1, "is gone"),
        (("DELETE FROM trail WHERE seq = 4",), 4, "is gone"),
        (_SWAP, 2, "does not follow"),
        (_CUT, 4, "are gone"),
    ],
)
def test_a_changed_removed_or_moved_line_is_found(
    clinic_store: Store, statements: tuple[str, ...], seq: int, why: str
) -> None:
    _filled(clinic_store)
    _unlocked(clinic_store, *statements)
    broken = _verified(clinic_store).broken
    assert broken is not None
    assert broken.seq == seq
    assert why in broken.why


def _forge(store: Store) -> None:
    """Begins the whole chain anew, with as many lines."""
    _unlocked(store, "DELETE FROM trail", "UPDATE trail_head SET seq = 0, digest = ''")
    _filled(store)


def _forget(store: Store) -> None:
    """Cuts the end off, and makes the head fit."""
    _unlocked(store, *_CUT, "UPDATE trail_head SET seq = 3, digest = (SELECT digest FROM trail WHERE seq = 3)")


@pytest.mark.parametrize(("forgery", "seq"), [(_forge, 5), (_forget, 4)])
def test_a_forgery_of_the_whole_chain_is_found_by_a_head_that_was_noted(
    clinic_store: Store, forgery: Callable[[Store], None], seq: int
) -> None:
    noted = _filled(clinic_store)
    forgery(clinic_store)
    assert _verified(clinic_store).broken is None
    broken = _verified(clinic_store, (noted.seq, noted.digest)).broken
    assert broken is not None
    assert broken.seq == seq


def test_a_line_is_kept_or_lost_with_what_it_tells_of(clinic_store: Store) -> None:
    def fail_half_way() -> None:
        with clinic_store.session() as session:
            trail.append(session, "anna", "viewed", "case")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert _verified(clinic_store).seq == 0


def test_a_session_that_only_reads_takes_no_line(clinic_store: Store) -> None:
    with clinic_store.reading() as session, pytest.raises(RuntimeError, match="only reads"):
        trail.append(session, "anna", "viewed", "case")


def test_threads_that_write_at_once_make_one_chain(clinic_store: Store) -> None:
    with clinic_store.session() as session:
        session.add(Picture(sha256="a" * 64, size=0, stored_at=now()))

    def write(tells_first: bool) -> None:
        """If a line locked the head where it is told, those who tell first and those who do so last would block."""
        for _ in range(20):
            with clinic_store.session() as session:
                if tells_first:
                    trail.append(session, "anna", "viewed", "case")
                session.get_one(Picture, "a" * 64, with_for_update=True).size += 1
                session.flush()
                if not tells_first:
                    trail.append(session, "anna", "viewed", "case")

    threads = [threading.Thread(target=write, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = _verified(clinic_store)
    assert (found.seq, found.broken) == (80, None)
    with clinic_store.reading() as session:
        assert session.get_one(Picture, "a" * 64).size == 80
