"""Pictures that are no dermoscopy: what a folder of photographs, scans and screen captures holds by mistake.

Comes in: a kind, chance and a size. Goes out: uint8 RGB pixels.
They are cartoons: enough to fit and test the gate where no photographs are at hand, and no measure of its worth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dermalert.errors import DataError

Pixels = NDArray[np.uint8]


def draw_other(kind: str, rng: np.random.Generator, size: tuple[int, int] = (320, 240)) -> Pixels:
    """One picture, uint8 (H, W, 3).

    Args:
        kind: one of `OTHERS`.
        size: width and height in pixels.

    Raises:
        DataError: no such kind.
    """
    if kind not in OTHERS:
        raise DataError(f"There is no drawn picture of kind {kind!r}. Known: {', '.join(OTHERS)}.")
    return np.asarray(OTHERS[kind](rng, size).convert("RGB"))


def _document(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Lines of words on paper, now and then with a heading, two columns or a table."""
    width, height = size
    paper, ink = _grey(rng, 225, 256), _grey(rng, 0, 90)
    page = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(page)
    letter, columns = rng.uniform(0.012, 0.035) * height, int(rng.integers(1, 3))
    for column in range(columns):
        left, right = (column + 0.08) * width / columns, (column + 0.92) * width / columns
        for y in np.arange(rng.uniform(0.03, 0.12) * height, 0.95 * height, letter * 2.1):
            x = left
            while x < right and rng.random() < 0.93:
                word = letter * rng.uniform(0.8, 5)
                for at in np.arange(x, min(x + word, right), letter * 0.6):
                    pen.line([(at, y), (at + rng.normal(0, 0.2) * letter, y + letter * rng.uniform(0.6, 1.1))], ink)
                x += word + letter * 0.8
    return page.rotate(rng.normal(0, 1.5), fillcolor=paper)


def _screen(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Windows with title bars, buttons and text on a desktop."""
    width, height = size
    page = _gradient(rng, size)
    pen = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(-0.1, 0.6) * width, rng.uniform(-0.1, 0.6) * height
        w, h = rng.uniform(0.3, 1) * width, rng.uniform(0.3, 1) * height
        ink, paper = (_grey(rng, 0, 70), _grey(rng, 220, 256))[:: 1 if rng.random() < 0.7 else -1]
        pen.rectangle((x, y, x + w, y + h), fill=paper, outline=ink)
        pen.rectangle((x, y, x + w, y + 0.05 * height), fill=_colour(rng))
        for line in np.arange(y + 0.08 * height, y + h, 0.035 * height):
            pen.line([(x + 0.02 * width, line), (x + rng.uniform(0.1, 0.95) * w, line)], ink, width=2)
        for _ in range(int(rng.integers(0, 5))):
            bx, by = x + rng.uniform(0, 0.8) * w, y + rng.uniform(0.1, 0.9) * h
            pen.rounded_rectangle((bx, by, bx + 0.15 * w + 9, by + 0.05 * height + 4), 4, fill=_colour(rng))
    return page


def _chart(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Axes with bars, curves or points."""
    width, height = size
    page = Image.new("RGB", size, _grey(rng, 235, 256))
    pen = ImageDraw.Draw(page)
    left, bottom = 0.1 * width, 0.9 * height
    count = int(rng.integers(4, 40))
    across = np.linspace(left, 0.95 * width, count)
    style = rng.integers(3)
    for _ in range(int(rng.integers(1, 4))):
        colour, up = _colour(rng), bottom - rng.uniform(0.05, 0.8, count).cumsum() % 0.8 * height
        if style == 0:
            for x, y in zip(across, up, strict=True):
                pen.rectangle((x, min(y, bottom), x + 0.6 * width / count, bottom), fill=colour)
        elif style == 1:
            pen.line([(float(x), float(y)) for x, y in zip(across, up, strict=True)], fill=colour, width=2)
        else:
            for x, y in zip(across, up, strict=True):
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    pen.line([(left, 0.05 * height), (left, bottom), (0.97 * width, bottom)], fill=(20, 20, 20), width=2)
    return page


def _radiograph(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Bright bones and grey tissue on black, without colour."""
    width, height = size
    page = Image.new("L", size, 0)
    pen = ImageDraw.Draw(page)
    cx, cy, rx, ry = 0.5 * width, 0.5 * height, rng.uniform(0.3, 0.55) * width, rng.uniform(0.35, 0.6) * height
    pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=int(rng.integers(70, 140)))
    for side in (-1, 1):
        x, w, h = cx + side * 0.45 * rx, 0.32 * rx, 0.6 * ry
        pen.ellipse((x - w, cy - h, x + w, cy + h), fill=int(rng.integers(15, 60)))
    for y in np.linspace(cy - 0.7 * ry, cy + 0.7 * ry, int(rng.integers(5, 12))):
        pen.arc((cx - 0.9 * rx, y, cx + 0.9 * rx, y + 0.5 * ry), 180, 360, fill=int(rng.integers(130, 210)), width=4)
    pen.rectangle((cx - 0.06 * width, 0, cx + 0.06 * width, height), fill=int(rng.integers(150, 230)))
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(1, 0.02 * width)))


def _fundus(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """The back of the eye: an orange disc with a bright spot from which vessels branch."""
    width, height = size
    page = Image.new("RGB", size, (0, 0, 0))
    pen = ImageDraw.Draw(page)
    cx, cy, radius = width / 2, height / 2, rng.uniform(0.45, 0.8) * height
    base = np.array([1.0, rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.4)]) * rng.uniform(150, 240)
    x, y = cx + rng.uniform(-0.5, 0.5) * radius, cy + rng.uniform(-0.3, 0.3) * radius
    pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=_ints(base))
    dark = radius * 0.15
    pen.ellipse((2 * cx - x - dark, cy - dark, 2 * cx - x + dark, cy + dark), fill=_ints(base * 0.8))
    vessel = _ints(base * np.array([0.75, 0.5, 0.6]))
    for heading in rng.uniform(0, 2 * np.pi, int(rng.integers(8, 18))):
        steps = heading + np.cumsum(rng.normal(0, 0.25, 14))
        path = np.cumsum(np.stack([np.cos(steps), np.sin(steps)], axis=1) * radius * 0.11, axis=0)
        pen.line(
            [(x, y), *((x + across, y + down) for across, down in path.tolist())],
            fill=vessel,
            width=int(rng.integers(1, 4)),
        )
    spot = radius * rng.uniform(0.1, 0.16)
    pen.ellipse((x - spot, y - spot, x + spot, y + spot), fill=_ints(np.minimum(base * 1.1 + 50, 255)))
    blurred = page.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2)))
    side = int(rng.uniform(0.4, 1) * height)  # the whole, or a part that was cut out
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return blurred.crop((left, top, left + side, top + side)).resize(size, Image.Resampling.BILINEAR)


def _histology(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A stained section: many small dark nuclei on a pale pink, violet or brown ground."""
    width, height = size
    stain = np.array([rng.uniform(200, 245), rng.uniform(150, 225), rng.uniform(190, 240)])
    page = _noise(rng, size)
    page = Image.blend(page, Image.new("RGB", size, _ints(stain)), rng.uniform(0.7, 0.95))
    pen = ImageDraw.Draw(page)
    radius = rng.uniform(0.008, 0.035) * height
    nucleus = np.array([rng.uniform(70, 140), rng.uniform(40, 100), rng.uniform(90, 170)])
    for _ in range(int(rng.uniform(0.05, 0.3) * width * height / (3 * radius**2))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), radius * rng.uniform(0.6, 1.4, 2)
        pen.ellipse((x - r[0], y - r[1], x + r[0], y + r[1]), fill=_ints(np.clip(nucleus + rng.normal(0, 15), 0, 255)))
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Coloured or grey noise of any grain."""
    grain = rng.uniform(1, 24)
    shape = (max(int(size[1] / grain), 2), max(int(size[0] / grain), 2), 3 if rng.random() < 0.7 else 1)
    values = np.clip(rng.normal(rng.uniform(60, 200), rng.uniform(20, 90), shape), 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(values, (*shape[:2], 3)).copy()).resize(size, Image.Resampling.BILINEAR)


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Colours that run from corner to corner."""
    corners = np.array([[_colour(rng), _colour(rng)], [_colour(rng), _colour(rng)]], dtype=np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


def _plain(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """One colour, skin's or any other, with the faint noise of a camera."""
    colour = np.array(_colour(rng)) if rng.random() < 0.5 else np.array([1.0, 0.74, 0.62]) * rng.uniform(60, 250)
    noise = rng.normal(0, rng.uniform(0, 3), (size[1], size[0], 3))
    return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))


def _pattern(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Stripes, tiles or discs in rows, as of cloth, bricks or keyboards."""
    page = Image.new("RGB", size, _colour(rng))
    pen = ImageDraw.Draw(page)
    step, fill, colour = rng.uniform(0.04, 0.2) * size[1], rng.uniform(0.3, 0.9), _colour(rng)
    shape = (pen.rectangle, pen.ellipse)[int(rng.integers(2))]
    tall = step if rng.random() < 0.6 else size[1]
    for x in np.arange(0, size[0], step):
        for y in np.arange(0, size[1], tall):
            shape((x, y, x + fill * step, y + fill * tall), fill=colour)
    return page.rotate(rng.uniform(0, 90), expand=False, fillcolor=_colour(rng))


def _ints(colour: NDArray[np.floating]) -> tuple[int, int, int]:
    red, green, blue = colour.astype(int).tolist()
    return red, green, blue


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _grey(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    value = int(rng.integers(low, high))
    return value, value, value


OTHERS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Image.Image]] = {
    "document": _document,
    "screen": _screen,
    "chart": _chart,
    "radiograph": _radiograph,
    "fundus": _fundus,
    "histology": _histology,
    "noise": _noise,
    "gradient": _gradient,
    "plain": _plain,
    "pattern": _pattern,
}
