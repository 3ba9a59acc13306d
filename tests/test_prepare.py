"""Preparation: the same in training and in the exported graph, and no more than it promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dermalert.bundle.export import export_onnx
from dermalert.drawn import NO_ARTEFACTS, Artefacts, draw_lesion
from dermalert.errors import RunError
from dermalert.learn.backend import backend
from dermalert.learn.prepare import preparation_layers
from dermalert.learn.recipes import PREPARATIONS

LESIONS = ("melanoma", "nevus", "basal cell carcinoma", "dermatofibroma", "vascular lesion", "actinic keratosis")
VIGNETTE = replace(NO_ARTEFACTS, vignette=1.0)


def drawn(artefacts: Artefacts, count: int = 36, side: int = 90) -> np.ndarray:
    """The same lesions whatever the artefacts: float32 (N, side, side, 3)."""
    return np.stack(
        [
            draw_lesion(
                LESIONS[number % 6], np.random.default_rng(number), width=side, height=side, artefacts=artefacts
            )
            for number in range(count)
        ]
    ).astype(np.float32)


def prepared(pixels: np.ndarray, *names: str, dtype: str = "float32") -> np.ndarray:
    keras = backend().keras
    value: Any = pixels
    for layer in preparation_layers(names, dtype):
        value = layer(value)
    return np.asarray(keras.ops.cast(value, "float32"))


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114])


def middle(side: int, radius: float) -> np.ndarray:
    axis = (2 * np.arange(side) + 1) / side - 1
    return np.hypot(axis[:, None], axis[None, :]) < radius


def test_a_layer_for_each_name_in_the_order_given() -> None:
    layers = preparation_layers(PREPARATIONS, "float32")
    assert [type(layer).__name__ for layer in layers] == ["ShadesOfGray", "RemoveVignette"]
    assert not any(layer.weights for layer in layers)
    assert preparation_layers((), "float32") == []
    with pytest.raises(RunError, match="sharpen"):
        preparation_layers(["sharpen"], "float32")


def test_grey_pictures_and_black_ones_stay_as_they_are() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 30, 40, 1)).repeat(3, axis=-1).astype(np.float32)
    grey[0] = 0
    assert np.abs(prepared(grey, "shades-of-gray") - grey).max() < 0.01


def test_an_even_colour_becomes_the_grey_of_the_same_luma() -> None:
    pixels = np.broadcast_to(np.float32([200, 120, 60]), (1, 8, 8, 3))
    made = prepared(pixels, "shades-of-gray")
    assert np.allclose(made, luma(pixels[0, 0, 0]), atol=0.01)


def test_shades_of_gray_scales_channels_by_their_sixth_power_mean() -> None:
    pixels = np.random.default_rng(0).uniform(20, 120, (2, 16, 16, 3)).astype(np.float32) * np.float32([1, 0.7, 0.5])
    made = prepared(pixels, "shades-of-gray")
    for picture, result in zip(pixels.astype(np.float64), made, strict=True):
        light = (picture**6).mean(axis=(0, 1)) ** (1 / 6)
        told = picture / light
        told *= luma(picture).mean() / luma(told).mean()
        assert np.abs(result - told).max() < 0.01


def test_the_colour_of_the_light_is_gone() -> None:
    plain = drawn(NO_ARTEFACTS) * 0.8
    cast = plain * np.float32([1.0, 0.8, 0.6])
    one, other = prepared(plain, "shades-of-gray"), prepared(cast, "shades-of-gray")
    brightness = luma(one).mean(axis=(1, 2)) / luma(other).mean(axis=(1, 2))
    other = np.clip(other * brightness[:, None, None, None], 0, 255)
    assert np.abs(plain - cast).mean() > 15
    assert np.abs(one - other).mean() < 1
    assert np.abs(luma(one).mean(axis=(1, 2)) - luma(plain).mean(axis=(1, 2))).max() < 2


def test_pictures_without_a_vignette_stay_as_they_are() -> None:
    for pixels in (drawn(NO_ARTEFACTS), drawn(replace(NO_ARTEFACTS, hair=1, ink=1, bubbles=1, gloss=1, ruler=1))):
        change = np.abs(prepared(pixels, "remove-vignette") - pixels).mean(axis=(1, 2, 3))
        assert np.median(change) == 0
        assert change.max() < 1


def test_a_vignette_becomes_skin_and_the_middle_is_not_touched() -> None:
    dark, plain = drawn(VIGNETTE), drawn(NO_ARTEFACTS)
    made = prepared(dark, "remove-vignette")
    before, after = (np.abs(each - plain).mean(axis=(1, 2, 3)) for each in (dark, made))
    assert before.mean() > 8
    assert after.mean() < before.mean() / 3
    assert (after < before + 0.1).mean() > 0.9
    assert (after < before + 2).all()
    assert np.array_equal(made[:, middle(90, 0.69)], dark[:, middle(90, 0.69)])


def test_a_black_lesion_keeps_its_place() -> None:
    pixels = np.broadcast_to(np.float32([220, 180, 160]), (3, 90, 90, 3)).copy()
    pixels[0, middle(90, 0.6)] = 15  # a large one in the middle
    pixels[1, :50, :50] = 15  # one that reaches a corner
    pixels[2, 30:60, :] = 15  # one that reaches two sides
    assert np.array_equal(prepared(pixels, "remove-vignette"), pixels)


def test_the_rim_of_a_full_circle_takes_the_colour_of_the_skin_beside_a_dark_lesion() -> None:
    pixels = np.broadcast_to(np.float32([220, 180, 160]), (1, 90, 90, 3)).copy()
    pixels[:, middle(90, 0.4)] = [60, 40, 30]
    pixels[:, ~middle(90, 0.95)] = 5
    made = prepared(pixels, "remove-vignette")
    assert np.abs(made[:, ~middle(90, 0.95)] - [220, 180, 160]).max() < 8
    assert np.array_equal(made[:, middle(90, 0.69)], pixels[:, middle(90, 0.69)])


@pytest.mark.parametrize("name", PREPARATIONS)
def test_each_picture_is_prepared_by_itself_and_stays_in_range(name: str) -> None:
    pixels = np.concatenate([drawn(VIGNETTE, 4), np.random.default_rng(0).integers(0, 256, (2, 90, 90, 3))])
    together = prepared(pixels, name)
    assert together.shape == pixels.shape
    assert together.min() >= 0
    assert together.max() <= 255
    for row in range(len(pixels)):
        assert np.abs(prepared(pixels[row : row + 1], name)[0] - together[row]).max() < 1e-2


@pytest.mark.parametrize("name", PREPARATIONS)
def test_in_bfloat16_nothing_but_the_last_rounding_is_lost(name: str) -> None:
    pixels = drawn(VIGNETTE, 6)
    keras = backend().keras
    (layer,) = preparation_layers([name], keras.DTypePolicy("mixed_bfloat16"))
    made = layer(pixels)
    assert keras.backend.standardize_dtype(made.dtype) == "bfloat16"
    difference = np.abs(np.asarray(keras.ops.cast(made, "float32")) - prepared(pixels, name))
    assert difference.max() <= 0.51  # bfloat16 holds whole numbers to 256


@pytest.mark.parametrize("names", [PREPARATIONS[:1], PREPARATIONS[1:], PREPARATIONS])
def test_the_exported_graph_prepares_as_the_network_does(names: tuple[str, ...]) -> None:
    keras, onnxruntime = backend().keras, pytest.importorskip("onnxruntime")
    layers = [keras.Input((60, 80, 3)), *preparation_layers(names, "float32"), keras.layers.Rescaling(1 / 255)]
    model = keras.Sequential([*layers, keras.layers.Flatten()])
    graph = export_onnx(model, size=(80, 60))  # which compares on noise
    pixels = np.stack([drawn(each, 1, 80)[0, 10:70] for each in (VIGNETTE, NO_ARTEFACTS)])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels})
    assert np.abs(found - np.asarray(model(pixels))).max() < 1e-3
