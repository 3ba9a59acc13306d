"""Augmentation: training pictures changed by chance, reproducibly, beside the training step.

Comes in: a batch of pixels and its place in the run. Goes out: the pixels as the network sees them in training, and
for blended pictures, whose label counts how much. It never sees a label, a validation picture or a test picture.

Nothing is remembered from one call to the next. What happens to a picture depends on the recipe, the seed, the epoch
and the batch's number alone, so a resumed run goes on with the very pictures of an unbroken one. Each augmentation
draws from a generator of its own: adding one to a recipe leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.drawn import degrade
from dermalert.errors import RunError
from dermalert.learn import layers, occlusion
from dermalert.learn.backend import backend
from dermalert.learn.randaugment import RandAugment
from dermalert.learn.recipes import AUGMENTATIONS

TOGETHER = "all together"
_NAMES = tuple(AUGMENTATIONS)
_MOVES = ("flip", "rotate", "zoom", "aspect", "shift")
_COLOURS = ("brightness", "contrast", "colour", "illuminant")
# RGB to YIQ (FCC NTSC): luma, and two axes of colour around which hue turns.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Augmented:
    """A batch as the network sees it in training.

    Attributes:
        pixels: uint8 (B, H, W, 3).
        partner: int64 (B,), the index within the batch of the picture mixed in; its own index where none is.
        share: float32 (B,), how much of the label is the picture's own: 1 where nothing is mixed in.
    """

    pixels: Pixels
    partner: NDArray[np.int64]
    share: NDArray[np.float32]


class Augmenter:
    """A recipe's augmentation. Several threads may call it at once.

    Args:
        augment: names of `AUGMENTATIONS` and their strength.
        size: width and height in pixels of what comes out.
        seed: other seeds, other pictures.
        given: width and height of the pictures given; by default `size`. Another size needs an augmentation that moves.

    Raises:
        RunError: an unknown name.
        MissingExtra: Keras or TensorFlow is not installed.
    """

    def __init__(
        self, augment: Mapping[str, float], *, size: tuple[int, int], seed: int, given: tuple[int, int] | None = None
    ) -> None:
        if unknown := sorted(set(augment) - set(_NAMES)):
            raise RunError(f"There is no augmentation {', '.join(unknown)}. Known: {', '.join(_NAMES)}.")
        self._strength = {name: float(augment[name]) for name in _NAMES if name in augment}
        self._width, self._height = size
        self._given = given or size
        self._seed = seed
        moves, colours = (any(name in augment for name in names) for names in (_MOVES, _COLOURS))
        if self._given != size and not moves:
            raise RunError(f"Pictures of {self._given} can only become {size} by one of {', '.join(_MOVES)}.")
        change = partial(layers.moving_and_colouring, *size, given=self._given, moves=moves, colours=colours)
        self._change = change() if moves or colours else None
        strength = self._strength.get("randaugment")
        self._randaugment = RandAugment(strength, width=self._width, height=self._height) if strength else None
        self._mix = _mixing(self._width, self._height) if "mixup" in augment or "cutmix" in augment else None

    def __call__(self, pixels: Pixels, *, epoch: int, batch: int) -> Augmented:
        """The batch, augmented.

        Args:
            pixels: uint8 (B, H, W, 3), of any B; not changed.
            epoch: of the run.
            batch: number of the batch in its epoch.
        """
        count = len(pixels)
        draw = _Draw(self._strength, (self._seed, epoch, batch), count)
        pixels = _occluded(pixels, draw)
        if self._change is not None:
            maps = _maps(draw, *self._given, self._width, self._height)
            pixels = self._change(pixels, maps, _colours(draw), *_levels(draw))
        pixels = _degraded(pixels, draw)
        if self._randaugment is not None:
            pixels = self._randaugment(pixels, draw.generator("randaugment"))
        return self._mixed(pixels, draw)

    def _mixed(self, pixels: Pixels, draw: _Draw) -> Augmented:
        partner, share, box = _pairs(draw, self._width, self._height)
        if self._mix is not None and (share < 1).any():
            pixels = self._mix(pixels, pixels[partner], np.where(_area(box) > 0, 1, share).astype(np.float32), box)
        return Augmented(pixels, partner, share)


class _Draw:
    """What chance says for one batch: every augmentation has a generator of its own."""

    def __init__(self, strength: Mapping[str, float], place: tuple[int, int, int], count: int) -> None:
        self._strength, self._place, self.count = strength, place, count

    def __contains__(self, name: str) -> bool:
        return name in self._strength

    def __getitem__(self, name: str) -> float:
        return self._strength[name]

    def generator(self, name: str, *more: int) -> np.random.Generator:
        return np.random.default_rng((*self._place, _NAMES.index(name), *more))

    def either_way(self, name: str, kinds: int = 1) -> NDArray[np.float64]:
        """From minus to plus the strength, one a picture and kind, (kinds, B); 0 where the recipe is without it."""
        if name not in self:
            return np.zeros((kinds, self.count))
        return self.generator(name).uniform(-1, 1, size=(self.count, kinds)).T * self[name]

    def happens(self, name: str, kinds: int = 1) -> NDArray[np.bool_]:
        """Whether it comes about, with the strength as its chance, (kinds, B)."""
        if name not in self:
            return np.zeros((kinds, self.count), dtype=np.bool_)
        return self[name] > self.generator(name).random((self.count, kinds)).T


def _occluded(pixels: Pixels, draw: _Draw) -> Pixels:
    height, width = pixels.shape[1:3]
    for name, paint in occlusion.DRAWN.items():
        rows = np.flatnonzero(draw.happens(name))
        if len(rows):
            pixels = pixels.copy()
        for row in rows:
            pixels[row] = occlusion.covered(pixels[row], paint(width, height, draw.generator(name, int(row))))
    return pixels


def _degraded(pixels: Pixels, draw: _Draw) -> Pixels:
    """What a camera and a JPEG encoder do comes after all that happens before the lens."""
    rows = np.flatnonzero(draw.happens("degrade"))
    if len(rows):
        pixels = pixels.copy()
    for row in rows:
        pixels[row] = degrade.degraded(pixels[row], draw.generator("degrade", int(row)))
    return pixels


def _maps(draw: _Draw, width: int, height: int, made_width: int, made_height: int) -> Floats:
    """For each picture, where its pixels come from: `layers.warp_layer`'s maps, float32 (B, 6)."""
    (turn,), (nearer,), (stretch,) = (draw.either_way(name) for name in ("rotate", "zoom", "aspect"))
    right, down = draw.either_way("shift", 2) * [[width], [height]]
    mirror_x, mirror_y = 1 - 2 * draw.happens("flip", 2).astype(int)
    scale = np.where(nearer < 0, 1 - nearer, 1 / (1 + nearer))
    wider = np.where(stretch < 0, 1 - stretch, 1 / (1 + stretch)) ** 0.5
    cosine, sine = np.cos(2 * np.pi * turn) * scale, np.sin(2 * np.pi * turn) * scale
    a, b = cosine * mirror_x * wider, -sine * mirror_y * wider
    d, e = sine * mirror_x / wider, cosine * mirror_y / wider
    a, b, d, e = a * width / made_width, b * width / made_height, d * height / made_width, e * height / made_height
    x, y, made_x, made_y = ((side - 1) / 2 for side in (width, height, made_width, made_height))
    maps = np.stack([a, b, x - a * made_x - b * made_y + right, d, e, y - d * made_x - e * made_y + down], axis=1)
    return maps.astype(np.float32)


def _colours(draw: _Draw) -> Floats:
    """For each picture, what its RGB is multiplied by: hue turned, saturation scaled, luma kept, and then each channel
    by itself; float32 (B, 3, 3).

    The turn is made in YIQ, so it is linear (Haeberli, Matrix operations for image processing, 1993).
    """
    hue, saturation = draw.either_way("colour", 2)
    change = np.zeros((draw.count, 3, 3))
    change[:, 0, 0] = 1
    change[:, 1, 1] = change[:, 2, 2] = np.cos(np.pi * hue) * (1 + saturation)
    change[:, 2, 1] = np.sin(np.pi * hue) * (1 + saturation)
    change[:, 1, 2] = -change[:, 2, 1]
    lamp = 1 + draw.either_way("illuminant", 3).T[:, :, None]
    product: Floats = (lamp * (np.linalg.inv(_YIQ) @ change @ _YIQ)).transpose(0, 2, 1).astype(np.float32)
    return product


def _levels(draw: _Draw) -> tuple[Floats, Floats]:
    """Contrast, 1 for unchanged, and what is added for brightness, of 255: float32 (B,) each."""
    (contrast,), (brightness,) = draw.either_way("contrast"), draw.either_way("brightness")
    return (1 + contrast).astype(np.float32), (255 * brightness).astype(np.float32)


def _pairs(draw: _Draw, width: int, height: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Who is mixed with whom, how much remains of each, and where its patch lies: int64, float32 (B,), float32 (B, 4).

    With both mixup and cutmix in a recipe, each picture has one of them by an even chance.
    """
    own, share, box = np.arange(draw.count), np.ones(draw.count), np.zeros((draw.count, 4), dtype=np.float32)
    names = [name for name in ("mixup", "cutmix") if name in draw]
    if names and draw.count > 1:
        generator = draw.generator(names[0], 0)
        partner = (own + generator.integers(1, draw.count)) % draw.count
        patched = generator.random(draw.count) < (0.5 if len(names) == 2 else float(names == ["cutmix"]))
        if "mixup" in draw:
            share = draw.generator("mixup").beta(draw["mixup"], draw["mixup"], size=draw.count)
        if "cutmix" in draw:
            box = _boxes(draw, width, height) * patched[:, None]
            share = np.where(patched, 1 - _area(box) / (width * height), share)
        own = np.where(share < 1, partner, own)
    return own, share.astype(np.float32), box


def _boxes(draw: _Draw, width: int, height: int) -> Floats:
    """A patch a picture, its middle anywhere, cut off at the edges as in the paper: left, right, top, bottom (B, 4)."""
    generator = draw.generator("cutmix")
    half = np.sqrt(1 - generator.beta(draw["cutmix"], draw["cutmix"], size=draw.count)) / 2
    middle = generator.random((2, draw.count))
    edges = np.clip([middle - half, middle + half], 0, 1) * [[[width], [height]]]
    boxes: Floats = np.round(edges).transpose(2, 1, 0).reshape(draw.count, 4).astype(np.float32)
    return boxes


def _area(box: Floats) -> Floats:
    area: Floats = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return area


def _mixing(width: int, height: int) -> layers.Compiled:
    """Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): Keras's layers, told the pairs and shares.

    Takes the pictures, their partners, how much remains in a blend (1 for no blend), and where the patch lies.
    """
    keras, tf = backend()
    blend, patch = keras.layers.MixUp(dtype="float32"), keras.layers.CutMix(dtype="float32")
    x, y = (
        tf.range(width, dtype=tf.float32)[None, None, :, None],
        tf.range(height, dtype=tf.float32)[None, :, None, None],
    )

    def mix(own: Any, other: Any, share: Any, box: Any) -> Any:
        left, right, top, bottom = (tf.reshape(edge, (-1, 1, 1, 1)) for edge in tf.unstack(box, axis=1))
        count = tf.shape(own)[0]
        both, order = tf.cast(tf.concat([own, other], axis=0), tf.float32), tf.tile(tf.range(count) + count, [2])
        masks = tf.tile((x >= left) & (x < right) & (y >= top) & (y < bottom), [2, 1, 1, 1])
        patched = patch.transform_images(both, {"permutation_order": order, "batch_masks": masks})
        shares = tf.concat([share, tf.ones_like(share)], axis=0)
        return blend.transform_images(patched, {"permutation_order": order, "mix_weight": shares})[:count]

    picture = ((height, width, 3), np.uint8)
    return layers.Compiled(mix, picture, picture, ((), np.float32), ((4,), np.float32))


def examples(augment: Mapping[str, float], pixels: Pixels, *, count: int, seed: int) -> Mapping[str, list[Pixels]]:
    """What each augmentation makes of a picture, alone and all together, for people to look at.

    Args:
        augment: as for `Augmenter`. Alone, what comes by chance comes each time.
        pixels: uint8 (H, W, 3), or (N, H, W, 3): the first is shown, the others are what it is mixed with.
        count: results of each.
        seed: other seeds, other results.

    Returns:
        By name, and for `TOGETHER`: the original, then `count` results, uint8 (H, W, 3) each.
    """
    batch = pixels if pixels.ndim == 4 else pixels[None]
    height, width = batch.shape[1:3]
    alone = {name: {name: 1.0 if name in occlusion.DRAWN else strength} for name, strength in augment.items()}
    shown = {}
    for name, some in {**alone, TOGETHER: dict(augment)}.items():
        augmenter = Augmenter(some, size=(width, height), seed=seed)
        made = [augmenter(batch, epoch=0, batch=number).pixels[0] for number in range(count)]
        shown[name] = [batch[0], *made]
    return shown
