"""An evaluation says every figure once, the same as the metric by itself, with its interval or the reason why not."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.evaluation import CURVE_POINTS, evaluate, thinned
from dermalert.judge.intervals import Interval, group_bootstrap
from dermalert.judge.operating import OperatingPoint, achieved, at_sensitivity
from dermalert.judge.scores import Scores
from dermalert.taxonomy import MELANOMA, NAMES


def drawn(seed: int, count: int = 400, *, coarse: int = 0, classes: tuple[str, ...] = NAMES) -> Scores:
    random = np.random.default_rng(seed)
    truth = random.integers(len(classes), size=count)
    logits = random.normal(size=(count, len(classes)))
    logits[np.arange(count), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = np.eye(len(classes), dtype=bool)[truth]
    label[:coarse] = [name != MELANOMA for name in classes]  # "not melanoma": leaves malignant open
    return Scores(
        tuple(f"p{i}" for i in range(count)), classes, probabilities, label, random.integers(count, size=count)
    )


@pytest.fixture(scope="module")
def scores() -> Scores:
    return drawn(0, coarse=60)


@pytest.fixture(scope="module")
def point() -> OperatingPoint:
    return at_sensitivity(0.9, drawn(1).melanoma(), name="alert")


def test_every_figure_is_the_metrics_own(scores: Scores, point: OperatingPoint) -> None:
    found = evaluate(scores, operating_point=point, resamples=20)
    melanoma, malignant = scores.melanoma(), scores.malignant()
    expected: dict[str, Any] = {
        "accuracy": metrics.accuracy(scores),
        "balanced_accuracy": metrics.balanced_accuracy(scores),
        "macro_auc": metrics.macro_auc(scores),
        "log_loss": metrics.log_loss(scores),
        "brier": metrics.brier(scores),
        "ece": metrics.expected_calibration_error(scores),
        "melanoma_ece": metrics.calibration_error(melanoma.probability, melanoma.positive),
        "melanoma_auc": metrics.roc_auc(melanoma),
        "melanoma_average_precision": metrics.average_precision(melanoma),
        "melanoma_sensitivity_at_90_specificity": metrics.sensitivity_at_specificity(melanoma, 0.90),
        "malignant_auc": metrics.roc_auc(malignant),
        "malignant_average_precision": metrics.average_precision(malignant),
        "malignant_sensitivity_at_90_specificity": metrics.sensitivity_at_specificity(malignant, 0.90),
    }
    assert {name: figure.value for name, figure in found.figures.items()} == pytest.approx(expected)
    counts, aucs = metrics.class_counts(metrics.weighted_confusion(scores)), metrics.class_auc(scores)
    for k, row in enumerate(found.per_class):
        values = [row.sensitivity.value, row.specificity.value, row.precision.value, row.f1.value, row.auc.value]
        own = [counts.sensitivity[k], counts.specificity[k], counts.precision[k], counts.f1[k], aucs[k]]
        assert values == pytest.approx(own)
    at, outcome = found.operating_point, metrics.at_threshold(melanoma, point.threshold)
    assert at is not None
    assert [at.sensitivity.value, at.specificity.value, at.ppv.value, at.npv.value] == pytest.approx(
        [outcome.sensitivity, outcome.specificity, outcome.precision, outcome.npv]
    )
    assert at.alerts == outcome.true_positive + outcome.false_positive


def test_counts_say_what_each_figure_rests_on(scores: Scores) -> None:
    found = evaluate(scores, operating_point=None, resamples=20)
    assert (found.pictures, found.exact_labels) == (400, 340)
    assert found.groups == len(np.unique(scores.groups))
    assert sum(found.questions["melanoma"]) == 400  # "not melanoma" decides this
    assert sum(found.questions["malignant"]) == 340  # and leaves that open
    assert sum(row.pictures for row in found.per_class) == found.confusion.sum() == 340
    assert found.operating_point is None


def test_intervals_are_those_of_each_figure_alone(scores: Scores) -> None:
    found = evaluate(scores, operating_point=None, resamples=200, seed=3)
    alone = group_bootstrap(lambda w: metrics.accuracy(scores, w), scores.groups, resamples=200, seed=3)
    assert found.figures["accuracy"] == alone
    assert all(figure.low <= figure.value <= figure.high for figure in found.figures.values())


def test_the_operating_points_intervals_are_those_of_the_threshold_alone(point: OperatingPoint) -> None:
    exact = drawn(4)
    at = evaluate(exact, operating_point=point, resamples=200, seed=3).operating_point
    assert at is not None
    alone = achieved(exact.melanoma(), point.threshold, resamples=200, seed=3)
    assert (at.sensitivity, at.specificity, at.ppv, at.npv) == alone


def test_the_same_seed_gives_the_same_metrics_json_and_another_seed_other_intervals(scores: Scores) -> None:
    first, again, other = (
        json.dumps(evaluate(scores, operating_point=None, resamples=50, seed=seed).to_json(), allow_nan=False)
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_metrics_json_keeps_its_documented_keys(scores: Scores, point: OperatingPoint) -> None:
    plain = json.loads(json.dumps(evaluate(scores, operating_point=point, resamples=20).to_json(), allow_nan=False))
    assert set(plain) == {"format", "resamples", "seed", "level", "pictures", "groups", "exact_labels", "classes"} | {
        *("questions", "figures", "operating_point", "per_class", "confusion_matrix", "curves", "reliability")
    }
    assert sorted(plain["operating_point"]) == sorted(
        ["name", "threshold", "target", "alerts", "sensitivity", "specificity", "ppv", "npv", "chosen_on"]
    )
    assert list(plain["per_class"]) == list(NAMES)
    assert sorted(plain["per_class"][MELANOMA]) == sorted(
        ["pictures", "groups", "sensitivity", "specificity", "precision", "f1", "auc"]
    )
    assert sorted(plain["figures"]["accuracy"]) == ["high", "level", "low", "value"]
    assert sorted(plain["curves"]["melanoma"]["roc"]) == ["false_positive_rate", "threshold", "true_positive_rate"]
    assert plain["curves"]["melanoma"]["roc"]["threshold"][0] is None
    assert sorted(plain["reliability"]) == ["melanoma", "top_class"]
    assert OperatingPoint.from_json(plain["operating_point"]["chosen_on"]) == point


def test_without_a_melanoma_its_figures_are_null_and_say_why(point: OperatingPoint) -> None:
    full = drawn(5, 200)
    without = full.where(~full.truth[:, NAMES.index(MELANOMA)])
    plain = evaluate(without, operating_point=point, resamples=50).to_json()
    for name in ("auc", "average_precision", "sensitivity_at_90_specificity"):
        figure = plain["figures"][f"melanoma_{name}"]
        assert figure["value"] is None
        assert figure["low"] is None
        assert "picture" in figure["why"]
    assert plain["operating_point"]["sensitivity"]["why"] == "There is no positive picture."
    assert plain["operating_point"]["specificity"]["value"] is not None
    assert plain["per_class"][MELANOMA]["sensitivity"]["value"] is None
    assert plain["per_class"]["nevus"]["sensitivity"]["value"] is not None
    assert plain["figures"]["balanced_accuracy"]["value"] is not None
    assert set(plain["curves"]["melanoma"]["roc"]["true_positive_rate"]) == {None}
    json.dumps(plain, allow_nan=False)


def test_a_set_of_coarse_labels_alone_says_what_it_can() -> None:
    found = evaluate(drawn(6, 50, coarse=50), operating_point=None, resamples=50)
    assert found.exact_labels == 0
    assert found.figures["accuracy"].value > 0
    for name in ("balanced_accuracy", "macro_auc", "brier", "ece", "malignant_auc"):
        assert math.isnan(found.figures[name].value)
        assert found.figures[name].why
    json.dumps(found.to_json(), allow_nan=False)


def test_a_perfect_model_is_not_called_certain() -> None:
    truth = np.eye(9, dtype=bool)[np.arange(90) % 9]
    perfect = Scores(tuple(map(str, range(90))), NAMES, truth.astype(np.float64), truth, np.arange(90))
    found = evaluate(perfect, operating_point=None, resamples=100)
    accuracy, auc = found.figures["accuracy"], found.figures["melanoma_auc"]
    assert accuracy.value == 1.0
    assert 0.9 < accuracy.low < 1.0
    assert auc.value == 1.0
    assert math.isnan(auc.low)


def test_a_model_that_knows_no_melanoma_is_judged_on_the_rest() -> None:
    found = evaluate(drawn(7, 60, classes=("nevus", "dermatofibroma")), operating_point=None, resamples=50)
    assert math.isnan(found.figures["melanoma_auc"].value)
    assert found.figures["accuracy"].value > 0.5


def test_no_pictures_and_broken_probabilities_are_refused(scores: Scores) -> None:
    with pytest.raises(DataError, match="no labelled picture"):
        evaluate(scores.where(np.zeros(400, dtype=bool)), operating_point=None)
    broken = scores.probabilities.copy()
    broken[7, 0] = np.nan
    with pytest.raises(DataError, match="first: p7"):
        evaluate(Scores(scores.image_ids, NAMES, broken, scores.truth, scores.groups), operating_point=None)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 3000))
def test_a_thinned_curve_keeps_its_ends_and_its_shape(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    x, y = np.sort(random.random(count)), np.sort(random.random(count))
    kept = thinned(x, y)
    assert len(kept) <= CURVE_POINTS
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert (np.diff(kept) > 0).all()
    if count > CURVE_POINTS:
        assert np.abs(np.interp(x, x[kept], y[kept]) - y).max() < 0.03


def test_figures_print_as_intervals(scores: Scores) -> None:
    figure = evaluate(scores, operating_point=None, resamples=50).figures["accuracy"]
    assert isinstance(figure, Interval)
    assert " to " in str(figure)
