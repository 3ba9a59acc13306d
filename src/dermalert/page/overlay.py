"""A picture beside its evidence map, as one PNG.

Comes in: pixels, a map and words. Goes out: the bytes of a PNG made anew: nothing of the original file's EXIF or name
is in it, and its text alternative is. It decides nothing about what the map means.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from dermalert.errors import DataError

# Viridis (S. van der Walt and N. Smith, 2015, CC0) at 17 even steps: perceptually uniform, readable with any colour
# vision and in grey, and unlike any colour of skin.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 24, 106), (71, 45, 123), (66, 64, 134), (59, 82, 139), (51, 99, 141), (44, 114, 142),
        (38, 130, 142), (33, 145, 140), (31, 160, 136), (40, 174, 128), (63, 188, 115), (94, 201, 98), (132, 212, 75),
        (173, 220, 48), (216, 226, 25), (253, 231, 37),
    ],
    dtype=np.float64,
)  # fmt: skip
_OPAQUE = 0.75  # at the strongest spot; less below, so that the picture is seen where there is no evidence
_PANEL, _MARGIN, _LEAST_WIDTH = 512, 24, 900  # pixels
_INK, _MUTED, _PAPER = "#16201e", "#55625f", "#ffffff"
_FOOT = (
    "Research software: supports a clinician and decides nothing alone.",
    "The map shows which parts of the picture the model used, not where a disease is.",
)


def coloured(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """uint8 (..., 3), the colours of shares in [0, 1]."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(share, steps, _VIRIDIS[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def laid_over(pixels: NDArray[np.uint8], share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The map over the picture, uint8 (H, W, 3); it is the more opaque the stronger the evidence.

    Args:
        pixels: uint8 (H, W, 3).
        share: float (H, W) in [0, 1], of the strongest evidence.
    """
    opacity = _OPAQUE * share[..., None]
    mixed: NDArray[np.uint8] = np.rint((1 - opacity) * pixels + opacity * coloured(share)).astype(np.uint8)
    return mixed


def evidence_png(
    pixels: NDArray[np.uint8], strength: NDArray[np.floating], *, heading: str, caption: str, note: str, alt: str
) -> bytes:
    """The picture and, beside it, the picture under its map, with a legend and the words that belong to it.

    Args:
        pixels: uint8 (H, W, 3).
        strength: float (h, w) of 0 or more, stretched over the picture; 0 everywhere draws no map.
        heading: above both; `caption`: above the map; `note`: below the heading.
        alt: for those who cannot see it; stored as the PNG's `Description`.

    Raises:
        DataError: not uint8 (H, W, 3), or a map that is no plane of numbers of 0 or more.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"An evidence map is laid over uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}.")
    if strength.ndim != 2 or not np.isfinite(strength).all() or (strength < 0).any():
        raise DataError("An evidence map is a plane of numbers, each 0 or more.")
    picture = _fitted(Image.fromarray(pixels))
    strongest = float(strength.max())
    share = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR))
    beside = Image.fromarray(laid_over(np.asarray(picture), share / strongest if strongest else share))
    sheet = _sheet(picture, beside, heading, caption, note, has_legend=strongest > 0)
    return _encoded(sheet, alt)


def evidence_layer(strength: NDArray[np.floating], size: tuple[int, int]) -> bytes:
    """The map alone, as a PNG to lay over the picture: the more opaque, the stronger the evidence.

    Args:
        strength: float (h, w) of 0 or more, stretched to `size`; 0 everywhere gives a layer that hides nothing.
        size: (width, height) in pixels.

    Raises:
        DataError: a map that is no plane of numbers of 0 or more.
    """
    if strength.ndim != 2 or not np.isfinite(strength).all() or (strength < 0).any():
        raise DataError("An evidence map is a plane of numbers, each 0 or more.")
    share = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    share = share / (float(share.max()) or 1.0)
    opacity = np.rint(255 * share).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.dstack([coloured(share), opacity])).save(stream, "PNG")
    return stream.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    scale = _PANEL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _sheet(
    picture: Image.Image, beside: Image.Image, heading: str, caption: str, note: str, *, has_legend: bool
) -> Image.Image:
    (width, height), top = picture.size, 130
    left = 2 * _MARGIN + width
    sheet = Image.new("RGB", (max(left + width + _MARGIN, _LEAST_WIDTH), top + height + 120), _PAPER)
    sheet.paste(picture, (_MARGIN, top))
    sheet.paste(beside, (left, top))
    pen = ImageDraw.Draw(sheet)
    for place, text, colour, size in (
        ((_MARGIN, 20), heading, _INK, 28),
        ((_MARGIN, 60), note, _MUTED, 17),
        ((_MARGIN, top - 28), "Picture", _INK, 17),
        ((left, top - 28), caption, _INK, 17),
    ):
        pen.text(place, text.replace("\N{NO-BREAK SPACE}", " "), colour, _font(size))  # which the font has not
    if has_legend:
        _legend(sheet, pen, left, top + height + 12)
    for number, line in enumerate(_FOOT):
        pen.text((_MARGIN, top + height + 62 + 24 * number), line, _MUTED, _font(16))
    return sheet


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
    """From none to the strongest, over the grey of middling skin, as the map itself is laid over the picture."""
    share = np.tile(np.linspace(0, 1, 180), (14, 1))
    bar = laid_over(np.full((14, 180, 3), 200, np.uint8), share)
    words = ("no evidence", "the strongest here")
    start = left + round(pen.textlength(words[0], _font(15))) + 10
    pen.text((left, top - 1), words[0], _MUTED, _font(15))
    sheet.paste(Image.fromarray(bar), (start, top + 3))
    pen.text((start + 190, top - 1), words[1], _MUTED, _font(15))


def _font(pixels: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def _encoded(sheet: Image.Image, alt: str) -> bytes:
    about = PngInfo()
    about.add_itxt("Description", alt)
    about.add_itxt("Disclaimer", " ".join(_FOOT))
    about.add_itxt("Software", "Dermalert")
    stream = io.BytesIO()
    sheet.save(stream, "PNG", pnginfo=about)
    return stream.getvalue()
