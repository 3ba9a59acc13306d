"""Evaluation: all figures of a report from one set of scores.

Comes in: `Scores` of labelled pictures, and the operating point chosen on other pictures.
Goes out: an `Evaluation`, every figure with its lesion-bootstrap interval, which `to_json` turns into
`metrics.json`. It draws nothing, chooses no threshold, and leaves what cannot be computed NaN with a reason.

`metrics.json`, format 1 (a figure is `{"value", "low", "high", "level"}`, with null and `"why"` where unknown):

    format, resamples, seed, level
    pictures, groups, exact_labels        how many pictures, lesions, and pictures with one diagnosis as label
    classes                               the order of everything that goes by class
    questions.{melanoma,malignant}        positives, negatives: pictures whose label decides the question
    figures.{accuracy, balanced_accuracy, macro_auc, log_loss, brier, ece, melanoma_ece}
    figures.{melanoma,malignant}_{auc, average_precision, sensitivity_at_90_specificity}
    operating_point                       null, or name, threshold, target, alerts, the figures sensitivity,
                                          specificity, ppv and npv on these pictures, and `chosen_on`
    per_class.<class>                     pictures, groups, and figures sensitivity, specificity, precision, f1, auc
    confusion_matrix                      pictures with exact labels; rows the truth, columns the prediction
    curves.<question>.roc                 false_positive_rate, true_positive_rate, threshold (null: alert on nobody)
    curves.<question>.precision_recall    precision, recall, threshold
    reliability.{top_class,melanoma}      a list of low, high, count, promised, happened
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.calibration import ReliabilityBin, reliability_bins
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.metrics import Ranking
from dermalert.judge.operating import OperatingPoint, lesions_behind, stacked
from dermalert.judge.scores import Binary, Scores

FORMAT_VERSION = 1
CURVE_POINTS = 200
QUESTIONS = ("melanoma", "malignant")
BINARY_FIGURES = ("auc", "average_precision", "sensitivity_at_90_specificity")
OPERATING_FIGURES = ("sensitivity", "specificity", "ppv", "npv")
CLASS_FIGURES = ("sensitivity", "specificity", "precision", "f1", "auc")

WHY_NAN = {
    "melanoma_ece": "No picture's label says whether it is a melanoma.",
    "auc": "It takes pictures of both kinds.",
    "average_precision": "There is no positive picture.",
    "sensitivity_at_90_specificity": "It takes pictures of both kinds.",
    "sensitivity": "There is no positive picture.",
    "specificity": "There is no negative picture.",
    "precision": "No picture was called positive.",
    "ppv": "No picture raised an alert.",
    "npv": "Every picture raised an alert.",
    "f1": "There is neither a positive picture nor one called positive.",
}
WHY_NAN_OTHERWISE = "There is no picture with an exact label."


@dataclass(frozen=True)
class AtOperatingPoint:
    """What the chosen threshold does on these pictures.

    Attributes:
        chosen: the operating point, with what it bought on the pictures it was chosen on.
        alerts: pictures here that it alerts on, of those whose label says melanoma or not.
        sensitivity, specificity, ppv, npv: here.
    """

    chosen: OperatingPoint
    alerts: int
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


@dataclass(frozen=True)
class ClassFigures:
    """One diagnosis against the rest, on pictures with exact labels; called positive when most probable."""

    name: str
    pictures: int
    groups: int
    sensitivity: Interval
    specificity: Interval
    precision: Interval
    f1: Interval
    auc: Interval


@dataclass(frozen=True)
class Curves:
    """Points of one question's curves, at most 200 each, every one of them achievable.

    Attributes:
        false_positive_rate, true_positive_rate, roc_threshold: float64 (D,), from nobody alerted on.
        precision, recall, precision_recall_threshold: float64 (E,), from the highest probability down.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    roc_threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision_recall_threshold: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Everything that a report says of one set of pictures; the module's docstring names the parts.

    Attributes:
        questions: for `melanoma` and `malignant`, positive and negative pictures.
        figures: the named figures over all pictures.
        confusion: int64 (C, C), rows the truth.
        reliability: bins for `top_class` (the most probable class) and `melanoma`.
    """

    pictures: int
    groups: int
    exact_labels: int
    classes: tuple[str, ...]
    questions: Mapping[str, tuple[int, int]]
    figures: Mapping[str, Interval]
    operating_point: AtOperatingPoint | None
    per_class: tuple[ClassFigures, ...]
    confusion: NDArray[np.int64]
    curves: Mapping[str, Curves]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    resamples: int
    seed: int
    level: float

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`: plain values only, no NaN and no infinity."""
        return {
            "format": FORMAT_VERSION,
            "resamples": self.resamples,
            "seed": self.seed,
            "level": self.level,
            "pictures": self.pictures,
            "groups": self.groups,
            "exact_labels": self.exact_labels,
            "classes": list(self.classes),
            "questions": {name: {"positives": yes, "negatives": no} for name, (yes, no) in self.questions.items()},
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "operating_point": _operating_json(self.operating_point),
            "per_class": {row.name: _class_json(row) for row in self.per_class},
            "confusion_matrix": self.confusion.tolist(),
            "curves": {name: _curves_json(curves) for name, curves in self.curves.items()},
            "reliability": {name: [asdict(part) for part in bins] for name, bins in self.reliability.items()},
        }


def evaluate(
    scores: Scores,
    *,
    operating_point: OperatingPoint | None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Every figure of a report, with intervals over the same resampled groups.

    Args:
        scores: of pictures that neither the training nor the choice of the operating point has seen.
        operating_point: the threshold to judge; None to judge none.

    Raises:
        DataError: no pictures, or a probability that is NaN or outside [0, 1].
    """
    check(scores)
    plan = _Plan(scores, operating_point)
    intervals = group_bootstrap_many(
        plan.compute, scores.groups, lesions=plan.lesions, resamples=resamples, level=level, seed=seed
    )
    named = {name: _explained(name, interval) for name, interval in zip(plan.names, intervals, strict=True)}
    exact, truth = scores.exact()
    right = exact.probabilities.argmax(axis=1) == truth
    return Evaluation(
        pictures=len(scores),
        groups=len(np.unique(scores.groups)),
        exact_labels=len(exact),
        classes=scores.classes,
        questions={name: _yes_and_no(binary) for name, binary in plan.binaries.items()},
        figures={name: named[name] for name in plan.names if "." not in name},
        operating_point=_at_operating_point(plan.binaries["melanoma"], operating_point, named),
        per_class=tuple(_class_figures(i, exact, named) for i in range(len(scores.classes))),
        confusion=metrics.confusion_matrix(scores),
        curves={name: _curves(binary) for name, binary in plan.binaries.items()},
        reliability={
            "top_class": reliability_bins(exact.probabilities.max(axis=1, initial=0.0), right),
            "melanoma": reliability_bins(plan.binaries["melanoma"].probability, plan.binaries["melanoma"].positive),
        },
        resamples=resamples,
        seed=seed,
        level=level,
    )


class _Plan:
    """All figures as one function of the weights, so that one set of draws serves them all.

    What does not depend on the weights (sorting, who is right, which bin) is done once, here.
    """

    def __init__(self, scores: Scores, operating_point: OperatingPoint | None) -> None:
        self._scores, self._operating_point = scores, operating_point
        # A copy whose groups are the row numbers: its binary questions tell which rows they kept.
        rows = replace(scores, groups=np.arange(len(scores), dtype=np.int64))
        self.binaries = {"melanoma": scores.melanoma(), "malignant": scores.malignant()}
        self._rows = {"melanoma": rows.melanoma().groups, "malignant": rows.malignant().groups}
        self._rankings = {name: Ranking(binary) for name, binary in self.binaries.items()}
        self._exact_rows = np.flatnonzero(scores.truth.sum(axis=1) == 1)
        exact, _ = scores.exact()
        self._class_rankings = [
            Ranking(Binary(exact.probabilities[:, i], exact.truth[:, i], exact.groups))
            for i in range(len(scores.classes))
        ]
        self.names, self.lesions = self._named(exact)

    def _named(self, exact: Scores) -> tuple[list[str], list[int]]:
        lesions = {"accuracy": len(np.unique(self._scores.groups))}
        lesions |= dict.fromkeys(("log_loss", "brier", "ece", "melanoma_ece", "balanced_accuracy", "macro_auc"), 0)
        lesions |= {f"{question}_{figure}": 0 for question in QUESTIONS for figure in BINARY_FIGURES}
        if self._operating_point:
            behind = lesions_behind(self.binaries["melanoma"], self._operating_point.threshold)
            lesions |= {f"operating.{f}": n for f, n in zip(OPERATING_FIGURES, behind, strict=True)}
        called = metrics.predicted(exact)
        for figure in CLASS_FIGURES:
            for i in range(len(exact.classes)):
                true = exact.truth[:, i]
                parts = {"sensitivity": true, "specificity": ~true, "precision": called == i}
                lesions[f"class.{i}.{figure}"] = len(np.unique(exact.groups[parts[figure]])) if figure in parts else 0
        return list(lesions), list(lesions.values())

    def compute(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every figure, in the order of `names`, float64 (..., K)."""
        scores, melanoma = self._scores, self.binaries["melanoma"]
        melanoma_weights = weights[..., self._rows["melanoma"]]
        counts = metrics.class_counts(metrics.weighted_confusion(scores, weights))
        exact_weights = weights[..., self._exact_rows]
        class_auc = np.stack([ranking.sweep(exact_weights).auc() for ranking in self._class_rankings], axis=-1)
        singles = [
            metrics.accuracy(scores, weights),
            metrics.log_loss(scores, weights),
            metrics.brier(scores, weights),
            metrics.expected_calibration_error(scores, weights),
            metrics.calibration_error(melanoma.probability, melanoma.positive, melanoma_weights),
            metrics.nan_mean(counts.sensitivity),
            metrics.nan_mean(class_auc),
        ]
        for question in QUESTIONS:
            swept = self._rankings[question].sweep(weights[..., self._rows[question]])
            singles += [swept.auc(), swept.average_precision(), swept.sensitivity_at_specificity(0.90)]
        parts = [np.stack(singles, axis=-1)]
        if self._operating_point:
            parts.append(stacked(metrics.at_threshold(melanoma, self._operating_point.threshold, melanoma_weights)))
        parts += [counts.sensitivity, counts.specificity, counts.precision, counts.f1, class_auc]
        return np.concatenate(parts, axis=-1)


def check(scores: Scores) -> None:
    """Refuses scores that cannot be judged.

    Raises:
        DataError: no pictures, or a probability that is NaN or outside [0, 1].
    """
    if not len(scores):
        raise DataError("There is no labelled picture to judge the model on.")
    broken = ~((scores.probabilities >= 0) & (scores.probabilities <= 1 + 1e-6)).all(axis=1)
    if broken.any():
        first = scores.image_ids[int(broken.argmax())]
        raise DataError(f"{int(broken.sum())} pictures (first: {first}) have a probability that is not in [0, 1].")


def _explained(name: str, interval: Interval) -> Interval:
    if not math.isnan(interval.value):
        return interval
    figure = name.rpartition(".")[2]
    if figure not in WHY_NAN:
        figure = figure.partition("_")[2]  # melanoma_auc and its like
    return replace(interval, why=WHY_NAN.get(figure, WHY_NAN_OTHERWISE))


def _yes_and_no(binary: Binary) -> tuple[int, int]:
    positives = int(binary.positive.sum())
    return positives, len(binary.positive) - positives


def _at_operating_point(
    melanoma: Binary, chosen: OperatingPoint | None, named: Mapping[str, Interval]
) -> AtOperatingPoint | None:
    if chosen is None:
        return None
    alerts = int((melanoma.probability >= chosen.threshold).sum())
    return AtOperatingPoint(chosen, alerts, **{figure: named[f"operating.{figure}"] for figure in OPERATING_FIGURES})


def _class_figures(index: int, exact: Scores, named: Mapping[str, Interval]) -> ClassFigures:
    groups = exact.groups[exact.truth[:, index]]
    figures = {figure: named[f"class.{index}.{figure}"] for figure in CLASS_FIGURES}
    return ClassFigures(exact.classes[index], len(groups), len(np.unique(groups)), **figures)


def _curves(binary: Binary) -> Curves:
    fpr, tpr, roc_thresholds = metrics.roc_curve(binary)
    precision, recall, thresholds = metrics.precision_recall_curve(binary)
    roc, pr = thinned(fpr, tpr), thinned(recall, precision)
    return Curves(fpr[roc], tpr[roc], roc_thresholds[roc], precision[pr], recall[pr], thresholds[pr])


def thinned(x: NDArray[np.float64], y: NDArray[np.float64], points: int = CURVE_POINTS) -> NDArray[np.intp]:
    """Indices of at most `points` of a curve's points, ends kept, evenly spread along its length."""
    if len(x) <= points:
        return np.arange(len(x))
    # A NaN axis (no positives, say) has no length; the curve is then thinned along the other.
    along = np.append(0.0, np.cumsum(np.nan_to_num(np.abs(np.diff(x))) + np.nan_to_num(np.abs(np.diff(y)))))
    chosen = np.searchsorted(along, np.linspace(0.0, along[-1], points - 1))
    return np.unique(np.append(chosen, len(x) - 1)).astype(np.intp)


def _operating_json(at: AtOperatingPoint | None) -> dict[str, Any] | None:
    if at is None:
        return None
    figures: dict[str, Interval] = {name: getattr(at, name) for name in OPERATING_FIGURES}
    about = {"name": at.chosen.name, "threshold": at.chosen.threshold, "target": at.chosen.target, "alerts": at.alerts}
    return about | {name: figure.to_json() for name, figure in figures.items()} | {"chosen_on": at.chosen.to_json()}


def _class_json(row: ClassFigures) -> dict[str, Any]:
    figures: dict[str, Interval] = {name: getattr(row, name) for name in CLASS_FIGURES}
    return {"pictures": row.pictures, "groups": row.groups} | {name: f.to_json() for name, f in figures.items()}


def _curves_json(curves: Curves) -> dict[str, Any]:
    return {
        "roc": {
            "false_positive_rate": _plain(curves.false_positive_rate),
            "true_positive_rate": _plain(curves.true_positive_rate),
            "threshold": _plain(curves.roc_threshold),
        },
        "precision_recall": {
            "precision": _plain(curves.precision),
            "recall": _plain(curves.recall),
            "threshold": _plain(curves.precision_recall_threshold),
        },
    }


def _plain(values: Sequence[float] | NDArray[np.float64]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
