"""A temperature makes promises come true, keeps every ranking, and says when it cannot be known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.calibration import HIGHEST, LOWEST, Calibration, TemperatureAtBound, reliability_bins
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
