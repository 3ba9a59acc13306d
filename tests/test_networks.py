"""Whatever the backbone, a network is pixels to logits, its stages share out its weights, and it becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dermalert.bundle.export import export_onnx
from dermalert.errors import RunError
from dermalert.learn import networks
from dermalert.learn.recipes import Recipe, recipe_named

PLAIN = replace(recipe_named("plain"), size=(40, 35), precision="float32", seed=3)
PACKAGED = replace(PLAIN, network="mobilenetv2", weights="imagenet", dropout=0.2)
KERAS = replace(PLAIN, network="keras/MobileNet", dropout=0.2)
LITE = replace(PLAIN, network="efficientnet-lite0", dropout=0.2)
RECIPES = [PLAIN, PACKAGED, KERAS, LITE]

each_network = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.network)


def pictures(recipe: Recipe, count: int = 3) -> np.ndarray:
    width, height = recipe.size
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def alive(model: Any, recipe: Recipe) -> Any:
    """The model, its batch normalizations (if any) fitted to noise, so that a drawn network has a signal to lose."""
    if recipe.network.startswith("keras/"):
        backbone = model.get_layer("backbone")
        for layer in backbone.network.layers:
            layer.momentum = 0.0
        backbone.network(backbone.scaled(pictures(recipe, 8).astype(np.float32)), training=True)
    return model


@each_network
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_bytes_and_floats_of_a_picture_give_the_same_float32_logits(recipe: Recipe, precision: str) -> None:
    recipe = replace(recipe, precision=precision)
    model = alive(networks.build(recipe, 4), recipe)
    pixels = pictures(recipe)
    logits = np.asarray(model(pixels))
    assert logits.dtype == np.float32
    assert logits.shape == (3, 4)
    assert logits.std() > 0.01
    assert np.array_equal(logits, np.asarray(model(pixels.astype(np.float32))))
    assert model.layers[-1].name == "logits"


@each_network
def test_the_two_precisions_are_one_network(recipe: Recipe) -> None:
    one = networks.build(recipe, 4)
    other = networks.build(replace(recipe, precision="mixed_bfloat16"), 4)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert {weight.dtype for weight in other.trainable_variables} == {"float32"}
    if recipe in (KERAS, LITE):
        return  # drawn by chance and many layers deep, they make much of little: its logits say nothing here
    logits = [np.asarray(model(pictures(recipe))) for model in (one, other)]
    assert np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()


@each_network
def test_first_weights_depend_on_the_seed_and_nothing_else(recipe: Recipe) -> None:
    one, same = networks.build(recipe, 4), networks.build(recipe, 4)
    other = networks.build(replace(recipe, seed=4), 4)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    head = [model.layers[-1].kernel.numpy() for model in (one, other)]
    assert not np.array_equal(*head)


@each_network
def test_every_trainable_variable_is_in_exactly_one_stage(recipe: Recipe) -> None:
    model = networks.build(recipe, 4)
    stages = networks.stages(model)
    shared_out = [variable.path for stage in stages for variable in stage]
    assert sorted(shared_out) == sorted(variable.path for variable in model.trainable_variables)
    assert all(stages)


def test_stages_go_from_the_head_to_the_first_layers() -> None:
    assert len(networks.stages(networks.build(PLAIN, 4))) == 1
    stages = networks.stages(networks.build(PACKAGED, 4))
    assert len(stages) == 6
    assert [variable.path for variable in stages[0]] == ["logits/kernel", "logits/bias"]
    assert "stage5_last" in stages[1][-1].path
    assert "stage1_first" in stages[-1][0].path
    drawn = networks.stages(networks.build(KERAS, 4))
    assert len(drawn) == 5
    assert [variable.path for variable in drawn[0]] == ["logits/kernel", "logits/bias"]
    assert "conv_pw_13" in drawn[1][-2].path
    assert "conv1/" in drawn[-1][0].path


@each_network
def test_only_dropout_tells_training_from_inference(recipe: Recipe) -> None:
    """The normalizations of a backbone keep their statistics, whatever pictures pass."""
    model = alive(networks.build(replace(recipe, dropout=0.0), 4), recipe)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    pixels = pictures(recipe)
    assert np.array_equal(np.asarray(model(pixels, training=True)), np.asarray(model(pixels, training=False)))
    after = [variable.numpy() for variable in model.non_trainable_variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    dropping = networks.build(replace(recipe, dropout=0.5), 4)
    assert not np.array_equal(np.asarray(dropping(pixels, training=True)), np.asarray(dropping(pixels, training=False)))


@each_network
def test_it_becomes_a_bundles_graph(recipe: Recipe) -> None:
    """`export_onnx` compares the two on noise; here it must have something to compare."""
    model = alive(networks.build(recipe, 4), recipe)
    assert np.asarray(model(pictures(recipe))).std() > 0.01
    assert export_onnx(model, size=recipe.size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "VGG16"])
def test_the_scaling_of_other_networks_becomes_part_of_the_graph(name: str) -> None:
    recipe = replace(PLAIN, network=f"keras/{name}")
    model = alive(networks.build(recipe, 4), recipe)
    assert np.asarray(model(pictures(recipe))).std() > 0.01
    assert export_onnx(model, size=recipe.size)


def test_what_no_network_can_do_is_refused() -> None:
    with pytest.raises(
        RunError, match="Known: plain-cnn, mobilenetv2, efficientnet-lite0, efficientnet-lite2, and keras/NAME"
    ):
        networks.build(replace(PLAIN, network="resnet"), 4)
    with pytest.raises(RunError, match="plain-cnn starts from nothing"):
        networks.build(replace(PLAIN, weights="imagenet"), 4)
    with pytest.raises(RunError, match=r"holds no weights of efficientnet-lite0\. Give a file"):
        networks.build(replace(PLAIN, network="efficientnet-lite0", weights="imagenet"), 4)
    with pytest.raises(RunError, match="Did you mean keras/ResNet50"):
        networks.build(replace(PLAIN, network="keras/resnet-50"), 4)
