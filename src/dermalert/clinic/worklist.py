"""The worklist: which cases wait for whom, and what readers do with them.

Comes in: a session of the database, what is asked for, and who asks. Goes out: pages of cases, one case, and changes to
it. Whatever is seen of one case, and every change, is written into the audit trail in the same transaction. It knows no
request and writes no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, selectinload

from dermalert.clinic import trail
from dermalert.clinic.schema import Case, Decision, Finding, Histology, Note, Status, TrailEntry, now
from dermalert.errors import DataError, NoSuchCase, NotNow
from dermalert.taxonomy import label_of

_Keys: TypeAlias = tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]

ACTIONS = ("refer", "biopsy", "follow_up", "no_action")
# What the trail says when a case changes.
CHANGES = (
    Status.RECEIVED,
    Status.SCORED,
    Status.REFUSED,
    Status.FAILED,
    "requeued",
    "decided",
    "noted",
    "histology",
    "closed",
)
MOST_MONTHS = 120  # of a follow-up
LONGEST_NOTE = 10_000  # characters
PAGE = 50  # cases

# What a reader looks at: the first is shown when nothing is said.
VIEWS: Mapping[str, tuple[Status, ...]] = {
    "open": (Status.RECEIVED, Status.SCORED, Status.REFUSED, Status.FAILED),
    "trouble": (Status.REFUSED, Status.FAILED),
    "reviewed": (Status.REVIEWED,),
    "closed": (Status.CLOSED,),
    "all": tuple(Status),
}
_DECIDABLE = (Status.SCORED, Status.REFUSED, Status.FAILED, Status.REVIEWED)

# A case without a score is not harmless but unknown: in the order of risk it follows the last that has one, and the
# page counts such cases at its top.
_RISK = -func.coalesce(Case.score, -1.0)
_STAGE = case({status: place for place, status in enumerate(Status)}, value=Case.status)
# What each order sorts by, all of it one way: down where the second value says so. The id leaves no two cases in one
# place; of equals, who waits longer comes first.
ORDERS: Mapping[str, tuple[_Keys, bool]] = {
    "risk": ((_RISK, Case.received_at, Case.id), False),
    "waiting": ((Case.received_at, Case.id), False),
    "newest": ((Case.received_at, Case.id), True),
    "status": ((_STAGE, Case.received_at, Case.id), False),
}


@dataclass(frozen=True)
class Filters:
    """Which cases are asked for.

    Attributes:
        view: a key of `VIEWS`.
        alert: "refer" or "none" to see only those; empty: whatever the model said.
        text: stands in the reference of the patient or lesion, the site or a note; in any case of letters.
    """

    view: str = "open"
    alert: str = ""
    text: str = ""


@dataclass(frozen=True)
class Page:
    """A page of the worklist: its cases, its number from 1 on, of how many pages, and how many cases there are."""

    cases: list[Case]
    number: int
    pages: int
    total: int


@dataclass(frozen=True)
class Neighbours:
    """The ids of the cases before and after one, in the order of a list; None at its ends."""

    previous: str | None
    next: str | None


def worklist(
    session: Session, filters: Filters = Filters(), *, order: str = "risk", page: int = 1, size: int = PAGE
) -> Page:
    """One page of cases, with their findings and decisions. A page beyond the last is the last.

    Raises:
        DataError: no such view or order.
    """
    keys, down = _order(order)
    total = session.scalar(_filtered(select(func.count()).select_from(Case), filters)) or 0
    pages = max(1, math.ceil(total / size))
    number = min(max(page, 1), pages)
    rows = _filtered(select(Case.id), filters).order_by(*(key.desc() if down else key.asc() for key in keys))
    # Only the ids are sorted: the rows are long, and those of other pages need not be read.
    ids = session.scalars(rows.offset((number - 1) * size).limit(size)).all()
    parts = joinedload(Case.finding).defer(Finding.embedding), joinedload(Case.picture), selectinload(Case.decisions)
    cases = {case.id: case for case in session.scalars(select(Case).where(Case.id.in_(ids)).options(*parts))}
    return Page([cases[id_] for id_ in ids], number, pages, total)


def counts(session: Session) -> dict[str, int]:
    """How many cases stand where, by status; and under "refer" how many alerts nobody has decided on."""
    found = {str(status): 0 for status in Status}
    found.update(session.execute(select(Case.status, func.count()).group_by(Case.status)).all())
    alerts = select(Finding.case_id).where(Finding.alert == "refer")
    waiting = select(func.count()).select_from(Case).where(Case.status == Status.SCORED, Case.id.in_(alerts))
    found["refer"] = session.scalar(waiting) or 0
    return found


def neighbours(session: Session, of: Case, filters: Filters = Filters(), *, order: str = "risk") -> Neighbours:
    """The cases before and after one, which itself need not pass the filters: it may have been decided just now.

    Raises:
        DataError: as `worklist`.
    """
    keys, down = _order(order)
    here = session.execute(select(*keys).where(Case.id == of.id)).one()
    place, edge = tuple_(*keys), tuple_(*(literal(value, key.type) for value, key in zip(here, keys, strict=True)))
    listed = _filtered(select(Case.id), filters)
    above = session.scalar(listed.where(place > edge).order_by(*keys).limit(1))
    below = session.scalar(listed.where(place < edge).order_by(*(key.desc() for key in keys)).limit(1))
    return Neighbours(above, below) if down else Neighbours(below, above)


def case_of(session: Session, id_: str) -> Case:
    """The case, with its finding, notes, decisions and histologies.

    Raises:
        NoSuchCase: there is none of that id.
    """
    return _one(session, select(Case).where(Case.id == id_))


def seen(session: Session, who: str, id_: str, what: str = "case") -> None:
    """Writes into the trail that somebody saw the case, or its "picture", "evidence" or "report"."""
    trail.append(session, who, "seen", id_, what=what)


def stamp(session: Session, id_: str | None = None) -> int:
    """A number that grows with every change of a case, or of that one: the trail's last line that tells of one."""
    told = select(TrailEntry.seq).where(TrailEntry.action.in_(CHANGES)).order_by(TrailEntry.seq.desc()).limit(1)
    return session.scalar(told if id_ is None else told.where(TrailEntry.subject == id_)) or 0


def earlier(session: Session, of: Case, *, most: int = 24) -> tuple[list[Case], list[Case]]:
    """Other pictures of the same lesion, and of other lesions of the same patient, the latest first.

    A lesion's reference means the same lesion only within one patient, or where no patient is named in either.
    """
    same_patient = Case.patient.is_(None) if of.patient is None else Case.patient == of.patient
    others = select(Case).where(Case.id != of.id, same_patient).options(joinedload(Case.finding))
    others = others.options(selectinload(Case.decisions)).order_by(Case.received_at.desc(), Case.id).limit(most)
    lesion = [] if of.lesion is None else session.scalars(others.where(Case.lesion == of.lesion)).all()
    if of.patient is None:
        return list(lesion), []
    elsewhere = or_(Case.lesion.is_(None), Case.lesion != of.lesion) if of.lesion is not None else Case.id != of.id
    return list(lesion), list(session.scalars(others.where(elsewhere)).all())


def decide(session: Session, who: str, id_: str, action: str, months: int | None = None) -> Decision:
    """Records a decision; an earlier one stays in the record, and the last counts.

    Args:
        action: one of `ACTIONS`.
        months: until the lesion is looked at again, 1 to `MOST_MONTHS`; for "follow_up", and only for that.

    Raises:
        NoSuchCase: there is none of that id.
        NotNow: it is not scored yet, or closed.
        DataError: no such action, or months that do not fit.
    """
    if action not in ACTIONS:
        raise DataError(f"{action!r:.40} is no decision. Choose one of: {', '.join(ACTIONS)}.")
    if (months is not None) != (action == "follow_up") or (months is not None and not 1 <= months <= MOST_MONTHS):
        raise DataError(f"A follow-up takes a number of months, 1 to {MOST_MONTHS}, and no other decision has one.")
    found = _to_change(session, id_, _DECIDABLE, "be decided")
    decision = Decision(case_id=id_, who=who, action=action, months=months, at=now())
    found.decisions.append(decision)
    found.status, found.reviewed_at = Status.REVIEWED, decision.at
    trail.append(session, who, "decided", id_, decision=action, months=months)
    return decision


def note(session: Session, who: str, id_: str, text: str) -> Note:
    """Adds a note; the trail tells that there is one, and not what it says.

    Raises:
        NoSuchCase: there is none of that id.
        DataError: an empty note, or one longer than `LONGEST_NOTE`.
    """
    said = text.strip()
    if not 1 <= len(said) <= LONGEST_NOTE:
        raise DataError(f"A note has 1 to {LONGEST_NOTE:,} characters; this one has {len(said):,}.")
    found = _to_change(session, id_, tuple(Status), "have a note")
    written = Note(case_id=id_, who=who, text=said, at=now())
    found.notes.append(written)
    trail.append(session, who, "noted", id_)
    return written


def histology(session: Session, who: str, id_: str, diagnosis: str) -> Histology:
    """Records what the pathologist found, and closes the case; given again, the last counts.

    Args:
        diagnosis: one of the nine of the taxonomy, or another word for it.

    Raises:
        NoSuchCase: there is none of that id.
        NotNow: nobody has decided on it yet.
        DataError: no diagnosis known here, or a word that leaves it open.
    """
    label = label_of(diagnosis)
    if not label.is_exact:
        raise DataError(f"{label.name} stands for {' or '.join(label.stands_for)}. Name one of them.")
    found = _to_change(session, id_, (Status.REVIEWED, Status.CLOSED), "have its histology")
    known = Histology(case_id=id_, who=who, diagnosis=label.name, at=now())
    found.histologies.append(known)
    _close(found)
    trail.append(session, who, "histology", id_, diagnosis=label.name)
    return known


def close(session: Session, who: str, id_: str) -> None:
    """Closes a case that needs no histology.

    Raises:
        NoSuchCase: there is none of that id.
        NotNow: nobody has decided on it yet, or it is closed.
    """
    _close(_to_change(session, id_, (Status.REVIEWED,), "be closed"))
    trail.append(session, who, "closed", id_)


def _close(found: Case) -> None:
    found.status, found.closed_at = Status.CLOSED, found.closed_at or now()


def _to_change(session: Session, id_: str, allowed: tuple[Status, ...], what: str) -> Case:
    """The case, locked until the transaction ends, so that no worker changes it in between."""
    found = _one(session, select(Case).where(Case.id == id_).with_for_update(of=Case))
    if found.status not in allowed:
        raise NotNow(f"This case is {found.status}: it cannot {what} now. Open it anew to see where it stands.")
    return found


def _one(session: Session, asked: Select[Case]) -> Case:
    parts = (Case.finding, Case.notes, Case.decisions, Case.histologies, Case.picture)
    found = session.scalars(asked.options(*map(selectinload, parts)).execution_options(populate_existing=True)).first()
    if found is None:
        raise NoSuchCase("There is no such case. Go back to the worklist.")
    return found


def _order(name: str) -> tuple[_Keys, bool]:
    if name not in ORDERS:
        raise DataError(f"{name!r:.40} is no order. Choose one of: {', '.join(ORDERS)}.")
    return ORDERS[name]


def _filtered(asked: Select[Any], filters: Filters) -> Select[Any]:
    if filters.view not in VIEWS:
        raise DataError(f"{filters.view!r:.40} is no view. Choose one of: {', '.join(VIEWS)}.")
    if filters.alert not in ("", "refer", "none"):
        raise DataError(f"{filters.alert!r:.40} is no alert. Choose refer or none.")
    if filters.view != "all":
        asked = asked.where(Case.status.in_(VIEWS[filters.view]))
    if filters.alert:
        asked = asked.where(Case.id.in_(select(Finding.case_id).where(Finding.alert == filters.alert)))
    for word in filters.text.split():
        asked = asked.where(_mentions(word))
    return asked


def _mentions(word: str) -> ColumnElement[bool]:
    noted = select(Note.case_id).where(Note.text.icontains(word, autoescape=True))
    fields = (Case.patient, Case.lesion, Case.site)
    return or_(*(field.icontains(word, autoescape=True) for field in fields), Case.id.in_(noted))
