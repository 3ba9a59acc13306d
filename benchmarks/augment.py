"""Augmentation throughput: Dermalert's fused layers, and the same seven augmentations as Keras's own layers in a row.

Comes in: nothing; pictures are noise. Goes out: a table of pictures per second of each augmentation alone, of the
`augmented` recipe's seven together, and of the seven as a user would stack them from `keras.layers`, with the ratio.
One process, in turns, medians; TensorFlow has one thread, as it has beside a busy training step.

    python benchmarks/augment.py --rounds 20
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

from dermalert.learn.augment import Augmenter
from dermalert.learn.backend import backend
from dermalert.learn.recipes import RECIPES

SIZE = (180, 180)
BATCH = 32
SEVEN = RECIPES["augmented"].augment


def keras_stack(strength: Mapping[str, float]) -> Callable[[Any], Any]:
    """The seven as keras.layers has them, compiled together as tf.data would."""
    layers, tf = backend().keras.layers, backend().tf
    stack = [
        layers.RandomFlip(),
        layers.RandomRotation(strength["rotate"], fill_mode="reflect"),
        layers.RandomZoom(strength["zoom"], fill_mode="reflect"),
        layers.RandomTranslation(strength["shift"], strength["shift"], fill_mode="reflect"),
        layers.RandomBrightness(strength["brightness"]),
        layers.RandomContrast(strength["contrast"]),
        layers.RandomHue(strength["colour"]),
        layers.RandomSaturation((0.5 - strength["colour"] / 2, 0.5 + strength["colour"] / 2)),
    ]

    @tf.function  # type: ignore[untyped-decorator]
    def change(pixels: Any) -> Any:
        for layer in stack:
            pixels = layer(pixels, training=True)
        return pixels

    return lambda pixels: change(pixels).numpy()


def ours(strength: Mapping[str, float]) -> Callable[[Any], Any]:
    """Our augmenter, a new batch number each time."""
    augmenter = Augmenter(strength, size=SIZE, seed=0)
    numbers = iter(range(1 << 30))
    return lambda pixels: augmenter(pixels, epoch=1, batch=next(numbers)).pixels


def rates(sides: Mapping[str, Callable[[Any], Any]], rounds: int) -> dict[str, float]:
    """Pictures per second of each side: the median over rounds in which all take turns."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *SIZE[::-1], 3)).astype(np.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for change in sides.values():
        change(pixels)
    for _ in range(rounds):
        for name, change in sides.items():
            start = time.perf_counter()
            change(pixels)
            seconds[name].append(time.perf_counter() - start)
    return {name: BATCH / median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one round of one augmentation: whether it still runs")
    asked = parser.parse_args()
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    together, keras_own = "the seven together", "the seven, keras.layers in a row"
    single: dict[str, Mapping[str, float]] = {name: {name: strength} for name, strength in SEVEN.items()}
    for name in ("mixup", "cutmix", "randaugment", "occlusion"):
        added = RECIPES[name].augment
        single[name] = {key: value for key, value in added.items() if key not in SEVEN}
    if asked.quick:
        single, asked.rounds = {}, 1
    sides = {name: ours(strength) for name, strength in {**single, together: SEVEN}.items()}
    found = rates({**sides, keras_own: keras_stack(SEVEN)}, asked.rounds)
    for name, rate in found.items():
        print(f"{name:36}{rate:8.0f} pictures/s")
    print(f"{'ours against keras.layers':36}{found[together] / found[keras_own]:8.1f} times")


if __name__ == "__main__":
    main()
