"""The audit trail: who did what to which case, when; append-only, each line sealed with the digest of the one before.

Comes in: actions, as they happen. Goes out: lines, and whether they are whole. A changed, removed, added or reordered
line breaks the chain, and a cut-off end is found by the head. Who can write the whole database can forge a whole chain:
note the head that `verify` prints where they cannot reach, and verify against it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from dermalert.clinic.schema import TrailEntry, TrailHead, now
from dermalert.errors import Damaged

_PENDING = "dermalert.trail"


@dataclass(frozen=True)
class Break:
    """The first line that is not as it was written: its number and what is wrong."""

    seq: int
    why: str


@dataclass(frozen=True)
class Verified:
    """What `verify` found: the last line's number and digest, and the first fault, None where the trail is whole."""

    seq: int
    digest: str
    broken: Break | None = None


def append(session: Session, who: str, action: str, subject: str, **details: Any) -> None:
    """Adds a line, in the same transaction as what it tells of: both are kept, or none.

    Lines are written at the commit, after everything else: they lock the trail's head, and whoever locks it first and
    a case after would wait for ever for one who does it the other way round.

    Args:
        who: a user's name, or "worker", "watcher", "service".
        subject: the id of a case, a user, a rule, ...; "" for none.
        details: plain JSON values; no picture and no name of a patient.
    """
    if session.get_bind().get_execution_options().get("reading"):
        raise RuntimeError("a trail line in a session that only reads: use Store.session()")
    session.info.setdefault(_PENDING, []).append((now(), who, action, subject, details))


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    pending = session.info.pop(_PENDING, [])
    if not pending:
        return
    session.flush()
    head = session.get(TrailHead, 1, with_for_update=True, populate_existing=True)
    if head is None:
        raise Damaged("the audit trail has lost its head. Restore a backup, or run: dermalert audit-trail verify")
    for at, *rest in pending:
        seq = head.seq + 1
        digest = _digest(seq, at, *rest, head.digest)
        who, action, subject, details = rest
        session.add(
            TrailEntry(
                seq=seq,
                at=at,
                who=who,
                action=action,
                subject=subject,
                details=details,
                previous=head.digest,
                digest=digest,
            )
        )
        head.seq, head.digest = seq, digest


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, _: object) -> None:
    session.info.pop(_PENDING, None)


def verify(session: Session, known: tuple[int, str] | None = None) -> Verified:
    """Follows the chain from its first line to its head.

    Args:
        known: the number and digest of a head that was noted earlier; its line must still be there.
    """
    seq, digest = 0, ""
    lines = select(TrailEntry).order_by(TrailEntry.seq).execution_options(yield_per=1000)
    for entry in session.scalars(lines):
        if why := _fault(entry, seq, digest):
            return Verified(seq, digest, Break(seq + 1, why))
        seq, digest = entry.seq, entry.digest
        if known and known[0] == seq and known[1] != digest:
            return Verified(seq, digest, Break(seq, "is another one than was noted"))
    head = session.get(TrailHead, 1)
    if head is None or (head.seq, head.digest) != (seq, digest):
        return Verified(seq, digest, Break(seq + 1, "and what followed are gone, or the head was altered"))
    if known and known[0] > seq:
        return Verified(seq, digest, Break(seq + 1, f"to {known[0]}, which was noted, are gone"))
    return Verified(seq, digest)


def _fault(entry: TrailEntry, seq: int, digest: str) -> str:
    if entry.seq != seq + 1:
        return "is gone"
    if entry.previous != digest:
        return "does not follow the one before"
    written = _digest(entry.seq, entry.at, entry.who, entry.action, entry.subject, entry.details, entry.previous)
    return "" if entry.digest == written else "was altered"


def _digest(seq: int, at: datetime, *rest: Any) -> str:
    line = json.dumps([seq, at.isoformat(), *rest], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(line.encode()).hexdigest()
