"""The queue of cases to score: rows of the database, so that no case is ever in a queue and not in the records.

Comes in: a session and a moment. Goes out: cases, leased to one worker each. It scores nothing.

A case is due when it is received and `next_try_at` has come. A worker that takes it moves that moment to the end of its
lease: where the worker dies, the case is due again by itself. PostgreSQL lets workers skip each other's rows; SQLite
lets one write at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from dermalert.clinic import trail
from dermalert.clinic.schema import Case, Finding, Status
from dermalert.errors import ClinicError

WORKER = "worker"  # in the trail
_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=10)


@dataclass(frozen=True)
class Backlog:
    """How the queue stands: cases waiting, since when the oldest does, and cases laid aside as failed."""

    waiting: int
    oldest: datetime | None
    failed: int


def backlog(session: Session) -> Backlog:
    """How many cases wait, since when, and how many have failed."""
    waiting, oldest = session.execute(
        select(func.count(), func.min(Case.received_at)).where(Case.status == Status.RECEIVED)
    ).one()
    failed = session.scalar(select(func.count()).where(Case.status == Status.FAILED))
    return Backlog(waiting, oldest, failed or 0)


def is_due(session: Session, at: datetime) -> bool:
    """Whether there is a case to lease; takes no lock."""
    return session.scalar(select(Case.id).where(_due(at)).limit(1)) is not None


def lease(
    session: Session, worker: str, at: datetime, *, lasting: timedelta, most: int, max_attempts: int
) -> list[Case]:
    """Up to `most` due cases, the longest waiting first, for `worker` alone until `at + lasting`.

    An attempt counts when it begins: a case that takes its worker down each time ends as failed too.
    """
    due = select(Case).where(_due(at)).order_by(Case.next_try_at).limit(most).with_for_update(skip_locked=True)
    leased = []
    for case in session.scalars(due):
        if case.attempts >= max_attempts:
            _lay_aside(session, case, case.problem or "Its worker died each time it was scored.")
            continue
        case.attempts += 1
        case.lease_owner, case.next_try_at = worker, at + lasting
        leased.append(case)
    return leased


def renew(session: Session, worker: str, cases: Sequence[str], until: datetime) -> None:
    """Makes the worker's leases of those cases last until then."""
    session.execute(
        update(Case)
        .where(Case.id.in_(cases), Case.lease_owner == worker, Case.status == Status.RECEIVED)
        .values(next_try_at=until)
    )


def finish(
    session: Session,
    worker: str,
    case_id: str,
    status: Status,
    at: datetime,
    *,
    finding: Finding | None = None,
    problem: str | None = None,
) -> Case | None:
    """Ends the scoring of a case, as scored or refused. None where the lease was lost: nothing is changed then.

    Args:
        finding: None where the file could not be decoded.
        problem: why it was refused.
    """
    case = _held(session, worker, case_id)
    if case is None:
        return None
    case.status, case.scored_at, case.problem = status, at, problem
    case.lease_owner = case.next_try_at = None
    if finding is not None:
        case.finding, case.score = finding, finding.melanoma
    trail.append(session, WORKER, status, case.id, bundle=finding.bundle_digest if finding else None)
    return case


def fail(session: Session, worker: str, case_id: str, problem: str, at: datetime, *, max_attempts: int) -> None:
    """Tells of a failed attempt: the case is tried again later, each time after a longer wait, or laid aside."""
    case = _held(session, worker, case_id)
    if case is None:
        return
    case.problem, case.lease_owner = problem, None
    if case.attempts >= max_attempts:
        _lay_aside(session, case, problem)
    else:
        case.next_try_at = at + min(_FIRST_WAIT * 4 ** (case.attempts - 1), _LONGEST_WAIT)


def requeue(session: Session, who: str, case_id: str, at: datetime) -> None:
    """Sends a failed case back to be scored.

    Raises:
        ClinicError: it has not failed.
    """
    case = session.get(Case, case_id, with_for_update=True)
    if case is None or case.status != Status.FAILED:
        raise ClinicError(f"case {case_id} has not failed: there is nothing to try again.")
    case.status, case.attempts, case.problem, case.next_try_at = Status.RECEIVED, 0, None, at
    trail.append(session, who, "requeued", case.id)


def _due(at: datetime) -> ColumnElement[bool]:
    return and_(Case.status == Status.RECEIVED, Case.next_try_at <= at)


def _held(session: Session, worker: str, case_id: str) -> Case | None:
    case = session.get(Case, case_id, with_for_update=True, populate_existing=True)
    return case if case and case.status == Status.RECEIVED and case.lease_owner == worker else None


def _lay_aside(session: Session, case: Case, problem: str) -> None:
    case.status, case.problem = Status.FAILED, problem
    case.lease_owner = case.next_try_at = None
    trail.append(session, WORKER, Status.FAILED, case.id, attempts=case.attempts)
