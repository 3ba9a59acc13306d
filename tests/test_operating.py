"""The operating point finds the melanomas it promises, at the fewest false alarms, in any engine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from dermalert.errors import DataError, NotEnoughNegatives, NotEnoughPositives
from dermalert.judge.intervals import Interval
from dermalert.judge.metrics import at_threshold
from dermalert.judge.operating import (
    ROUNDING,
    OperatingPoint,
    at_balance,
    at_sensitivity,
    at_specificity,
    operating_points,
    predictive_values,
)
from dermalert.judge.scores import Binary


def binary_of(probability: ArrayLike, positive: ArrayLike, groups: ArrayLike | None = None) -> Binary:
    p = np.asarray(probability, dtype=np.float64)
    return Binary(p, np.asarray(positive, dtype=bool), np.arange(len(p)) if groups is None else np.asarray(groups))


@st.composite
def validation_sets(draw: st.DrawFn) -> Binary:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    positives, negatives = draw(st.integers(20, 60)), draw(st.integers(0, 60))
    levels = draw(st.sampled_from([3, 10, 100_000]))
    probability = random.integers(levels + 1, size=positives + negatives) / levels
    return binary_of(probability, np.arange(positives + negatives) < positives)


@settings(deadline=None, max_examples=50)
@given(validation_sets(), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_target_is_met_and_no_higher_threshold_meets_it(binary: Binary, target: float) -> None:
    point = at_sensitivity(target, binary, name="alert")
    assert point.sensitivity.value >= target
    assert point.sensitivity.value == at_threshold(binary, point.threshold).sensitivity
    # One float32 rounding above the lowest score that is alerted on, something must be lost below the target.
    alerted = binary.probability[binary.probability >= point.threshold]
    higher = float(alerted.min()) * (1 + 2 * ROUNDING) + 1e-12
    assert at_threshold(binary, higher).sensitivity < target or _crowded(binary, point.threshold)


def _crowded(binary: Binary, threshold: float) -> bool:
    """Whether scores that rounding could swap were taken as one, which lowers the threshold further."""
    alerted = np.sort(binary.probability[binary.probability >= threshold])
    return len(alerted) > 1 and bool((np.diff(alerted) <= 2 * ROUNDING * alerted[1:]).any())


@settings(deadline=None, max_examples=50)
@given(validation_sets(), st.integers(0, 2**32))
def test_rounding_in_another_engine_flips_no_alert(binary: Binary, seed: int) -> None:
    point = at_sensitivity(0.95, binary, name="alert")
    noise = np.random.default_rng(seed).uniform(-0.4, 0.4, len(binary.probability)) * ROUNDING
    elsewhere = (binary.probability * (1 + noise)).astype(np.float32)
    np.testing.assert_array_equal(elsewhere >= point.threshold, binary.probability >= point.threshold)


def test_ties_go_to_the_lower_threshold() -> None:
    # 19 of 20 are needed; the 19th and 20th melanoma share a score with a negative.
    binary = binary_of([*np.linspace(0.9, 0.5, 18), 0.3, 0.3, 0.3, 0.1], [1] * 20 + [0, 0])
    point = at_sensitivity(0.95, binary, name="alert")
    assert point.threshold == pytest.approx(0.2)
    assert (point.sensitivity.value, point.specificity.value) == (1.0, 0.5)
    assert (point.positives, point.negatives) == (20, 2)


def test_finding_all_of_twenty_melanomas_is_not_called_certain() -> None:
    binary = binary_of([0.9] * 20 + [0.1] * 30, [1] * 20 + [0] * 30)
    point = at_sensitivity(0.95, binary, name="alert")
    assert point.sensitivity.value == 1.0
    assert 0.75 < point.sensitivity.low < 0.9
    assert point.specificity.low < 0.95


def test_too_few_melanomas_cannot_show_the_target() -> None:
    with pytest.raises(NotEnoughPositives, match="19 melanomas"):
        at_sensitivity(0.95, binary_of(np.linspace(0, 1, 40), [1] * 19 + [0] * 21), name="alert")
    assert at_sensitivity(0.95, binary_of(np.linspace(0, 1, 40), [1] * 20 + [0] * 20), name="alert").positives == 20


def test_several_photographs_of_one_melanoma_count_once() -> None:
    with pytest.raises(NotEnoughPositives, match="10 melanomas"):
        at_sensitivity(0.95, binary_of(np.linspace(0, 1, 40), [1] * 40, np.arange(40) // 4), name="alert")


def test_scores_that_saturate_at_zero_alert_on_everybody() -> None:
    point = at_sensitivity(0.95, binary_of(np.zeros(50), [1] * 25 + [0] * 25), name="alert")
    assert point.threshold == 0.0
    assert (point.sensitivity.value, point.specificity.value) == (1.0, 0.0)


def test_without_negatives_specificity_is_unknown_not_one() -> None:
    point = at_sensitivity(0.95, binary_of(np.linspace(0.1, 1, 30), [1] * 30), name="alert")
    assert np.isnan(point.specificity.value)
    assert point.specificity.why


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, float("nan")])
def test_a_target_outside_zero_and_one_is_refused(target: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        at_sensitivity(target, binary_of([0.5], [1]), name="alert")


def test_a_broken_probability_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        at_sensitivity(0.5, binary_of([0.5, np.nan], [1, 1]), name="alert")


@settings(deadline=None, max_examples=20)
@given(validation_sets())
def test_an_operating_point_survives_json(binary: Binary) -> None:
    point = at_sensitivity(0.9, binary, name="alert")
    text = json.dumps(point.to_json(), allow_nan=False)
    assert repr(OperatingPoint.from_json(json.loads(text))) == repr(point)


def test_what_is_no_operating_point_is_refused() -> None:
    with pytest.raises(DataError, match="Not an operating point"):
        OperatingPoint.from_json({"name": "alert", "threshold": None})


# The other two


def _close(binary: Binary) -> bool:
    """Whether some scores differ, and rounding could swap them."""
    scores = np.append(np.unique(binary.probability), 1.0)
    return bool((np.diff(scores) <= 2 * ROUNDING * scores[1:])[:-1].any())


@settings(deadline=None, max_examples=50)
@given(validation_sets(), st.sampled_from([0.5, 0.8, 0.95]), st.integers(0, 2**32))
def test_the_specific_point_meets_its_target_and_no_lower_threshold_does(
    binary: Binary, target: float, seed: int
) -> None:
    try:
        point = at_specificity(target, binary, name="specific")
    except NotEnoughNegatives:
        negatives = binary.probability[~binary.positive]
        assert len(negatives) < round(1 / (1 - target)) or (negatives >= 1 - ROUNDING).mean() > 1 - target
        return
    assert point.specificity.value >= target
    quiet = binary.probability[binary.probability < point.threshold]
    if not _close(binary):
        assert at_threshold(binary, float(quiet.max())).specificity < target
    noise = np.random.default_rng(seed).uniform(-0.4, 0.4, len(binary.probability)) * ROUNDING
    elsewhere = (binary.probability * (1 + noise)).astype(np.float32)
    np.testing.assert_array_equal(elsewhere >= point.threshold, binary.probability >= point.threshold)


@settings(deadline=None, max_examples=50)
@given(validation_sets())
def test_no_threshold_has_a_larger_sum_of_sensitivity_and_specificity_than_the_balanced_point(binary: Binary) -> None:
    if binary.positive.all():
        with pytest.raises(NotEnoughNegatives):
            at_balance(binary, name="balanced")
        return
    point = at_balance(binary, name="balanced")
    outcomes = [at_threshold(binary, float(t)) for t in np.unique(binary.probability)]
    best = max(float(each.sensitivity + each.specificity) for each in outcomes)
    if not _close(binary):
        assert point.sensitivity.value + point.specificity.value == pytest.approx(best)
    assert point.target is None


def test_the_three_points_have_their_names_and_order() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(600) < 200
    binary = binary_of(1 / (1 + np.exp(-random.normal(np.where(positive, 1.5, -1.5), 1.2))), positive)
    points, why = operating_points(binary)
    assert ([point.name for point in points], why) == (["screening", "balanced", "specific"], ())
    screening, balanced, specific = points
    assert screening.sensitivity.value >= 0.95
    assert specific.specificity.value >= 0.95
    assert screening.threshold < balanced.threshold < specific.threshold
    assert screening.target == 0.95


def test_without_enough_melanomas_there_is_no_point_and_without_enough_others_only_one() -> None:
    assert operating_points(binary_of(np.linspace(0, 1, 40), [1] * 19 + [0] * 21))[0] == ()
    points, (why,) = operating_points(binary_of(np.linspace(0, 1, 40), [1] * 25 + [0] * 15))
    assert [point.name for point in points] == ["screening"]
    assert why.startswith("Only one alert threshold was chosen. 15 lesions other than melanomas")


# Predictive values


def at(sensitivity: Interval, specificity: Interval) -> OperatingPoint:
    return OperatingPoint("some", 0.5, sensitivity, specificity, 100, 100, None)


def test_predictive_values_are_those_counted_in_a_population_of_that_prevalence() -> None:
    point = at(Interval(0.9, 0.8, 0.95), Interval(0.7, 0.65, 0.75))
    ppv, npv = predictive_values(point, 0.02)
    # Of 10,000 lesions 200 are melanomas: 180 found; of the others 2,940 alerted on.
    assert ppv.value == pytest.approx(180 / (180 + 2940))
    assert npv.value == pytest.approx(6860 / (6860 + 20))
    assert ppv.low == pytest.approx(160 / (160 + 3430))
    assert npv.high == pytest.approx(7350 / (7350 + 10))
    assert ppv.low < ppv.value < ppv.high
    assert npv.low < npv.value < npv.high


@settings(deadline=None, max_examples=20)
@given(validation_sets())
def test_at_the_prevalence_of_the_pictures_themselves_they_are_what_was_counted(binary: Binary) -> None:
    if binary.positive.all():
        return
    point = at_sensitivity(0.9, binary, name="some")
    ppv, npv = predictive_values(point, float(binary.positive.mean()))
    counted = at_threshold(binary, point.threshold)
    assert ppv.value == pytest.approx(float(counted.precision), nan_ok=True)
    assert npv.value == pytest.approx(float(counted.npv), nan_ok=True)


def test_a_predictive_value_of_nobody_is_unknown_with_a_reason() -> None:
    ppv, _ = predictive_values(at(Interval(0.0, 0.0, 0.0), Interval(1.0, 1.0, 1.0)), 0.1)
    assert np.isnan(ppv.value)
    assert ppv.why
    unknown = Interval(float("nan"), float("nan"), float("nan"), why="There is no negative picture.")
    assert predictive_values(at(Interval(0.9, 0.8, 1.0), unknown), 0.1)[0].why == "There is no negative picture."


@pytest.mark.parametrize("prevalence", [0.0, 1.0, float("nan")])
def test_a_prevalence_of_nobody_or_everybody_is_refused(prevalence: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        predictive_values(at(Interval(0.9, 0.8, 1.0), Interval(0.9, 0.8, 1.0)), prevalence)
