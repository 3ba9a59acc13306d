"""Reads a training run's curves in plain language.

Comes in: a `History`. Goes out: a `Diagnosis`: one verdict, what in the curves says so, and what to try.
It sees losses and accuracies only: a verdict here is about the fit, never about whether the model is any good
on new patients. It imports no training framework.

How: validation loss is smoothed over neighbouring epochs, so that one lucky or unlucky epoch changes nothing.
Its lowest smoothed point splits the run; what the curves do after it, and the gap between training and
validation at the end, decide. Differences smaller than the run's own jitter are not read at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalert.learn.history import History

Curve = NDArray[np.float64]

TOO_SHORT = "too short to tell"
DIVERGED = "diverged"
UNSTABLE = "unstable"
OVERFITTING = "overfitting"
UNDERFITTING = "underfitting"
IMPROVING = "still improving"
GOOD = "good fit"

_FEWEST_EPOCHS = 4
# A rise or a gap counts from this share of the validation loss on, or from twice the jitter if that is more.
_RISE = 0.08
_GAP = 0.25
# Jitter over this share of the validation loss means that the epochs say little.
_WILD = 0.2
# Improving: over the last third, validation loss fell by more than this share an epoch.
_STEEP = 0.01
# Underfitting: the training loss is still above this share of where the run began.
_HARDLY_LEARNED = 0.75


@dataclass(frozen=True)
class Diagnosis:
    """What the curves say.

    Attributes:
        verdict: one of the words of this module: `too short to tell`, `diverged`, `unstable`, `overfitting`,
            `underfitting`, `still improving`, `good fit`.
        sentences: what in the curves says so, for a reader who has never seen one.
        suggestions: what to try next, the likeliest to help first.
        best_epoch: the epoch with the lowest validation loss, from 1; None where no loss was finite.
    """

    verdict: str
    sentences: tuple[str, ...]
    suggestions: tuple[str, ...]
    best_epoch: int | None


def diagnose(history: History) -> Diagnosis:
    """The verdict on a run.

    Looks, in this order, for: numbers that are none, too few epochs, wild swings, training and validation
    parting, nothing learned, a curve that still falls; what is left is a good fit.
    """
    train, validation = np.array(history.column("train_loss")), np.array(history.column("validation_loss"))
    best = history.best.number if history.best else None
    if len(history) and not (np.isfinite(train).all() and np.isfinite(validation).all()):
        return _diverged(train, validation, best)
    if len(history) < _FEWEST_EPOCHS:
        return _too_short(history, best)
    assert best is not None  # every loss is finite here
    jitter = _jitter(validation)
    smooth = _smoothed(validation)
    low = int(smooth.argmin())
    rise, gap = float(smooth[-1] - smooth[low]), float(smooth[-1] - _smoothed(train)[-1])
    if jitter > _WILD * float(np.median(validation)):
        return _unstable(validation, jitter, best)
    train_fell = float(_smoothed(train)[low] - _smoothed(train)[-1]) > 0
    if rise > max(_RISE * smooth[low], 2 * jitter) and train_fell and low < len(smooth) - 1:
        return _overfitting_by_rise(history, best)
    learned = float(train[-1]) < _HARDLY_LEARNED * _start(history)
    slope, uncertainty = _fall_per_epoch(smooth, jitter)
    falls = slope > max(_STEEP * float(smooth[-1]), 2 * uncertainty) and low >= len(smooth) - 2
    if falls and gap <= max(_GAP * float(smooth[-1]), 2 * jitter):
        return _still_improving(history, slope, best, learned)
    if not learned and gap <= max(_GAP * float(smooth[-1]), 2 * jitter):
        return _underfitting(history, best)
    if gap > max(_GAP * float(smooth[-1]), 2 * jitter):
        return _overfitting_by_gap(history, best)
    return _good(history, best)


def _smoothed(curve: Curve) -> Curve:
    """Median of three, then mean of three: a lone outlier goes, a trend stays. Ends lean on their neighbours."""
    padded = np.pad(curve, 1, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)
    if len(curve) >= 3:  # at an end, an edge padded by itself would outvote its neighbour: extrapolate instead
        medians[0] = np.median([curve[0], medians[1], 3 * medians[1] - 2 * medians[2]])
        medians[-1] = np.median([curve[-1], medians[-2], 3 * medians[-2] - 2 * medians[-3]])
    means: Curve = np.lib.stride_tricks.sliding_window_view(np.pad(medians, 1, mode="edge"), 3).mean(axis=1)
    return means


def _jitter(curve: Curve) -> float:
    """The typical size of an epoch's departure from its neighbours: robust standard deviation of second differences.

    For independent noise of deviation s, second differences have deviation s * sqrt(6); the median absolute
    value of a normal variable is 0.6745 of its deviation.
    """
    second = np.diff(curve, 2)
    return float(np.median(np.abs(second)) / 0.6745 / np.sqrt(6))


def _fall_per_epoch(smooth: Curve, jitter: float) -> tuple[float, float]:
    """How much the last third of the curve (three epochs at least) falls an epoch, and that slope's standard error."""
    tail = smooth[-max(3, len(smooth) // 3) :]
    n = len(tail)
    return -float(np.polyfit(np.arange(n), tail, 1)[0]), jitter / float(np.sqrt(n * (n**2 - 1) / 12))


def _start(history: History) -> float:
    """Where the run began: the first epoch's larger loss, which is near that of guessing."""
    first = history.epochs[0]
    return max(first.train_loss, first.validation_loss)


def _diverged(train: Curve, validation: Curve, best: int | None) -> Diagnosis:
    broken = int(np.flatnonzero(~(np.isfinite(train) & np.isfinite(validation)))[0]) + 1
    return Diagnosis(
        DIVERGED,
        (f"In epoch {broken} the loss stopped being a number: the steps were too large and the weights ran away.",),
        ("Lower the learning rate to a tenth.", "Check the pictures for ones that decode to a single value."),
        best,
    )


def _too_short(history: History, best: int | None) -> Diagnosis:
    return Diagnosis(
        TOO_SHORT,
        (
            f"{_count(len(history))} of training: too few to tell a trend from chance "
            f"(at least {_FEWEST_EPOCHS} are needed).",
        ),
        ("Train for more epochs; early stopping ends the run when validation no longer gets better.",),
        best,
    )


def _unstable(validation: Curve, jitter: float, best: int) -> Diagnosis:
    return Diagnosis(
        UNSTABLE,
        (
            f"The validation loss swings by about {jitter:.2f} from one epoch to the next, around "
            f"{np.median(validation):.2f}: which epoch is best is mostly luck.",
        ),
        (
            "Lower the learning rate to a third.",
            "Use a larger batch.",
            "Validate on more pictures: a few hundred at least, and some of every class.",
        ),
        best,
    )


def _overfitting_by_rise(history: History, best: int) -> Diagnosis:
    last = history.epochs[-1]
    return Diagnosis(
        OVERFITTING,
        (
            f"The validation loss was lowest in epoch {best} and rose to {last.validation_loss:.2f} after it, "
            f"while the training loss went on falling to {last.train_loss:.2f}.",
            f"{_accuracies(history)} From epoch {best} on, the network learned its pictures by heart.",
            f"The kept model is that of epoch {best}.",
        ),
        _AGAINST_OVERFITTING,
        best,
    )


def _overfitting_by_gap(history: History, best: int) -> Diagnosis:
    last = history.epochs[-1]
    return Diagnosis(
        OVERFITTING,
        (
            f"At the end the training loss is {last.train_loss:.2f} and the validation loss "
            f"{last.validation_loss:.2f}: the network does much better on pictures it learned from than on others.",
            _accuracies(history),
        ),
        _AGAINST_OVERFITTING,
        best,
    )


_AGAINST_OVERFITTING = (
    "Augment the training pictures: flips, turns, colour and light.",
    "Start from a network trained on many pictures (transfer learning).",
    "Add dropout before the dense layers.",
    "Get more lesions, above all of the rare classes; more photographs of the same lesions help little.",
)


def _underfitting(history: History, best: int) -> Diagnosis:
    last = history.epochs[-1]
    return Diagnosis(
        UNDERFITTING,
        (
            f"The training loss only went from {_start(history):.2f} to {last.train_loss:.2f} and has stopped falling: "
            "the network cannot tell even the pictures that it learns from.",
            _accuracies(history),
        ),
        (
            "Use a larger network, or one trained on many pictures (transfer learning).",
            "Try another learning rate: three times higher, then three times lower.",
            "Use less dropout and weaker augmentation.",
            "Look at the labels: contradictory ones put a floor under the loss; `dermalert audit` finds them.",
        ),
        best,
    )


def _still_improving(history: History, slope: float, best: int, learned: bool) -> Diagnosis:
    so_far = "" if learned else " So far the network has learned little."
    return Diagnosis(
        IMPROVING,
        (
            f"The validation loss was still falling at the end, by about {slope:.3f} an epoch.{so_far}",
            _accuracies(history),
        ),
        (f"Train for more epochs: with --resume the run goes on where it stopped, after epoch {len(history)}.",),
        best,
    )


def _good(history: History, best: int) -> Diagnosis:
    last = history.epochs[-1]
    return Diagnosis(
        GOOD,
        (
            f"Training and validation loss ({last.train_loss:.2f} and {last.validation_loss:.2f}) have levelled off "
            "close to each other: this network has learned what it can from these pictures, and not by heart.",
            _accuracies(history),
        ),
        ("To get further, use a network trained on many pictures (transfer learning), or more lesions.",),
        best,
    )


def _accuracies(history: History) -> str:
    last = history.epochs[-1]
    return (
        f"In the last epoch {last.train_accuracy:.0%} of the training pictures and "
        f"{last.validation_accuracy:.0%} of the validation pictures were named rightly."
    )


def _count(epochs: int) -> str:
    return f"{epochs} epoch" if epochs == 1 else f"{epochs} epochs"
