"""The scrutiny's sections of a report.

Comes in: a `Scrutiny`. Goes out: one `page.Section` for each of its parts, in the order in which a clinic asks. It
computes no figure: every number stands in `metrics.json` too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from dermalert import page
from dermalert.judge.decision import DecisionCurve
from dermalert.judge.intervals import Interval
from dermalert.judge.scrutiny import AtPrevalences, Scrutiny
from dermalert.judge.subgroups import FEWEST, FIGURES, UNKNOWN, Facet, Gap
from dermalert.judge.wording import Measure, Row, measure
from dermalert.page.benefit import PATIENTS, net_benefit
from dermalert.page.page import count, percent

TOLD = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # thresholds of a decision curve that stand in its table
NONE = "cannot be computed"


def sections(scrutiny: Scrutiny) -> list[page.Section]:
    """Alerts at prevalences, decision curves, subgroups and conformal sets; none on what the bundle does not have."""
    level = percent(scrutiny.level)
    told = []
    if scrutiny.points:
        points = [(at, _rows_at(at, scrutiny.prevalence)) for at in scrutiny.points]
        told.append(_section("The alert in a clinic", "points", points=points, level=level))
    decisions = [_Decision.of(name, curve) for name, curve in scrutiny.decisions.items()]
    told.append(
        _section(
            "Is it worth acting on?",
            "decision",
            decisions=decisions,
            legend=[page.Legend(2, "the model; thin: its interval"), page.Legend(1, "referring everybody")],
            missing=scrutiny.no_decision,
            level=level,
        )
    )
    facets = [facet for facet in scrutiny.facets if [group.name for group in facet.groups] not in ([], [UNKNOWN])]
    told.append(
        _section(
            "Does it serve everybody alike?",
            "subgroups",
            facets=[(facet.name, _rows_of(facet)) for facet in facets],
            gaps=_sure_gaps(facets),
            unknown=[facet.name for facet in scrutiny.facets if facet not in facets],
            fewest=FEWEST,
            level=level,
        )
    )
    if scrutiny.promised is not None:
        rows = [
            Row(
                part.category,
                f"{count(part.pictures)} pictures of {count(part.lesions)} lesions",
                [
                    measure(part.covered, as_percent=True),
                    Measure(f"{part.size:.1f}", "diagnoses"),
                    measure(part.alone, as_percent=True),
                ],
            )
            for part in scrutiny.coverage
        ]
        promised = percent(scrutiny.promised)
        broken = [part.category for part in scrutiny.coverage if part.covered.high < scrutiny.promised]
        told.append(
            _section("Do the sets hold the diagnosis?", "coverage", rows=rows, promised=promised, broken=broken)
        )
    return told


def _section(title: str, part: str, **values: object) -> page.Section:
    return page.Section(title, page.fragment("judge/scrutiny.html.j2", part=part, **values))


# Alerts


def _rows_at(at: AtPrevalences, own: float) -> list[Row]:
    """A row for each prevalence: PPV, NPV, and what happens to so many patients."""
    rows = []
    for prevalence, values in at.predictive_values.items():
        melanomas = prevalence * PATIENTS
        referred = melanomas * at.point.sensitivity.value + (PATIENTS - melanomas) * (1 - at.point.specificity.value)
        missed = melanomas * (1 - at.point.sensitivity.value)
        rows.append(
            Row(
                percent(prevalence, 1 if prevalence == own else 0),
                "as in these pictures" if prevalence == own else "",
                [
                    *(measure(value, as_percent=True) for value in values),
                    _number(referred, 0),
                    _number(missed, 1, f"of {melanomas:.0f}"),
                ],
            )
        )
    return rows


# Decision curves


@dataclass(frozen=True)
class _Decision:
    """One decision curve: its chart, its table and what they say."""

    name: str
    prevalence: str
    chart: Markup
    rows: Sequence[Row]
    useful: str

    @classmethod
    def of(cls, name: str, curve: DecisionCurve) -> _Decision:
        value, low, high = (np.array([getattr(i, end) for i in curve.model]) for end in ("value", "low", "high"))
        chart = net_benefit(curve.thresholds, value, curve.refer_all, prevalence=curve.prevalence, band=(low, high))
        places = [int(np.argmin(np.abs(curve.thresholds - told))) for told in TOLD if told <= curve.thresholds[-1]]
        useful = " to ".join(percent(end, 1) for end in curve.useful) if curve.useful else ""
        digits = 0 if round(100 * curve.prevalence, 6).is_integer() else 1
        return cls(name, percent(curve.prevalence, digits), chart, [_at(curve, place) for place in places], useful)


def _at(curve: DecisionCurve, place: int) -> Row:
    threshold = float(curve.thresholds[place])
    return Row(
        percent(threshold),
        f"at most {1 / threshold:.0f} referrals for a melanoma",
        [
            _plain(curve.model[place], times=PATIENTS),
            _number(float(curve.refer_all[place]) * PATIENTS, 1),
            _number(curve.spared(place) * PATIENTS, 0),
        ],
    )


# Subgroups


def _rows_of(facet: Facet) -> list[Row]:
    rows = []
    for group in facet.groups:
        counts = (
            f"{count(group.pictures)} pictures of {count(group.lesions)} lesions, {count(group.melanomas)} melanomas"
        )
        small = "" if group.judged or group.name == UNKNOWN else "; too small to judge"
        figures = [measure(getattr(group, figure), as_percent=figure != "auc") for figure in FIGURES]
        rows.append(Row(group.name, counts + small, figures))
    if facet.gaps:
        gaps = [_gap(facet.gaps[figure], figure) if figure in facet.gaps else Measure(NONE) for figure in FIGURES]
        rows.append(Row("Gap", "the best group less the worst", gaps))
    return rows


def _gap(gap: Gap, figure: str) -> Measure:
    told = _plain(gap.difference, 2) if figure == "auc" else _plain(gap.difference, 1, times=100)
    unit = "" if figure == "auc" else " points"
    return replace(told, text=told.text + unit, why=f"{gap.best}, less {gap.worst}")


def _sure_gaps(facets: Sequence[Facet]) -> list[str]:
    """The gaps that lesions drawn by chance would seldom make, in words."""
    words = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}
    return [
        f"By {facet.name}, the {words[figure]} is lower for “{gap.worst}” than for “{gap.best}”, by "
        f"{told.text} ({told.range})."
        for facet in facets
        for figure, gap in facet.gaps.items()
        if gap.difference.low > 0 and (told := _gap(gap, figure))
    ]


# Figures that do not live in [0, 1]


def _plain(interval: Interval, digits: int = 1, *, times: float = 1) -> Measure:
    if math.isnan(interval.value):
        return Measure(NONE, why=interval.why or "")
    text = _text(times * interval.value, digits)
    if math.isnan(interval.low):
        return Measure(text, "no interval")
    return Measure(text, f"{_text(times * interval.low, digits)} to {_text(times * interval.high, digits)}")


def _number(value: float, digits: int, beside: str = "") -> Measure:
    return Measure(NONE) if math.isnan(value) else Measure(_text(value, digits), beside)


def _text(value: float, digits: int) -> str:
    rounded = round(value, digits) + 0.0  # no minus before a 0
    return f"{rounded:.{digits}f}".replace("-", "\N{MINUS SIGN}")
