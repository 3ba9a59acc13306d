"""The tables of the clinic: what is kept of pictures, cases, people, alerts, and of who did what.

Comes in: nothing. Goes out: the ORM classes that every other file of the clinic reads and writes. It computes nothing.
Times are aware and in UTC; ids are opaque random strings, so that one in an address or a log tells nothing of anybody.

A case goes one way: received -> scored | refused | failed -> reviewed -> closed. `failed` is where a case lies that
could not be scored after several attempts: people see it, and can send it back to `received`.

A change here needs a migration: `scripts/migration.py` writes its draft, and a test compares the two.
"""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Status(StrEnum):
    """Where a case stands."""

    RECEIVED = "received"
    SCORED = "scored"
    REFUSED = "refused"
    FAILED = "failed"
    REVIEWED = "reviewed"
    CLOSED = "closed"


class Origin(StrEnum):
    """The way a picture came in."""

    UPLOAD = "upload"
    ZIP = "zip"
    WATCH = "watch"
    API = "api"


class Role(StrEnum):
    """What a person may do: read and decide; that and manage; or only bring pictures."""

    READER = "reader"
    ADMIN = "admin"
    UPLOADER = "uploader"


def new_id() -> str:
    """An opaque random id of 24 hex digits."""
    return secrets.token_hex(12)


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


class Moment(TypeDecorator[datetime]):
    """An aware time, kept in UTC. SQLite knows no time zones, so it is added again on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without its zone: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Moment,
        dict[str, Any]: JSON,
        dict[str, float]: JSON,
        list[str]: JSON,
        bytes: LargeBinary,
    }


def _id() -> Mapped[str]:
    return mapped_column(String(32), primary_key=True, default=new_id)


def _case() -> Mapped[str]:
    return mapped_column(String(32), ForeignKey("cases.id"), index=True)


class Picture(Base):
    """A stored file. `width`, `height` and `format` are None until it has been decoded, and where it can't be."""

    __tablename__ = "pictures"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int | None]
    height: Mapped[int | None]
    format: Mapped[str | None] = mapped_column(String(8))
    stored_at: Mapped[datetime]


class Case(Base):
    """One picture of one lesion, on its way from the camera to a decision.

    Attributes:
        key: what the sender calls this upload; the same picture under the same key is the same case.
        attempts: of scoring, so far.
        lease_owner: the worker that is scoring it.
        next_try_at: when it is due for scoring; while a worker has it, when that worker is taken for dead; None once
            nothing is left to do.
        problem: why it was refused, or why the last attempt failed.
        score: the melanoma probability, as in its finding, kept here to sort by; None where it was not scored.
    """

    __tablename__ = "cases"
    __table_args__ = (
        UniqueConstraint("sha256", "key"),
        Index(None, "status", "next_try_at"),
        Index(None, "status", "received_at"),
        Index(None, "status", "score"),
    )

    id: Mapped[str] = _id()
    sha256: Mapped[str] = mapped_column(ForeignKey("pictures.sha256"))
    key: Mapped[str] = mapped_column(String(200), default="")
    patient: Mapped[str | None] = mapped_column(String(200), index=True)
    lesion: Mapped[str | None] = mapped_column(String(200), index=True)
    site: Mapped[str | None] = mapped_column(String(100))
    sex: Mapped[str | None] = mapped_column(String(16))
    age: Mapped[int | None]
    taken_on: Mapped[date | None]
    origin: Mapped[str] = mapped_column(String(8))
    uploaded_by: Mapped[str] = mapped_column(String(100))
    received_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[str] = mapped_column(String(10), default=Status.RECEIVED)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    next_try_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None]
    scored_at: Mapped[datetime | None]
    reviewed_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]

    picture: Mapped[Picture] = relationship()
    finding: Mapped[Finding | None] = relationship(back_populates="case")
    notes: Mapped[list[Note]] = relationship(order_by="Note.at")
    decisions: Mapped[list[Decision]] = relationship(order_by="Decision.at")
    histologies: Mapped[list[Histology]] = relationship(order_by="Histology.at")


class Finding(Base):
    """What the model said of a case, as `score.batch.Finding` does, and which model it was.

    A case that the gate refused has a finding without probabilities; one that could not be decoded has none.

    Attributes:
        bundle: the model's name; `bundle_digest`: SHA-256 over the digests of its files.
        probabilities: by class, calibrated.
        possible: the conformal set, likeliest first.
        embedding: float16, little endian, (E,): the pooled features, for drift; None where the graph gives none.
        brightness, sharpness, contrast, colour: of the picture, as `score.gate.Quality` measures them.
    """

    __tablename__ = "findings"
    __table_args__ = (Index(None, "alert", "case_id"),)  # rows are long: alerts are counted without reading them

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    bundle: Mapped[str] = mapped_column(String(200))
    bundle_digest: Mapped[str] = mapped_column(String(64), index=True)
    probabilities: Mapped[dict[str, float]]
    melanoma: Mapped[float | None]
    malignant: Mapped[float | None]
    alert: Mapped[str | None] = mapped_column(String(8))
    diagnosis: Mapped[str | None] = mapped_column(String(60))
    possible: Mapped[list[str]]
    ood: Mapped[float | None]
    quality: Mapped[float | None]
    message: Mapped[str] = mapped_column(Text, default="")
    embedding: Mapped[bytes | None]
    brightness: Mapped[float | None]
    sharpness: Mapped[float | None]
    contrast: Mapped[float | None]
    colour: Mapped[float | None]
    scored_at: Mapped[datetime] = mapped_column(index=True)

    case: Mapped[Case] = relationship(back_populates="finding")


class Note(Base):
    """What somebody wrote of a case."""

    __tablename__ = "notes"

    id: Mapped[str] = _id()
    case_id: Mapped[str] = _case()
    who: Mapped[str] = mapped_column(String(100))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class Decision(Base):
    """What a reader decided: "refer", "biopsy", "follow_up" (in `months`) or "no_action". The last one counts."""

    __tablename__ = "decisions"

    id: Mapped[str] = _id()
    case_id: Mapped[str] = _case()
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(16))
    months: Mapped[int | None]
    at: Mapped[datetime] = mapped_column(index=True)


class Histology(Base):
    """What the pathologist found; `diagnosis` is one of the taxonomy. The last one counts."""

    __tablename__ = "histologies"

    id: Mapped[str] = _id()
    case_id: Mapped[str] = _case()
    who: Mapped[str] = mapped_column(String(100))
    diagnosis: Mapped[str] = mapped_column(String(60))
    at: Mapped[datetime]


class User(Base):
    """A person with an account. `password_hash` is None where sign-in is by OIDC, or not set up yet."""

    __tablename__ = "users"

    id: Mapped[str] = _id()
    name: Mapped[str] = mapped_column(String(100), unique=True)
    email: Mapped[str | None] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(200))
    subject: Mapped[str | None] = mapped_column(String(255), unique=True)
    role: Mapped[str] = mapped_column(String(10))
    disabled: Mapped[bool] = mapped_column(default=False)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Login(Base):
    """A session of a browser, by the hash of its cookie."""

    __tablename__ = "logins"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship()


class Link(Base):
    """A link that sets a user's password once, by the hash of its secret."""

    __tablename__ = "links"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship()


class Token(Base):
    """An API token, by its hash."""

    __tablename__ = "tokens"

    id: Mapped[str] = _id()
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()


class Rule(Base):
    """When somebody is told.

    Attributes:
        kind: "operating_point", "risk" (from `threshold`), "waiting" (`hours`), "failed" or "drift".
        channel: "email" or "webhook"; `target`: the address.
        digest: told once a day, in one message.
        since: when it was last switched on: what happened before raises nothing.
    """

    __tablename__ = "rules"

    id: Mapped[str] = _id()
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    threshold: Mapped[float | None]
    hours: Mapped[float | None]
    channel: Mapped[str] = mapped_column(String(10))
    target: Mapped[str] = mapped_column(String(500))
    digest: Mapped[bool] = mapped_column(default=False)
    enabled: Mapped[bool] = mapped_column(default=True)
    since: Mapped[datetime]
    created_at: Mapped[datetime]


class Alert(Base):
    """A rule that applied to a case; `dedupe` lets a thing be told once. `case_id` is None of drift and tests."""

    __tablename__ = "alerts"

    id: Mapped[str] = _id()
    rule_id: Mapped[str] = mapped_column(ForeignKey("rules.id"), index=True)
    case_id: Mapped[str | None] = mapped_column(ForeignKey("cases.id"), index=True)
    dedupe: Mapped[str] = mapped_column(String(100), unique=True)
    raised_at: Mapped[datetime] = mapped_column(index=True)
    acknowledged_by: Mapped[str | None] = mapped_column(String(100))
    acknowledged_at: Mapped[datetime | None]

    rule: Mapped[Rule] = relationship()
    case: Mapped[Case | None] = relationship()


class Delivery(Base):
    """An alert on its way to its rule's target.

    Attributes:
        attempts: to send it, so far.
        next_try_at: when it is due; while it is being sent, when another may try; None once sent or given up.
        problem: why the last attempt failed.
    """

    __tablename__ = "deliveries"

    id: Mapped[str] = _id()
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id"), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(index=True)
    sent_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(Text)

    alert: Mapped[Alert] = relationship()


class TrailEntry(Base):
    """A line of the audit trail. Written by `trail.append` alone; the database itself refuses changes to it."""

    __tablename__ = "trail"

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    at: Mapped[datetime] = mapped_column(index=True)
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(100), index=True)
    details: Mapped[dict[str, Any]]
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class TrailHead(Base):
    """The last line's number and digest, in one row: who appends locks it, and a cut-off end is found by it."""

    __tablename__ = "trail_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
