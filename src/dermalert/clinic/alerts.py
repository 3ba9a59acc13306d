"""Alerts: who is told of which case, once.

Comes in: rules that an admin made, and the cases as they stand. Goes out: alerts, each with a delivery that `delivery`
sends. It sends nothing itself.

`sweep` looks at the cases, not at events, and may run as often as one likes, in several processes: what it would raise
twice, the unique key `dedupe` refuses. So an alert is lost by no crash: until it stands in the database, the next sweep
finds the case again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parseaddr

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session, joinedload

from dermalert.clinic import trail
from dermalert.clinic.drift import Comparison
from dermalert.clinic.schema import Alert, Case, Delivery, Finding, Rule, Status, new_id, now
from dermalert.clinic.settings import Settings
from dermalert.clinic.targets import check_webhook
from dermalert.errors import DataError

SERVICE = "service"  # in the trail
KINDS = {
    "operating_point": "The model says refer",
    "risk": "Melanoma from a probability on",
    "waiting": "Nobody has decided after some hours",
    "failed": "A picture could not be scored",
    "drift": "Pictures or scores are no longer spread as they were",
}
CHANNELS = ("email", "webhook")
MOST_AT_ONCE = 500  # cases of a rule in one sweep; the next takes more
_WAITING = (Status.RECEIVED, Status.SCORED, Status.REFUSED, Status.FAILED)


def add_rule(
    session: Session,
    who: str,
    settings: Settings,
    *,
    name: str,
    kind: str,
    channel: str,
    target: str,
    threshold: float | None = None,
    hours: float | None = None,
    digest: bool = False,
) -> Rule:
    """Makes a rule; what was scored before it raises nothing, but cases that wait too long, or have failed, do.

    Args:
        threshold: for "risk", a probability of melanoma; for "waiting", optional: only cases from it on.
        hours: for "waiting".
        target: an e-mail address, or a webhook's URL.

    Raises:
        DataError: something does not fit, or e-mail or webhooks are not set up.
    """
    _check(settings, name, kind, channel, target, threshold, hours)
    at = now()
    rule = Rule(
        id=new_id(),
        name=name.strip(),
        kind=kind,
        threshold=threshold,
        hours=hours,
        channel=channel,
        target=target.strip(),
        digest=digest,
        enabled=True,
        since=at,
        created_at=at,
    )
    session.add(rule)
    trail.append(session, who, "add rule", rule.id, kind=kind, channel=channel, threshold=threshold, hours=hours)
    return rule


def _check(
    settings: Settings,
    name: str,
    kind: str,
    channel: str,
    target: str,
    threshold: float | None,
    hours: float | None,
) -> None:
    if not 1 <= len(name.strip()) <= 100 or not name.isprintable():
        raise DataError("A rule has a name of 1 to 100 letters, on one line.")
    if kind not in KINDS:
        raise DataError(f"{kind!r:.40} is no kind of rule. Choose one of: {', '.join(KINDS)}.")
    if (kind == "risk" or threshold is not None) and not _within(threshold, 0, 1):
        raise DataError("Give the probability of melanoma from which on somebody is told: more than 0, at most 1.")
    if threshold is not None and kind not in ("risk", "waiting"):
        raise DataError(f"A rule of the kind {kind} has no probability.")
    if (hours is None) != (kind != "waiting") or (hours is not None and not _within(hours, 0, 24 * 365)):
        raise DataError("A rule about waiting, and only such a one, has a number of hours: more than 0, within a year.")
    if channel not in CHANNELS:
        raise DataError(f"{channel!r:.40} is no way to tell. Choose one of: {', '.join(CHANNELS)}.")
    if channel == "email":
        _check_address(settings, target.strip())
    else:
        check_webhook(settings, target.strip())


def _within(value: float | None, low: float, high: float) -> bool:
    return value is not None and math.isfinite(value) and low < value <= high


def _check_address(settings: Settings, address: str) -> None:
    if not settings.smtp:
        raise DataError("E-mail is not set up: start the service with DERMALERT_SMTP=smtp://user:password@host:587.")
    local, _, domain = parseaddr(address)[1].rpartition("@")
    if parseaddr(address) != ("", address) or not local or not domain or not address.isprintable() or " " in address:
        raise DataError("That is no e-mail address. Give one, as name@clinic.example.")


def switch(session: Session, who: str, rule_id: str, *, on: bool) -> None:
    """Switches a rule on or off. What was scored while it was off raises nothing.

    Raises:
        DataError: there is no such rule.
    """
    rule = _rule(session, rule_id)
    if on and not rule.enabled:
        rule.since = now()
    rule.enabled = on
    trail.append(session, who, "switch rule", rule.id, on=on)


def _rule(session: Session, rule_id: str) -> Rule:
    rule = session.get(Rule, rule_id, with_for_update=True)
    if rule is None:
        raise DataError("There is no such rule. Load the page again.")
    return rule


def send_test(session: Session, who: str, rule_id: str, at: datetime) -> Alert:
    """Has a message sent to the rule's target, the way that alerts go, about no case.

    Raises:
        DataError: there is no such rule.
    """
    rule = _rule(session, rule_id)
    trail.append(session, who, "test rule", rule.id)
    return _raise(session, rule, None, f"{rule.id}:test:{new_id()}", at, at)


def acknowledge(session: Session, who: str, alert_id: str) -> None:
    """Records that somebody has taken note; nothing more is sent of it. The first to do so counts.

    Raises:
        DataError: there is no such alert.
    """
    alert = session.get(Alert, alert_id, with_for_update=True)
    if alert is None:
        raise DataError("There is no such alert. Load the page again.")
    if alert.acknowledged_at is None:
        alert.acknowledged_by, alert.acknowledged_at = who, now()
        for delivery in session.scalars(select(Delivery).where(Delivery.alert_id == alert.id)):
            delivery.next_try_at = None
        trail.append(session, who, "acknowledge", alert.case_id or alert.id, alert=alert.id)


def any_to_raise(session: Session, at: datetime) -> bool:
    """Whether `sweep` would raise something; takes no lock."""
    return any(session.scalar(_applies(rule, at).limit(1)) for rule in _enabled(session))


def sweep(session: Session, at: datetime, settings: Settings) -> int:
    """Raises what the rules ask for and is not raised yet.

    Returns:
        how many alerts.

    Raises:
        sqlalchemy.exc.IntegrityError: at the commit, another process raised some of them meanwhile; sweep again.
    """
    raised = 0
    for rule in _enabled(session):
        for case_id in session.scalars(_applies(rule, at)):
            _raise(session, rule, case_id, f"{rule.id}:{case_id}", at, due_at(rule, at, settings))
            raised += 1
    return raised


def any_about_drift(session: Session) -> bool:
    """Whether a rule about drift is on."""
    return session.scalar(select(Rule.id).where(Rule.enabled, Rule.kind == "drift").limit(1)) is not None


def sweep_drift(
    session: Session, comparisons: Sequence[Comparison], digest: str, at: datetime, settings: Settings
) -> int:
    """Raises what the rules about drift ask for, of windows that give an alarm: each window once.

    Args:
        digest: of the bundle.
    """
    raised = 0
    for rule in session.scalars(select(Rule).where(Rule.enabled, Rule.kind == "drift")).all():
        for each in comparisons:
            dedupe = f"{rule.id}:{each.against}:{each.window}:{digest[:16]}"
            known = session.scalar(select(Alert.id).where(Alert.dedupe == dedupe))
            if each.alarm and each.until >= rule.since and known is None:
                _raise(session, rule, None, dedupe, at, due_at(rule, at, settings))
                raised += 1
    return raised


def _enabled(session: Session) -> Sequence[Rule]:
    """The rules about cases that are on."""
    return session.scalars(select(Rule).where(Rule.enabled, Rule.kind != "drift")).all()


def _raise(session: Session, rule: Rule, case_id: str | None, dedupe: str, at: datetime, due: datetime) -> Alert:
    alert = Alert(id=new_id(), rule_id=rule.id, case_id=case_id, dedupe=dedupe, raised_at=at)
    session.add(alert)
    session.flush()
    session.add(Delivery(alert_id=alert.id, attempts=0, next_try_at=due))
    trail.append(session, SERVICE, "alert", case_id or alert.id, alert=alert.id, rule=rule.id)
    return alert


def due_at(rule: Rule, at: datetime, settings: Settings) -> datetime:
    """When an alert that is raised now is to be sent: at once, or with the next digest."""
    if not rule.digest:
        return at
    today = at.replace(hour=settings.digest_hour, minute=0, second=0, microsecond=0)
    return today if today > at else today + timedelta(days=1)


def _applies(rule: Rule, at: datetime) -> Select[str]:
    """Cases that nobody has decided on, that the rule is about, and that it has not raised yet."""
    raised = select(Alert.id).where(Alert.rule_id == rule.id, Alert.case_id == Case.id).exists()
    cases = select(Case.id).outerjoin(Finding, Finding.case_id == Case.id)
    return cases.where(_meant(rule, at), ~raised).order_by(Case.received_at).limit(MOST_AT_ONCE)


def _meant(rule: Rule, at: datetime) -> ColumnElement[bool]:
    scored = and_(Case.status == Status.SCORED, Case.scored_at >= rule.since)
    if rule.kind == "operating_point":
        return and_(scored, Finding.alert == "refer")
    if rule.kind == "risk":
        return and_(scored, Case.score >= rule.threshold)
    if rule.kind == "failed":
        return Case.status == Status.FAILED
    overdue = and_(Case.status.in_(_WAITING), Case.received_at <= at - timedelta(hours=rule.hours or 0))
    # A case without a score is not harmless but unknown.
    return overdue if rule.threshold is None else and_(overdue, or_(Case.score.is_(None), Case.score >= rule.threshold))


def rules(session: Session) -> list[Rule]:
    """All rules, the oldest first."""
    return list(session.scalars(select(Rule).order_by(Rule.created_at, Rule.id)))


def raised(session: Session, *, most: int = 200, unacknowledged: bool = False) -> list[tuple[Alert, Delivery]]:
    """The latest alerts, each with its delivery, its rule and its case."""
    rows = select(Alert, Delivery).join(Delivery, Delivery.alert_id == Alert.id)
    rows = rows.options(joinedload(Alert.rule), joinedload(Alert.case)).order_by(Alert.raised_at.desc(), Alert.id)
    if unacknowledged:
        rows = rows.where(Alert.acknowledged_at.is_(None))
    return [(alert, delivery) for alert, delivery in session.execute(rows.limit(most))]


def unacknowledged(session: Session) -> int:
    """How many alerts nobody has taken note of."""
    return session.scalar(select(func.count()).select_from(Alert).where(Alert.acknowledged_at.is_(None))) or 0


def told_of(alert: Alert) -> str:
    """What a message says of an alert: no name, no reference, no probability."""
    return "This is a test" if ":test:" in alert.dedupe else KINDS[alert.rule.kind]
