"""Metrics: the figures of the field, on weighted pictures.

Comes in: `Scores` or a `Binary`, and optionally weights, integer or float (..., N), one a picture.
Goes out: each figure as float64 (...): a plain number for weights (N,), R numbers for weights (R, N).
It gives no intervals (see `intervals`), chooses no threshold (see `operating`) and prints nothing.

A figure that cannot be computed is NaN, never 0 or 1: sensitivity without positives, specificity without
negatives, precision where nothing was called positive, NPV where everything was, F1 where there is neither
a positive nor an alert, AUC without both kinds, average precision without positives, and any mean over
no pictures. A mean over classes leaves out the classes that cannot be computed.

Coarse labels, those that stand for several classes, count in `accuracy` (right when the predicted class is
one of them) and `log_loss` (the probability of all of them together). Confusion, per-class figures, Brier
score and calibration error look at exact labels only. Ties for the most probable class go to the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.scores import Binary, Scores

Floats = NDArray[np.float64]
Weights = NDArray[Any] | None

BINS = 15
SLACK = 1e-9  # for comparing sums of weights that differ only by rounding


@dataclass(frozen=True)
class Counts:
    """Weighted counts of one threshold's outcomes, each float64 (...)."""

    true_positive: Floats
    false_positive: Floats
    true_negative: Floats
    false_negative: Floats

    @property
    def sensitivity(self) -> Floats:
        """Share of the positives that are called positive; also called recall."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Floats:
        """Share of the negatives that are called negative."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> Floats:
        """Share of the alerts that are right; also called positive predictive value."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def npv(self) -> Floats:
        """Share of the non-alerts that are right: the negative predictive value."""
        return _ratio(self.true_negative, self.true_negative + self.false_negative)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and sensitivity; also called Dice."""
        twice = 2 * self.true_positive
        return _ratio(twice, twice + self.false_positive + self.false_negative)


@dataclass(frozen=True)
class Sweep:
    """Outcomes at every threshold, from alerting nobody to alerting everybody.

    Attributes:
        thresholds: float64 (D + 1,), falling; the first is infinite. Alert when probability >= threshold.
        true_positive, false_positive: float64 (..., D + 1), weighted counts, rising from 0.
    """

    thresholds: Floats
    true_positive: Floats
    false_positive: Floats

    @property
    def sensitivity(self) -> Floats:
        return _ratio(self.true_positive, self.true_positive[..., -1:])

    @property
    def one_minus_specificity(self) -> Floats:
        return _ratio(self.false_positive, self.false_positive[..., -1:])

    @property
    def precision(self) -> Floats:
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    def at(self, thresholds: float | Floats) -> Counts:
        """The outcomes at these thresholds, each float64 (..., *shape of `thresholds`)."""
        # How many distinct probabilities reach each threshold; the infinite one in front makes the last of them.
        reached = len(self.thresholds) - 1 - np.searchsorted(self.thresholds[:0:-1], thresholds)
        found, alarms = self.true_positive[..., reached], self.false_positive[..., reached]
        positives, negatives = self.true_positive[..., -1], self.false_positive[..., -1]
        if np.ndim(thresholds):
            positives, negatives = positives[..., None], negatives[..., None]
        return Counts(found, alarms, negatives - alarms, positives - found)

    def auc(self) -> Floats:
        """Area under the ROC curve by trapezoids: ties count half."""
        width, height = np.diff(self.false_positive), self.true_positive[..., 1:] + self.true_positive[..., :-1]
        area = np.einsum("...d,...d->...", width, height) / 2
        return _ratio(area, self.true_positive[..., -1] * self.false_positive[..., -1])

    def average_precision(self) -> Floats:
        """Mean precision over the positives, without interpolation."""
        found, alerts = self.true_positive[..., 1:], self.true_positive[..., 1:] + self.false_positive[..., 1:]
        # Where nobody is alerted yet nobody is newly found either, so that term is 0 whatever its precision.
        precision = np.divide(found, alerts, out=np.zeros_like(found), where=alerts > 0)
        total = np.einsum("...d,...d->...", np.diff(self.true_positive), precision)
        return _ratio(total, self.true_positive[..., -1])

    def sensitivity_at_specificity(self, specificity: float) -> Floats:
        """Highest sensitivity of a threshold with at least this specificity; no interpolation."""
        negatives = self.false_positive[..., -1]
        allowed = self.false_positive <= ((1 - specificity) * negatives + SLACK * (1 + negatives))[..., None]
        found = np.where(allowed, self.true_positive, 0.0).max(axis=-1)
        return np.where(negatives > 0, _ratio(found, self.true_positive[..., -1]), np.nan)[()]


def sweep(binary: Binary, weights: Weights = None) -> Sweep:
    """Outcomes at every distinct probability, by one sort and cumulative sums.

    Raises:
        DataError: a probability is NaN, or the weights do not fit.
    """
    return Ranking(binary).sweep(weights)


class Ranking:
    """The pictures of a `Binary`, sorted once, to be swept under many weights."""

    def __init__(self, binary: Binary) -> None:
        if np.isnan(binary.probability).any():
            raise DataError("A probability is NaN: the model's output is broken and cannot be judged.")
        self._order = np.argsort(-binary.probability, kind="stable")
        falling = binary.probability[self._order]
        self._positive = binary.positive[self._order].astype(np.float64)
        self._ends = np.append(np.flatnonzero(np.diff(falling)), [len(falling) - 1] if len(falling) else [])
        self._ends = self._ends.astype(np.intp)
        self._thresholds = np.append(np.inf, falling[self._ends])

    def sweep(self, weights: Weights = None) -> Sweep:
        """Outcomes at every distinct probability under these weights."""
        sorted_weights = weights_of(weights, len(self._order))[..., self._order]
        found = np.cumsum(sorted_weights * self._positive, axis=-1)
        alerted = np.cumsum(sorted_weights, axis=-1, out=sorted_weights)
        if len(self._ends) < len(self._order):
            found, alerted = found[..., self._ends], alerted[..., self._ends]
        start = np.zeros((*found.shape[:-1], 1))
        return Sweep(
            self._thresholds,
            np.concatenate([start, found], axis=-1),
            np.concatenate([start, alerted - found], axis=-1),
        )


def roc_auc(binary: Binary, weights: Weights = None) -> Floats:
    """Area under the ROC curve: the chance that a positive ranks above a negative."""
    return sweep(binary, weights).auc()


def average_precision(binary: Binary, weights: Weights = None) -> Floats:
    """Area under the precision-recall curve, as scikit-learn defines it."""
    return sweep(binary, weights).average_precision()


def sensitivity_at_specificity(binary: Binary, specificity: float = 0.90, weights: Weights = None) -> Floats:
    """Highest sensitivity of a threshold with at least this specificity."""
    return sweep(binary, weights).sensitivity_at_specificity(specificity)


def roc_curve(binary: Binary, weights: Weights = None) -> tuple[Floats, Floats, Floats]:
    """1 - specificity (..., D + 1), sensitivity (..., D + 1) and thresholds (D + 1,), from nobody alerted on."""
    swept = sweep(binary, weights)
    return swept.one_minus_specificity, swept.sensitivity, swept.thresholds


def precision_recall_curve(binary: Binary, weights: Weights = None) -> tuple[Floats, Floats, Floats]:
    """Precision (..., D), sensitivity (..., D) and thresholds (D,), from the highest probability down."""
    swept = sweep(binary, weights)
    return swept.precision[..., 1:], swept.sensitivity[..., 1:], swept.thresholds[1:]


def at_threshold(binary: Binary, threshold: float, weights: Weights = None) -> Counts:
    """The outcomes when probability >= `threshold` means alert."""
    return _counts(binary.probability >= threshold, binary.positive, weights)


def accuracy(scores: Scores, weights: Weights = None) -> Floats:
    """Share of the pictures whose most probable class is one that their label stands for."""
    right = scores.truth[np.arange(len(scores)), predicted(scores)] if len(scores) else np.zeros(0)
    return _mean(right.astype(np.float64), weights)


def predicted(scores: Scores) -> NDArray[np.intp]:
    """The most probable class of each picture, (N,)."""
    most_probable: NDArray[np.intp] = scores.probabilities.argmax(axis=1)
    return most_probable


def confusion_matrix(scores: Scores) -> NDArray[np.int64]:
    """Pictures with an exact label: int64 (C, C), rows the truth, columns the prediction."""
    return np.rint(weighted_confusion(scores)).astype(np.int64)


def weighted_confusion(scores: Scores, weights: Weights = None) -> Floats:
    """Sums of weights, float64 (..., C, C), rows the truth, columns the prediction; exact labels only."""
    classes, exact = len(scores.classes), _exact(scores)
    cell = scores.truth[exact].argmax(axis=1) * classes + predicted(scores)[exact]
    sums = _sums_by(cell, classes * classes, weights_of(weights, len(scores))[..., exact])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def class_counts(confusion: Floats) -> Counts:
    """One class against the rest, each float64 (..., C), from a confusion matrix (..., C, C)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    truly, called = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = truly.sum(axis=-1, keepdims=True)
    return Counts(right, called - right, total - truly - called + right, truly - right)


def balanced_accuracy(scores: Scores, weights: Weights = None) -> Floats:
    """Mean sensitivity over the classes present: the ISIC 2018 and 2019 challenges' measure."""
    return nan_mean(class_counts(weighted_confusion(scores, weights)).sensitivity)


def class_auc(scores: Scores, weights: Weights = None) -> Floats:
    """Each class's AUC against the rest, float64 (..., C); exact labels only."""
    exact = _exact(scores)
    kept = weights_of(weights, len(scores))[..., exact]
    columns = zip(scores.probabilities[exact].T, scores.truth[exact].T, strict=True)
    return np.stack([roc_auc(Binary(p, t, scores.groups[exact]), kept) for p, t in columns], axis=-1)


def macro_auc(scores: Scores, weights: Weights = None) -> Floats:
    """Mean of `class_auc` over the classes that have one."""
    return nan_mean(class_auc(scores, weights))


def log_loss(scores: Scores, weights: Weights = None) -> Floats:
    """Mean of -ln(probability of what the label stands for), probabilities clipped to float64's epsilon."""
    return _mean(log_losses(scores), weights)


def log_losses(scores: Scores) -> Floats:
    """Each picture's log loss, float64 (N,)."""
    probability = (scores.probabilities * scores.truth).sum(axis=1)
    losses: Floats = -np.log(np.clip(probability, np.finfo(np.float64).eps, 1.0))
    return losses


def brier(scores: Scores, weights: Weights = None) -> Floats:
    """Mean over pictures of the squared error summed over classes, in [0, 2] (Brier 1950); exact labels only."""
    exact = _exact(scores)
    squared = ((scores.probabilities - scores.truth) ** 2).sum(axis=1)[exact]
    return _mean(squared, weights_of(weights, len(scores))[..., exact])


def expected_calibration_error(scores: Scores, weights: Weights = None, *, bins: int = BINS) -> Floats:
    """`calibration_error` of the most probable class's probability; exact labels only."""
    exact = _exact(scores)
    confidence = scores.probabilities[exact].max(axis=1, initial=0.0)
    right = scores.truth[exact, :][np.arange(int(exact.sum())), predicted(scores)[exact]]
    return calibration_error(confidence, right, weights_of(weights, len(scores))[..., exact], bins=bins)


def calibration_error(
    probability: Floats, happened: NDArray[np.bool_], weights: Weights = None, *, bins: int = BINS
) -> Floats:
    """Mean distance between what was promised and what happened, over bins of the promise.

    Bins are of equal width, 15 of them, as Guo et al., "On calibration of modern neural networks" (ICML
    2017) have it, so that figures compare with published ones, and so that a resample does not move them.
    The estimate leans upwards, the more so the fewer the pictures.

    Args:
        probability: float64 (N,) in [0, 1].
        happened: bool (N,).
    """
    total = weights_of(weights, len(probability))
    gaps = _sums_by(bin_of(probability, bins), bins, total * (probability - happened))
    return _ratio(np.abs(gaps).sum(axis=-1), total.sum(axis=-1))


def bin_of(probability: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Which of `bins` equal parts of [0, 1] each probability falls in; 1 falls in the last."""
    bin_number: NDArray[np.intp] = np.clip((probability * bins).astype(np.intp), 0, bins - 1)
    return bin_number


def weights_of(weights: Weights, pictures: int) -> Floats:
    """The weights as float64 (..., N); ones where none are given.

    Raises:
        DataError: not one weight a picture, or a negative or NaN weight.
    """
    if weights is None:
        return np.ones(pictures)
    checked = np.asarray(weights, dtype=np.float64)
    if checked.ndim == 0 or checked.shape[-1] != pictures:
        raise DataError(f"Weights of shape {checked.shape} do not fit {pictures} pictures.")
    if checked.size and not checked.min() >= 0:
        raise DataError("A weight is negative or NaN.")
    return checked


def nan_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def _exact(scores: Scores) -> NDArray[np.bool_]:
    exact: NDArray[np.bool_] = scores.truth.sum(axis=1) == 1
    return exact


def _counts(called: NDArray[np.bool_], positive: NDArray[np.bool_], weights: Weights) -> Counts:
    outcomes = np.stack([called & positive, called & ~positive, ~called & ~positive, ~called & positive], axis=1)
    sums = weights_of(weights, len(positive)) @ outcomes.astype(np.float64)
    return Counts(sums[..., 0], sums[..., 1], sums[..., 2], sums[..., 3])


def _sums_by(cell: NDArray[np.intp], cells: int, amounts: Floats) -> Floats:
    """Amounts (..., N) summed by each picture's cell: float64 (..., cells)."""
    rows = amounts.reshape(math.prod(amounts.shape[:-1]), len(cell))
    shifted = cell + cells * np.arange(len(rows))[:, None]
    sums: Floats = np.bincount(shifted.ravel(), rows.ravel(), minlength=cells * len(rows)).astype(np.float64)
    return sums.reshape(*amounts.shape[:-1], cells)


def _mean(values: Floats, weights: Weights) -> Floats:
    checked = weights_of(weights, len(values))
    return _ratio(checked @ values, checked.sum(axis=-1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    result: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)[()]  # no 0-d array
    return result
