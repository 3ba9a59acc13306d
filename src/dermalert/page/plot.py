"""The drawing area of a chart: axes in, the units of the data in, SVG out.

Comes in: points and labels. Goes out: SVG without a colour of its own; the style sheet's classes `s1` to `s4` give
each series colour and dash. It knows no chart: `figures` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from dermalert.errors import DataError, printable

UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SERIES = 4  # the style sheet has this many line styles


@dataclass(frozen=True)
class Axis:
    """One axis: from `low` to `high`, with a grid line at each tick; `percent` writes 0.2 as 20%."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    percent: bool = False

    def share(self, values: ArrayLike) -> NDArray[np.float64]:
        return (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)

    def tick_text(self, tick: float) -> str:
        return f"{100 * tick:g}%" if self.percent else f"{tick:g}"


class Plot:
    """A drawing area with axes; coordinates of data in, SVG out."""

    left, right, top, bottom = 40.0, 12.0, 32.0, 42.0

    def __init__(self, x: Axis, y: Axis, *, width: int = 380, height: int = 300) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height
        self.parts: list[Markup] = []
        self._axes()

    def at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) of data points."""
        across = self.left + self.x.share(x) * (self.width - self.left - self.right)
        down = self.height - self.bottom - self.y.share(y) * (self.height - self.top - self.bottom)
        return np.column_stack([np.atleast_1d(across), np.atleast_1d(down)])

    def _axes(self) -> None:
        for tick in self.y.ticks:
            (start, level), (end, _) = self.at([self.x.low, self.x.high], [tick, tick])
            self.draw('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>', start, level, end)
            self.write(start - 8, level + 4, self.y.tick_text(tick), "end")
        for tick in self.x.ticks:
            ((across, floor),) = self.at(tick, self.y.low)
            self.draw('<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/>', across, floor, self.top)
            self.write(across, floor + 17, self.x.tick_text(tick), "middle")
        (start, floor), (end, _) = self.at([self.x.low, self.x.high], [self.y.low, self.y.low])
        self.draw('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>', start, floor, end)
        self.write((start + end) / 2, self.height - 5, self.x.label, "middle", "label")
        self.write(0, 13, self.y.label, "start", "label")  # level and above: read without turning the head

    def draw(self, shape: str, *values: object) -> None:
        self.parts.append(draw(shape, *values))

    def write(self, x: float, y: float, text: str, anchor: str, style: str = "tick") -> None:
        self.draw('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', style, x, y, anchor, text)

    def line(self, x: ArrayLike, y: ArrayLike, style: str, tip: str = "") -> None:
        """A polyline that breaks where a value is not finite."""
        points = self.at(x, y)
        for run in _runs(points):
            thin = _thinned(run)
            path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in thin)
            if len(thin) == 1:  # a path of one point draws nothing
                self.draw('<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="3"/>', style, *thin[0])
            else:
                self.draw('<path class="line {}" d="{}"><title>{}</title></path>', style, path, tip)

    def dot(self, x: float, y: float, style: str, tip: str, radius: float = 5) -> None:
        ((across, down),) = self.at(x, y)
        shape = '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
        self.draw(shape, style, across, down, radius, tip)

    def svg(self, title: str, description: str) -> Markup:
        return svg_of(self.width, self.height, title, description, self.parts)


def svg_of(width: int, height: int, title: str, description: str, parts: Sequence[Markup]) -> Markup:
    """A whole chart; its title and description are what a screen reader says."""
    head = '<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>'
    return draw(head, width, height, title, description) + Markup("").join(parts) + Markup("</svg>")


def draw(shape: str, *values: object) -> Markup:
    """`shape`, which only our own code writes, filled with `values`, which may come from anywhere."""
    return Markup(shape).format(*(printable(v) if type(v) is str else v for v in values))  # noqa: S704


def series(number: int) -> str:
    if number >= SERIES:
        raise DataError(f"A chart tells at most {SERIES} series apart.")
    return f"s{number + 1}"


def round_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten, at most `most` of them."""
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))


def axis_from(label: str, low: float, high: float, *, percent: bool = False, tight: bool = False) -> Axis:
    """An axis with round ticks that holds [low, high], and ends at a tick unless `tight`."""
    high = high if high - low > 1e-9 else low + 1
    ticks = round_ticks(low, high, 6)
    if tight:
        return Axis(label, low, high, ticks, percent)
    step = ticks[1] - ticks[0]
    top = math.ceil(high / step - 1e-9) * step
    return Axis(label, low, top, round_ticks(low, top, 7), percent)


def _runs(points: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The stretches of finite points."""
    finite = np.isfinite(points).all(axis=1)
    breaks = np.flatnonzero(np.diff(finite.astype(np.int8))) + 1
    return [run for run in np.split(points, breaks) if len(run) and np.isfinite(run).all()]


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without points that stand within 0.6 px of the one kept before: the eye sees no difference."""
    kept = [points[0]]
    for point in points[1:-1]:
        if np.abs(point - kept[-1]).max() > 0.6:
            kept.append(point)
    return np.array(kept if len(points) == 1 else [*kept, points[-1]])
