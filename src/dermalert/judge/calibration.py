"""Calibration: making a probability of 0.8 come true eight times in ten.

Comes in: validation logits and the truth, on pictures that the model was not trained on.
Goes out: a `Calibration`, which turns logits into probabilities, and reliability bins to draw.
It repairs no model: only its confidence.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.metrics import BINS, bin_of
from dermalert.taxonomy import MELANOMA

LOWEST, HIGHEST = 0.2, 20.0
GRID = 41  # temperatures tried before the fine search
FARTHEST = 10.0  # a bias from 0: makes a class 22,000 times as likely


class TemperatureAtBound(UserWarning):
    """The validation pictures do not determine a temperature."""


@dataclass(frozen=True)
class Calibration:
    """Divides logits by a temperature and adds a bias a class, before the softmax.

    Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar, "Maximum likelihood with bias-corrected
    calibration is hard-to-beat at label shift adaptation", ICML 2020). With a bias of 0 it is temperature scaling
    (Guo et al., "On calibration of modern neural networks", ICML 2017).

    Attributes:
        temperature: over 1 makes the model less sure, under 1 surer; 1 leaves it as it is.
        bias: (C,), added to the divided logits.
    """

    temperature: float
    bias: tuple[float, ...]

    @property
    def at_bound(self) -> bool:
        """Whether the search ended at a limit, so that the data ask for a more extreme temperature than we give."""
        return any(math.isclose(self.temperature, limit, rel_tol=1e-3) for limit in (LOWEST, HIGHEST))

    @classmethod
    def none(cls, classes: int) -> Calibration:
        """The softmax of the logits as they are."""
        return cls(1.0, (0.0,) * classes)

    @classmethod
    def fit(cls, logits: NDArray[Any], truth: NDArray[np.bool_], *, bias: bool) -> Calibration:
        """The calibration with the lowest negative log-likelihood, its temperature sought in [0.2, 20].

        A coarse label's likelihood is the probability of all its classes together; that can have more than
        one valley, so a grid of temperatures finds the right one before the fine search. Biases, within
        [-10, 10], are sought from there on; their mean is 0.

        On pictures that the model separates without a mistake the likelihood rises as the temperature falls
        to 0, which would turn every probability into 0 or 1. The search stops at 0.2 then, and warns; so it
        does at 20, when the logits say nothing about the truth.

        Args:
            logits: float (N, C), before the softmax.
            truth: bool (N, C), the classes that each label may stand for.
            bias: whether to fit one a class; it takes several hundred pictures to be worth it.

        Raises:
            DataError: no pictures, shapes that differ, a logit that is not finite, a row without truth; or, with
                `bias`, a class that no label may stand for.

        Warns:
            TemperatureAtBound: the data ask for a temperature beyond the limits.
        """
        checked = _checked(logits)
        if truth.shape != checked.shape or not len(checked) or not truth.any(axis=1).all():
            raise DataError(
                f"Calibration needs labelled pictures: logits {checked.shape}, truth {truth.shape}, "
                f"{int(truth.any(axis=-1).sum())} rows with a label."
            )
        if bias and not truth.any(axis=0).all():
            raise DataError("A bias for each class needs a picture of each class. Calibrate with a temperature alone.")
        log_temperature, added = _temperature(checked, truth), np.zeros(checked.shape[1])
        if bias:
            log_temperature, added = _temperature_and_bias(checked, truth, log_temperature)
        temperature = float(np.clip(math.exp(log_temperature), LOWEST, HIGHEST))
        fitted = cls(temperature, tuple(added.tolist()))
        if fitted.at_bound:
            warnings.warn(_why_at_bound(temperature), TemperatureAtBound, stacklevel=2)
        return fitted

    def apply(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities, float64 (N, C), rows summing to 1.

        Raises:
            DataError: the temperature is not positive, a logit is not finite, or there is not one bias a class.
        """
        if not 0 < self.temperature < math.inf:
            raise DataError(f"A temperature is a positive number; got {self.temperature}.")
        checked = _checked(logits)
        if len(self.bias) != checked.shape[1]:
            raise DataError(f"{len(self.bias)} biases for {checked.shape[1]} classes: not the model's calibration.")
        scaled = checked / self.temperature + np.array(self.bias)
        probabilities: NDArray[np.float64] = np.exp(scaled - _log_sum(scaled))
        return probabilities


def carried_over(calibration: Calibration, logits: NDArray[Any], others: NDArray[Any]) -> Calibration:
    """The calibration of other networks for one that is to stand for them, fitted without a label.

    Its logits are stretched and moved, by least squares, to what the others say of the same pictures: a network that is
    made of several, as a mean of their weights, has another range than each of them.

    Args:
        calibration: fitted on logits of the others, of pictures that they had not seen.
        logits: float (N, C), of the one.
        others: float (N, C), the mean of the others' logits, of the same pictures.

    Raises:
        DataError: the arrays do not fit, or the two have nothing to do with each other.
    """
    mine, theirs = _checked(logits), _checked(others)
    if mine.shape != theirs.shape or not len(mine):
        raise DataError(f"Logits {mine.shape} and {theirs.shape} are not of the same pictures and classes.")
    mine, theirs = (each - each.mean(axis=1, keepdims=True) for each in (mine, theirs))  # a softmax sees no more
    apart, wanted = (each - each.mean(axis=0) for each in (mine, theirs))
    stretch = float((apart * wanted).sum() / (apart**2).sum())
    if not stretch > 0:
        raise DataError(f"Logits that fall where the others' rise (slope {stretch:.2g}): it cannot stand for them.")
    moved = theirs.mean(axis=0) - stretch * mine.mean(axis=0)
    bias = np.array(calibration.bias) + moved / calibration.temperature
    return Calibration(calibration.temperature / stretch, tuple(bias.tolist()))


def class_shares(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of each class among labelled pictures, float64 (C,); a coarse label is shared out as the model would.

    Args:
        probabilities: float64 (N, C).
        truth: bool (N, C), the classes that each label may stand for.
    """
    tiny = np.finfo(np.float64).tiny  # so that a label to which the model gives nothing is shared evenly
    meant = np.where(truth, probabilities + tiny, 0)
    shares: NDArray[np.float64] = (meant / meant.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def at_prevalence(
    probabilities: NDArray[np.float64], classes: Sequence[str], *, melanoma: float, reference: Mapping[str, float]
) -> NDArray[np.float64]:
    """What the probabilities would be where another share of the pictures shows a melanoma, by Bayes' rule.

    The odds of melanoma are multiplied by the ratio of the prior odds; the other classes keep their proportions to
    each other (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14(1), 2002). It holds where melanomas, and the others, look there as they did
    where the model was calibrated. The order of pictures by their melanoma probability stays.

    Args:
        probabilities: float64 (N, C), calibrated.
        melanoma: its prevalence there, in (0, 1).
        reference: each class's share of the pictures that calibration was fitted on.

    Returns:
        float64 (N, C), rows summing to 1.

    Raises:
        DataError: the prevalence is not in (0, 1), or melanoma is no class or made up none or all of the reference.
    """
    if not 0 < melanoma < 1:
        raise DataError(f"A prevalence of melanoma lies between 0 and 1, as 0.02 for 2 in 100; got {melanoma}.")
    before = reference.get(MELANOMA, 0.0)
    if MELANOMA not in classes or not 0 < before < 1:
        raise DataError(
            "Probabilities cannot be adjusted to a prevalence: the model was not calibrated on melanomas and others."
        )
    ratio = np.where(np.array(classes) == MELANOMA, melanoma / before, (1 - melanoma) / (1 - before))
    weighed = probabilities * ratio
    adjusted: NDArray[np.float64] = weighed / weighed.sum(axis=1, keepdims=True)
    return adjusted


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


def _temperature(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The logarithm of the best temperature alone."""
    # Here and not above: scoring applies calibrations and must not wait for scipy to load.
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return _loss(logits / math.exp(log_temperature), truth)

    grid = np.linspace(math.log(LOWEST), math.log(HIGHEST), GRID)
    best = int(np.argmin([loss(at) for at in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x)


def _temperature_and_bias(
    logits: NDArray[np.float64], truth: NDArray[np.bool_], log_temperature: float
) -> tuple[float, NDArray[np.float64]]:
    """The logarithm of the best temperature, and the best biases with it, float64 (C,)."""
    from scipy.optimize import minimize

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        divided = logits / math.exp(at[0])
        scaled = divided + at[1:]
        meant = np.where(truth, scaled, -np.inf)
        slope = (np.exp(scaled - _log_sum(scaled)) - np.exp(meant - _log_sum(meant))) / len(scaled)
        return _loss(scaled, truth), np.concatenate([[-(slope * divided).sum()], slope.sum(axis=0)])

    start = np.concatenate([[log_temperature], np.zeros(logits.shape[1])])
    limits = [(math.log(LOWEST), math.log(HIGHEST)), *[(-FARTHEST, FARTHEST)] * logits.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-12, "gtol": 1e-8}).x
    return float(found[0]), found[1:] - found[1:].mean()


def _loss(scaled: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
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
