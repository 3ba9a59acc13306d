"""Operating points: the melanoma probability from which a picture raises an alert.

Comes in: calibrated probabilities and the truth on validation pictures, as a `Binary`.
Goes out: an `OperatingPoint`, a threshold and what it bought there.
It does not judge a test set: `evaluation` does, at the threshold chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError, NotEnoughPositives
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.metrics import Counts, at_threshold
from dermalert.judge.scores import Binary

# Two engines that run the same network in float32 differ in a probability's sixth digit. Scores nearer than
# this (relative) to each other count as one score, so that no threshold falls between them.
ROUNDING = 1e-5


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
    if not 0 < target < 1:
        raise DataError(f"A target sensitivity lies between 0 and 1; got {target}.")
    if np.isnan(binary.probability).any():
        raise DataError("A probability is NaN: the model's output is broken.")
    lesions = len(np.unique(binary.groups[binary.positive]))
    needed = math.ceil(1 / (1 - target) - 1e-9)
    if lesions < needed:
        raise NotEnoughPositives(
            f"{lesions} melanomas in the validation pictures; a sensitivity of {target:.0%} cannot be shown on fewer "
            f"than {needed}. Add labelled melanomas, or put a larger share of the pictures into validation."
        )
    threshold = _threshold(target, binary)
    sensitivity, specificity = achieved(binary, threshold, seed=seed)[:2]
    positives = int(binary.positive.sum())
    negatives = len(binary.positive) - positives
    return OperatingPoint(name, threshold, sensitivity, specificity, positives, negatives, target)


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


def _threshold(target: float, binary: Binary) -> float:
    found = np.sort(binary.probability[binary.positive])[::-1]
    lowest = float(found[math.ceil(target * len(found) - 1e-9) - 1])
    below_it: list[float] = np.sort(binary.probability[binary.probability < lowest])[::-1].tolist()
    for below in below_it:
        if lowest - below > ROUNDING * lowest:
            return (lowest + below) / 2
        lowest = below
    return lowest / 2
