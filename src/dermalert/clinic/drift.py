"""Drift: whether the pictures, features and scores that come in are still spread as they were.

Comes in: findings, and a `Reference` of what is usual: the bundle's, and the site's own first pictures. Goes out:
how far each measure has moved, and whether that is more than chance. It judges no single picture, and a shift does not
say that the model is wrong: it says that the figures of its report may no longer hold here.

Findings of one model are cut, in the order of scoring, into windows of `WINDOW` pictures that do not overlap; the first
`BASELINE` are the site's own reference. In each window every measure is compared by the two-sample Kolmogorov-Smirnov
test on the reference's tenths (which can only miss, never invent, a difference), the likeliest diagnoses by a
chi-squared test, with Bonferroni's correction over all of them, as Rabanser, Günnemann and Lipton recommend ("Failing
loudly", NeurIPS 2019). A window without a change gives an alarm with a probability of at most `FALSE_ALARMS`: one is
to be expected in 200 windows, 40,000 pictures. How large a shift is tells the population stability index; its limits of
0.1 and 0.25 are those of credit scoring (Siddiqi, "Credit risk scorecards", 2006).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session, contains_eager

from dermalert.bundle.format import Bundle
from dermalert.bundle.reference import MEASURES, Binned, Reference, projected
from dermalert.clinic.schema import Case, Finding

WINDOW = 200  # pictures that are compared at once
BASELINE = 500  # first pictures of a site that stand for what is usual there
FALSE_ALARMS = 0.005  # the probability of an alarm in a window in which nothing has changed
MODERATE, LARGE = 0.1, 0.25  # of the population stability index
SHOWN = 12  # windows that the page looks back
DIAGNOSES = "diagnosis"
_LEAST = 30  # pictures with a measure, below which it is not compared
_EXPECTED = 5  # in a cell of the chi-squared test; smaller ones are taken together


@dataclass(frozen=True, eq=False)
class Shift:
    """How one measure stands against its reference.

    Attributes:
        name: of `MEASURES`, `AXIS_NAMES`, or `DIAGNOSES`.
        stability: the population stability index; 0 where both are alike.
        distance: the largest difference of the two cumulative shares, 0 to 1; of diagnoses, the total variation.
        p: the probability of a distance as large by chance.
        usual, now: int64 (B,), pictures in each bin.
        edges: float64 (B - 1,), of the bins; (0,) of diagnoses.
    """

    name: str
    stability: float
    distance: float
    p: float
    usual: NDArray[np.int64]
    now: NDArray[np.int64]
    edges: NDArray[np.float64]

    @property
    def size(self) -> str:
        """The shift in a word: "small", "moderate" or "large"."""
        return "small" if self.stability < MODERATE else "moderate" if self.stability < LARGE else "large"


@dataclass(frozen=True)
class Comparison:
    """A window against one reference.

    Attributes:
        against: "bundle" or "site".
        window: its number, from 1.
        since, until: when its first and last picture were scored.
        pictures: of different lesions, in it.
        shifts: of each measure that could be compared, the least likely by chance first.
    """

    against: str
    window: int
    since: datetime
    until: datetime
    pictures: int
    shifts: tuple[Shift, ...]

    @property
    def moved(self) -> tuple[Shift, ...]:
        """The shifts that are more than chance, all comparisons of the window taken into account."""
        return tuple(each for each in self.shifts if each.p * len(self.shifts) <= FALSE_ALARMS)

    @property
    def alarm(self) -> bool:
        """Whether something has moved."""
        return bool(self.moved)


@dataclass(frozen=True)
class Drift:
    """What can be said of drift now.

    Attributes:
        digest: of the model's bundle.
        scored: pictures that this model has scored here.
        latest: the last whole window against each reference there is.
        history: the last `SHOWN` windows against each, the oldest first.
        has_reference: whether the bundle brings one.
    """

    digest: str
    scored: int
    latest: tuple[Comparison, ...]
    history: tuple[Comparison, ...]
    has_reference: bool

    @property
    def wanted(self) -> int:
        """How many more pictures until the site's own window is whole; 0 once one is."""
        return max(0, BASELINE + WINDOW - self.scored)


class DriftWatch:
    """Looks at each window once, and remembers what it found; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digest = ""
        self._references: dict[str, Reference] = {}
        self._windows: dict[int, tuple[Comparison, ...]] = {}

    def look(self, session: Session, bundle: Bundle, digest: str) -> Drift:
        """The windows of the findings that the bundle of that digest made, against the references there are."""
        with self._lock:
            if digest != self._digest:
                self._digest, self._references, self._windows = digest, {}, {}
            scored = session.scalar(select(func.count()).where(Finding.bundle_digest == digest)) or 0
            last = (scored - BASELINE) // WINDOW  # the number of whole windows after the site's baseline
            if last < 1:
                return _before_the_first(session, bundle, digest, scored)
            numbers = range(max(1, last - SHOWN + 1), last + 1)
            self._windows = {number: self._window(session, bundle, number) for number in numbers}
            history = tuple(each for number in numbers for each in self._windows[number])
            return Drift(digest, scored, self._windows[last], history, bundle.reference is not None)

    def _window(self, session: Session, bundle: Bundle, number: int) -> tuple[Comparison, ...]:
        if number in self._windows:
            return self._windows[number]
        if not self._references:
            site = reference_of(_findings(session, self._digest, 0, BASELINE), bundle)
            self._references = {"site": site, **({"bundle": bundle.reference} if bundle.reference else {})}
        findings = _findings(session, self._digest, BASELINE + (number - 1) * WINDOW, WINDOW)
        return tuple(compared(name, each, bundle, number, findings) for name, each in self._references.items())


def _before_the_first(session: Session, bundle: Bundle, digest: str, scored: int) -> Drift:
    """While the site's baseline is gathered, its last pictures can be held against the bundle's reference alone."""
    if bundle.reference is None or scored < WINDOW:
        return Drift(digest, scored, (), (), bundle.reference is not None)
    whole = scored // WINDOW
    findings = _findings(session, digest, (whole - 1) * WINDOW, WINDOW)
    found = compared("bundle", bundle.reference, bundle, whole, findings)
    return Drift(digest, scored, (found,), (found,), True)


def _findings(session: Session, digest: str, start: int, most: int) -> list[Finding]:
    """In the order of scoring, one a lesion: pictures of one lesion are not two observations."""
    rows = select(Finding).where(Finding.bundle_digest == digest).order_by(Finding.scored_at, Finding.case_id)
    rows = rows.join(Finding.case).options(contains_eager(Finding.case)).offset(start).limit(most)
    by_lesion: dict[object, Finding] = {}
    for finding in session.scalars(rows):
        by_lesion.setdefault(_lesion(finding.case), finding)
    return list(by_lesion.values())


def _lesion(case: Case) -> object:
    return (case.patient, case.lesion) if case.lesion else case.id


def reference_of(findings: Sequence[Finding], bundle: Bundle) -> Reference:
    """What is usual of these findings, along the directions of the bundle's own reference where it has one."""
    projection = bundle.reference.projection if bundle.reference else None
    return Reference.of(_values(findings), _embeddings(findings), _diagnoses(findings), bundle.classes, projection)


def compared(
    against: str, reference: Reference, bundle: Bundle, window: int, findings: Sequence[Finding]
) -> Comparison:
    """One window of findings, one at least, against a reference. Measures that too few pictures have are left out.

    Raises:
        DataError: the findings are another model's.
    """
    columns = {**_values(findings), **projected(_embeddings(findings), reference.projection)}
    known = {name: column[np.isfinite(column)] for name, column in columns.items() if name in reference.measures}
    shifts = [
        shift_of(name, reference.measures[name], column) for name, column in known.items() if len(column) >= _LEAST
    ]
    likeliest = _diagnoses(findings)
    if len(likeliest) >= _LEAST and reference.diagnoses.sum() >= _LEAST:
        counts = np.array([likeliest.count(name) for name in bundle.classes], np.int64)
        shifts.append(shift_of_diagnoses(reference.diagnoses, counts))
    times = [finding.scored_at for finding in findings]
    ranked = tuple(sorted(shifts, key=lambda shift: shift.p))
    return Comparison(against, window, min(times), max(times), len(findings), ranked)


def shift_of(name: str, usual: Binned, values: NDArray[np.float64]) -> Shift:
    """How finite values (N,), N > 0, of one measure stand against what is usual."""
    now = usual.count(values)
    steps = np.cumsum(usual.counts) / usual.counts.sum() - np.cumsum(now) / now.sum()
    distance = float(np.abs(steps).max())
    pairs = usual.counts.sum() * now.sum() / (usual.counts.sum() + now.sum())
    from scipy import stats  # takes a second, which no start of the service should wait for

    p = float(stats.kstwo.sf(distance, max(1, round(pairs)))) if distance > 0 else 1.0
    return Shift(name, stability(usual.counts, now), distance, p, usual.counts, now, usual.edges)


def shift_of_diagnoses(usual: NDArray[np.int64], now: NDArray[np.int64]) -> Shift:
    """How often each class was the likeliest, int64 (C,), against what is usual."""
    distance = float(np.abs(usual / usual.sum() - now / now.sum()).sum() / 2)
    expected = (usual + now) * now.sum() / (usual.sum() + now.sum())
    rare = expected < _EXPECTED
    cells = np.array([[*each[~rare], each[rare].sum()] for each in (usual, now)])
    cells = cells[:, cells.sum(axis=0) > 0]
    from scipy import stats

    p = float(stats.chi2_contingency(cells, correction=False).pvalue) if cells.shape[1] > 1 else 1.0
    return Shift(DIAGNOSES, stability(usual, now), distance, p, usual, now, np.empty(0))


def stability(usual: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """The population stability index of two counts (B,): the symmetric Kullback-Leibler divergence of their shares.

    Half a picture is added to each bin, so that an empty one does not make it infinite.
    """
    expected, actual = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (usual, now))
    return float(((actual - expected) * np.log(actual / expected)).sum())


def _values(findings: Sequence[Finding]) -> dict[str, NDArray[np.float64]]:
    """float64 (N,) by `MEASURES`; NaN where a finding has none."""
    return {
        name: np.array([math.nan if (value := getattr(each, name)) is None else value for each in findings])
        for name in MEASURES
    }


def _embeddings(findings: Sequence[Finding]) -> NDArray[np.float32]:
    """float32 (N, E), a row of NaN where a finding has none; (N, 0) where none has."""
    rows = [None if each.embedding is None else np.frombuffer(each.embedding, "<f2") for each in findings]
    width = max((len(row) for row in rows if row is not None), default=0)
    missing = np.full(width, np.nan, np.float32)
    return np.array([missing if row is None else row for row in rows], np.float32).reshape(len(findings), width)


def _diagnoses(findings: Sequence[Finding]) -> list[str]:
    return [each.diagnosis for each in findings if each.diagnosis is not None]
