"""Wording: what a case says, in words and in figures that a reader can weigh.

Comes in: cases, probabilities, times. Goes out: text. It decides nothing, and never calls a lesion healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from dermalert.clinic.schema import Case, Decision, Status
from dermalert.taxonomy import COARSE

STATUS_WORDS: Mapping[str, str] = {
    Status.RECEIVED: "Being scored",
    Status.SCORED: "To review",
    Status.REFUSED: "To review",
    Status.FAILED: "To review",
    Status.REVIEWED: "Reviewed",
    Status.CLOSED: "Closed",
}
ACTION_WORDS: Mapping[str, str] = {
    "refer": "Refer",
    "biopsy": "Biopsy",
    "follow_up": "Follow up",
    "no_action": "No action",
}


def name_of(case: Case) -> str:
    """What a reader calls the case: the references it came with, or the end of its id."""
    known = [word for word in (case.patient, case.lesion) if word]
    return " · ".join(known) or f"Case {case.id[-6:]}"


def about(case: Case) -> str:
    """Site, age and sex, as far as they are known."""
    age = f"{case.age} years" if case.age is not None else None
    return ", ".join(word for word in (case.site, age, case.sex) if word)


def in_so_many(probability: float) -> str:
    """A probability as a count of lesions: people weigh those better (Gigerenzer and Hoffrage, 1995).

    >>> in_so_many(0.124), in_so_many(0.0042), in_so_many(0.0002)
    ('about 12 in 100', 'about 4 in 1,000', 'fewer than 1 in 1,000')
    """
    if probability >= 0.995:
        return "more than 99 in 100"
    if probability >= 0.0095:
        return f"about {round(100 * probability)} in 100"
    if probability >= 0.00095:
        return f"about {round(1000 * probability)} in 1,000"
    return "fewer than 1 in 1,000"


def how_long(waited: timedelta) -> str:
    """A time of waiting in its largest unit.

    >>> how_long(timedelta(minutes=134)), how_long(timedelta(days=3, hours=5)), how_long(timedelta(seconds=20))
    ('2 h', '3 days', 'just now')
    """
    minutes = int(waited.total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h"
    return f"{minutes // (24 * 60)} days"


def waited(case: Case, now: datetime) -> timedelta:
    """From receipt to the decision, or until now where nobody has decided."""
    return max((case.reviewed_at or now) - case.received_at, timedelta())


def category(name: str) -> str:
    """A category of a conformal set; one that a coarse label leaves open is told by its members."""
    return " or ".join(sorted(COARSE[name])) if name in COARSE else name


def decided(decision: Decision) -> str:
    """A decision in words.

    >>> decided(Decision(action="follow_up", months=3)), decided(Decision(action="no_action"))
    ('Follow up in 3 months', 'No action')
    """
    words = ACTION_WORDS[decision.action]
    if decision.months is None:
        return words
    return f"{words} in {decision.months} {'month' if decision.months == 1 else 'months'}"
