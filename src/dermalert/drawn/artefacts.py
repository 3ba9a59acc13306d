"""What lies between the lens and the skin: hair, ink, rulers, gel bubbles, gloss and the dark rim of a dermatoscope.

Comes in: a painted canvas and how often each artefact occurs. Goes out: the canvas, painted on.
Is independent of the diagnosis: in real sets it often is not, which is what `intake.statistics` looks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from dermalert.drawn.canvas import Canvas, Points
from dermalert.errors import DataError


@dataclass(frozen=True)
class Artefacts:
    """The chance of each artefact in a picture, 0 to 1."""

    hair: float = 0.35
    ink: float = 0.06
    ruler: float = 0.15
    bubbles: float = 0.15
    gloss: float = 0.2
    vignette: float = 0.2

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not 0 <= getattr(self, field.name) <= 1]
        if wrong:
            raise DataError(f"The chance of an artefact must lie between 0 and 1: {', '.join(wrong)}.")


USUAL = Artefacts()
NO_ARTEFACTS = Artefacts(0, 0, 0, 0, 0, 0)


def add_artefacts(canvas: Canvas, rng: np.random.Generator, artefacts: Artefacts) -> None:
    """Paints each artefact with its chance; one that does not occur leaves the others as they would be."""
    for name, paint in PAINTERS.items():
        chance, seed = rng.random(), int(rng.integers(2**63))
        if chance < getattr(artefacts, name):
            paint(canvas, np.random.default_rng(seed))


def _short(canvas: Canvas) -> float:
    return float(min(canvas.camera.width, canvas.camera.height))


def _anywhere(canvas: Canvas, rng: np.random.Generator, count: int) -> Points:
    places: Points = rng.random((count, 2)) * np.array([canvas.camera.width, canvas.camera.height])
    return places


def _hair(canvas: Canvas, rng: np.random.Generator) -> None:
    count = int(rng.integers(2, 14))
    heading, along = rng.uniform(0, 2 * np.pi), np.linspace(-0.5, 0.5, 12)
    lines = []
    for middle in _anywhere(canvas, rng, count):
        angle, bend, length = heading + rng.normal(0, 0.5), rng.normal(0, 1.2), _short(canvas) * rng.uniform(0.4, 1.2)
        headings = angle + bend * along
        steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / len(along)
        line = np.cumsum(steps, axis=0)
        lines.append(line - line.mean(axis=0) + middle)
    dark = rng.uniform(0.05, 0.3)
    widths = [_short(canvas) * float(width) for width in rng.uniform(0.004, 0.011, size=count)]
    canvas.blend((dark, dark * 0.85, dark * 0.7), canvas.pixel_strokes(lines, widths) * np.float32(0.85))


def _ink(canvas: Canvas, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, 2 * np.pi)
    middle = np.array([canvas.camera.width, canvas.camera.height]) * (
        0.5 + 0.5 * np.array([np.cos(angle), np.sin(angle)])
    )
    turns = angle + np.pi / 2 + np.linspace(-0.5, 0.5, 9) * rng.uniform(0.5, 2)
    line = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0) * _short(canvas) * 0.06
    share = canvas.pixel_strokes([line - line.mean(axis=0) + middle], [_short(canvas) * rng.uniform(0.04, 0.08)])
    canvas.tint((0.45, 0.30, 0.72), share * np.float32(0.9))


def _ruler(canvas: Canvas, rng: np.random.Generator) -> None:
    short, upright = _short(canvas), rng.random() < 0.5
    length = canvas.camera.height if upright else canvas.camera.width
    breadth = canvas.camera.width if upright else canvas.camera.height
    pitch, inset, far = short * rng.uniform(0.04, 0.07), short * rng.uniform(0.0, 0.06), rng.random() < 0.5
    lines = []
    for mark, at in enumerate(np.arange(rng.uniform(0, pitch), length, pitch)):
        reach = inset + short * (0.09 if mark % 5 == 0 else 0.05)
        ends = np.array([[at, inset], [at, reach]])
        if far:
            ends[:, 1] = breadth - 1 - ends[:, 1]
        lines.append(ends[:, ::-1] if upright else ends)
    canvas.blend((0.08, 0.08, 0.1), canvas.pixel_strokes(lines, [1.0] * len(lines)) * np.float32(0.85))


def _bubbles(canvas: Canvas, rng: np.random.Generator) -> None:
    count, short = int(rng.integers(2, 8)), _short(canvas)
    turns = np.linspace(0, 2 * np.pi, 24)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    radii = short * rng.uniform(0.015, 0.06, size=count)
    rings = [middle + radius * circle for middle, radius in zip(_anywhere(canvas, rng, count), radii, strict=True)]
    lit = [ring[2:9] * 0.8 + ring.mean(axis=0) * 0.2 for ring in rings]
    canvas.tint((0.75, 0.72, 0.72), canvas.pixel_strokes(rings, [short * 0.01] * count))
    canvas.blend((1.0, 0.99, 0.97), canvas.pixel_strokes(lit, [short * 0.01] * count) * np.float32(0.8))


def _gloss(canvas: Canvas, rng: np.random.Generator) -> None:
    count = int(rng.integers(2, 7))
    lines = []
    for middle in _anywhere(canvas, rng, count):
        angle, length = rng.uniform(0, np.pi), _short(canvas) * rng.uniform(0.02, 0.08)
        along = np.array([np.cos(angle), np.sin(angle)]) * length
        lines.append(np.stack([middle - along, middle + along]))
    widths = [_short(canvas) * float(width) for width in rng.uniform(0.01, 0.03, size=count)]
    canvas.blend((1.0, 0.99, 0.98), canvas.pixel_strokes(lines, widths) * np.float32(0.8))


def _vignette(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = canvas.camera.axes()
    x0, y0 = rng.normal(0, 0.06, size=2) * _short(canvas)
    radius, soft = _short(canvas) * rng.uniform(0.5, 0.64), _short(canvas) * rng.uniform(0.02, 0.12)
    distance = np.hypot(x[None, :] - x0, y[:, None] - y0)
    canvas.blend((0.03, 0.03, 0.03), np.clip((distance - radius) / soft, 0, 1).astype(np.float32))


PAINTERS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "hair": _hair,
    "ink": _ink,
    "ruler": _ruler,
    "bubbles": _bubbles,
    "gloss": _gloss,
    "vignette": _vignette,
}
