"""What the shipped graph gives beside logits is what it says, and the same file for the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dermalert.bundle.export import export_onnx
from dermalert.learn import networks
from dermalert.learn.outputs import for_export
from dermalert.learn.recipes import recipe_named
from dermalert.score.engine import Engine
from graphs import bundle

SIZE = (64, 48)
CLASSES = ("melanoma", "nevus", "vascular lesion")
BIAS = [0.5, -1.0, 2.0]


def built(network: str, **changes: Any) -> Any:
    recipe = replace(recipe_named("transfer"), network=network, precision="float32", size=SIZE, **changes)
    return networks.build(recipe, len(CLASSES))


def noise(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE[1], SIZE[0], 3)).astype(np.uint8)


def test_the_graph_of_mobilenetv2_gives_all_four_and_evidence_adds_up_to_the_logits() -> None:
    model = built("mobilenetv2", weights="imagenet")
    model.get_layer("logits").bias.assign(BIAS)
    graph = export_onnx(for_export(model), size=SIZE)  # which compares every output with the model's
    engine = Engine(bundle(size=SIZE, classes=CLASSES, model=graph))
    found = engine.run(noise(), "logits", "embedding", "evidence", "texture")
    assert [found[name].shape for name in found] == [(2, 3), (2, 1280), (2, 2, 2, 3), (2, 2 * (24 + 32 + 96))]
    np.testing.assert_allclose(found["logits"], np.asarray(model(noise().astype(np.float32))), atol=1e-4)
    spread = found["evidence"].mean(axis=(1, 2)) + np.array(BIAS)
    np.testing.assert_allclose(spread, found["logits"], atol=1e-4)
    kernel = np.asarray(model.get_layer("logits").kernel)
    np.testing.assert_allclose(found["embedding"] @ kernel + np.array(BIAS), found["logits"], atol=1e-4)
    assert (found["texture"].reshape(2, -1)[:, -96:] >= 0).all()
    # Built and exported again in a process that has counted further, it is the same file.
    again = built("mobilenetv2", weights="imagenet")
    again.get_layer("logits").bias.assign(BIAS)
    assert export_onnx(for_export(again), size=SIZE) == graph


def test_the_texture_is_mean_and_deviation_of_the_middle_stages() -> None:
    model = built("mobilenetv2", weights="imagenet")
    backbone = model.get_layer("mobilenetv2")
    for_stage = type(backbone)(backbone.input, backbone.get_layer("stage3_block06_add").output)
    maps = np.asarray(for_stage(noise().astype(np.float32)))
    texture = np.asarray(for_export(model)(noise().astype(np.float32))["texture"])
    np.testing.assert_allclose(texture[:, 48:80], maps.mean(axis=(1, 2)), atol=1e-4)
    np.testing.assert_allclose(texture[:, 80:112], maps.std(axis=(1, 2)), atol=1e-3)


def test_a_network_of_keras_gives_features_and_evidence_without_texture() -> None:
    found = for_export(built("keras/MobileNet", weights="none"))(noise().astype(np.float32))
    assert sorted(found) == ["embedding", "evidence", "logits"]
    np.testing.assert_allclose(np.mean(found["evidence"], axis=(1, 2)), found["logits"], atol=1e-4)


@pytest.mark.parametrize("kind", ["plain-cnn", "several views"])
def test_other_networks_give_logits_alone(kind: str) -> None:
    model = built("plain-cnn", weights="none")
    if kind == "several views":
        model = networks.as_scored(built("mobilenetv2", weights="none"), 4)
    found = for_export(model)(noise().astype(np.float32))
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], np.asarray(model(noise().astype(np.float32))), atol=1e-6)
