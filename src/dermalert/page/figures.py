"""Charts as inline SVG that take their colours from the page, in light, dark and print.

Comes in: numbers. Goes out: SVG with a title and a description, the same bytes for the same numbers, told apart
by dash and place as well as by colour. It computes no statistic: curves and intervals come ready.

Drawn by hand rather than by a plotting library: a few kilobytes a chart, colours from the style sheet, text that
stays text, a tooltip on every mark, and nothing to import before a page can be written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from dermalert.errors import DataError
from dermalert.page.plot import UNIT_TICKS, Axis, Plot, axis_from, draw, round_ticks, series, svg_of


@dataclass(frozen=True)
class Legend:
    """One line of a chart's legend: `series` counts from 1 and picks the line style; `filled` for bars."""

    series: int
    text: str
    filled: bool = False


def curves(
    training: Sequence[float],
    validation: Sequence[float],
    *,
    quantity: str,
    best_epoch: int | None = None,
    fraction: bool = False,
) -> Markup:
    """Training (series 1) and validation (series 2) by epoch, counted from 1, the best epoch marked.

    Args:
        quantity: what is drawn, as an axis label: "accuracy", "loss".
        fraction: whether it lies in [0, 1]; fixes the axis.

    Raises:
        DataError: no epoch, or lists of unlike length.
    """
    if not training or len(training) != len(validation):
        raise DataError(f"Curves need as many validation as training epochs: {len(validation)} and {len(training)}.")
    epochs = np.arange(1, len(training) + 1)
    finite = [value for value in (*training, *validation) if math.isfinite(value)]
    y = Axis(quantity, 0, 1, UNIT_TICKS, True) if fraction else axis_from(quantity, 0, max(finite, default=1.0))
    ticks = tuple(t for t in round_ticks(1, max(2, len(epochs)), 7) if t >= 1 and t == int(t))
    plot = Plot(Axis("epoch", 1, max(2, len(epochs)), ticks), y)
    if best_epoch is not None:
        ((across, floor),) = plot.at(best_epoch, y.low)
        plot.draw('<path class="mark" d="M{:.1f} {:.1f}V{:.1f}"/>', across, floor, plot.top)
        late = best_epoch > (1 + len(epochs)) / 2
        plot.write(across + (-6 if late else 6), plot.top + 11, f"best: epoch {best_epoch}", "end" if late else "start")
    plot.line(epochs, training, "s1", f"training {quantity}")
    plot.line(epochs, validation, "s2", f"validation {quantity}")
    if best_epoch is not None and math.isfinite(validation[best_epoch - 1]):
        value = validation[best_epoch - 1]
        plot.dot(best_epoch, value, "s2", f"validation {quantity} at epoch {best_epoch}: {value:.3f}")
    last = len(training)
    told = f"After {last} epochs: training {quantity} {training[-1]:.3f}, validation {quantity} {validation[-1]:.3f}."
    return plot.svg(f"{quantity.capitalize()} by epoch, in training and validation", told)


def roc(
    points: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    question: str,
    operating: tuple[float, float, str] | None = None,
) -> Markup:
    """ROC curves, one series for each name, against the diagonal of guessing.

    Args:
        points: false and true positive rates, each (K,) in [0, 1].
        question: what is told apart: "melanoma".
        operating: false positive rate, true positive rate and name of the point in use.
    """
    plot = Plot(
        Axis("false alarms (1 \N{MINUS SIGN} specificity)", 0, 1, UNIT_TICKS, True),
        Axis("found (sensitivity)", 0, 1, UNIT_TICKS, True),
    )
    plot.line([0, 1], [0, 1], "guess", "guessing")
    return _rates(plot, points, operating, f"ROC curve for {question}")


def precision_recall(
    points: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    question: str,
    prevalence: float | None = None,
    operating: tuple[float, float, str] | None = None,
) -> Markup:
    """Precision against recall, one series for each name; a random referral's precision is the dashed level.

    Args:
        points: recall and precision, each (K,) in [0, 1].
        prevalence: share of positives in [0, 1], or None where the series differ in it.
        operating: recall, precision and name of the point in use.
    """
    plot = Plot(
        Axis("found (sensitivity, recall)", 0, 1, UNIT_TICKS, True),
        Axis("right when it alerts (precision)", 0, 1, UNIT_TICKS, True),
    )
    if prevalence is not None:
        plot.line([0, 1], [prevalence, prevalence], "guess", f"referring at random: {100 * prevalence:.0f}%")
    return _rates(plot, points, operating, f"Precision and recall for {question}")


def _rates(
    plot: Plot,
    points: Mapping[str, tuple[ArrayLike, ArrayLike]],
    operating: tuple[float, float, str] | None,
    title: str,
) -> Markup:
    for number, (name, (x, y)) in enumerate(points.items()):
        plot.line(x, y, series(number), name)
    told = f"One line each for {', '.join(points)}."
    if operating is not None and math.isfinite(operating[0]) and math.isfinite(operating[1]):
        x_at, y_at, name = operating
        tip = f"{name}: {plot.x.label} {100 * x_at:.0f}%, {plot.y.label} {100 * y_at:.0f}%"
        plot.dot(x_at, y_at, "operating", tip, 6)
        told += f" Operating point {tip}."
    return plot.svg(title, told)


class ReliabilityBin(Protocol):
    """Pictures of similar probability: its mean, how often it came true, and how many pictures there are."""

    @property
    def promised(self) -> float: ...
    @property
    def happened(self) -> float: ...
    @property
    def count(self) -> int: ...


def reliability(bins: Mapping[str, Sequence[ReliabilityBin]], *, question: str) -> Markup:
    """Observed share against predicted probability, one series for each name; bigger dots hold more pictures.

    On the diagonal, a probability means what it says.
    """
    plot = Plot(
        Axis(f"predicted probability of {question}", 0, 1, UNIT_TICKS, True),
        Axis("how often it came true", 0, 1, UNIT_TICKS, True),
    )
    plot.line([0, 1], [0, 1], "guess", "a perfectly calibrated model")
    most = max((b.count for held in bins.values() for b in held), default=1)
    told = []
    for number, (name, held) in enumerate(bins.items()):
        plot.line([b.promised for b in held], [b.happened for b in held], f"faint {series(number)}", name)
        for b in held:
            tip = f"{name}: predicted {100 * b.promised:.0f}%, came true {100 * b.happened:.0f}% of {b.count} pictures"
            plot.dot(b.promised, b.happened, series(number), tip, 2.5 + 4.5 * math.sqrt(b.count / most))
            told.append(tip)
    return plot.svg(f"Calibration for {question}", "; ".join(told) or "No picture to show.")


def histograms(values: Mapping[str, ArrayLike], *, quantity: str, bins: int = 30) -> Markup:
    """How a statistic is spread in up to four sets, each as a share of its own pictures, on shared bins."""
    sets = {name: np.asarray(data, dtype=np.float64) for name, data in values.items()}
    sets = {name: data[np.isfinite(data)] for name, data in sets.items()}
    together = np.concatenate(list(sets.values())) if sets else np.empty(0)
    low, high = (float(together.min()), float(together.max())) if together.size else (0.0, 1.0)
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):  # all alike but for rounding: one bar, not thirty
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    edges = np.linspace(low, high, bins + 1)
    shares = {name: np.histogram(data, edges)[0] / max(1, data.size) for name, data in sets.items()}
    top = max((float(share.max()) for share in shares.values()), default=1.0)
    x = axis_from(quantity, float(edges[0]), float(edges[-1]), tight=True)
    plot = Plot(x, axis_from("share of pictures", 0, max(top, 0.01), percent=True), height=230)
    for number, (name, share) in enumerate(shares.items()):
        outline = np.repeat(edges, 2), np.concatenate([[0], np.repeat(share, 2), [0]])
        plot.line(*outline, series(number), name)
    medians = (f"{name} median {np.median(data):.3g}" for name, data in sets.items() if data.size)
    return plot.svg(f"Distribution of {quantity}", "; ".join(medians) + ".")


def class_distribution(counts: Mapping[str, Mapping[str, int]], *, title: str = "Pictures in each class") -> Markup:
    """Bars, one a class, parted by split: `counts[class][split]`. The same splits in the same order throughout."""
    width, step = 380, 40
    widest = max((sum(parts.values()) for parts in counts.values()), default=0) or 1
    drawn: list[Markup] = []
    told = []
    for row, (name, parts) in enumerate(counts.items()):
        top, across = row * step, 0.0
        total = sum(parts.values())
        drawn.append(draw('<text class="name" x="0" y="{}">{}</text>', top + 14, name))
        number = f"{total:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        drawn.append(draw('<text class="name number" x="{}" y="{}">{}</text>', width, top + 14, number))
        drawn.append(draw('<rect class="track" x="0" y="{}" width="{}" height="9"/>', top + 21, width))
        for place, (split, images) in enumerate(parts.items()):
            length = width * images / widest
            shape = '<rect class="fill {}" x="{:.1f}" y="{}" width="{:.1f}" height="9"><title>{}</title></rect>'
            tip = f"{name}, {split}: {images}"
            drawn.append(draw(shape, series(place), across, top + 21, length, tip))
            across += length
        told.append(f"{name} {total}")
    return svg_of(width, step * len(counts), title, ", ".join(told) + ".", drawn)
