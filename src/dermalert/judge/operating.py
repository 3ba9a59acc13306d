"""Operating points: the melanoma probability from which a picture raises an alert.

Comes in: calibrated probabilities and the truth on validation pictures, as a `Binary`.
Goes out: `OperatingPoint`s, thresholds and what they bought there. Three have names:

- `screening`, the default: the highest threshold that finds at least 95 % of the pictures of melanomas.
- `balanced`: the largest sum of sensitivity and specificity (Youden, "Index for rating diagnostic tests", 1950).
- `specific`: the lowest threshold that raises no alert on at least 95 % of the pictures of other lesions.

It does not judge a test set: `evaluation` does, at the threshold chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError, NotEnoughNegatives, NotEnoughPositives
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.metrics import Counts, at_threshold
from dermalert.judge.scores import Binary

PREVALENCES = (0.01, 0.02, 0.05, 0.10)  # of melanoma among the lesions looked at: no clinic is like another
# Two engines that run the same network in float32 differ in a probability's sixth digit. Scores nearer than
# this (relative) to each other count as one score, so that no threshold falls between them.
ROUNDING = 1e-5
SENSITIVITY, SPECIFICITY = 0.95, 0.95  # that `screening` and `specific` are chosen for


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the calibrated melanoma probability, and what it bought on validation.

    Attributes:
        name: what it is called in reports.
        threshold: alert when probability >= threshold.
        sensitivity, specificity: fractions in [0, 1] achieved on validation, with 95 % lesion-bootstrap
            intervals at this fixed threshold. Being chosen there, they are a little better than on new
            pictures.
        positives, negatives: validation pictures that it was chosen on.
        target: the sensitivity asked for; None where another rule chose the threshold.
    """

    name: str
    threshold: float
    sensitivity: Interval
    specificity: Interval
    positives: int
    negatives: int
    target: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the attributes, intervals as `Interval.to_json` has them."""
        return {
            "name": self.name,
            "threshold": self.threshold,
            "target": self.target,
            "sensitivity": self.sensitivity.to_json(),
            "specificity": self.specificity.to_json(),
            "positives": self.positives,
            "negatives": self.negatives,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> OperatingPoint:
        """The operating point that `to_json` wrote.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                name=str(plain["name"]),
                threshold=float(plain["threshold"]),
                sensitivity=Interval.from_json(plain["sensitivity"]),
                specificity=Interval.from_json(plain["specificity"]),
                positives=int(plain["positives"]),
                negatives=int(plain["negatives"]),
                target=None if plain["target"] is None else float(plain["target"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Not an operating point: {type(error).__name__} {error}.") from None


def operating_points(
    binary: Binary, *, sensitivity: float = SENSITIVITY, specificity: float = SPECIFICITY, seed: int = 0
) -> tuple[tuple[OperatingPoint, ...], tuple[str, ...]]:
    """`screening`, `balanced` and `specific`, as far as the pictures can show them, and why any is missing.

    Without `screening`, which is the default of every bundle, there is none.

    Raises:
        DataError: as `at_sensitivity`.
    """
    try:
        screening = at_sensitivity(sensitivity, binary, name="screening", seed=seed)
    except NotEnoughPositives as error:
        return (), (f"No alert threshold was chosen. {error}",)
    try:
        balanced = at_balance(binary, name="balanced", seed=seed)
        return (screening, balanced, at_specificity(specificity, binary, name="specific", seed=seed)), ()
    except NotEnoughNegatives as error:
        return (screening,), (f"Only one alert threshold was chosen. {error}",)


def at_sensitivity(target: float, binary: Binary, *, name: str, seed: int = 0) -> OperatingPoint:
    """The highest threshold that still finds at least `target` of the melanomas.

    Ties go to the lower threshold: a missed melanoma costs more than a false alarm. The threshold lies
    halfway between the lowest score that must raise an alert and the next lower one (or 0), so that
    rounding in another engine does not turn a found melanoma into a missed one.

    Args:
        target: sensitivity asked for, in (0, 1).
        binary: melanoma against the rest, on validation pictures.

    Raises:
        NotEnoughPositives: fewer melanomas than 1 / (1 - target), several photographs of one counted once;
            no threshold can show the target.
        DataError: the target is not in (0, 1), or a probability is NaN.
    """
    _check(target, binary)
    lesions, needed = _lesions(binary, binary.positive), _needed(target)
    if lesions < needed:
        raise NotEnoughPositives(
            f"{lesions} melanomas in the validation pictures; a sensitivity of {target:.0%} cannot be shown on fewer "
            f"than {needed}. Add labelled melanomas, or put a larger share of the pictures into validation."
        )
    cuts = _Cuts.of(binary)
    return _point(binary, cuts.thresholds[cuts.found >= target - 1e-9][-1], name, seed, target)


def at_balance(binary: Binary, *, name: str, seed: int = 0) -> OperatingPoint:
    """The threshold with the largest sum of sensitivity and specificity; the lowest of several.

    Raises:
        NotEnoughPositives, NotEnoughNegatives: there is no melanoma, or nothing else.
        DataError: a probability is NaN.
    """
    _check(0.5, binary)
    if not binary.positive.any():
        raise NotEnoughPositives("No melanoma in the validation pictures. Add labelled melanomas.")
    if binary.positive.all():
        raise NotEnoughNegatives("Nothing but melanomas in the validation pictures. Add other labelled lesions.")
    cuts = _Cuts.of(binary)
    return _point(binary, cuts.thresholds[int(np.argmax(cuts.found + cuts.left))], name, seed, None)


def at_specificity(target: float, binary: Binary, *, name: str, seed: int = 0) -> OperatingPoint:
    """The lowest threshold that raises no alert on at least `target` of the lesions other than melanoma.

    It lies halfway between two scores, as that of `at_sensitivity`; ties go to the higher threshold here.

    Args:
        target: specificity asked for, in (0, 1).

    Raises:
        NotEnoughNegatives: fewer such lesions than 1 / (1 - target), or so many of them with a probability of 1 that
            no threshold leaves them out.
        DataError: the target is not in (0, 1), or a probability is NaN.
    """
    _check(target, binary)
    lesions, needed = _lesions(binary, ~binary.positive), _needed(target)
    cuts = _Cuts.of(binary)
    reached = cuts.thresholds[cuts.left >= target - 1e-9]
    if lesions < needed or not len(reached):
        raise NotEnoughNegatives(
            f"{lesions} lesions other than melanomas in the validation pictures; they cannot show a specificity of "
            f"{target:.0%}, which takes {needed} with probabilities under 1. Add labelled lesions."
        )
    return _point(binary, reached[0], name, seed, None)


def elsewhere(point: OperatingPoint, binary: Binary, *, seed: int = 0) -> OperatingPoint:
    """The same threshold, and what it does on pictures that it was not chosen on."""
    return _point(binary, point.threshold, point.name, seed, point.target)


def predictive_values(point: OperatingPoint, prevalence: float) -> tuple[Interval, Interval]:
    """Positive and negative predictive value where a share `prevalence` of the lesions are melanomas, by Bayes' rule.

    The intervals' ends are those of sensitivity and specificity together, as if both were off in the same direction:
    wider than their level asks for.

    Raises:
        DataError: the prevalence is not in (0, 1).
    """
    if not 0 < prevalence < 1:
        raise DataError(f"A prevalence lies between 0 and 1, as 0.02 for 2 in 100; got {prevalence}.")
    ends = ("value", "low", "high")
    rates = [(getattr(point.sensitivity, end), getattr(point.specificity, end)) for end in ends]
    called = [(prevalence * rate, (1 - prevalence) * (1 - other)) for rate, other in rates]
    left = [((1 - prevalence) * other, prevalence * (1 - rate)) for rate, other in rates]
    return _right_of(called, point, "Nobody is alerted on."), _right_of(left, point, "Everybody is alerted on.")


def _right_of(parts: Sequence[tuple[float, float]], point: OperatingPoint, why: str) -> Interval:
    """The share of the right among right and wrong: the value and the ends."""
    value, low, high = (right / (right + wrong) if right + wrong else math.nan for right, wrong in parts)
    reason = point.sensitivity.why or point.specificity.why or (why if math.isnan(value + low + high) else None)
    return Interval(value, low, high, point.sensitivity.level, reason)


def achieved(
    binary: Binary, threshold: float, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[Interval, Interval, Interval, Interval]:
    """Sensitivity, specificity, positive and negative predictive value at a threshold, with intervals."""

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return stacked(at_threshold(binary, threshold, weights))

    sensitivity, specificity, ppv, npv = group_bootstrap_many(
        figures,
        binary.groups,
        lesions=lesions_behind(binary, threshold),
        resamples=resamples,
        level=level,
        seed=seed,
    )
    return sensitivity, specificity, ppv, npv


def stacked(counts: Counts) -> NDArray[np.float64]:
    """Sensitivity, specificity, PPV and NPV, float64 (..., 4)."""
    return np.stack([counts.sensitivity, counts.specificity, counts.precision, counts.npv], axis=-1)


def lesions_behind(binary: Binary, threshold: float) -> list[int]:
    """How many lesions stand in the denominator of sensitivity, specificity, PPV and NPV."""
    called = binary.probability >= threshold
    return [len(np.unique(binary.groups[part])) for part in (binary.positive, ~binary.positive, called, ~called)]


def _check(target: float, binary: Binary) -> None:
    if not 0 < target < 1:
        raise DataError(f"A target lies between 0 and 1; got {target}.")
    if np.isnan(binary.probability).any():
        raise DataError("A probability is NaN: the model's output is broken.")


def _lesions(binary: Binary, part: NDArray[np.bool_]) -> int:
    return len(np.unique(binary.groups[part]))


def _needed(target: float) -> int:
    """How many it takes for one of them to be missed at the target."""
    return math.ceil(1 / (1 - target) - 1e-9)


def _point(binary: Binary, threshold: float, name: str, seed: int, target: float | None) -> OperatingPoint:
    sensitivity, specificity = achieved(binary, float(threshold), seed=seed)[:2]
    positives = int(binary.positive.sum())
    negatives = len(binary.positive) - positives
    return OperatingPoint(name, float(threshold), sensitivity, specificity, positives, negatives, target)


@dataclass(frozen=True)
class _Cuts:
    """Every threshold that tells pictures apart, ascending.

    Attributes:
        thresholds: float64 (K,), halfway between scores that no rounding makes one, in [0, 1).
        found, left: float64 (K,), the share of melanomas at or above each, and of the others below it.
    """

    thresholds: NDArray[np.float64]
    found: NDArray[np.float64]
    left: NDArray[np.float64]

    @classmethod
    def of(cls, binary: Binary) -> _Cuts:
        scores = np.unique(binary.probability)
        above = np.append(scores[1:], 1.0)
        apart = above - scores > ROUNDING * above
        thresholds = np.append(scores[:1] / 2, ((scores + above) / 2)[apart])
        melanomas, others = (np.sort(binary.probability[part]) for part in (binary.positive, ~binary.positive))
        below = [np.searchsorted(part, thresholds) / max(len(part), 1) for part in (melanomas, others)]
        return cls(thresholds, 1 - below[0], below[1])
