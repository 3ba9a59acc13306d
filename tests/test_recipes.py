"""Recipes are plain values that travel through JSON unharmed, and networks are what recipes say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import MissingExtra, RunError
from dermalert.learn import networks
from dermalert.learn.backend import backend
from dermalert.learn.recipes import (
    AUGMENTATIONS,
    BALANCES,
    KEPT,
    LOSSES,
    PRECISIONS,
    PREPARATIONS,
    RECIPES,
    SCHEDULES,
    VIEWS,
    Recipe,
    recipe_named,
)

counts = st.integers(1, 10_000)
recipes = st.builds(
    Recipe,
    name=st.text(),
    network=st.text(),
    summary=st.text(),
    weights=st.text(),
    size=st.tuples(counts, counts),
    batch_size=counts,
    epochs=counts,
    learning_rate=st.floats(1e-9, 10),
    schedule=st.sampled_from(SCHEDULES),
    backbone_rate=st.floats(1e-3, 1),
    depth_decay=st.floats(1e-3, 1),
    frozen_epochs=st.integers(0, 50),
    patience=counts,
    keep=st.sampled_from(KEPT),
    precision=st.sampled_from(PRECISIONS),
    dropout=st.floats(0, 0.99),
    prepare=st.lists(st.sampled_from(PREPARATIONS), unique=True).map(tuple),
    augment=st.dictionaries(st.sampled_from(sorted(AUGMENTATIONS)), st.floats(0.01, 0.5)),
    balance=st.sampled_from(BALANCES),
    loss=st.sampled_from(LOSSES),
    views=st.sampled_from(VIEWS),
    pooled=st.booleans(),
    seed=st.integers(0, 2**31),
)


@settings(deadline=None, max_examples=100)
@given(recipes)
def test_a_recipe_survives_its_json(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_the_plain_recipe_is_the_one_the_field_writes() -> None:
    plain = recipe_named("plain")
    assert (plain.size, plain.batch_size, plain.learning_rate, plain.dropout) == ((180, 180), 32, 1e-3, 0.0)


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(RunError, match="Known: plain"):
        recipe_named("fancy")


@pytest.mark.parametrize(
    "change",
    [
        {"size": (0, 180)},
        {"size": (180.5, 180)},
        {"schedule": "steep"},
        {"keep": "first"},
        {"backbone_rate": 0.0},
        {"depth_decay": 0.0},
        {"frozen_epochs": -1},
        {"prepare": ("magic",)},
        {"augment": {"magic": 0.1}},
        {"augment": {"rotate": 0.0}},
        {"augment": {"rotate": 0.6}},
        {"balance": "magic"},
        {"loss": "magic"},
        {"views": 3},
        {"batch_size": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"patience": 0},
        {"precision": "float8"},
        {"dropout": 1.0},
        {"seed": -1},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(RunError, match=next(iter(change))):
        replace(recipe_named("plain"), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"name": "plain"}',
        '{"name": "plain", "network": 3}',
        '{"name": "plain", "network": "plain-cnn", "epochs": "20"}',
        '{"name": "plain", "network": "plain-cnn", "epochs": true}',
        '{"name": "plain", "network": "plain-cnn", "size": 180}',
        '{"name": "plain", "network": "plain-cnn", "size": [180, null]}',
        '{"name": "plain", "network": "plain-cnn", "augment": ["flip"]}',
        '{"name": "plain", "network": "plain-cnn", "augment": {"flip": "often"}}',
    ],
)
def test_json_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RunError):
        Recipe.from_json(text)


def test_a_recipe_with_a_field_too_many_is_refused() -> None:
    values = {**json.loads(recipe_named("plain").to_json()), "augmentation": "all"}
    with pytest.raises(RunError, match="augmentation"):
        Recipe.from_json(json.dumps(values))


def test_what_an_edited_recipe_leaves_out_has_its_default() -> None:
    assert Recipe.from_json('{"name": "mine", "network": "plain-cnn"}') == Recipe("mine", "plain-cnn")


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_says_what_it_is_for(name: str) -> None:
    assert RECIPES[name].name == name
    assert RECIPES[name].summary.endswith(".")


SMALL = replace(recipe_named("plain"), size=(30, 22), precision="float32")


def test_the_plain_network_computes_what_the_tutorials_network_computes() -> None:
    """ReLU after pooling, as here, and before it, as there, are one function."""
    keras = backend().keras
    layers = keras.layers
    ours = networks.build(SMALL, 9)
    stack = [keras.Input((22, 30, 3)), layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        stack += [layers.Conv2D(filters, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(9)]
    theirs = keras.Sequential(stack)
    theirs.set_weights(ours.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (5, 22, 30, 3)).astype(np.float32)
    assert np.allclose(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    assert ours.count_params() == theirs.count_params()


def test_bytes_and_floats_of_a_picture_give_the_same_float32_logits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 22, 30, 3)).astype(np.uint8)
    for precision in ("float32", "mixed_bfloat16"):
        network = networks.build(replace(SMALL, precision=precision), 4)
        logits = np.asarray(network(pixels))
        assert logits.dtype == np.float32
        assert logits.shape == (3, 4)
        assert np.array_equal(logits, np.asarray(network(pixels.astype(np.float32))))


def test_first_weights_depend_on_the_seed_and_nothing_else() -> None:
    one, same = networks.build(SMALL, 9), networks.build(replace(SMALL, precision="mixed_bfloat16"), 9)
    other = networks.build(replace(SMALL, seed=1), 9)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_an_unknown_network_or_an_open_precision_is_refused() -> None:
    with pytest.raises(RunError, match="Known: plain-cnn"):
        networks.build(replace(SMALL, network="resnet"), 9)
    with pytest.raises(RunError, match="precision"):
        networks.build(recipe_named("plain"), 9)


def test_without_the_training_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    backend.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install '\.\[train\]'"):
        backend()
