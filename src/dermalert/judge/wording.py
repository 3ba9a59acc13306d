"""Wording: figures as a reader meets them.

Comes in: `Evaluation`s. Goes out: rows of a table, headline figures and warnings, rounded and in words.
It rounds and names; it computes no figure and writes no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermalert.judge.evaluation import Evaluation
from dermalert.judge.intervals import Interval
from dermalert.page.page import count, decimal, percent

# How a figure is told to someone who does not meet it every day: key, name, meaning, whether a percentage.
_FIGURES = (
    ("melanoma_auc", "Melanoma AUC", "how well melanomas rank above all else: 0.5 is guessing, 1 is perfect", False),
    ("malignant_auc", "Malignant AUC", "the same for any of the malignant diagnoses", False),
    ("melanoma_average_precision", "Melanoma average precision", "precision averaged over the melanomas found", False),
    ("malignant_average_precision", "Malignant average precision", "the same for malignant", False),
    (
        "melanoma_sensitivity_at_90_specificity",
        "Melanomas found at 90 % specificity",
        "were one false alarm in ten other lesions accepted",
        True,
    ),
    (
        "malignant_sensitivity_at_90_specificity",
        "Malignant found at 90 % specificity",
        "the same for any of the malignant diagnoses",
        True,
    ),
    ("balanced_accuracy", "Balanced accuracy", "mean of the classes' sensitivities: rare ones count as much", True),
    ("accuracy", "Accuracy", "share of pictures called right; flatters a model that favours large classes", True),
    ("macro_auc", "Mean class AUC", "ranking of each diagnosis against the rest, averaged", False),
    ("log_loss", "Log loss", "punishes confident mistakes; 0 is perfect", False),
    ("brier", "Brier score", "squared error of the probabilities; 0 is perfect", False),
    ("ece", "Calibration error", "how far stated confidence and outcome part, on average", False),
    ("melanoma_ece", "Melanoma calibration error", "the same for the melanoma probability", False),
)
_OPERATING = (
    ("sensitivity", "Sensitivity", "share of the melanomas that it says to refer"),
    ("specificity", "Specificity", "share of the other lesions that raise no alert"),
    ("ppv", "Positive predictive value", "share of the “refer” that are melanomas, at this set's mix of lesions"),
    ("npv", "Negative predictive value", "share of the “no alert” that are not melanomas, at this set's mix"),
)
_UNBOUNDED = {"log_loss", "brier"}
FEW_MELANOMAS = 30  # below it, one melanoma more or less found moves the sensitivity by over 3 points


@dataclass(frozen=True)
class Measure:
    """A figure ready for the macro `measure`."""

    text: str
    range: str = ""
    low: float | None = None
    at: float | None = None
    high: float | None = None
    why: str = ""


def measure(interval: Interval, *, as_percent: bool, bar: bool = True) -> Measure:
    """The interval in words; `bar` only for figures that live in [0, 1], as it is drawn on that scale."""
    if math.isnan(interval.value):
        return Measure("cannot be computed", why=interval.why or "")
    text = percent(interval.value) if as_percent else decimal(interval.value)
    if math.isnan(interval.low) or math.isnan(interval.high):
        return Measure(text, "no interval", why=interval.why or "")
    span = f"{_short(interval.low, as_percent)} to {_short(interval.high, as_percent)}"
    if as_percent:
        span += "\N{NO-BREAK SPACE}%"
    if not bar:
        return Measure(text, span)
    return Measure(text, span, interval.low, interval.value, interval.high)


def _short(value: float, as_percent: bool) -> str:
    return percent(value).removesuffix("\N{NO-BREAK SPACE}%") if as_percent else decimal(value)


def _tile(name: str, interval: Interval, meaning: str, *, as_percent: bool = True) -> tuple[str, Measure, str]:
    return name, measure(interval, as_percent=as_percent), meaning


def tiles(head: Evaluation) -> list[tuple[str, Measure, str]]:
    """The headline figures: name, figure, and what it means in a few words."""
    told = []
    if head.operating_point:
        at = head.operating_point
        told.append(_tile("Sensitivity", at.sensitivity, "of melanomas, it says “refer”"))
        told.append(_tile("Specificity", at.specificity, "of other lesions, no alert"))
    told.append(_tile("Melanoma AUC", head.figures["melanoma_auc"], "0.5 is guessing, 1 perfect", as_percent=False))
    among = "mean over the diagnoses that these pictures show"
    told.append(_tile("Balanced accuracy", head.figures["balanced_accuracy"], among))
    return told


def warnings(head: Evaluation) -> list[str]:
    """What the figures themselves forbid the reader to believe."""
    found = []
    auc, at = head.figures["melanoma_auc"], head.operating_point
    positives, _ = head.questions["melanoma"]
    if auc.low <= 0.5:
        found.append(
            f"The interval of the melanoma AUC begins at {decimal(auc.low)}: on these pictures the model cannot be "
            "told from guessing."
        )
    if at and at.chosen.target is not None and at.sensitivity.value < at.chosen.target:
        asked, got = percent(at.chosen.target), percent(at.sensitivity.value)
        surely = ", and even the upper end of the interval is lower" if at.sensitivity.high < at.chosen.target else ""
        found.append(
            f"The threshold was chosen to find at least {asked} of the melanomas; here it finds {got}{surely}."
        )
    if at is None:
        found.append(
            "This model has no threshold for an alert: it ranks pictures, and says neither “refer” nor “no alert”."
        )
    if not positives:
        found.append("There is no melanoma here: nothing can be said of how many the model finds.")
    elif positives < FEW_MELANOMAS:
        found.append(
            f"Few melanomas: {positives} here, so one more or less found moves the sensitivity by "
            f"{100 / positives:.0f} percentage points."
        )
    return found


@dataclass(frozen=True)
class Row:
    """A row of a table: one cell for each evaluation, or for each figure of a class."""

    name: str
    meaning: str
    cells: Sequence[Measure]


def operating_rows(evaluations: Mapping[str, Evaluation]) -> list[Row]:
    """What the alert did on each set: counts, then figures. None where a set was judged without a threshold."""
    if any(evaluation.operating_point is None for evaluation in evaluations.values()):
        return []
    points = [evaluation.operating_point for evaluation in evaluations.values() if evaluation.operating_point]
    outcomes = [_outcomes(evaluation) for evaluation in evaluations.values()]
    rows = [
        Row("Melanomas: refer", "found", [_of(o.referred, o.referred + o.missed) for o in outcomes]),
        Row("Melanomas: no alert", "missed", [_of(o.missed, o.referred + o.missed) for o in outcomes]),
        Row("Others: refer", "false alarms", [_of(o.alarms, o.alarms + o.quiet) for o in outcomes]),
        Row("Others: no alert", "rightly left alone", [_of(o.quiet, o.alarms + o.quiet) for o in outcomes]),
    ]
    for key, name, meaning in _OPERATING:
        rows.append(Row(name, meaning, [measure(getattr(at, key), as_percent=True) for at in points]))
    return rows


@dataclass(frozen=True)
class _Outcomes:
    referred: int
    missed: int
    alarms: int
    quiet: int


def _outcomes(evaluation: Evaluation) -> _Outcomes:
    """Counts again from the figures: pictures are whole, so rounding gives back exactly what was divided."""
    at = evaluation.operating_point
    positives, negatives = evaluation.questions["melanoma"]
    referred = round(at.sensitivity.value * positives) if at and positives else 0
    alarms = at.alerts - referred if at else 0
    return _Outcomes(referred, positives - referred, alarms, negatives - alarms)


def _of(part: int, whole: int) -> Measure:
    return Measure(count(part), f"of {count(whole)}")


def figure_rows(evaluations: Mapping[str, Evaluation]) -> list[Row]:
    """Every figure over all pictures, one cell for each set."""
    return [
        Row(
            name,
            meaning,
            [
                measure(evaluation.figures[key], as_percent=as_percent, bar=key not in _UNBOUNDED)
                for evaluation in evaluations.values()
            ],
        )
        for key, name, meaning, as_percent in _FIGURES
    ]


def class_rows(head: Evaluation) -> list[Row]:
    """Sensitivity, specificity, precision, F1 and AUC of each diagnosis."""
    keys = ("sensitivity", "specificity", "precision", "f1", "auc")
    return [
        Row(
            row.name,
            f"{count(row.pictures)} pictures of {count(row.groups)} lesions",
            [measure(getattr(row, key), as_percent=key not in ("f1", "auc")) for key in keys],
        )
        for row in head.per_class
    ]
