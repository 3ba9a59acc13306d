"""Preparation: what is done to every picture inside the network, in training and in scoring alike.

Comes in: names of `recipes.PREPARATIONS`. Goes out: Keras layers, pictures in [0, 255] to pictures in [0, 255].
They have no weights and draw nothing by chance. They become part of the exported graph, so that whoever scores with a
bundle cannot leave them out. Each looks at one picture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn.backend import backend

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_NORM = 6  # Minkowski's p: the best of Finlayson and Trezzi
_DARKEST = 1e-3  # of the range: what a colour channel's illuminant is at least, so that nothing is divided by 0
# A vignette is black: what is darker than the first share of the skin's luma is rim, lighter than the second is not.
_RIM, _NOT_RIM = 0.2, 0.5
# The ellipse that is never touched, and the one outside of which all is looked at; 1 touches the picture's sides.
_INNER, _OUTER = 0.7, 0.85
_CORNER = 0.05  # of the sides: the squares in the corners of which two must be dark
_BLUR, _REACH = 0.04, 4.0  # of the sides: how softly the fill ends; and how readily it spreads over the rim's edge


def preparation_layers(names: Sequence[str], dtype: Any) -> list[Any]:
    """A layer a name, in this order.

    Args:
        names: of `recipes.PREPARATIONS`.
        dtype: a dtype or Keras policy. Statistics are float32 whatever it is.

    Raises:
        RunError: an unknown name.
        MissingExtra: Keras is not installed.
    """
    known: dict[str, Callable[[], Any]] = {"shades-of-gray": shades_of_gray, "remove-vignette": remove_vignette}
    if unknown := [name for name in names if name not in known]:
        raise RunError(f"There is no preparation {', '.join(unknown)}. Known: {', '.join(known)}.")
    return [known[name]()(dtype=dtype, name=name.replace("-", "_")) for name in names]


def examples(names: Sequence[str], picture: NDArray[np.uint8]) -> dict[str, list[NDArray[np.uint8]]]:
    """For each name: the picture, uint8 (H, W, 3), and what the network sees of it, for people to look at."""
    shown = {}
    for name in names:
        (layer,) = preparation_layers([name], "float32")
        seen = np.asarray(layer(picture[None].astype(np.float32)))[0]
        shown[name] = [picture, np.clip(np.rint(seen), 0, 255).astype(np.uint8)]
    return shown


@lru_cache(maxsize=1)
def shades_of_gray() -> Any:
    """The class `ShadesOfGray`: colour constancy (Finlayson and Trezzi, Color Imaging Conference 2004).

    The colour of the light is taken to be the Minkowski norm, p = 6, of each channel. Channels are scaled so that it
    becomes neutral and the mean luma stays. For dermoscopy: Barata et al., IEEE J Biomed Health Inform 19:1146 (2015).
    """
    keras = backend().keras

    @keras.saving.register_keras_serializable("dermalert")
    class ShadesOfGray(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """Pictures (B, H, W, 3) in [0, 255] under neutral light."""

        def call(self, pixels: Any) -> Any:
            return keras.ops.cast(_neutral(keras.ops.cast(pixels, "float32"), keras.ops), self.compute_dtype)

    return ShadesOfGray


@lru_cache(maxsize=1)
def remove_vignette() -> Any:
    """The class `RemoveVignette`: a dermatoscope's black rim and corners in the colour of the picture's own skin.

    Filled is what lies outside a central ellipse and is far darker than the skin, and only where at least two corners
    are so: in a sample of the nine-class set, all pictures with two such corners had a rim, and some with one had not.
    """
    keras = backend().keras

    @keras.saving.register_keras_serializable("dermalert")
    class RemoveVignette(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """Pictures (B, H, W, 3) in [0, 255] without their dark rim."""

        def call(self, pixels: Any) -> Any:
            return keras.ops.cast(_without_rim(keras.ops.cast(pixels, "float32"), keras.ops), self.compute_dtype)

    return RemoveVignette


def _neutral(pixels: Any, ops: Any) -> Any:
    share = pixels / 255
    squares = share * share
    light = ops.mean(squares * squares * squares, axis=(1, 2)) ** (1 / _NORM)
    light = ops.maximum(light, _DARKEST)
    mean = ops.mean(share, axis=(1, 2)) * np.array(_LUMA, dtype=np.float32)
    kept = ops.sum(mean, axis=1, keepdims=True) / ops.maximum(ops.sum(mean / light, axis=1, keepdims=True), _DARKEST)
    return ops.clip(pixels * (kept / light)[:, None, None], 0.0, 255.0)


def _without_rim(pixels: Any, ops: Any) -> Any:
    height, width = pixels.shape[1:3]
    distance = _distance(width, height)
    skin = _skin(pixels, distance, ops)
    darkness = ops.clip(
        (_NOT_RIM - _luma(pixels, ops) / ops.maximum(_luma(skin, ops), 1.0)) / (_NOT_RIM - _RIM), 0.0, 1.0
    )
    outside = np.clip((distance - _INNER) / (_OUTER - _INNER), 0, 1).astype(np.float32)
    spread = ops.matmul(ops.matmul(_blurring(height), darkness * outside), _blurring(width).T)
    share = ops.minimum(spread * _REACH, 1.0) * outside * _has_rim(darkness, ops)
    return pixels + share[..., None] * (skin - pixels)


def _skin(pixels: Any, distance: NDArray[np.float32], ops: Any) -> Any:
    """The mean colour of the lighter half of the inner ellipse, (B, 1, 1, 3): lesions are darker than their skin."""
    inside = (distance < _INNER).astype(np.float32)
    luma = _luma(pixels, ops)
    mean = ops.sum(luma * inside, axis=(1, 2), keepdims=True) / max(inside.sum(), 1)
    weight = ops.clip((luma - mean) / 16 + 0.5, 0.0, 1.0) * inside + 1e-6
    return (ops.sum(pixels * weight[..., None], axis=(1, 2)) / ops.sum(weight, axis=(1, 2))[:, None])[:, None, None]


def _has_rim(darkness: Any, ops: Any) -> Any:
    """From 0 to 1, (B, 1, 1): whether at least two corners are dark, so the darkest but one."""
    height, width = darkness.shape[1:3]
    down, across = max(round(_CORNER * height), 1), max(round(_CORNER * width), 1)
    corners = [
        ops.mean(darkness[:, rows, columns], axis=(1, 2), keepdims=True)
        for rows in (slice(None, down), slice(height - down, None))
        for columns in (slice(None, across), slice(width - across, None))
    ]
    one, other, third, fourth = corners
    least = ops.maximum(ops.minimum(one, other), ops.minimum(third, fourth))
    most = ops.minimum(ops.maximum(one, other), ops.maximum(third, fourth))
    return ops.clip((ops.maximum(least, most) - 0.3) / 0.4, 0.0, 1.0)


def _luma(pixels: Any, ops: Any) -> Any:
    return ops.sum(pixels * np.array(_LUMA, dtype=np.float32), axis=-1)


def _distance(width: int, height: int) -> NDArray[np.float32]:
    """From the middle, 1 at the middle of each side: float32 (H, W)."""
    x, y = ((2 * np.arange(side) + 1) / side - 1 for side in (width, height))
    return np.hypot(x[None, :], y[:, None]).astype(np.float32)


def _blurring(side: int) -> NDArray[np.float32]:
    """The matrix of a Gaussian blur along an axis, its rows' sums 1 at the edges too: float32 (side, side)."""
    places = np.arange(side) / (_BLUR * side)
    weights = np.exp(-((places[:, None] - places[None, :]) ** 2) / 2)
    blurring: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return blurring
