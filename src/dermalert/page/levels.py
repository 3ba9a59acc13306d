"""A small chart of one figure at rising levels of something, each with its interval, to stand among others like it.

Comes in: numbers that are ready. Goes out: SVG as in `figures`. It computes no interval and gives no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from dermalert.page.plot import Axis, Plot, round_ticks


def levels(
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    name: str,
    level: str,
    quantity: str,
    low: float,
    high: float = 1.0,
) -> Markup:
    """Values at levels 0, 1, 2, ..., joined by a line, with their intervals upright; level 0 goes on as a dashed line.

    Args:
        values: NaN where there is none.
        intervals: lower and upper end of each; NaN where there is none.
        name: what this chart is of, for who cannot see it.
        level, quantity: the axes' labels.
        low, high: of the upright axis; the same in all charts that are compared. What lies below is drawn at `low`.
    """
    last = len(values) - 1
    plot = Plot(
        Axis(level, 0, last, tuple(float(i) for i in range(last + 1))),
        Axis(quantity, low, high, round_ticks(low, high, 6)),
        width=250,
        height=175,
    )
    drawn = np.maximum(np.asarray(values, dtype=np.float64), low)
    plot.line([0, last], [drawn[0], drawn[0]], "thin s4", f"level 0: {values[0]:.3f}")
    for number, (bottom, top) in enumerate(intervals):
        ends = np.maximum([bottom, top], low)
        plot.line([number, number], ends, "thin s2", f"level {number}: {bottom:.3f} to {top:.3f}")
    plot.line(np.arange(last + 1), drawn, "solid s2", quantity)
    for number, value in enumerate(values):
        if math.isfinite(value):
            plot.dot(number, drawn[number], "s2", f"level {number}: {value:.3f}", radius=3)
    told = ", ".join(f"{value:.3f}" for value in values)
    return plot.svg(f"{quantity} by {level}, {name}", f"At level 0 and on: {told}.")
