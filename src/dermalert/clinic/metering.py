"""Metering: the service in numbers, for Prometheus.

Comes in: the database. Goes out: metric families, computed when they are asked for, so that every process of the
service gives the same. No label holds a name, a reference or an id of a case.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

import dermalert
from dermalert.clinic import alerts, queue
from dermalert.clinic.drift import Drift
from dermalert.clinic.model import Model
from dermalert.clinic.schema import Case, Delivery, Status, now
from dermalert.clinic.store import Store

BUCKETS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)  # seconds
_SETTLED = timedelta(seconds=30)  # after which no transaction is under way that would add an earlier score

Metric = GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


class ScoringTimes:
    """Seconds from receipt to the score, of all cases ever scored; each is counted once, half a minute late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: datetime | None = None
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def family(self, session: Session, at: datetime) -> HistogramMetricFamily:
        """The histogram, with what was scored since it was last asked for."""
        with self._lock:
            times = select(Case.received_at, Case.scored_at).where(Case.scored_at <= at - _SETTLED)
            if self._until is not None:
                times = times.where(Case.scored_at > self._until)
            for received, scored in session.execute(times.execution_options(yield_per=5000)):
                assert scored is not None
                seconds = max(0.0, (scored - received).total_seconds())
                self._counts[bisect_left(BUCKETS, seconds)] += 1
                self._sum += seconds
            self._until = at - _SETTLED
            bounds = [*map(str, BUCKETS), "+Inf"]
            summed = [sum(self._counts[: place + 1]) for place in range(len(bounds))]
            return HistogramMetricFamily(
                "dermalert_scoring_seconds",
                "From receipt to the score",
                buckets=list(zip(bounds, summed, strict=True)),
                sum_value=self._sum,
            )


class ClinicCollector(Collector):
    """What Prometheus is told of one clinic."""

    def __init__(self, store: Store, model: Callable[[], Model], drift: Callable[[Session], Drift]) -> None:
        self._store, self._model, self._drift = store, model, drift
        self._times = ScoringTimes()

    def collect(self) -> Iterator[Metric]:
        """All families, as the database stands now."""
        model = self._model()
        yield InfoMetricFamily(
            "dermalert",
            "The version that runs and the model that scores",
            {"version": dermalert.__version__, "bundle": model.bundle.name, "bundle_digest": model.digest[:12]},
        )
        with self._store.reading() as session:
            yield from _cases(session)
            yield self._times.family(session, now())
            yield from _alerts(session)
            yield from _drift(self._drift(session))


def _cases(session: Session) -> Iterator[Metric]:
    family = GaugeMetricFamily("dermalert_cases", "Cases, by where they stand", labels=["status"])
    found = dict(session.execute(select(Case.status, func.count()).group_by(Case.status)).all())
    for status in Status:
        family.add_metric([status], found.get(status, 0))
    yield family
    backlog = queue.backlog(session)
    yield GaugeMetricFamily("dermalert_queue_depth", "Cases waiting to be scored", value=backlog.waiting)
    waits = (
        ("dermalert_queue_oldest_seconds", "How long the oldest case waits to be scored", backlog.oldest),
        ("dermalert_undecided_oldest_seconds", "How long the oldest case waits for a decision", _oldest(session)),
    )
    for name, told, since in waits:
        yield GaugeMetricFamily(name, told, value=(now() - since).total_seconds() if since else 0)


def _oldest(session: Session) -> datetime | None:
    undecided = (Status.RECEIVED, Status.SCORED, Status.REFUSED, Status.FAILED)
    return session.scalar(select(func.min(Case.received_at)).where(Case.status.in_(undecided)))


def _alerts(session: Session) -> Iterator[Metric]:
    state = case(
        (Delivery.sent_at.is_not(None), "sent"),
        (Delivery.next_try_at.is_not(None), "waiting"),
        (Delivery.problem.is_not(None), "given_up"),
        else_="cancelled",
    )
    found: dict[str, int] = dict(session.execute(select(state, func.count()).group_by(state)).all())
    family = GaugeMetricFamily(
        "dermalert_alert_deliveries", "Messages about alerts, by what became of them", labels=["state"]
    )
    for name in ("sent", "waiting", "given_up", "cancelled"):
        family.add_metric([name], found.get(name, 0))
    yield family
    told = "Alerts that nobody has taken note of"
    yield GaugeMetricFamily("dermalert_alerts_unacknowledged", told, value=alerts.unacknowledged(session))


def _drift(drift: Drift) -> Iterator[Metric]:
    yield GaugeMetricFamily("dermalert_drift_scored", "Pictures that the model in use has scored", value=drift.scored)
    size = GaugeMetricFamily(
        "dermalert_drift_stability", "Population stability index of the last window", labels=["against", "measure"]
    )
    distance = GaugeMetricFamily(
        "dermalert_drift_distance", "Kolmogorov-Smirnov distance of the last window", labels=["against", "measure"]
    )
    alarm = GaugeMetricFamily("dermalert_drift_alarm", "1 where the last window has moved", labels=["against"])
    for each in drift.latest:
        alarm.add_metric([each.against], each.alarm)
        for shift in each.shifts:
            size.add_metric([each.against, shift.name], shift.stability)
            distance.add_metric([each.against, shift.name], shift.distance)
    yield from (size, distance, alarm)
