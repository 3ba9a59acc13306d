"""The chart of a decision curve.

Comes in: net benefits that are ready. Goes out: SVG as in `figures`.
"""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from dermalert.page.plot import Axis, Plot, round_ticks

PATIENTS = 1000  # a net benefit in so many patients is a number that one can picture


def net_benefit(
    thresholds: ArrayLike,
    model: ArrayLike,
    refer_all: ArrayLike,
    *,
    prevalence: float,
    band: tuple[ArrayLike, ArrayLike] | None = None,
) -> Markup:
    """Net benefit of the model (series 2) against referring everybody (series 1) and nobody, in 1,000 patients.

    Args:
        thresholds: (T,) in [0, 1], rising.
        model, refer_all: (T,), for each patient.
        prevalence: of melanoma; the most that can be gained.
        band: the ends of the model's intervals, (T,) each.
    """
    across, held = np.asarray(thresholds, dtype=np.float64), np.asarray(model, dtype=np.float64)
    top, highest = prevalence * PATIENTS, float(across[-1])
    y_ticks = round_ticks(-top / 4, top, 7)
    y = Axis("melanomas found in 1000 patients, less harm", -top / 4, top * 1.02, y_ticks)
    plot = Plot(Axis("refer from a probability of", 0, highest, round_ticks(0, highest, 6), True), y)
    plot.line([0, highest], [0, 0], "guess", "referring nobody")
    for style, values, name in (
        *((("faint s2", end, "the model's interval") for end in band) if band else ()),
        ("s1", refer_all, "referring everybody"),
        ("s2", held, "the model"),
    ):
        scaled = PATIENTS * np.asarray(values, dtype=np.float64)
        plot.line(across, np.where(scaled < y.low, np.nan, scaled), style, name)
    best = "nowhere" if not np.isfinite(held).any() else f"{PATIENTS * np.nanmax(held):.1f} at most"
    told = f"Thresholds from {100 * across[0]:.1f}% to {100 * highest:.0f}%; the model gains {best}, of {top:.1f}."
    return plot.svg(f"Net benefit at a melanoma prevalence of {100 * prevalence:.3g}%", told)
