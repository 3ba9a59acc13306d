"""Calibration makes promises come true, says when it cannot be known, and follows a clinic's own prevalence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    TemperatureAtBound,
    at_prevalence,
    carried_over,
    class_shares,
    reliability_bins,
)
from dermalert.judge.metrics import calibration_error

Pictures = tuple[NDArray[np.float64], NDArray[np.bool_]]


def plain(temperature: float, classes: int = 4) -> Calibration:
    """A temperature alone."""
    return Calibration(temperature, (0.0,) * classes)


def drawn(seed: int, count: int, temperature: float, classes: int = 4) -> Pictures:
    """Logits whose softmax at `temperature` is the true chance of each class."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes)) * temperature
    chance = plain(temperature, classes).apply(logits)
    truth = (random.random((count, 1)) > np.cumsum(chance, axis=1)).sum(axis=1).clip(0, classes - 1)
    return logits, np.eye(classes, dtype=bool)[truth]


def nll(calibration: Calibration, pictures: Pictures) -> float:
    logits, truth = pictures
    return float(-np.log((calibration.apply(logits) * truth).sum(axis=1)).mean())


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(true_temperature: float) -> None:
    fitted = Calibration.fit(*drawn(1, 4000, true_temperature), bias=False)
    assert fitted.temperature == pytest.approx(true_temperature, rel=0.08)
    assert not fitted.at_bound


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.4, 6))
def test_no_other_temperature_in_the_range_fits_better(seed: int, true_temperature: float) -> None:
    pictures = drawn(seed, 60, true_temperature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperatureAtBound)
        best = nll(Calibration.fit(*pictures, bias=False), pictures)
    others = [nll(plain(float(t)), pictures) for t in np.geomspace(LOWEST, HIGHEST, 60)]
    assert best <= min(others) + 1e-4


def test_calibration_on_one_half_makes_the_other_half_come_true() -> None:
    logits, truth = drawn(2, 6000, 3.0)
    fitted = Calibration.fit(logits[:3000], truth[:3000], bias=False)

    def error(calibration: Calibration) -> float:
        probability = calibration.apply(logits[3000:])
        right = truth[3000:][np.arange(3000), probability.argmax(axis=1)]
        return float(calibration_error(probability.max(axis=1), right))

    assert error(plain(1.0)) > 0.1
    assert error(fitted) < 0.03


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.2, 20))
def test_no_ranking_within_a_picture_changes(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (20, 5))
    np.testing.assert_array_equal(np.argsort(plain(temperature, 5).apply(logits), axis=1), np.argsort(logits, axis=1))


def test_probabilities_are_float64_and_sum_to_one_for_huge_logits_too() -> None:
    probability = plain(0.2, 3).apply(np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=np.float32))
    assert probability.dtype == np.float64
    np.testing.assert_allclose(probability, np.array([[1, 0, 0], [1 / 3] * 3], dtype=np.float64))


def test_pictures_that_the_model_separates_warn_and_stop_at_the_lower_limit() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(30) % 3]
    with pytest.warns(TemperatureAtBound, match="no \\(or hardly a\\) mistake"):
        fitted = Calibration.fit(truth * 2.0, truth, bias=False)
    assert fitted.temperature == pytest.approx(LOWEST, rel=1e-3)
    assert fitted.at_bound


def test_logits_that_say_nothing_warn_and_stop_at_the_upper_limit() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(30) % 3]
    with pytest.warns(TemperatureAtBound, match="next to nothing"):
        fitted = Calibration.fit(np.roll(truth, 1, axis=1) * 5.0, truth, bias=False)
    assert fitted.temperature == pytest.approx(HIGHEST, rel=1e-3)
    assert fitted.at_bound


def test_a_coarse_label_counts_by_the_probability_of_all_its_classes() -> None:
    logits, truth = drawn(3, 4000, 2.0)
    coarse = truth.copy()
    coarse[:, :2] |= truth[:, :2].any(axis=1, keepdims=True)  # the first two classes not told apart
    assert Calibration.fit(logits, coarse, bias=False).temperature == pytest.approx(2.0, rel=0.1)


# Biases


BIAS = (0.9, -0.4, -0.8, 0.3)


def with_bias(seed: int, count: int) -> Pictures:
    """Logits that lack a known bias, and were multiplied by 2."""
    logits, truth = drawn(seed, count, 1.0)
    return (logits - np.array(BIAS)) * 2, truth


def test_a_known_temperature_and_bias_are_found_again() -> None:
    fitted = Calibration.fit(*with_bias(5, 6000), bias=True)
    assert fitted.temperature == pytest.approx(2.0, rel=0.08)
    assert fitted.bias == pytest.approx(BIAS, abs=0.12)
    assert sum(fitted.bias) == pytest.approx(0, abs=1e-9)


def test_with_a_bias_each_class_is_promised_as_often_as_it_happens() -> None:
    logits, truth = with_bias(6, 6000)
    new, happened = with_bias(7, 6000)
    means = [Calibration.fit(logits, truth, bias=bias).apply(new).mean(axis=0) for bias in (False, True)]
    assert np.abs(means[0] - happened.mean(axis=0)).max() > 0.05
    np.testing.assert_allclose(means[1], happened.mean(axis=0), atol=0.02)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_a_bias_never_fits_worse_than_a_temperature_alone(seed: int) -> None:
    pictures = drawn(seed, 80, 1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperatureAtBound)
        alone, biased = (nll(Calibration.fit(*pictures, bias=bias), pictures) for bias in (False, True))
    assert biased <= alone + 1e-9


def test_a_bias_for_a_class_that_no_picture_may_show_cannot_be_known() -> None:
    logits, truth = drawn(8, 100, 1.0)
    kept = ~truth[:, 2]
    with pytest.raises(DataError, match="a picture of each class"):
        Calibration.fit(logits[kept], truth[kept], bias=True)


def test_biases_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="3 biases for 4 classes"):
        Calibration(1.0, (0.0, 0.0, 0.0)).apply(np.zeros((2, 4)))


# Prevalence

CLASSES = ("actinic keratosis", "melanoma", "nevus", "vascular lesion")
REFERENCE = {"actinic keratosis": 0.1, "melanoma": 0.3, "nevus": 0.5, "vascular lesion": 0.1}


def test_adjusted_probabilities_come_true_where_melanoma_is_rarer() -> None:
    random = np.random.default_rng(9)

    def pictures(melanoma: float, count: int = 60_000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        others = [REFERENCE[name] / 0.7 * (1 - melanoma) for name in CLASSES]
        priors = np.array([melanoma if name == "melanoma" else o for name, o in zip(CLASSES, others, strict=True)])
        truth = random.choice(4, count, p=priors)
        return random.normal(0, 1, (count, 4)) + 1.5 * np.eye(4)[truth], truth

    seen, truth = pictures(0.02)
    # What calibration at the reference says of such features: its priors times the likelihoods.
    odds = np.exp(1.5 * seen) * np.array([REFERENCE[name] for name in CLASSES])
    calibrated = odds / odds.sum(axis=1, keepdims=True)
    adjusted = at_prevalence(calibrated, CLASSES, melanoma=0.02, reference=REFERENCE)
    assert calibrated[:, 1].mean() > 0.04
    assert calibration_error(calibrated[:, 1], truth == 1) > 0.04
    assert calibration_error(adjusted[:, 1], truth == 1) < 0.004
    np.testing.assert_allclose(adjusted.mean(axis=0), np.bincount(truth) / len(truth), atol=0.005)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.001, 0.999))
def test_a_prevalence_multiplies_the_odds_and_keeps_order_and_proportions(seed: int, melanoma: float) -> None:
    before = np.random.default_rng(seed).dirichlet([1, 1, 1, 1], 30)
    after = at_prevalence(before, CLASSES, melanoma=melanoma, reference=REFERENCE)
    np.testing.assert_allclose(after.sum(axis=1), 1)
    ratio = (melanoma / (1 - melanoma)) / (0.3 / 0.7)
    np.testing.assert_allclose(after[:, 1] / (1 - after[:, 1]), ratio * before[:, 1] / (1 - before[:, 1]))
    np.testing.assert_allclose(after[:, 0] / after[:, 2], before[:, 0] / before[:, 2])
    order = np.argsort(before[:, 1])
    assert (np.diff(after[order, 1]) >= 0).all()
    back = at_prevalence(after, CLASSES, melanoma=0.3, reference={**REFERENCE, "melanoma": melanoma})
    np.testing.assert_allclose(back, before, rtol=1e-6)


@pytest.mark.parametrize("melanoma", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_prevalence_outside_zero_and_one_is_refused(melanoma: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        at_prevalence(np.full((1, 4), 0.25), CLASSES, melanoma=melanoma, reference=REFERENCE)


@pytest.mark.parametrize("share", [0.0, 1.0, None])
def test_without_melanomas_and_others_in_the_reference_nothing_can_be_adjusted(share: float | None) -> None:
    reference = {} if share is None else {"melanoma": share, "nevus": 1 - share}
    with pytest.raises(DataError, match="not calibrated on melanomas and others"):
        at_prevalence(np.full((1, 2), 0.5), ("melanoma", "nevus"), melanoma=0.1, reference=reference)


def test_class_shares_count_exact_labels_and_share_coarse_ones_out_as_the_model_would() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]])
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=bool)
    np.testing.assert_allclose(class_shares(probabilities, truth), [2.5 / 4, (0.75 + 0.5) / 4, 0.25 / 4])


def test_labels_that_say_nothing_or_broken_logits_are_refused() -> None:
    logits, truth = drawn(4, 10, 1.0)
    with pytest.raises(DataError, match="finite"):
        Calibration.fit(np.where(truth, np.nan, logits), truth, bias=False)
    with pytest.raises(DataError, match="labelled pictures"):
        Calibration.fit(logits[:0], truth[:0], bias=False)
    with pytest.raises(DataError, match="labelled pictures"):
        Calibration.fit(logits, truth & False, bias=False)
    with pytest.raises(DataError, match="positive number"):
        plain(0.0).apply(logits)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 80), st.integers(1, 20))
def test_reliability_bins_hold_every_picture_once_and_add_up_to_the_calibration_error(
    seed: int, count: int, bins: int
) -> None:
    random = np.random.default_rng(seed)
    probability = random.choice([random.random(count), random.integers(2, size=count).astype(float)])
    happened = random.random(count) < 0.5
    parts = reliability_bins(probability, happened, bins=bins)
    assert sum(part.count for part in parts) == count
    assert all(part.low - 1e-12 <= part.promised <= part.high + 1e-12 for part in parts)
    if count:
        total = sum(part.count * abs(part.promised - part.happened) for part in parts) / count
        assert total == pytest.approx(float(calibration_error(probability, happened, bins=bins)))


def test_a_calibration_carries_over_to_a_network_that_says_the_same_in_a_smaller_range() -> None:
    others = np.random.default_rng(0).normal(size=(500, 4)) * 3
    fitted = Calibration(1.4, (0.5, -0.5, 0.2, -0.2))
    mine = (
        others / 1.7 + np.array([0.3, 0.1, -0.4, 0.0]) + np.arange(500)[:, None]
    )  # one number a row: no softmax sees it
    carried = carried_over(fitted, mine, others)
    assert carried.apply(mine) == pytest.approx(fitted.apply(others), abs=1e-9)
    with pytest.raises(DataError, match="cannot stand for them"):
        carried_over(fitted, -others, others)
    with pytest.raises(DataError, match="not of the same"):
        carried_over(fitted, mine[:3], others)
