"""Decision curves: whether acting on the model does more good than referring everybody, or nobody.

Comes in: the melanoma probabilities that would be acted upon and the truth, as a `Binary`, and a prevalence.
Goes out: a `DecisionCurve`, the net benefit at every threshold probability. It does not say which threshold is right:
that is how many referrals a clinic would make to find one melanoma.

The method is that of Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models",
Med Decis Making 26:565-574 (2006). Who refers from a probability of t on holds that a needless referral costs
t / (1 - t) of what a found melanoma is worth. The net benefit counts both, in melanomas found for each patient:

    prevalence * sensitivity - (1 - prevalence) * (1 - specificity) * t / (1 - t)

With the prevalence of a clinic in place of the data's, sensitivity and specificity stay and the mix of patients
changes. It is held fixed, so that the intervals tell how far sensitivity and specificity could have come out otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.metrics import Ranking
from dermalert.judge.scores import Binary

POINTS = 100
RARE = 0.05  # a prevalence to which thresholds above 20 % are of no use; otherwise they go to 50 %


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold probability, in melanomas for each patient.

    Attributes:
        prevalence: share of the patients with a melanoma.
        thresholds: float64 (T,), rising.
        model: (T,), of referring whom the model gives at least the threshold, with lesion-bootstrap intervals.
        refer_all: float64 (T,), of referring everybody. Referring nobody has a net benefit of 0.
    """

    prevalence: float
    thresholds: NDArray[np.float64]
    model: tuple[Interval, ...]
    refer_all: NDArray[np.float64]

    @property
    def useful(self) -> tuple[float, float] | None:
        """The longest run of thresholds at which the model beats both, as its ends; None where it never does.

        It beats them where even the low end of its interval does: where it says "refer" to hardly anybody, a net
        benefit of nearly 0 would win or lose by chance.
        """
        low = np.array([interval.low for interval in self.model])
        better = np.concatenate([[False], low > np.maximum(self.refer_all, 0) + 1e-12, [False]])
        starts, ends = np.flatnonzero(np.diff(better.astype(np.int8)) == 1), np.flatnonzero(np.diff(better * 1) == -1)
        if not len(starts):
            return None
        longest = int(np.argmax(ends - starts))
        return float(self.thresholds[starts[longest]]), float(self.thresholds[ends[longest] - 1])

    def spared(self, place: int) -> float:
        """Needless referrals saved for each patient at `thresholds[place]`, against referring everybody."""
        return float((self.model[place].value - self.refer_all[place]) / _price(self.thresholds[place]))

    def to_json(self) -> dict[str, Any]:
        """Lists by threshold, null where unknown, and the ends of `useful`."""
        return {
            "prevalence": self.prevalence,
            "threshold": self.thresholds.tolist(),
            "model": [interval.to_json() for interval in self.model],
            "refer_all": self.refer_all.tolist(),
            "refer_none": 0.0,
            "useful": self.useful,
        }


def decision_curve(
    binary: Binary, *, prevalence: float, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> DecisionCurve:
    """The net benefit at 100 thresholds up to 50 %, or 20 % where melanoma is rare.

    Args:
        binary: melanoma against the rest, its probabilities as they would be acted upon: at a clinic's prevalence,
            those adjusted to it (`calibration.at_prevalence`).
        prevalence: share of the patients with a melanoma, in (0, 1).

    Raises:
        DataError: the prevalence is out of range, or a probability is NaN.
    """
    if not 0 < prevalence < 1:
        raise DataError(f"A prevalence lies between 0 and 1; got {prevalence}.")
    highest = 0.2 if prevalence <= RARE else 0.5
    thresholds = np.arange(1, POINTS + 1) * highest / POINTS
    price, ranking = _price(thresholds), Ranking(binary)

    def benefit(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = ranking.sweep(weights).at(thresholds)
        gained: NDArray[np.float64] = (
            prevalence * counts.sensitivity - (1 - prevalence) * (1 - counts.specificity) * price
        )
        return gained

    model = group_bootstrap_many(benefit, binary.groups, resamples=resamples, level=level, seed=seed)
    return DecisionCurve(prevalence, thresholds, tuple(model), prevalence - (1 - prevalence) * price)


def prevalence_of(binary: Binary) -> float:
    """The share of positives among the pictures; NaN where there are none."""
    return float(binary.positive.mean()) if len(binary.positive) else math.nan


def _price(threshold: Any) -> Any:
    """What a needless referral costs, in melanomas found."""
    return threshold / (1 - threshold)
