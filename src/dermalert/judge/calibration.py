"""Calibration: making a probability of 0.8 come true eight times in ten.

Comes in: validation logits and the truth, on pictures that the model was not trained on.
Goes out: a `Temperature`, which turns logits into probabilities, and reliability bins to draw.
It changes no ranking within a picture's classes and repairs no model: only its confidence.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.metrics import BINS, bin_of

LOWEST, HIGHEST = 0.2, 20.0
GRID = 41  # temperatures tried before the fine search


class TemperatureAtBound(UserWarning):
    """The validation pictures do not determine a temperature."""


@dataclass(frozen=True)
class Temperature:
    """Divides logits before the softmax (Guo et al., "On calibration of modern neural networks", ICML 2017).

    Attributes:
        value: over 1 makes the model less sure, under 1 surer; 1 leaves it as it is.
    """

    value: float

    @property
    def at_bound(self) -> bool:
        """Whether the search ended at a limit, so that the data ask for a more extreme value than we give."""
        return math.isclose(self.value, LOWEST, rel_tol=1e-3) or math.isclose(self.value, HIGHEST, rel_tol=1e-3)

    @classmethod
    def fit(cls, logits: NDArray[Any], truth: NDArray[np.bool_]) -> Temperature:
        """The temperature with the lowest negative log-likelihood, sought in [0.2, 20].

        A coarse label's likelihood is the probability of all its classes together; that can have more than
        one valley, so a grid of temperatures finds the right one before the fine search.

        On pictures that the model separates without a mistake the likelihood rises as the temperature falls
        to 0, which would turn every probability into 0 or 1. The search stops at 0.2 then, and warns; so it
        does at 20, when the logits say nothing about the truth.

        Args:
            logits: float (N, C), before the softmax.
            truth: bool (N, C), the classes that each label may stand for.

        Raises:
            DataError: no pictures, shapes that differ, a logit that is not finite, or a row without truth.

        Warns:
            TemperatureAtBound: the data ask for a temperature beyond the limits.
        """
        # Here and not above: scoring applies temperatures and must not wait for scipy to load.
        from scipy.optimize import minimize_scalar

        checked = _checked(logits)
        if truth.shape != checked.shape or not len(checked) or not truth.any(axis=1).all():
            raise DataError(
                f"A temperature needs labelled pictures: logits {checked.shape}, truth {truth.shape}, "
                f"{int(truth.any(axis=-1).sum())} rows with a label."
            )
        grid = np.linspace(math.log(LOWEST), math.log(HIGHEST), GRID)
        best = int(np.argmin([_loss(at, checked, truth) for at in grid]))
        bounds = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
        found = minimize_scalar(_loss, bounds=bounds, args=(checked, truth), method="bounded", options={"xatol": 1e-5})
        fitted = cls(float(np.clip(math.exp(found.x), LOWEST, HIGHEST)))
        if fitted.at_bound:
            warnings.warn(_why_at_bound(fitted.value), TemperatureAtBound, stacklevel=2)
        return fitted

    def apply(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities, float64 (N, C), rows summing to 1.

        Raises:
            DataError: the temperature is not positive, or a logit is not finite.
        """
        if not 0 < self.value < math.inf:
            raise DataError(f"A temperature is a positive number; got {self.value}.")
        scaled = _checked(logits) / self.value
        return np.exp(scaled - _log_sum(scaled))


@dataclass(frozen=True)
class ReliabilityBin:
    """One part of a reliability diagram.

    Attributes:
        low, high: the probabilities it holds, low <= probability < high (the last holds 1 too).
        count: pictures in it.
        promised: their mean probability.
        happened: the share of them for which it came true.
    """

    low: float
    high: float
    count: int
    promised: float
    happened: float


def reliability_bins(
    probability: NDArray[np.float64], happened: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The bins, of equal width, that hold at least one picture.

    Args:
        probability: float64 (N,) in [0, 1].
        happened: bool (N,).
    """
    member = bin_of(probability, bins)
    filled = [(i, member == i) for i in np.unique(member).tolist()]
    return tuple(
        ReliabilityBin(i / bins, (i + 1) / bins, int(m.sum()), float(probability[m].mean()), float(happened[m].mean()))
        for i, m in filled
    )


def _loss(log_temperature: float, logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    scaled = logits / math.exp(log_temperature)
    return float((_log_sum(scaled) - _log_sum(np.where(truth, scaled, -np.inf))).mean())


def _log_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln of each row's sum of exponentials, float64 (N, 1), without overflow."""
    highest = values.max(axis=1, keepdims=True, initial=-np.inf)
    log_sum: NDArray[np.float64] = highest + np.log(np.exp(values - highest).sum(axis=1, keepdims=True))
    return log_sum


def _checked(logits: NDArray[Any]) -> NDArray[np.float64]:
    checked = np.asarray(logits, dtype=np.float64)
    if checked.ndim != 2 or not np.isfinite(checked).all():
        raise DataError(f"Logits must be finite numbers of shape (N, C); got shape {checked.shape}.")
    return checked


def _why_at_bound(value: float) -> str:
    if value < 1:
        reason = (
            "the model makes no (or hardly a) mistake on the validation pictures, too few to show how unsure it is, or "
            "its outputs hardly differ"
        )
    else:
        reason = "the model's outputs say next to nothing about the validation pictures' diagnoses"
    return f"The temperature stopped at its limit of {value:.3g}: {reason}. Do not trust its probabilities."
