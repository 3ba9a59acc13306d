"""Comparison: is one model better than another, or was it luck?

Comes in: `Scores` of several models on the same pictures, one of them the baseline.
Goes out: for each figure a `Difference`, model minus baseline, with its paired interval and a verdict in words.
It trains nothing and picks no winner. It sees one training of each model: how far another seed would have moved
a figure is a `Spread` over repeated trainings, not an interval over lesions.

Paired: both models are judged in the same draws of lesions, so that what makes a set easy or hard falls out of
the difference. Two intervals that overlap may belong to models that can well be told apart.

Many comparisons: of twenty differences that are nothing but chance, one 95 % interval excludes 0. So each verdict
also says whether it stands when all comparisons made together are allowed for: the largest standardised departure
of any of them in a draw sets one bar for all (the single-step maximum of Westfall and Young, Resampling-Based
Multiple Testing, 1993, section 2.6). Unlike Bonferroni's or Holm's it makes use of the models' resemblance, and
unlike them it needs no p-values smaller than a thousand draws can show.

Measured on drawn scores: nine models no better than the baseline, five figures, 200 studies each of 90, 180 and 450
pictures. Some interval left 0 out in 81, 83 and 81 % of the studies; something stood in 7, 6 and 5 %. By figure, an
interval called 95 % left 0 out in 7 to 8 % of the comparisons for the AUC, 6 to 7 % for the accuracies, and 9 to 11 %
for the calibration error, which resampling inflates: read a single verdict on that one with more doubt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.evaluation import check
from dermalert.judge.intervals import Interval, bootstrap_draws, interval_of
from dermalert.judge.metrics import Ranking
from dermalert.judge.scores import Scores

FIGURES = ("melanoma_auc", "melanoma_sensitivity_at_90_specificity", "balanced_accuracy", "accuracy", "ece")
LOWER_IS_BETTER = frozenset({"ece"})

BETTER = "better"
WORSE = "worse"
ALIKE = "cannot be told apart"
UNKNOWN = "cannot be computed"

ROUNDING = 1e-12  # differences nearer to 0 are sums taken in another order


@dataclass(frozen=True)
class Difference:
    """One figure of a model minus that of the baseline, on the same pictures.

    Attributes:
        value, baseline: the figure of either.
        interval: of `value - baseline`, in the same draws of lesions.
        verdict: `better` or `worse` where the interval excludes 0 (for the calibration error lower is better), else
            `cannot be told apart`; `cannot be computed` where there is no difference.
        stands: whether a better or worse remains so when all comparisons made with it are allowed for at once.
    """

    value: float
    baseline: float
    interval: Interval
    verdict: str
    stands: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values: the interval's, then `verdict` and `stands`."""
        return self.interval.to_json() | {"verdict": self.verdict, "stands": self.stands}


@dataclass(frozen=True)
class Spread:
    """A figure over repeated trainings with other seeds.

    Attributes:
        mean: of the repeats; NaN where one of them could not give the figure.
        deviation: sample standard deviation; NaN with fewer than two repeats.
        n: repeats.
        why: where something is NaN, the reason in one sentence.
    """

    mean: float
    deviation: float
    n: int
    why: str | None = None

    def to_json(self) -> dict[str, float | int | str | None]:
        """`mean`, `deviation` (null for NaN), `n`, and `why` where something is null."""
        plain: dict[str, float | int | str | None] = {
            "mean": None if math.isnan(self.mean) else self.mean,
            "deviation": None if math.isnan(self.deviation) else self.deviation,
            "n": self.n,
        }
        return plain | ({"why": self.why} if self.why else {})


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of a figure's repeats."""
    if not values:
        return Spread(math.nan, math.nan, 0, "There is no repeat.")
    unknown = sum(math.isnan(value) for value in values)
    if unknown:
        return Spread(math.nan, math.nan, len(values), f"{unknown} of {len(values)} repeats could not give it.")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Spread(mean, math.nan, 1, "One training shows no spread.")
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Spread(mean, math.sqrt(squares / (len(values) - 1)), len(values))


def unlike(model: Scores, baseline: Scores) -> str | None:
    """Why two models' scores cannot be paired, in one sentence; None where they can."""
    if model.classes != baseline.classes:
        return "The two models do not name the same diagnoses."
    if model.image_ids != baseline.image_ids:
        if sorted(model.image_ids) == sorted(baseline.image_ids):
            return "The pictures are the same, but in another order."
        return "The two models were not judged on the same pictures."
    if not np.array_equal(model.truth, baseline.truth):
        return "The pictures are the same, but their labels differ."
    if not np.array_equal(model.groups, baseline.groups):
        return "The pictures are the same, but they are grouped into other lesions."
    return None


def compare(
    model: Scores, baseline: Scores, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """The difference of each of `FIGURES` between two models on the same pictures.

    Raises:
        DataError: ids, their order, labels or groups differ; no pictures; a probability that is none.
    """
    return compare_all({"The model": model}, baseline, resamples=resamples, level=level, seed=seed)["The model"]


def compare_all(
    models: Mapping[str, Scores], baseline: Scores, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, dict[str, Difference]]:
    """As `compare`, for several models against one baseline; all verdicts together are the comparisons made.

    Returns:
        By model, then by figure.

    Raises:
        DataError: as `compare`, or fewer than two resamples.
    """
    for name, scores in {"The baseline": baseline, **models}.items():
        check(scores)
        if why := unlike(scores, baseline):
            raise DataError(f"{name} cannot be compared with the baseline. {why}")
    if resamples < 2 or not 0 < level < 1:
        raise DataError(f"An interval needs 2 resamples or more and a level in (0, 1); got {resamples}, {level}.")
    if not models:
        return {}
    theirs, ours = _Figures(baseline), [_Figures(scores) for scores in models.values()]

    def differences(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        base = theirs(weights)
        return np.concatenate([figures(weights) - base for figures in ours], axis=-1)

    once = np.ones(len(baseline))
    values = differences(once)
    draws = bootstrap_draws(differences, baseline.groups, resamples=resamples, seed=seed)
    told = _told(values, draws, lesions=len(np.unique(baseline.groups)), level=level)
    levels = np.stack([figures(once) for figures in ours]), np.tile(theirs(once), (len(ours), 1))
    found = [
        Difference(float(value), float(base), *verdict)
        for value, base, verdict in zip(levels[0].ravel(), levels[1].ravel(), told, strict=True)
    ]
    rows = [found[start : start + len(FIGURES)] for start in range(0, len(found), len(FIGURES))]
    return {name: dict(zip(FIGURES, row, strict=True)) for name, row in zip(models, rows, strict=True)}


class _Figures:
    """`FIGURES` of one model as a function of the weights; what does not depend on them is done once."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._ranking = Ranking(scores.melanoma())
        # A copy whose groups are the row numbers: its melanoma question tells which rows it kept.
        self._rows = replace(scores, groups=np.arange(len(scores), dtype=np.int64)).melanoma().groups

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 (..., N) -> float64 (..., 5)."""
        swept = self._ranking.sweep(weights[..., self._rows])
        figures = [
            swept.auc(),
            swept.sensitivity_at_specificity(0.90),
            metrics.balanced_accuracy(self._scores, weights),
            metrics.accuracy(self._scores, weights),
            metrics.expected_calibration_error(self._scores, weights),
        ]
        return np.stack(figures, axis=-1)


def _told(
    values: NDArray[np.float64], draws: NDArray[np.float64], *, lesions: int, level: float
) -> list[tuple[Interval, str, bool]]:
    """Interval, verdict and whether it stands, of each of M differences; `values` (M,), `draws` (R, M)."""
    beyond = _beyond_all(values, draws, level)
    told = []
    for k, value in enumerate(values.tolist()):
        interval = interval_of(value, draws[:, k], level=level)
        side = _side(interval, draws[:, k], chance=len(values) * 2.0 ** (1 - lesions))
        lower = FIGURES[k % len(FIGURES)] in LOWER_IS_BETTER
        verdict = ALIKE if not side else (BETTER if (side > 0) != lower else WORSE)
        told.append((interval, UNKNOWN if math.isnan(value) else verdict, bool(side) and bool(beyond[k])))
    return told


def _side(interval: Interval, draws: NDArray[np.float64], *, chance: float) -> int:
    """1 where the difference is above 0, -1 where it is below, 0 where that cannot be told.

    Args:
        chance: that all lesions speak for the same one of two equal models, in any of the comparisons (a sign test).
            Where every draw gives the same difference there is no interval, and this decides.
    """
    low, high = interval.low, interval.high
    if np.ptp(draws) <= ROUNDING and chance <= 1 - interval.level:
        low = high = interval.value
    return int(low > ROUNDING) - int(high < -ROUNDING)


def _beyond_all(values: NDArray[np.float64], draws: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Which differences are further from 0 than chance moves any of them, bool (M,)."""
    known = ~np.isnan(draws)
    number = np.maximum(known.sum(axis=0), 1)
    # From the draws' own mean: a figure that every draw inflates, as the calibration error, must not raise all bars.
    strayed = np.where(known, draws - np.where(known, draws, 0.0).sum(axis=0) / number, 0.0)
    deviation = np.sqrt((strayed**2).sum(axis=0) / number)
    scale = np.where(deviation > ROUNDING, deviation, np.inf)
    bar = np.quantile((np.abs(strayed) / scale).max(axis=1), level)
    beyond: NDArray[np.bool_] = np.abs(values) > bar * np.where(deviation > ROUNDING, deviation, 0.0) + ROUNDING
    return beyond
