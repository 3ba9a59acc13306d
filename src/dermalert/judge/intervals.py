"""Intervals: how far a figure could have come out otherwise, had other lesions been photographed.

Comes in: a figure as a function of picture weights, and the lesion (group) of each picture.
Goes out: an `Interval`. It does not know what the figure means, nor does it judge whether it is good.

Two photographs of one lesion are not two observations, so the bootstrap draws whole groups with
replacement (Rutter, "Bootstrap estimation of diagnostic accuracy with patient-clustered data", Acad Radiol
7:413-419, 2000). A draw is a weight for each picture, how often its group was drawn: nothing is copied,
and a figure can treat many draws at once. Draws are not stratified by diagnosis: how many melanomas come
through the door is part of the chance.

The interval is the bias-corrected percentile interval (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, section 14.3, with the acceleration left at zero). Like the plain percentile interval it
stays inside the figure's own range, and it covers the truth more often: 400 simulated sets of 100 lesions
with a true AUC of 0.96 were covered by 87 % of the intervals called 95 %, plain percentiles 83 %, and 74 % when
pictures were drawn instead of lesions; with 300 lesions 94, 93 and 82 %. The acceleration would cost one
evaluation more for every lesion. A figure that nearly every resample inflates, as a small calibration error
is, may still come out below the interval; the interval is then widened to hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

BLOCK_VALUES = 1 << 16  # picture weights per block of resamples: half a megabyte, so that a block stays in cache
MOST_LOST = 0.10  # share of resamples that may fail to give the figure before we give no interval
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval.

    Attributes:
        value: the figure; NaN where it cannot be computed.
        low, high: the interval's ends; NaN where none can be given.
        level: the share of samples whose interval covers the truth.
        why: where something is NaN, the reason in one sentence.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    why: str | None = None

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not computable"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.2f} (no interval)"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    def to_json(self) -> dict[str, float | str | None]:
        """`value`, `low`, `high` (null for NaN), `level`, and `why` where something is null."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        plain: dict[str, float | str | None] = {key: None if math.isnan(end) else end for key, end in ends.items()}
        return plain | {"level": self.level} | ({"why": self.why} if self.why else {})

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Interval:
        """The interval that `to_json` wrote."""
        value, low, high = (math.nan if plain[key] is None else float(plain[key]) for key in ("value", "low", "high"))
        return cls(value, low, high, float(plain["level"]), plain.get("why"))


def group_bootstrap(
    statistic: Statistic, groups: NDArray[np.int64], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of one figure over resampled groups.

    Args:
        statistic: takes weights float64 (..., N) and gives the figure for each, float64 (...), NaN where it
            cannot be computed. All figures in `metrics` do.
        groups: int64 (N,); pictures of one group are drawn together.
        resamples: how many draws; the interval's ends move by about a tenth of its width at 1,000.
        level: of confidence, in (0, 1).
        seed: the same seed, groups and figure give the same interval.

    Raises:
        DataError: `resamples` or `level` out of range.
    """

    def as_column(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(statistic(weights), dtype=np.float64)[..., None]

    return group_bootstrap_many(as_column, groups, resamples=resamples, level=level, seed=seed)[0]


def group_bootstrap_many(
    statistic: Statistic,
    groups: NDArray[np.int64],
    *,
    lesions: Sequence[int] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """As `group_bootstrap`, for K figures over the same draws.

    Args:
        statistic: float64 (..., N) -> float64 (..., K).
        lesions: for each figure that is a proportion, the number of groups in its denominator, else 0.
            A proportion of exactly 0 or 1 does not vary between draws, which would make it look certain;
            it gets the Wilson interval over its groups instead.
    """
    if resamples < 2 or not 0 < level < 1:
        raise DataError(f"An interval needs 2 resamples or more and a level in (0, 1); got {resamples}, {level}.")
    values = np.asarray(statistic(np.ones(len(groups))), dtype=np.float64)
    if not len(groups):
        return [Interval(float(value), math.nan, math.nan, level, "There are no pictures.") for value in values]
    draws = bootstrap_draws(statistic, groups, resamples=resamples, seed=seed)
    counts = lesions or [0] * len(values)
    return [interval_of(float(values[k]), draws[:, k], counts[k], level=level) for k in range(len(values))]


def bootstrap_draws(
    statistic: Statistic, groups: NDArray[np.int64], *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """What `statistic`, float64 (..., N) -> (..., K), gives in each draw: float64 (R, K). Needs a picture at least."""
    return np.concatenate([statistic(block) for block in draw_weights(groups, resamples, seed)])


def paired_difference(
    first: Statistic,
    second: Statistic,
    groups: NDArray[np.int64],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of `first - second`, both computed on the same draws of the same pictures.

    Two models judged on one test set share its luck; their difference is surer than either figure alone.
    """
    return group_bootstrap(lambda w: first(w) - second(w), groups, resamples=resamples, level=level, seed=seed)


def draw_weights(groups: NDArray[np.int64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Blocks of picture weights, float64 (B, N): how often each picture's group was drawn."""
    names, member = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    block = max(1, BLOCK_VALUES // len(groups))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(len(names), size=(rows, len(names))) + len(names) * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * len(names)).reshape(rows, -1)
        yield counts.astype(np.float64)[:, member]


def wilson(successes: float, trials: float, *, level: float = 0.95) -> Interval:
    """The interval of a proportion of independent trials (Wilson, J Am Stat Assoc 22:209-212, 1927)."""
    if trials <= 0:
        return Interval(math.nan, math.nan, math.nan, level, "There are no trials.")
    z2, share = NORMAL.inv_cdf(0.5 + level / 2) ** 2, successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # At 0 and 1 the formula gives the end exactly; rounding must not push the value out of its interval.
    return Interval(share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach)), level)


def interval_of(value: float, draws: NDArray[np.float64], lesions: int = 0, *, level: float = 0.95) -> Interval:
    """The interval of one figure from its draws, float64 (R,), of which some may be NaN.

    Args:
        lesions: as in `group_bootstrap_many`.
    """
    if math.isnan(value):
        return Interval(value, math.nan, math.nan, level, "The figure cannot be computed on these pictures.")
    known = draws[~np.isnan(draws)]
    if len(known) < (1 - MOST_LOST) * len(draws):
        why = f"{len(draws) - len(known)} of {len(draws)} resamples could not give it: too few lesions of a kind."
        return Interval(value, math.nan, math.nan, level, why)
    if np.ptp(known) <= 1e-12:
        if lesions and value in (0.0, 1.0):
            return wilson(value * lesions, lesions, level=level)
        return Interval(value, math.nan, math.nan, level, "Every resample gave the same value.")
    return Interval(value, *_bias_corrected_ends(value, known, level), level)


def _bias_corrected_ends(value: float, draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    below = (np.mean(draws < value - 1e-12) + np.mean(draws <= value + 1e-12)) / 2  # ties count half
    edge = 0.5 / len(draws)
    bias = NORMAL.inv_cdf(min(max(float(below), edge), 1 - edge))
    reach = NORMAL.inv_cdf(0.5 + level / 2)
    low, high = np.quantile(draws, [NORMAL.cdf(2 * bias - reach), NORMAL.cdf(2 * bias + reach)])
    return min(float(low), value), max(float(high), value)
