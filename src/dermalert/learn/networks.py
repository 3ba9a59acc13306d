"""Networks, by name.

Comes in: a recipe and a number of classes. Goes out: an untrained Keras model.
It knows nothing of data or training. Initial weights depend on the recipe's seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dermalert.errors import RunError
from dermalert.learn.backend import backend
from dermalert.learn.recipes import Recipe


def build(recipe: Recipe, classes: int) -> Any:
    """The recipe's network with fresh weights.

    Args:
        recipe: its `precision` must be decided: `float32` or `mixed_bfloat16`.
        classes: the number of logits.

    Returns:
        keras.Model from uint8 or float32 (N, H, W, 3) in [0, 255] to logits, float32 (N, classes).

    Raises:
        RunError: no network of that name, or a precision of `auto`.
        MissingExtra: Keras is not installed.
    """
    if recipe.network not in NETWORKS:
        raise RunError(f"There is no network {recipe.network!r}. Known: {', '.join(NETWORKS)}.")
    if recipe.precision == "auto":
        raise RunError("Decide the precision before building: train.fastest_precision measures it.")
    return NETWORKS[recipe.network](recipe, classes)


def plain_cnn(recipe: Recipe, classes: int) -> Any:
    """Three convolution and pooling blocks and two dense layers, as in TensorFlow's tutorial.

    The tutorial applies ReLU before pooling. Here it comes after: both only ever keep the larger value, so
    the function is the same, and ReLU and its gradient see a quarter of the values.

    Source: https://www.tensorflow.org/tutorials/images/classification
    """
    keras = backend().keras
    layers = keras.layers
    policy = keras.DTypePolicy(recipe.precision)

    def weights(index: int) -> Any:
        return keras.initializers.GlorotUniform(seed=recipe.seed * 1000 + index)

    width, height = recipe.size
    stack = [keras.Input((height, width, 3), name="picture"), layers.Rescaling(1 / 255, dtype=policy)]
    for index, filters in enumerate((16, 32, 64)):
        stack += [
            layers.Conv2D(filters, 3, padding="same", kernel_initializer=weights(index), dtype=policy),
            layers.MaxPooling2D(dtype=policy),
            layers.ReLU(dtype=policy),
        ]
    if recipe.dropout:
        stack.append(layers.Dropout(recipe.dropout, seed=recipe.seed, dtype=policy))
    stack += [
        layers.Flatten(dtype=policy),
        layers.Dense(128, activation="relu", kernel_initializer=weights(3), dtype=policy),
        layers.Dense(classes, kernel_initializer=weights(4), dtype="float32", name="logits"),
    ]
    return keras.Sequential(stack, name="plain_cnn")


NETWORKS: dict[str, Callable[[Recipe, int], Any]] = {"plain-cnn": plain_cnn}
