"""The dashboard: how much comes in, how long it waits, how often reader and model agree, and what histology says.

Comes in: the cases of some days. Goes out: a `Dashboard` of figures, each with its interval and what it cannot say.
Drift has a room of its own (`drift`). It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dermalert.clinic.schema import Case, Decision, Finding, Histology, Status
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.taxonomy import MELANOMA

ACTING = ("refer", "biopsy")  # decisions that agree with the alert "refer"
RESAMPLES = 500
_OPEN = (Status.RECEIVED, Status.SCORED, Status.REFUSED, Status.FAILED)
_Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """What came in on one day, in UTC: cases, and how many of them the model refers."""

    on: date
    received: int
    referred: int


@dataclass(frozen=True)
class Waits:
    """How long cases waited: how many, the median and the time that one in ten exceeds; None where there are none."""

    cases: int
    median: timedelta | None
    nine_in_ten: timedelta | None

    @classmethod
    def of(cls, waits: Sequence[timedelta]) -> Waits:
        """Of waits that have ended."""
        if not waits:
            return cls(0, None, None)
        seconds = [each.total_seconds() for each in waits]
        median, nine = np.quantile(seconds, [0.5, 0.9]).tolist()
        return cls(len(waits), timedelta(seconds=median), timedelta(seconds=nine))


@dataclass(frozen=True)
class Agreement:
    """The reader's last decision beside the model's alert.

    Attributes:
        both, model, reader, neither: cases that both would act on, only one, or none.
        share: of cases on which they agree. kappa: Cohen's, beyond chance (Educ Psychol Meas 20:37-46, 1960).
    """

    both: int
    model: int
    reader: int
    neither: int
    share: Interval
    kappa: Interval


@dataclass(frozen=True)
class Truth:
    """The model's alert beside histology.

    Attributes:
        cases, melanomas: that have a histology and a score.
        sensitivity: share of melanomas that the model refers. specificity: share of others that it does not.
    """

    cases: int
    melanomas: int
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True)
class Dashboard:
    """What the page shows of some days.

    Attributes:
        days: each, the first first; a day without pictures too.
        to_score: from receipt to the score. to_decide: from receipt to the first decision.
        open: cases without a decision, of any day; `oldest`: when the one that waits longest came.
        by_others: cases of these days that another model has scored; agreement and truth leave them out.
    """

    days: tuple[Day, ...]
    to_score: Waits
    to_decide: Waits
    open: int
    oldest: datetime | None
    agreement: Agreement
    truth: Truth
    by_others: int


@dataclass(frozen=True)
class _Row:
    id: str
    lesion: object
    received: datetime
    scored: datetime | None
    decided: datetime | None
    alert: str | None
    digest: str | None


def dashboard(session: Session, digest: str, until: datetime, days: int) -> Dashboard:
    """The figures of the last `days` days up to `until`.

    Args:
        digest: of the model that agreement and truth are about.
    """
    first = (until - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = _rows(session, first)
    actions = _last(session, Decision, Decision.action, first)
    truths = _last(session, Histology, Histology.diagnosis, first)
    judged = [row for row in rows if row.alert is not None and row.digest == digest]
    waiting, oldest = session.execute(
        select(func.count(), func.min(Case.received_at)).where(Case.status.in_(_OPEN))
    ).one()
    return Dashboard(
        days=_days(rows, first.date(), days),
        to_score=Waits.of([row.scored - row.received for row in rows if row.scored]),
        to_decide=Waits.of([row.decided - row.received for row in rows if row.decided]),
        open=waiting,
        oldest=oldest,
        agreement=_agreement([(row, actions[row.id]) for row in judged if row.id in actions]),
        truth=_truth([(row, truths[row.id]) for row in judged if row.id in truths]),
        by_others=sum(row.digest not in (None, digest) for row in rows),
    )


def _rows(session: Session, first: datetime) -> list[_Row]:
    columns = (Case.id, Case.patient, Case.lesion, Case.received_at, Case.scored_at)
    decided = select(func.min(Decision.at)).where(Decision.case_id == Case.id).scalar_subquery()
    asked = select(*columns, decided, Finding.alert, Finding.bundle_digest).outerjoin(Case.finding)
    return [
        _Row(id_, (patient, lesion) if lesion else id_, received, scored, first_decision, alert, digest)
        for id_, patient, lesion, received, scored, first_decision, alert, digest in session.execute(
            asked.where(Case.received_at >= first)
        )
    ]


def _last(session: Session, table: type[Decision] | type[Histology], column: object, first: datetime) -> dict[str, str]:
    """What was said last of each case."""
    asked = select(table.case_id, column).join(Case, Case.id == table.case_id)  # type: ignore[call-overload]
    return dict(session.execute(asked.where(Case.received_at >= first).order_by(table.at, table.id)).all())


def _days(rows: Sequence[_Row], first: date, days: int) -> tuple[Day, ...]:
    received, referred = [0] * days, [0] * days
    for row in rows:
        place = (row.received.date() - first).days
        if 0 <= place < days:
            received[place] += 1
            referred[place] += row.alert == "refer"
    return tuple(Day(first + timedelta(days=place), received[place], referred[place]) for place in range(days))


def _agreement(cases: Sequence[tuple[_Row, str]]) -> Agreement:
    model = np.array([row.alert == "refer" for row, _ in cases], bool)
    reader = np.array([action in ACTING for _, action in cases], bool)

    def figures(weights: _Weights) -> _Weights:
        total = _total(weights)
        agreed = weights @ (model == reader) / total
        of_model, of_reader = weights @ model / total, weights @ reader / total
        by_chance = of_model * of_reader + (1 - of_model) * (1 - of_reader)
        return np.stack([agreed, (agreed - by_chance) / _or_nan(1 - by_chance)], axis=-1)

    share, kappa = _intervals(figures, [row for row, _ in cases], [len({row.lesion for row, _ in cases}), 0])
    return Agreement(
        both=int((model & reader).sum()),
        model=int((model & ~reader).sum()),
        reader=int((~model & reader).sum()),
        neither=int((~model & ~reader).sum()),
        share=share,
        kappa=kappa,
    )


def _truth(cases: Sequence[tuple[_Row, str]]) -> Truth:
    alert = np.array([row.alert == "refer" for row, _ in cases], bool)
    melanoma = np.array([diagnosis == MELANOMA for _, diagnosis in cases], bool)

    def figures(weights: _Weights) -> _Weights:
        found = weights @ (alert & melanoma) / _or_nan(weights @ melanoma)
        left = weights @ (~alert & ~melanoma) / _or_nan(weights @ ~melanoma)
        return np.stack([found, left], axis=-1)

    lesions = [len({row.lesion for row, name in cases if (name == MELANOMA) == kind}) for kind in (True, False)]
    return Truth(len(cases), int(melanoma.sum()), *_intervals(figures, [row for row, _ in cases], lesions))


def _intervals(
    figures: Callable[[_Weights], _Weights], rows: Sequence[_Row], lesions: Sequence[int]
) -> tuple[Interval, Interval]:
    numbers = {lesion: place for place, lesion in enumerate(dict.fromkeys(row.lesion for row in rows))}
    groups = np.array([numbers[row.lesion] for row in rows], np.int64)
    first, second = group_bootstrap_many(figures, groups, lesions=lesions, resamples=RESAMPLES)
    return first, second


def _total(weights: _Weights) -> _Weights:
    return _or_nan(weights.sum(axis=-1))


def _or_nan(values: _Weights) -> _Weights:
    """What is divided by: NaN in the place of 0, so that a figure without cases is none."""
    return np.where(values > 0, values, np.nan)
