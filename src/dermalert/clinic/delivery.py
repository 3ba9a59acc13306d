"""Delivery: alerts on their way, by e-mail or as signed webhooks, until they arrive or are given up.

Comes in: deliveries that `alerts` put into the database. Goes out: messages that name no patient and show no picture:
what kind of alert, and a link to the case, which opens for who may see it. It decides nothing about who is told.

A delivery is leased like a case in the queue: who takes it moves the moment at which it is due, and after a crash it is
due again by itself. So a message is sent at least once, and after a crash perhaps twice: each has an id by which the
receiver can tell. What is due to one rule goes in one message. How a receiver verifies a webhook's signature, an
HMAC-SHA-256 over the time and the body, stands in docs/operate.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, contains_eager

from dermalert.clinic import alerts, trail
from dermalert.clinic.drift import Drift
from dermalert.clinic.schema import Alert, Delivery, Rule, now
from dermalert.clinic.settings import Settings
from dermalert.clinic.store import Store
from dermalert.clinic.targets import resolved
from dermalert.errors import DataError

log = logging.getLogger("dermalert.clinic")

MAX_ATTEMPTS = 12  # the last about nine hours after the first
MOST_LINKS = 50  # in one message
_MOST_AT_ONCE = 1000  # alerts
_LEASE = timedelta(minutes=2)
_FIRST_WAIT = timedelta(seconds=15)
_LONGEST_WAIT = timedelta(hours=2)
_PATIENCE = 10.0  # seconds for each step of a connection
_EVERY = 2.0  # seconds between sweeps
_DRIFT_EVERY = 60.0  # and between looks at drift
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Message:
    """What is told to one rule's target at once.

    Attributes:
        id: the same for the same alerts.
        deliveries: the ids that it fulfils.
        alerts: what to tell of each: its id, kind, words, the case's opaque id and link (None of a test), when raised.
    """

    id: str
    rule: Rule
    deliveries: tuple[str, ...]
    alerts: tuple[dict[str, str | None], ...]


def deliver(store: Store, settings: Settings, clock: Callable[[], datetime] = now) -> int:
    """Sends what is due, each rule's in one message.

    Returns:
        how many messages arrived.
    """
    arrived, at = 0, clock()
    while message := _leased(store, settings, at, clock() + _LEASE):
        problem = _tried(message, settings)
        with store.session() as session:
            _record(session, message, problem, clock())
        arrived += problem is None
    return arrived


def _leased(store: Store, settings: Settings, at: datetime, until: datetime) -> Message | None:
    """What is due to one rule, leased until then; None where nothing is."""
    due = select(Delivery).join(Delivery.alert).where(Delivery.next_try_at <= at, Delivery.sent_at.is_(None))
    with store.reading() as session:
        rule = session.scalar(due.with_only_columns(Alert.rule_id).order_by(Delivery.next_try_at).limit(1))
    if rule is None:
        return None
    rows = due.where(Alert.rule_id == rule).options(contains_eager(Delivery.alert).joinedload(Alert.rule))
    rows = rows.order_by(Alert.raised_at, Alert.id).limit(_MOST_AT_ONCE).with_for_update(of=Delivery, skip_locked=True)
    with store.session() as session:
        deliveries = session.scalars(rows).all()
        for delivery in deliveries:
            delivery.attempts += 1
            delivery.next_try_at = until
        return _message(deliveries, settings) if deliveries else None


def _message(deliveries: Sequence[Delivery], settings: Settings) -> Message:
    told = tuple(
        {
            "id": each.alert.id,
            "kind": "test" if ":test:" in each.alert.dedupe else each.alert.rule.kind,
            "words": alerts.told_of(each.alert),
            "case": each.alert.case_id,
            "url": _link(each.alert, settings),
            "raised_at": each.alert.raised_at.isoformat(timespec="seconds"),
        }
        for each in deliveries
    )
    id_ = hashlib.sha256("".join(sorted(each.alert_id for each in deliveries)).encode()).hexdigest()[:24]
    return Message(id_, deliveries[0].alert.rule, tuple(each.id for each in deliveries), told)


def _link(alert: Alert, settings: Settings) -> str:
    return f"{settings.link_base}/cases/{alert.case_id}" if alert.case_id else f"{settings.link_base}/alerts"


def _tried(message: Message, settings: Settings) -> str | None:
    """None where the message arrived, else why not."""
    try:
        (send_email if message.rule.channel == "email" else send_webhook)(message, settings)
    except DataError as error:
        return str(error)
    except (OSError, smtplib.SMTPException, httpx.HTTPError) as error:
        return _plainly(error)
    return None


def _plainly(error: Exception) -> str:
    """The error by its kind; its words may hold an address, and those of an SMTP server anything."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"The mail server refused it with {error.smtp_code} ({type(error).__name__})."
    if isinstance(error, httpx.HTTPStatusError):
        return f"The receiver answered {error.response.status_code}, not 2xx. Redirects are not followed."
    return f"It could not be reached ({type(error).__name__})."


def _record(session: Session, message: Message, problem: str | None, at: datetime) -> None:
    for delivery in session.scalars(select(Delivery).where(Delivery.id.in_(message.deliveries)).with_for_update()):
        delivery.problem = problem
        given_up = problem is not None and delivery.attempts >= MAX_ATTEMPTS
        if problem is None:
            delivery.sent_at, delivery.next_try_at = at, None
        elif given_up:
            delivery.next_try_at = None
        elif delivery.next_try_at is not None:  # none: acknowledged meanwhile
            delivery.next_try_at = at + min(_FIRST_WAIT * 2 ** (delivery.attempts - 1), _LONGEST_WAIT)
        if problem is None or given_up:
            action = "alert sent" if problem is None else "alert not sent"
            trail.append(session, alerts.SERVICE, action, delivery.alert_id, rule=message.rule.id)


# E-mail


def send_email(message: Message, settings: Settings) -> None:
    """Sends it by the settings' mail server.

    Raises:
        DataError: the settings name no mail server that can be used.
        OSError, SMTPException: it could not be sent.
    """
    mail = EmailMessage()
    number = len(message.alerts)
    mail["Subject"] = f"Dermalert: {message.rule.name}" + (f" ({number} alerts)" if number > 1 else "")
    mail["From"], mail["To"] = settings.mail_from, message.rule.target
    mail["Date"], mail["Message-ID"] = now(), f"<{message.id}@dermalert.invalid>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(_lines(message, settings)))
    with _connected(settings) as server:
        server.send_message(mail)


def _lines(message: Message, settings: Settings) -> Iterator[str]:
    for each in message.alerts[:MOST_LINKS]:
        yield f"{each['words']}:\n{each['url']}\n"
    if len(message.alerts) > MOST_LINKS:
        yield f"And {len(message.alerts) - MOST_LINKS} more: {settings.link_base}/alerts\n"
    yield "The link opens for people with an account. Take note of it there, and nothing more is sent of it.\n"
    yield "Dermalert is research software: it supports a clinician and decides nothing alone."


@contextmanager
def _connected(settings: Settings) -> Iterator[smtplib.SMTP]:
    """The mail server, over TLS unless it is this machine or `?tls=none` says otherwise, and logged in."""
    parts = urlsplit(settings.smtp)
    host, asked = parts.hostname, parse_qs(parts.query).get("tls", ["required"])[0]
    if parts.scheme not in ("smtp", "smtps") or not host or asked not in ("required", "none"):
        raise DataError("DERMALERT_SMTP must be smtp://user:password@host:port or smtps://…, or end in ?tls=none.")
    context = ssl.create_default_context()
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, parts.port or 465, timeout=_PATIENCE, context=context)
    else:
        server = smtplib.SMTP(host, parts.port or 587, timeout=_PATIENCE)
    with server:
        if parts.scheme == "smtp" and asked == "required":
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=context)
            elif host not in _LOOPBACK:
                raise DataError(
                    "The mail server offers no STARTTLS. To send in the clear, end DERMALERT_SMTP in ?tls=none."
                )
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        yield server


# Webhooks


def send_webhook(message: Message, settings: Settings) -> None:
    """Posts it to the rule's target, signed.

    Raises:
        DataError: the target may not be reached.
        httpx.HTTPError: it could not be, or did not answer 2xx.
    """
    target = resolved(settings, message.rule.target)
    plain = {"id": message.id, "rule": message.rule.name, "alerts": message.alerts}
    body = json.dumps(plain, ensure_ascii=False).encode()
    headers = {
        "Host": target.url.netloc,
        "Content-Type": "application/json",
        "User-Agent": "Dermalert",
        "Dermalert-Id": message.id,
        **signature(body, settings.webhook_secret, now()),
    }
    # To the address that was looked at, under the certificate of the name; no proxy, no redirect; of the answer only
    # its status is read.
    extensions = {"sni_hostname": target.url.hostname} if target.url.scheme == "https" else {}
    with httpx.Client(
        timeout=_PATIENCE, follow_redirects=False, trust_env=False, verify=ssl.create_default_context()
    ) as client:
        request = client.build_request("POST", target.numeric_url, content=body, headers=headers, extensions=extensions)
        answer = client.send(request, stream=True)
        answer.close()
    if not answer.is_success:
        raise httpx.HTTPStatusError("not 2xx", request=answer.request, response=answer)


def signature(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    """The headers that prove who sent a body, and when."""
    timestamp = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"Dermalert-Timestamp": timestamp, "Dermalert-Signature": f"v1={digest}"}


# All the time


def sweep_and_deliver(store: Store, settings: Settings) -> None:
    """Raises what is to be raised, and sends what is due."""
    at = now()
    with store.reading() as session:
        wanted = alerts.any_to_raise(session, at)
    if wanted:
        with suppress(IntegrityError), store.session() as session:  # another process of the service raised them
            alerts.sweep(session, at, settings)
    deliver(store, settings)


def sweep_drift(store: Store, settings: Settings, drift: Callable[[Session], Drift]) -> None:
    """Raises what the rules about drift ask for; looks at no window where there is no such rule."""
    with store.reading() as session:
        if not alerts.any_about_drift(session):
            return
        found = drift(session)
    with suppress(IntegrityError), store.session() as session:  # another process of the service raised them
        alerts.sweep_drift(session, found.history, found.digest, now(), settings)


@contextmanager
def telling(store: Store, settings: Settings, drift: Callable[[Session], Drift]) -> Iterator[None]:
    """Has alerts raised and sent by a thread, as long as it is entered; it ends once a message under way is sent."""
    stop = threading.Event()
    thread = threading.Thread(target=_tell, args=(stop, store, settings, drift), name="alerts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_PATIENCE * 3)


def _tell(stop: threading.Event, store: Store, settings: Settings, drift: Callable[[Session], Drift]) -> None:
    look_at_drift = time.monotonic()
    while not stop.wait(_EVERY):
        try:
            if time.monotonic() >= look_at_drift:
                look_at_drift = time.monotonic() + _DRIFT_EVERY
                sweep_drift(store, settings, drift)
            sweep_and_deliver(store, settings)
        except SQLAlchemyError as error:  # the database is away: nothing is lost, it is tried again
            log.error("alerts wait for the database", extra={"error": type(error).__name__})
        except Exception:  # a thread that dies would tell nobody any more
            log.exception("alerts failed")
