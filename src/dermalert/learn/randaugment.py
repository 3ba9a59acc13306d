"""RandAugment: two operations by chance for each picture (Cubuk et al., NeurIPS 2020, arXiv:1909.13719).

Comes in: pictures and a random generator. Goes out: the pictures, changed.

`keras.layers.RandAugment` chooses the two for a whole batch, makes all eleven to keep two, equalizes over the batch,
and makes pictures only lighter and more contrastful. Here each picture has its own two, and amounts go both ways as
in the paper. The operations are Keras's layers where those have them right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.learn import layers
from dermalert.learn.backend import backend

_ROUNDS = 2
# The strongest change of each kind, as in the paper.
_TURN, _SHEAR, _SHIFT, _FACTOR, _BITS = np.pi / 6, 0.3, 0.3, 0.9, 4
_GREY = np.repeat([[0.299], [0.587], [0.114]], 3, axis=1)  # RGB times this is grey, ITU-R BT.601

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]


class RandAugment:
    """The operations, at most as strong as `strength` (0 to 1), for pictures of one size."""

    def __init__(self, strength: float, *, width: int, height: int) -> None:
        self._strength, self._size = strength, (width, height)
        self._change = layers.moving_and_colouring(width, height)
        self._singly = _layers_of_keras(width, height)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """The pictures uint8 (B, H, W, 3) after two operations each; the same generator gives the same ones."""
        chance = rng.random((len(pixels), _ROUNDS, 2))  # a picture's chance is its own, however many follow it
        known = len(_MOVES) + len(_COLOURS) + len(self._singly)
        chosen = (chance[..., 0] * (known + 1)).astype(np.int64)  # the last one leaves the picture as it is
        amounts = self._strength * (2 * chance[..., 1] - 1)
        for which, amount in zip(chosen.T, amounts.T, strict=True):
            pixels = self._round(pixels.copy(), which, amount)
        return pixels

    def _round(self, pixels: Pixels, which: NDArray[np.int64], amount: Numbers) -> Pixels:
        together = len(_MOVES) + len(_COLOURS)
        rows = np.flatnonzero(which < together)
        if len(rows):
            numbers = [np.stack(each) for each in zip(*map(self._numbers, which[rows], amount[rows]), strict=True)]
            pixels[rows] = self._change(pixels[rows], *numbers)
        for row in np.flatnonzero((which >= together) & (which < together + len(self._singly))):
            change = self._singly[which[row] - together]
            pixels[row] = change(pixels[row : row + 1], np.float32(amount[row])).numpy()[0]
        return pixels

    def _numbers(self, which: int, amount: float) -> list[NDArray[np.float32]]:
        """What `layers.moving_and_colouring` takes for one picture."""
        width, height = self._size
        matrix, shift = _MOVES[which](amount) if which < len(_MOVES) else (np.eye(2), np.zeros(2))
        middle = np.array([width - 1, height - 1]) / 2
        offset = middle - matrix @ middle + shift * [width, height]
        colours, contrast = (np.eye(3), 1.0) if which < len(_MOVES) else _COLOURS[which - len(_MOVES)](amount)
        moved = np.column_stack([matrix, offset]).ravel()
        return [np.asarray(each, dtype=np.float32) for each in (moved, colours, contrast, 0)]


def _turned(amount: float) -> tuple[Numbers, Numbers]:
    cosine, sine = np.cos(amount * _TURN), np.sin(amount * _TURN)
    return np.array([[cosine, -sine], [sine, cosine]]), np.zeros(2)


def _sheared(x: float, y: float) -> tuple[Numbers, Numbers]:
    return np.array([[1, x * _SHEAR], [y * _SHEAR, 1]]), np.zeros(2)


def _shifted(x: float, y: float) -> tuple[Numbers, Numbers]:
    return np.eye(2), np.array([x, y]) * _SHIFT


# From an amount to the matrix about the middle and the shift in widths and heights.
_MOVES: tuple[Callable[[float], tuple[Numbers, Numbers]], ...] = (
    _turned,
    lambda amount: _sheared(amount, 0),
    lambda amount: _sheared(0, amount),
    lambda amount: _shifted(amount, 0),
    lambda amount: _shifted(0, amount),
)
# From an amount to what RGB is multiplied by, and the contrast: more or less saturation, contrast, brightness.
_COLOURS: tuple[Callable[[float], tuple[Numbers, float]], ...] = (
    lambda amount: (_GREY + (np.eye(3) - _GREY) * (1 + _FACTOR * amount), 1.0),
    lambda amount: (np.eye(3), 1 + _FACTOR * amount),
    lambda amount: (np.eye(3) * (1 + _FACTOR * amount), 1.0),
)


def _layers_of_keras(width: int, height: int) -> list[Callable[..., Any]]:
    """Sharpness, posterize, solarize, equalize, autocontrast: from one picture and an amount to the picture."""
    keras, tf = backend()
    made = keras.layers
    sharpen, posterize = made.RandomSharpness(1.0, dtype="float32"), made.RandomPosterization(8, dtype="float32")
    solarize, equalize = made.Solarization(dtype="float32"), made.Equalization(dtype="float32")
    stretch = made.AutoContrast(dtype="float32")

    def bits_lost(amount: Any) -> Any:
        return tf.cast(tf.round(tf.abs(amount) * _BITS), tf.uint8)[None]

    def inverted(amount: Any) -> dict[str, Any]:
        return {"additions": 0.0, "thresholds": 255.5 - 255 * tf.abs(amount)}

    return [
        _traced(change, width, height)
        for change in (
            lambda pixels, amount: sharpen.transform_images(pixels, {"factor": 0.5 + 0.5 * _FACTOR * amount}),
            lambda pixels, amount: posterize.transform_images(pixels, {"shift_factor": bits_lost(amount)}),
            lambda pixels, amount: solarize.transform_images(pixels, inverted(amount)),
            lambda pixels, _: equalize.transform_images(pixels, None),
            lambda pixels, _: stretch.transform_images(pixels, None),
        )
    ]


def _traced(change: Callable[[Any, Any], Any], width: int, height: int) -> Callable[..., Any]:
    tf = backend().tf

    def rounded(pixels: Any, amount: Any) -> Any:
        changed = change(tf.cast(pixels, tf.float32), amount)
        return tf.cast(tf.clip_by_value(changed, 0, 255) + 0.5, tf.uint8)

    signature = [tf.TensorSpec((1, height, width, 3), tf.uint8), tf.TensorSpec((), tf.float32)]
    traced: Callable[..., Any] = tf.function(rounded, input_signature=signature).get_concrete_function()
    return traced
