"""Charts that hold many against one: a forest of intervals, and small panels of curves on shared axes.

Comes in: numbers that are ready. Goes out: SVG as in `figures`. It computes no interval and gives no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from dermalert.page.plot import Axis, Plot, axis_from, draw, round_ticks, svg_of

STEP = 38  # pixels from one row of a forest to the next
LONGEST_NAME = 34  # letters of a name that fit beside the figure


@dataclass(frozen=True)
class Whisker:
    """One row of a forest.

    Attributes:
        name: of the row.
        value, low, high: the figure and its interval; NaN where there is none.
        text: the figure in words, at the row's right.
        filled: a full mark for what stands out, an empty one for what does not.
        style: `s1` to `s4`.
    """

    name: str
    value: float
    low: float
    high: float
    text: str
    filled: bool = True
    style: str = "s2"


def forest(
    rows: Sequence[Whisker], *, title: str, quantity: str, reference: float = math.nan, percent: bool = False
) -> Markup:
    """Intervals below each other on one axis; `reference` is a dashed upright through all of them."""
    width, top = 380, 8
    axis = _axis(rows, quantity, reference, percent)
    floor = top + STEP * len(rows) + 6
    drawn = [_upright(axis, tick, top, floor, "grid") for tick in axis.ticks]
    if math.isfinite(reference):
        drawn.append(_upright(axis, reference, top, floor, "mark"))
    for number, row in enumerate(rows):
        drawn += _whisker(row, axis, top + STEP * number, width)
    drawn.append(draw('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>', _EDGE, floor, width - _EDGE))
    label = '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
    drawn += [draw(label, "tick", _across(axis, tick), floor + 17, axis.tick_text(tick)) for tick in axis.ticks]
    drawn.append(draw(label, "label", width / 2, floor + 36, quantity))
    told = "; ".join(f"{row.name}: {row.text}" for row in rows) or "No row."
    return svg_of(width, floor + 42, title, told + ".", drawn)


_EDGE = 14.0  # room left and right of the axis, for half a tick's text


def _axis(rows: Sequence[Whisker], quantity: str, reference: float, percent: bool) -> Axis:
    ends = [end for row in rows for end in (row.value, row.low, row.high)]
    held = [end for end in (*ends, reference) if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(held), max(held)
    if high - low < 0.02:
        low, high = low - 0.01, high + 0.01
    ticks = round_ticks(low, high, 6)
    step = ticks[1] - ticks[0]
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Axis(quantity, low, high, round_ticks(low, high, 8), percent)


def _across(axis: Axis, value: float) -> float:
    return _EDGE + float(axis.share(value)) * (380 - 2 * _EDGE)


def _upright(axis: Axis, value: float, top: float, floor: float, style: str) -> Markup:
    return draw('<path class="{}" d="M{:.1f} {:.1f}V{:.1f}"/>', style, _across(axis, value), floor, top)


def _whisker(row: Whisker, axis: Axis, top: float, width: int) -> list[Markup]:
    short = row.name if len(row.name) <= LONGEST_NAME else row.name[: LONGEST_NAME - 1] + "…"
    level = top + 25
    drawn = [
        draw('<text class="name over" x="0" y="{:.1f}">{}<title>{}</title></text>', top + 13, short, row.name),
        draw('<text class="number over" x="{}" y="{:.1f}">{}</text>', width, top + 13, row.text),
    ]
    if math.isfinite(row.low) and math.isfinite(row.high):
        path = '<path class="line {}" d="M{:.1f} {:.1f}H{:.1f}"><title>{}: {}</title></path>'
        ends = _across(axis, row.low), level, _across(axis, row.high)
        drawn.append(draw(path, f"solid {row.style}", *ends, row.name, row.text))
    if math.isfinite(row.value):
        mark = '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}: {}</title></circle>'
        style = row.style if row.filled else f"hollow {row.style}"
        drawn.append(draw(mark, style, _across(axis, row.value), level, row.name, row.text))
    return drawn


@dataclass(frozen=True)
class Frame:
    """The axes that panels share, so that a glance compares them.

    Attributes:
        quantity: what is drawn: "loss", "accuracy".
        epochs: of the longest curve.
        top: of the axis; what lies higher is drawn at the top.
        fraction: whether the quantity lies in [0, 1].
    """

    quantity: str
    epochs: int
    top: float
    fraction: bool = False

    @classmethod
    def around(cls, quantity: str, curves: Sequence[Sequence[float]], *, fraction: bool = False) -> Frame:
        """A frame for all `curves`; one that runs away does not press the others to the floor."""
        highest = [max(finite) for curve in curves if (finite := [v for v in curve if math.isfinite(v)])]
        ordinary = 2 * float(np.median(highest)) if highest else 1.0
        top = max((value for value in highest if value <= ordinary), default=1.0)
        return cls(quantity, max((len(curve) for curve in curves), default=1), 1.0 if fraction else top, fraction)


def panel(
    training: Sequence[float],
    validation: Sequence[float],
    frame: Frame,
    *,
    name: str,
    beside: Sequence[float] = (),
    beside_name: str = "",
    best_epoch: int | None = None,
) -> Markup:
    """One small chart: training (series 1), validation (series 2), and behind them another's validation (series 4)."""
    last = max(2, frame.epochs)
    ticks = tuple(t for t in round_ticks(1, last, 5) if t >= 1 and t == int(t))
    y = (
        Axis(frame.quantity, 0, 1, (0.0, 0.25, 0.5, 0.75, 1.0), True)
        if frame.fraction
        else axis_from(frame.quantity, 0, frame.top)
    )
    plot = Plot(Axis("epoch", 1, last, ticks), y, width=250, height=175)
    told = []
    for curve, style, called in (
        (beside, "thin s4", f"{beside_name}, validation"),
        (training, "s1", "training"),
        (validation, "s2", "validation"),
    ):
        if len(curve):
            plot.line(np.arange(1, len(curve) + 1), np.minimum(curve, y.high), style, f"{called} {frame.quantity}")
            told.append(f"{called} {curve[-1]:.3f}")
    if best_epoch is not None and 1 <= best_epoch <= len(validation) and math.isfinite(validation[best_epoch - 1]):
        value = validation[best_epoch - 1]
        tip = f"kept: epoch {best_epoch}, validation {frame.quantity} {value:.3f}"
        plot.dot(best_epoch, min(value, y.high), "s2", tip)
        told.append(tip)
    return plot.svg(f"{frame.quantity.capitalize()} by epoch, {name}", f"At the end: {', '.join(told) or 'nothing'}.")
