"""Networks, by name.

Comes in: a recipe and a number of classes. Goes out: a Keras model that has learned nothing of the recipe's pictures.
It knows nothing of data or training. Initial weights depend on the recipe's seed and starting weights alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermalert.errors import RunError
from dermalert.learn.backbones import applications, inverted, mobilenetv2
from dermalert.learn.backbones.efficientnetlite import LITE0, LITE2
from dermalert.learn.backend import backend
from dermalert.learn.prepare import preparation_layers
from dermalert.learn.recipes import Recipe

_KERAS = "keras/"
_INVERTED = {each.name: each for each in (mobilenetv2.MOBILENETV2, LITE0, LITE2)}
_STAGES = 4  # that a network of keras.applications is cut into
_HEAD_SEED = 4


def build(recipe: Recipe, classes: int) -> Any:
    """The recipe's network, ready to learn.

    Args:
        recipe: its `precision` must be decided: `float32` or `mixed_bfloat16`.
        classes: the number of logits.

    Returns:
        keras.Model from uint8 or float32 (N, H, W, 3) in [0, 255] to logits, float32 (N, classes).

    Raises:
        RunError: no network of that name, a precision of `auto`, a size that the network cannot do, or starting
            weights that cannot be had or read.
        MissingExtra: Keras is not installed.
    """
    _check(recipe)
    keras = backend().keras
    width, height = recipe.size
    inputs = keras.Input((height, width, 3), name="picture")
    pixels = _prepared(inputs, recipe)
    features = _features(pixels, recipe)
    logits = keras.layers.Dense(
        classes, kernel_initializer=_glorot(recipe, _HEAD_SEED), dtype="float32", name="logits"
    )(features)
    return keras.Model(inputs, logits, name=recipe.network.replace("/", "_").replace("-", "_"))


def stages(model: Any) -> tuple[tuple[Any, ...], ...]:
    """The trainable variables of a model that `build` made, from the head down to the first layers.

    A network without a backbone is one stage. Every trainable variable is in exactly one stage.
    """
    backbone = _backbone(model)
    if backbone is None:
        return (tuple(model.trainable_variables),)
    groups = _by_resolution(backbone) if has_stages(backbone) else _by_depth(backbone)
    inside = {id(variable) for variable in backbone.trainable_variables}
    head = tuple(variable for variable in model.trainable_variables if id(variable) not in inside)
    return (head, *reversed(groups))


def learning(model: Any, recipe: Recipe) -> tuple[tuple[tuple[Any, ...], ...], list[float]]:
    """The stages that learn, from the head down, and each one's factor of the learning rate.

    Raises:
        RunError: the recipe freezes all stages of the backbone, or some where there is none.
    """
    all_stages = stages(model)
    if recipe.frozen_stages and recipe.frozen_stages >= len(all_stages) - 1:
        raise RunError(
            f"{recipe.network} has {len(all_stages) - 1} stages, and {recipe.frozen_stages} were to be frozen."
        )
    kept = all_stages[: len(all_stages) - recipe.frozen_stages]
    return kept, [1.0, *(recipe.backbone_rate * recipe.depth_decay**depth for depth in range(len(kept) - 1))]


def divided(model: Any, frozen_stages: int) -> tuple[Any, Any]:
    """The model in two: what its lowest stages make of pictures, compiled and never learning, and the rest.

    Both halves share their weights with `model`.

    Raises:
        RunError: the network has no such stages to freeze.
    """
    tf = backend().tf
    before, lower, upper = halves(model, frozen_stages)

    def trunk(pixels: Any) -> Any:
        maps = tf.cast(pixels, tf.float32)
        for layer in before:
            maps = layer(maps)
        return lower(maps, training=False)

    return tf.function(trunk, reduce_retracing=True), upper


def halves(model: Any, frozen_stages: int) -> tuple[list[Any], Any, Any]:
    """The layers that prepare pictures, the lowest stages of the backbone, and the rest with the head.

    All share their weights with `model`.

    Raises:
        RunError: the network has no such stages to freeze.
    """
    backbone = _backbone(model)
    if backbone is None or not has_stages(backbone) or not 0 < frozen_stages < inverted.STAGES:
        raise RunError(
            f"Only {', '.join(_INVERTED)} can leave their lowest stages as they are, "
            f"1 to {inverted.STAGES - 1} of them."
        )
    keras = backend().keras
    names = [layer.name for layer in backbone.layers]
    last = max(place for place, name in enumerate(names) if name.startswith(f"stage{frozen_stages}_"))
    border = backbone.layers[last].output
    place = model.layers.index(backbone)
    features = keras.Input(border.shape[1:], name="features")
    maps = keras.Model(border, backbone.output)(features)
    for layer in model.layers[place + 1 :]:
        maps = layer(maps)
    return model.layers[1:place], keras.Model(backbone.input, border), keras.Model(features, maps)


def has_stages(backbone: Any) -> bool:
    """Whether the layers of a backbone say in their names which of five stages they belong to."""
    return backbone.name in {each.model_name for each in _INVERTED.values()}


def as_scored(model: Any, views: int) -> Any:
    """The model that scores: `model` itself, or the mean of its logits over the picture and its mirror images.

    Args:
        views: 1, or 4 for both axes (test-time augmentation).
    """
    if views == 1:
        return model
    keras = backend().keras
    picture = keras.Input(model.input_shape[1:], name="picture")
    images = [picture, picture[:, ::-1], picture[:, :, ::-1], picture[:, ::-1, ::-1]]
    return keras.Model(picture, keras.layers.Average(name="mean")([model(image) for image in images]))


def _check(recipe: Recipe) -> None:
    known = ("plain-cnn", *_INVERTED)
    if recipe.network not in known and not recipe.network.startswith(_KERAS):
        raise RunError(
            f"There is no network {recipe.network!r}. Known: {', '.join(known)}, and keras/NAME for any of "
            "keras.applications."
        )
    if recipe.network == "plain-cnn" and recipe.weights != "none":
        raise RunError(f"plain-cnn starts from nothing: its weights are 'none', not {recipe.weights!r}.")
    if recipe.network in (LITE0.name, LITE2.name) and recipe.weights == "imagenet":
        raise RunError(
            f"The package holds no weights of {recipe.network}. Give a file that {LITE0.made_by} made, or 'none'."
        )
    if recipe.precision == "auto":
        raise RunError("Decide the precision before building: train.fastest_precision measures it.")


def _prepared(inputs: Any, recipe: Recipe) -> Any:
    """What the network sees of a picture, still in [0, 255]."""
    pixels = inputs
    for layer in preparation_layers(recipe.prepare, _policy(recipe)):
        pixels = layer(pixels)
    return pixels


def _features(pixels: Any, recipe: Recipe) -> Any:
    if recipe.network == "plain-cnn":
        return _plain_cnn(pixels, recipe)
    layers = backend().keras.layers
    maps = _inverted(pixels, recipe) if recipe.network in _INVERTED else _application(pixels, recipe)
    # In float32 whatever the precision: a mean over many bfloat16 values would lose what tells them apart.
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(maps)
    return layers.Dropout(recipe.dropout, seed=recipe.seed, dtype="float32")(pooled) if recipe.dropout else pooled


def _plain_cnn(pixels: Any, recipe: Recipe) -> Any:
    """Three convolution and pooling blocks and a dense layer, as in TensorFlow's tutorial.

    The tutorial applies ReLU before pooling. Here it comes after: both only ever keep the larger value, so
    the function is the same, and ReLU and its gradient see a quarter of the values.

    Source: https://www.tensorflow.org/tutorials/images/classification
    """
    layers, policy = backend().keras.layers, _policy(recipe)
    maps = layers.Rescaling(1 / 255, dtype=policy)(pixels)
    for index, filters in enumerate((16, 32, 64)):
        initial = _glorot(recipe, index)
        maps = layers.Conv2D(filters, 3, padding="same", kernel_initializer=initial, dtype=policy)(maps)
        maps = layers.MaxPooling2D(dtype=policy)(maps)
        maps = layers.ReLU(dtype=policy)(maps)
    if recipe.dropout:
        maps = layers.Dropout(recipe.dropout, seed=recipe.seed, dtype=policy)(maps)
    flat = layers.Flatten(dtype=policy)(maps)
    return layers.Dense(128, activation="relu", kernel_initializer=_glorot(recipe, 3), dtype=policy)(flat)


def _inverted(pixels: Any, recipe: Recipe) -> Any:
    architecture = _INVERTED[recipe.network]
    network = inverted.build(architecture, pixels.shape[1:], policy=_policy(recipe), seed=recipe.seed)
    if recipe.weights == "imagenet":
        mobilenetv2.load(network)
    elif recipe.weights != "none":
        inverted.load(network, architecture, Path(recipe.weights), recipe.weights)
    return network(pixels)


def _application(pixels: Any, recipe: Recipe) -> Any:
    name = recipe.network.removeprefix(_KERAS)
    return applications.application(pixels, name, recipe.weights, policy=_policy(recipe), seed=recipe.seed)


def _policy(recipe: Recipe) -> Any:
    return backend().keras.DTypePolicy(recipe.precision)


def _glorot(recipe: Recipe, index: int) -> Any:
    return backend().keras.initializers.GlorotUniform(seed=recipe.seed * 1000 + index)


def _backbone(model: Any) -> Any | None:
    """The Keras model inside the model; `applications` keeps its own one layer deeper."""
    inner = (getattr(layer, "network", layer) for layer in model.layers)
    return next((layer for layer in inner if isinstance(layer, backend().keras.Model)), None)


def _by_resolution(backbone: Any) -> list[tuple[Any, ...]]:
    groups: dict[str, list[Any]] = {}
    for layer in backbone.layers:
        groups.setdefault(layer.name.split("_")[0], []).extend(layer.trainable_variables)
    return [tuple(group) for name, group in sorted(groups.items()) if name.startswith("stage")]


def _by_depth(backbone: Any) -> list[tuple[Any, ...]]:
    """As many layers in each; a convolution and its normalization may fall on both sides of a cut."""
    learning = [layer for layer in backbone.layers if layer.trainable_variables]
    share = -(-len(learning) // _STAGES)
    cut = [learning[start : start + share] for start in range(0, len(learning), share)]
    return [tuple(variable for layer in group for variable in layer.trainable_variables) for group in cut]
