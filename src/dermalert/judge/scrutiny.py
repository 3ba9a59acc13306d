"""Scrutiny: what a reviewer asks beyond the headline figures.

Comes in: `Scores`, what is known of each picture, and what the bundle promises: its operating points, conformal sets
and the prevalence that it was calibrated at. Goes out: a `Scrutiny`: subgroups, decision curves, predictive values at
stated prevalences, coverage. It computes by the rooms named so and draws nothing: `scrutiny_page` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dermalert.errors import DataError
from dermalert.judge.calibration import at_prevalence
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.coverage import Coverage, coverage_of
from dermalert.judge.decision import DecisionCurve, decision_curve, prevalence_of
from dermalert.judge.intervals import Interval
from dermalert.judge.operating import PREVALENCES, OperatingPoint, achieved, predictive_values
from dermalert.judge.scores import Binary, Scores
from dermalert.judge.subgroups import Facet, subgroups

CLINIC = 0.02  # melanomas among lesions that are looked at by dermoscopy, as an order of magnitude


@dataclass(frozen=True)
class AtPrevalences:
    """What one operating point does on these pictures, and would do among other patients.

    Attributes:
        point: with the sensitivity, specificity and counts of these pictures.
        predictive_values: PPV and NPV by the prevalence of melanoma.
    """

    point: OperatingPoint
    predictive_values: Mapping[float, tuple[Interval, Interval]]

    def to_json(self) -> dict[str, Any]:
        """The point's own fields, and `at_prevalence`: a list of prevalence, ppv and npv."""
        values = [
            {"prevalence": prevalence, "ppv": ppv.to_json(), "npv": npv.to_json()}
            for prevalence, (ppv, npv) in self.predictive_values.items()
        ]
        return self.point.to_json() | {"at_prevalence": values}


@dataclass(frozen=True)
class Scrutiny:
    """A closer look at one set of pictures.

    Attributes:
        prevalence: of melanoma among these pictures; NaN where no label decides.
        points: every operating point of the bundle, the default first.
        decisions: decision curves, by what prevalence they hold at: "these pictures", "a clinic".
        no_decision: why a curve is missing; empty where none is.
        facets: the subgroups, by fact.
        promised: the coverage that the conformal sets promise; None where the bundle has none.
        coverage: what they give, by category.
        level: of the intervals.
    """

    prevalence: float
    points: tuple[AtPrevalences, ...]
    decisions: Mapping[str, DecisionCurve]
    no_decision: str
    facets: tuple[Facet, ...]
    promised: float | None
    coverage: tuple[Coverage, ...]
    level: float

    def to_json(self) -> dict[str, Any]:
        """Plain values only, no NaN: `prevalence`, `operating_points`, `decision`, `subgroups`, `conformal`."""
        return {
            "prevalence": None if math.isnan(self.prevalence) else self.prevalence,
            "operating_points": [point.to_json() for point in self.points],
            "decision": {name: curve.to_json() for name, curve in self.decisions.items()},
            "subgroups": {facet.name: facet.to_json() for facet in self.facets},
            "conformal": {"promised": self.promised, "categories": {c.category: c.to_json() for c in self.coverage}}
            if self.promised is not None
            else None,
        }


def scrutinise(
    scores: Scores,
    facts: Mapping[str, Sequence[str | None]],
    *,
    points: Sequence[OperatingPoint],
    conformal: ConformalSets | None,
    reference: Mapping[str, float],
    clinic: float = CLINIC,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scrutiny:
    """A closer look at pictures that neither the training nor the choice of the operating points has seen.

    Args:
        facts: by the fact's name, what is known of each picture (N,); None where nothing is.
        points: the bundle's, the default first; subgroups are judged at that.
        reference: each class's share of the pictures that calibration was fitted on.
        clinic: the prevalence of melanoma in a clinic, in (0, 1).

    Raises:
        DataError: `clinic` is out of range, or a probability is NaN.
    """
    if not 0 < clinic < 1:
        raise DataError(f"A prevalence of melanoma lies between 0 and 1, as 0.02 for 2 in 100; got {clinic}.")
    binary = scores.melanoma()
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    decisions, no_decision = _decisions(scores, binary, reference, clinic, options)
    return Scrutiny(
        prevalence=prevalence_of(binary),
        points=tuple(_at_prevalences(point, binary, options) for point in points),
        decisions=decisions,
        no_decision=no_decision,
        facets=subgroups(scores, facts, threshold=points[0].threshold if points else None, **options),
        promised=conformal.coverage if conformal else None,
        coverage=coverage_of(conformal, scores, **options) if conformal else (),
        level=level,
    )


def _at_prevalences(chosen: OperatingPoint, binary: Binary, options: Mapping[str, Any]) -> AtPrevalences:
    sensitivity, specificity, _, _ = achieved(binary, chosen.threshold, **options)
    positives = int(binary.positive.sum())
    negatives = len(binary.positive) - positives
    here = replace(chosen, sensitivity=sensitivity, specificity=specificity, positives=positives, negatives=negatives)
    stated = sorted({*PREVALENCES, *([prevalence_of(binary)] if positives and negatives else [])})
    return AtPrevalences(here, {prevalence: predictive_values(here, prevalence) for prevalence in stated})


def _decisions(
    scores: Scores, binary: Binary, reference: Mapping[str, float], clinic: float, options: Mapping[str, Any]
) -> tuple[dict[str, DecisionCurve], str]:
    own = prevalence_of(binary)
    if not 0 < own < 1:
        return {}, "It takes pictures of melanomas and of other lesions."
    curves = {"these pictures": decision_curve(binary, prevalence=own, **options)}
    try:
        adjusted = at_prevalence(scores.probabilities, scores.classes, melanoma=clinic, reference=reference)
    except DataError as error:
        return curves, str(error)
    there = replace(scores, probabilities=adjusted).melanoma()
    return curves | {"a clinic": decision_curve(there, prevalence=clinic, **options)}, ""
