"""Figures agree with scikit-learn and with the ISIC challenges' own scorer, and are NaN where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from numpy.typing import NDArray
from sklearn import metrics as reference

from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.scores import Binary, Scores
from dermalert.taxonomy import NAMES


def binary_of(probability: Any, positive: Any) -> Binary:
    p = np.asarray(probability, dtype=np.float64)
    return Binary(p, np.asarray(positive, dtype=bool), np.arange(len(p), dtype=np.int64))


def scores_of(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> Scores:
    count, classes = probabilities.shape
    return Scores(
        tuple(f"p{i}" for i in range(count)),
        NAMES[:classes],
        probabilities,
        truth,
        np.arange(count, dtype=np.int64),
    )


def drawn_scores(seed: int, count: int, classes: int, *, every_class: bool = False) -> Scores:
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=count)
    if every_class:
        truth[:classes] = np.arange(classes)
    raw = random.gamma(0.7, size=(count, classes)) + 1e-6
    raw[np.arange(count), truth] += random.random(count)
    return scores_of(raw / raw.sum(axis=1, keepdims=True), np.eye(classes, dtype=bool)[truth])


@st.composite
def weighted_binaries(draw: st.DrawFn) -> tuple[Binary, NDArray[np.float64]]:
    """With ties (few distinct scores), and weights of which some are 0, but both kinds present."""
    count = draw(st.integers(2, 40))
    levels = draw(st.sampled_from([2, 5, 1000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    probability = random.integers(levels, size=count) / levels
    positive = random.random(count) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    positive[:2] = True, False
    weights = random.integers(0, 4, size=count).astype(np.float64) * draw(st.sampled_from([1.0, 0.3]))
    weights[:2] = 1.0
    return binary_of(probability, positive), weights


scored_sets = st.builds(
    drawn_scores, st.integers(0, 2**32), st.integers(9, 60), st.integers(2, 9), every_class=st.just(True)
)


@settings(deadline=None, max_examples=100)
@given(weighted_binaries())
def test_auc_and_average_precision_agree_with_scikit_learn_with_ties_and_weights(
    drawn: tuple[Binary, NDArray[np.float64]],
) -> None:
    b, w = drawn
    assert metrics.roc_auc(b, w) == pytest.approx(
        reference.roc_auc_score(b.positive, b.probability, sample_weight=w), abs=1e-12
    )
    assert metrics.average_precision(b, w) == pytest.approx(
        reference.average_precision_score(b.positive, b.probability, sample_weight=w), abs=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(weighted_binaries())
def test_curves_agree_with_scikit_learn(drawn: tuple[Binary, NDArray[np.float64]]) -> None:
    b, w = drawn[0], drawn[1] + 1.0  # scikit-learn leaves thresholds of weightless pictures out
    for ours, theirs in zip(
        metrics.roc_curve(b),
        reference.roc_curve(b.positive, b.probability, drop_intermediate=False),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    precision, recall, thresholds = metrics.precision_recall_curve(b, w)
    their_precision, their_recall, their_thresholds = reference.precision_recall_curve(
        b.positive, b.probability, sample_weight=w
    )
    # Theirs rises in threshold and ends in an extra point. A precision of 0 alerts is NaN in ours.
    np.testing.assert_allclose(recall[::-1], their_recall[:-1], atol=1e-12)
    np.testing.assert_allclose(thresholds[::-1], their_thresholds)
    known = ~np.isnan(precision[::-1])
    np.testing.assert_allclose(precision[::-1][known], their_precision[:-1][known], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(weighted_binaries(), st.sampled_from([0.0, 0.2, 0.5, 0.8]))
def test_outcomes_at_a_threshold_agree_with_scikit_learn(
    drawn: tuple[Binary, NDArray[np.float64]], threshold: float
) -> None:
    b, w = drawn
    called = b.probability >= threshold
    counts = metrics.at_threshold(b, threshold, w)
    theirs: dict[str, Any] = {"y_true": b.positive, "y_pred": called, "sample_weight": w, "zero_division": np.nan}
    pairs = [
        (counts.sensitivity, reference.recall_score(**theirs)),
        (counts.specificity, reference.recall_score(**theirs, pos_label=False)),
        (counts.precision, reference.precision_score(**theirs)),
        (counts.npv, reference.precision_score(**theirs, pos_label=False)),
        (counts.f1, reference.f1_score(**theirs)),
    ]
    for ours, expected in pairs:
        assert ours == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(weighted_binaries(), st.sampled_from([0.5, 0.9, 1.0]))
def test_sensitivity_at_a_specificity_is_the_best_over_every_threshold(
    drawn: tuple[Binary, NDArray[np.float64]], specificity: float
) -> None:
    b, w = drawn
    reachable = [metrics.at_threshold(b, float(t), w) for t in [*b.probability, np.inf]]
    best = max(float(c.sensitivity) for c in reachable if c.specificity >= specificity - 1e-9)
    assert metrics.sensitivity_at_specificity(b, specificity, w) == pytest.approx(best)


@settings(deadline=None, max_examples=40)
@given(scored_sets, st.integers(0, 2**32))
def test_class_figures_agree_with_scikit_learn_under_weights(scores: Scores, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(1, 4, size=len(scores))
    truth, called = scores.truth.argmax(axis=1), scores.probabilities.argmax(axis=1)
    labels = list(range(len(scores.classes)))
    confusion = metrics.weighted_confusion(scores, weights)
    np.testing.assert_allclose(
        confusion, reference.confusion_matrix(truth, called, labels=labels, sample_weight=weights)
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(scores), reference.confusion_matrix(truth, called, labels=labels)
    )
    assert metrics.confusion_matrix(scores).dtype == np.int64
    assert metrics.accuracy(scores, weights) == pytest.approx(
        reference.accuracy_score(truth, called, sample_weight=weights)
    )
    assert metrics.balanced_accuracy(scores, weights) == pytest.approx(
        reference.balanced_accuracy_score(truth, called, sample_weight=weights)
    )
    assert metrics.log_loss(scores, weights) == pytest.approx(
        reference.log_loss(truth, scores.probabilities, labels=labels, sample_weight=weights)
    )
    precision, sensitivity, f1, _ = reference.precision_recall_fscore_support(
        truth, called, labels=labels, sample_weight=weights, zero_division=np.nan
    )
    counts = metrics.class_counts(confusion)
    np.testing.assert_allclose(counts.precision, precision)
    np.testing.assert_allclose(counts.sensitivity, sensitivity)
    np.testing.assert_allclose(counts.f1, f1)
    aucs = [
        reference.roc_auc_score(truth == k, scores.probabilities[:, k], sample_weight=weights)
        if 0 < (truth == k).sum() < len(truth)
        else np.nan
        for k in labels
    ]
    np.testing.assert_allclose(metrics.class_auc(scores, weights), aucs)
    assert metrics.macro_auc(scores, weights) == pytest.approx(np.nanmean(aucs))
    assert metrics.brier(scores, weights) == pytest.approx(
        reference.brier_score_loss(
            np.eye(len(labels))[truth], scores.probabilities, sample_weight=weights, scale_by_half=False
        )
        if len(labels) > 2
        else 2 * reference.brier_score_loss(truth, scores.probabilities[:, 1], sample_weight=weights)
    )


@settings(deadline=None, max_examples=30)
@given(scored_sets, st.integers(0, 2**32))
def test_a_weight_of_two_is_the_picture_twice_in_every_figure(scores: Scores, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(0, 3, size=(3, len(scores)))
    figures = [
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.macro_auc,
        metrics.log_loss,
        metrics.brier,
        metrics.expected_calibration_error,
        metrics.class_auc,
        metrics.weighted_confusion,
    ]
    for figure in figures:
        together = figure(scores, weights)
        for row, of_row in zip(weights, together, strict=True):
            copies = np.repeat(np.arange(len(scores)), row)
            repeated = scores_of(scores.probabilities[copies], scores.truth[copies])
            np.testing.assert_allclose(of_row, figure(repeated, None), atol=1e-12)


@pytest.mark.filterwarnings("ignore::Warning:isic_challenge_scoring")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_figures_agree_with_the_isic_challenges_own_scorer(seed: int) -> None:
    drawn = drawn_scores(seed, 400, 9, every_class=True)
    scores = scores_of(0.4 * drawn.truth + 0.6 * drawn.probabilities, drawn.truth)  # sure enough to call each class
    theirs = _isic_score(scores)
    assert metrics.balanced_accuracy(scores) == pytest.approx(theirs.overall)
    assert metrics.macro_auc(scores) == pytest.approx(theirs.macro_average["auc"])
    np.testing.assert_allclose(metrics.class_auc(scores), theirs.per_category["auc"])
    for k, name in enumerate(scores.classes):
        row = theirs.per_category.loc[name]
        one = binary_of(scores.probabilities[:, k], scores.truth[:, k])
        counts = metrics.at_threshold(one, 0.5)  # their threshold is > 0.5; no drawn probability is 0.5
        assert metrics.average_precision(one) == pytest.approx(row["ap"])
        assert counts.sensitivity == pytest.approx(row["sensitivity"])
        assert counts.specificity == pytest.approx(row["specificity"])
        assert counts.precision == pytest.approx(row["ppv"])
        assert counts.npv == pytest.approx(row["npv"])
        assert counts.f1 == pytest.approx(row["dice"])


@pytest.mark.filterwarnings("ignore::Warning:isic_challenge_scoring")
def test_what_the_isic_scorer_gives_for_free_is_nan_here() -> None:
    scores = drawn_scores(5, 60, 3)
    timid = scores_of(1 / 3 + np.tile([0.01, 0.0, -0.01], (60, 1)), scores.truth)
    assert _isic_score(timid).per_category.loc[NAMES[0], "ppv"] == 1.0
    assert np.isnan(metrics.at_threshold(binary_of(timid.probabilities[:, 0], timid.truth[:, 0]), 0.5).precision)


def _isic_score(scores: Scores) -> ClassificationScore:
    # From tables, not CSV: its CSV parser calls DataFrame.applymap, which pandas 3 no longer has.
    names, columns = list(scores.image_ids), list(scores.classes)
    return ClassificationScore(
        pd.DataFrame(scores.truth.astype(np.float64), index=names, columns=columns),
        pd.DataFrame(scores.probabilities, index=names, columns=columns),
        pd.DataFrame({"score_weight": 1.0, "validation_weight": 1.0}, index=names),
        ClassificationMetric.BALANCED_ACCURACY,
    )


def test_no_figure_is_made_up_where_one_kind_is_missing() -> None:
    only_negatives, only_positives = binary_of([0.2, 0.7], [0, 0]), binary_of([0.2, 0.7], [1, 1])
    for one_kind in (only_negatives, only_positives):
        assert np.isnan(metrics.roc_auc(one_kind))
        assert np.isnan(metrics.sensitivity_at_specificity(one_kind))
    assert np.isnan(metrics.average_precision(only_negatives))
    assert metrics.average_precision(only_positives) == 1.0
    assert np.isnan(metrics.at_threshold(only_negatives, 0.5).sensitivity)
    assert np.isnan(metrics.at_threshold(only_positives, 0.5).specificity)
    assert np.isnan(metrics.at_threshold(only_positives, 0.9).precision)
    assert np.isnan(metrics.at_threshold(only_positives, 0.1).npv)
    assert np.isnan(metrics.at_threshold(only_negatives, 0.9).f1)


def test_no_pictures_give_nan_everywhere() -> None:
    none = scores_of(np.zeros((0, 9)), np.zeros((0, 9), dtype=bool))
    for figure in (
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.macro_auc,
        metrics.log_loss,
        metrics.brier,
        metrics.expected_calibration_error,
    ):
        assert np.isnan(figure(none))
    assert np.isnan(metrics.class_auc(none)).all()
    assert metrics.confusion_matrix(none).sum() == 0
    assert np.isnan(metrics.average_precision(none.melanoma()))


def test_a_model_that_gives_every_picture_the_same_score_has_an_auc_of_one_half() -> None:
    same = binary_of(np.full(10, 0.3), np.arange(10) < 4)
    assert metrics.roc_auc(same) == 0.5
    assert metrics.average_precision(same) == pytest.approx(0.4)
    assert metrics.sensitivity_at_specificity(same) == 0.0


def test_a_class_that_is_absent_does_not_count_in_balanced_accuracy() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 1]]
    scores = scores_of(np.eye(3)[[0, 2, 1]], truth)
    assert metrics.balanced_accuracy(scores) == pytest.approx((0.5 + 1.0) / 2)
    assert np.isnan(metrics.class_counts(metrics.weighted_confusion(scores)).sensitivity[2])


def test_a_coarse_label_is_right_within_and_enters_no_confusion() -> None:
    truth = np.array([[True, True, False], [True, True, False], [False, False, True]])
    scores = scores_of(np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.0, 0.0, 1.0]]), truth)
    assert metrics.accuracy(scores) == pytest.approx(2 / 3)
    assert metrics.confusion_matrix(scores).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert metrics.log_loss(scores) == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 3)
    assert metrics.brier(scores) == 0.0


def test_calibration_error_is_the_gap_between_promise_and_outcome() -> None:
    promised = np.array([0.9] * 10 + [0.1] * 10)
    kept = np.array([True] * 9 + [False] + [True] + [False] * 9)
    assert metrics.calibration_error(promised, kept) == pytest.approx(0.0)
    assert metrics.calibration_error(promised, ~kept) == pytest.approx(0.8)
    assert metrics.calibration_error(np.array([0.0, 1.0]), np.array([True, False])) == 1.0


def test_a_certain_and_wrong_model_has_a_finite_log_loss() -> None:
    scores = scores_of(np.array([[1.0, 0.0]]), np.array([[False, True]]))
    assert metrics.log_loss(scores) == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_broken_probabilities_and_weights_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        metrics.roc_auc(binary_of([np.nan, 0.2], [1, 0]))
    good = binary_of([0.1, 0.2], [1, 0])
    for bad in (np.ones(3), np.array([1.0, -1.0]), np.array([1.0, np.nan])):
        with pytest.raises(DataError):
            metrics.roc_auc(good, bad)
