"""Whether what is kept agrees: files with rows, cases with findings, and the trail with itself.

Comes in: the store and the files. Goes out: a `Checked`, with each disagreement in words. It mends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from dermalert.clinic import trail
from dermalert.clinic.files import Files
from dermalert.clinic.schema import Case, Decision, Histology, Picture, Status, TrailEntry
from dermalert.clinic.store import Store
from dermalert.errors import Damaged

_WAITING = (Status.RECEIVED, Status.FAILED)


@dataclass(frozen=True)
class Checked:
    """What was looked at, and what is wrong.

    Attributes:
        pictures, cases, lines: how many there are, of the trail the lines.
        head: the trail's last line, "number:digest"; noted elsewhere, a later check can be held against it.
        unclaimed: files without a row: uploads that broke off before they were acknowledged. Nothing is lost.
        problems: a line each; empty where all agrees.
    """

    pictures: int
    cases: int
    lines: int
    head: str
    unclaimed: int
    problems: tuple[str, ...]


def check(store: Store, files: Files) -> Checked:
    """Reads every file and every row. Safe while the service runs, as it looks at one moment of the database."""
    with store.reading() as session:
        verified = trail.verify(session)
        rows = dict(session.execute(select(Picture.sha256, Picture.size)).all())
        problems = [
            *_of_trail(verified),
            *_of_files(files, rows),
            *_of_cases(session),
            *_of_lines(session),
        ]
        cases = session.scalar(select(func.count()).select_from(Case)) or 0
    unclaimed = sum(sha256 not in rows for sha256 in files.walk())
    head = f"{verified.seq}:{verified.digest}"
    return Checked(len(rows), cases, verified.seq, head, unclaimed, tuple(problems))


def _of_trail(verified: trail.Verified) -> Iterator[str]:
    if verified.broken:
        yield f"audit trail: line {verified.broken.seq} {verified.broken.why}"


def _of_files(files: Files, rows: dict[str, int]) -> Iterator[str]:
    for sha256, size in rows.items():
        try:
            if len(files.read(sha256)) != size:
                yield f"picture {sha256}: its row tells another size than its file has"
        except (Damaged, OSError) as fault:
            yield str(fault)


def _of_cases(session: Session) -> Iterator[str]:
    decided = set(session.scalars(select(Decision.case_id)))
    known = set(session.scalars(select(Histology.case_id)))
    everything = select(Case).options(joinedload(Case.finding)).execution_options(yield_per=500)
    for case in session.scalars(everything):
        if why := _wrong(case, case.id in decided or case.id in known):
            yield f"case {case.id}: is {case.status}, {why}"


def _wrong(case: Case, judged: bool) -> str:
    if case.status in _WAITING:
        if case.finding is not None:
            return "and yet has a finding"
        if (case.status == Status.RECEIVED) != (case.next_try_at is not None):
            return "and is due at no time" if case.status == Status.RECEIVED else "and yet is due again"
        return "without a reason" if case.status == Status.FAILED and not case.problem else ""
    if case.status in (Status.SCORED, Status.REFUSED) and case.scored_at is None:
        return "and yet was never scored"
    if case.next_try_at is not None or case.lease_owner is not None:
        return "and yet in the queue"
    if case.finding is not None and case.score != case.finding.melanoma:
        return "with another score than its finding has"
    if case.finding is None and not case.problem:
        return "without a finding or a reason"
    return "without a decision" if case.status == Status.REVIEWED and not judged else ""


def _of_lines(session: Session) -> Iterator[str]:
    """Each case was received once and, unless it waits, scored once: the trail is the witness."""
    for actions, once in (((Status.RECEIVED,), True), ((Status.SCORED, Status.REFUSED), False)):
        counts = (
            select(TrailEntry.subject, func.count().label("lines"))
            .where(TrailEntry.action.in_(actions))
            .group_by(TrailEntry.subject)
            .subquery()
        )
        lines = func.coalesce(counts.c.lines, 0)
        found = select(Case.id, Case.scored_at, lines).outerjoin(counts, counts.c.subject == Case.id)
        for case_id, scored_at, number in session.execute(found):
            wanted = 1 if once or scored_at is not None else 0
            if number != wanted:
                yield f"case {case_id}: by the trail {number} times, not {wanted}, it was {' or '.join(actions)}"
