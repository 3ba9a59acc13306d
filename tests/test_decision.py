"""What decision curves promise: the published formula, at any prevalence, beside referring everybody."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dermalert.errors import DataError
from dermalert.judge.decision import decision_curve, prevalence_of
from dermalert.judge.metrics import at_threshold
from dermalert.judge.scores import Binary


def calibrated(pictures: int = 2000, *, seed: int = 0) -> Binary:
    """Probabilities that come true as often as they say."""
    random = np.random.default_rng(seed)
    probability = random.beta(0.4, 1.6, pictures)
    return Binary(probability, random.random(pictures) < probability, np.arange(pictures, dtype=np.int64) // 2)


def test_at_the_datas_prevalence_it_is_vickers_and_elkins_formula() -> None:
    binary = calibrated()
    curve = decision_curve(binary, prevalence=prevalence_of(binary), resamples=20)
    for place in (0, 19, 99):
        threshold = curve.thresholds[place]
        counts = at_threshold(binary, float(threshold))
        expected = (counts.true_positive - counts.false_positive * threshold / (1 - threshold)) / len(binary.positive)
        assert curve.model[place].value == pytest.approx(expected)
    assert curve.thresholds[-1] == 0.5


def test_a_calibrated_model_is_never_worse_than_referring_everybody_or_nobody() -> None:
    binary = calibrated(20_000)
    curve = decision_curve(binary, prevalence=prevalence_of(binary), resamples=30)
    values = np.array([interval.value for interval in curve.model])
    assert (values > np.maximum(curve.refer_all, 0) - 2e-3).all()
    assert curve.useful is not None
    assert curve.useful[0] <= 0.05
    assert curve.useful[1] == 0.5


def test_a_model_that_says_the_same_of_all_is_referring_everybody_or_nobody() -> None:
    binary = Binary(np.full(100, 0.3), np.arange(100) < 20, np.arange(100))
    curve = decision_curve(binary, prevalence=0.2, resamples=2)
    values = np.array([interval.value for interval in curve.model])
    assert np.allclose(values, np.where(curve.thresholds <= 0.3 + 1e-12, curve.refer_all, 0))
    assert curve.useful is None


def test_a_clinics_prevalence_weighs_the_outcomes_and_leaves_sensitivity_and_specificity() -> None:
    binary = calibrated()
    curve = decision_curve(binary, prevalence=0.02, resamples=20)
    assert curve.thresholds[-1] == pytest.approx(0.2)
    counts = at_threshold(binary, 0.1)
    expected = 0.02 * counts.sensitivity - 0.98 * (1 - counts.specificity) * 0.1 / 0.9
    assert curve.model[49].value == pytest.approx(expected)
    assert curve.refer_all[49] == pytest.approx(0.02 - 0.98 * 0.1 / 0.9)
    assert curve.spared(49) == pytest.approx((expected - curve.refer_all[49]) * 9)


def test_a_perfect_model_gains_the_prevalence_and_spares_every_other_patient() -> None:
    binary = Binary(np.repeat([0.99, 0.0], [10, 30]), np.repeat([True, False], [10, 30]), np.arange(40))
    curve = decision_curve(binary, prevalence=0.25, resamples=2)
    assert all(interval.value == pytest.approx(0.25) for interval in curve.model)
    assert curve.spared(30) == pytest.approx(0.75)


def test_without_a_melanoma_there_is_no_net_benefit_and_a_reason() -> None:
    curve = decision_curve(Binary(np.full(9, 0.2), np.zeros(9, bool), np.arange(9)), prevalence=0.02, resamples=2)
    assert all(math.isnan(interval.value) and interval.why for interval in curve.model)
    assert curve.useful is None
    assert curve.to_json()["model"][0]["value"] is None


@pytest.mark.parametrize("prevalence", [0.0, 1.0, math.nan])
def test_a_prevalence_that_is_none_is_refused(prevalence: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        decision_curve(calibrated(20), prevalence=prevalence)
