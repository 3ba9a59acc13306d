"""What the page of a case tells beside the picture: the model's words for this case, each with what it rests on.

Comes in: a case and the model in use. Goes out: values for the page. A finding of another model than the one in use
keeps its figures; the threshold, the coverage and the evidence are then not to be had.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from dermalert.clinic import wording
from dermalert.clinic.model import Model
from dermalert.clinic.schema import Case
from dermalert.judge.conformal import categories_of
from dermalert.judge.operating import OperatingPoint
from dermalert.taxonomy import MELANOMA

_LIKELY = 0.05  # of a category, from which it is shown though it is not in the set


@dataclass(frozen=True)
class Category:
    """Diagnoses that the model tells apart as one: their words, their probability, and whether they remain possible."""

    words: str
    probability: float
    possible: bool


@dataclass(frozen=True)
class Entry:
    """A line of a case's record."""

    at: datetime
    who: str
    what: str
    text: str


@dataclass(frozen=True)
class Reading:
    """What a reader of a case is told.

    Attributes:
        is_current: whether the model that scored it is the one in use.
        point: the operating point that gave the alert; None where it is not known.
        prevalence: of melanoma, where the model was calibrated; None likewise.
        coverage: that the set of categories promises; None likewise.
        categories: those left open, likeliest first, then others of some probability.
        explained: the diagnoses that an evidence map can be asked of, melanoma first; empty where none can.
        record: decisions, notes and histologies, in the order in which they came.
    """

    is_current: bool
    point: OperatingPoint | None
    prevalence: float | None
    coverage: float | None
    categories: list[Category]
    explained: list[str]
    record: list[Entry]

    @classmethod
    def of(cls, case: Case, model: Model) -> Reading:
        """Of a case, with all its parts loaded."""
        finding = case.finding
        is_current = finding is not None and finding.bundle_digest == model.digest
        bundle = model.bundle
        return cls(
            is_current=is_current,
            point=model.judge.point if is_current else None,
            prevalence=bundle.prevalence.get(MELANOMA) if is_current else None,
            coverage=bundle.conformal.coverage if is_current and bundle.conformal else None,
            categories=_categories(case),
            explained=_explained(case, bundle.untold) if is_current else [],
            record=_record(case),
        )


def _categories(case: Case) -> list[Category]:
    if case.finding is None:
        return []
    probabilities, possible = case.finding.probabilities, case.finding.possible
    summed = {
        name: sum(probabilities[member] for member in members)
        for name, members in categories_of(list(probabilities)).items()
    }
    ordered = sorted(summed, key=lambda name: (name not in possible, -summed[name]))
    return [
        Category(wording.category(name), summed[name], name in possible)
        for name in ordered
        if name in possible or summed[name] >= _LIKELY
    ]


def _explained(case: Case, untold: Collection[str]) -> list[str]:
    """Melanoma, then the others from the likeliest down, but those that the model never names."""
    if case.finding is None:
        return []
    probabilities = case.finding.probabilities
    told = [name for name in probabilities if name not in untold]
    return sorted(told, key=lambda name: (name != MELANOMA, -probabilities[name]))


def _record(case: Case) -> list[Entry]:
    entries = [
        *(Entry(one.at, one.who, wording.decided(one), "") for one in case.decisions),
        *(Entry(one.at, one.who, "", one.text) for one in case.notes),
        *(Entry(one.at, one.who, "Histology", one.diagnosis) for one in case.histologies),
    ]
    return sorted(entries, key=lambda entry: entry.at)
