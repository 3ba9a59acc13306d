"""The packaged backbone is the published network, weights are never guessed around, and nothing needs the internet."""

from __future__ import annotations

import hashlib
import io
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.errors import RunError
from dermalert.learn.backbones import applications, inverted, mobilenetv2
from dermalert.learn.backbones.efficientnetlite import LITE0, LITE2
from dermalert.learn.backbones.mobilenetv2 import MOBILENETV2
from dermalert.learn.backend import backend

PACKAGED = Path(mobilenetv2.__file__).with_name("mobilenetv2-imagenet.npz")

# Every 128th feature that the published PyTorch network has of the noise below: scripts/convert_backbone.py.
GOLDEN = [0.425817, 0.447690, 0.500681, 0.011345, 1.645857, 0.434230, 0.934684, 0.010138, 0.0, 0.0]


def noise(width: int = 64, height: int = 33) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3)).astype(np.float32)


def network(height: int = 33, width: int = 64, seed: int = 0, architecture: inverted.Architecture = MOBILENETV2) -> Any:
    policy = backend().keras.DTypePolicy("float32")
    return inverted.build(architecture, (height, width, 3), policy=policy, seed=seed)


def load(made: Any, file: Path) -> None:
    inverted.load(made, MOBILENETV2, file, str(file))


def write(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_packaged_weights_are_the_converted_ones() -> None:
    content = PACKAGED.read_bytes()
    assert hashlib.sha256(content).hexdigest() == mobilenetv2.WEIGHTS_SHA256
    assert len(content) < 9_500_000
    assert "MIT License" in PACKAGED.with_name("LICENSE-mobilenetv2.txt").read_text(encoding="utf-8")


def test_it_has_the_features_of_the_published_network(offline: None) -> None:
    made = network()
    mobilenetv2.load(made)
    features = np.asarray(made(noise())).mean(axis=(1, 2))
    assert features.shape == (1, 1280)
    assert np.abs(features[0, ::128] - GOLDEN).max() < 1e-4


@pytest.mark.parametrize("architecture", [MOBILENETV2, LITE0, LITE2], ids=lambda each: each.name)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 32), (33, 64), (175, 225)])
def test_any_size_gives_maps_of_a_thirty_second_rounded_up(
    height: int, width: int, architecture: inverted.Architecture
) -> None:
    made = network(height, width, architecture=architecture)
    assert made.output_shape == (None, -(-height // 32), -(-width // 32), 1280)


@pytest.mark.parametrize(("architecture", "published"), [(LITE0, 4_652_008), (LITE2, 6_092_072)])
def test_lite_has_as_many_weights_as_its_authors_count(architecture: inverted.Architecture, published: int) -> None:
    classifier = 1000 * 1280 + 1000
    made = network(architecture=architecture)
    norms = sum(
        weight.shape[0] for layer in made.layers for weight in layer.trainable_variables if len(weight.shape) == 1
    )
    assert made.count_params() + norms + classifier == published  # folded, one of a normalization's two is left


def test_weights_drawn_by_chance_depend_on_the_seed_and_keep_the_signal_alive() -> None:
    one, same, other = network(seed=1), network(seed=1), network(seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one.get_weights()[::2], other.get_weights()[::2], strict=True))
    assert 0.01 < np.asarray(one(noise())).std() < 6


def test_weights_survive_a_file(tmp_path: Path) -> None:
    one, other = network(seed=1), network(seed=2)
    load(other, write(tmp_path / "weights.npz", inverted.arrays_of(one)))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_a_damaged_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mobilenetv2, "files", lambda _: tmp_path)
    with pytest.raises(RunError, match="missing from the installed package"):
        mobilenetv2.load(network())
    content = bytearray(PACKAGED.read_bytes())
    content[4_000_000] ^= 1
    (tmp_path / PACKAGED.name).write_bytes(content)
    with pytest.raises(RunError, match=r"damaged\. Install Dermalert again"):
        mobilenetv2.load(network())


def _cut(content: bytes) -> bytes:
    return content[:-1000]


def _flipped(content: bytes) -> bytes:
    return content[:4_000_000] + bytes([content[4_000_000] ^ 1]) + content[4_000_001:]


def _empty(content: bytes) -> bytes:
    return b""


def _one_array(content: bytes) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def _pickled(content: bytes) -> bytes:
    stream = io.BytesIO()
    arrays = dict.fromkeys(inverted.arrays_of(network()), np.array([{"a": 1}], dtype=object))
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("harm", [_cut, _flipped, _empty, _one_array, _pickled])
def test_a_damaged_file_is_refused_by_name(harm: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    file.write_bytes(harm(PACKAGED.read_bytes()))
    with pytest.raises(RunError, match=r"weights\.npz: these weights cannot be read"):
        load(network(), file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"weights\.npz"):
        load(network(), tmp_path / "weights.npz")


@pytest.mark.parametrize("change", ["shape", "kind", "nan", "huge", "missing", "extra"])
def test_weights_of_another_network_are_refused(change: str, tmp_path: Path) -> None:
    made = network()
    arrays = inverted.arrays_of(made)
    name = "stage5_last/bias"
    bias = arrays[name]
    arrays[name] = {
        "shape": bias[:-1],
        "kind": bias.astype(np.float64),
        "nan": np.full_like(bias, np.nan),
        "huge": np.zeros((1000, 1280), np.float32),
    }.get(change, bias)
    if change == "missing":
        del arrays[name]
    if change == "extra":
        arrays["classifier/kernel"] = np.zeros((1280, 1000), np.float32)
    before = made.get_weights()
    with pytest.raises(RunError, match=r"weights\.npz: "):
        load(made, write(tmp_path / "weights.npz", arrays))
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))


def application(name: str, weights: str = "none", side: int = 32, seed: int = 0) -> Any:
    keras = backend().keras
    pixels = keras.Input((side, side, 3))
    policy = keras.DTypePolicy("float32")
    maps = applications.application(pixels, name, weights, policy=policy, seed=seed)
    return keras.Model(pixels, maps)


def inside(model: Any) -> Any:
    """The network of keras.applications in it."""
    return model.layers[-1].network


def test_a_misspelt_network_is_answered_with_those_that_are_close() -> None:
    with pytest.raises(RunError, match="Did you mean keras/EfficientNetB0"):
        application("efficientnet_b0")
    with pytest.raises(RunError, match="MobileNetV2"):
        application("zzzzz")


def test_networks_that_no_bundle_can_hold_are_not_offered() -> None:
    assert "ResNet50" in applications.names()
    assert "ConvNeXtTiny" not in applications.names()


def test_a_size_that_the_network_cannot_do_is_refused() -> None:
    with pytest.raises(RunError, match=r"keras/MobileNetV2 cannot be built for pictures of 20x20: .*32x32"):
        application("MobileNetV2", side=20)


@pytest.mark.parametrize("name", ["MobileNet", "VGG16", "DenseNet121"], ids=["to one", "blue first", "deviations"])
def test_pictures_are_scaled_as_keras_scales_them_for_that_network(name: str) -> None:
    made = application(name)
    pixels = noise(32, 32)
    module = next(m for m in vars(backend().keras.applications).values() if hasattr(m, name) and hasattr(m, "__path__"))
    expected = inside(made)(module.preprocess_input(pixels.copy()), training=False)
    assert np.allclose(np.asarray(made(pixels)), np.asarray(expected), rtol=1e-4, atol=1e-6)


def test_without_the_internet_imagenet_weights_say_what_to_do(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend().keras.config.set_dtype_policy("float32")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(RunError, match=r"give the path .* or take the network mobilenetv2"):
        application("MobileNetV2", "imagenet")
    assert socket.getdefaulttimeout() is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_weights_of_a_network_of_keras_are_read_from_a_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"saved{suffix}"
    one = application("MobileNetV2", seed=1)
    if suffix == ".weights.h5":
        inside(one).save_weights(file)
    else:
        inside(one).save(file)
    other = application("MobileNetV2", str(file), seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_a_file_that_holds_no_weights_of_that_network_is_refused(tmp_path: Path) -> None:
    saved = tmp_path / "saved.weights.h5"
    inside(application("MobileNet")).save_weights(saved)
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(saved.read_bytes()[:-5000])
    for file in (saved, cut):
        with pytest.raises(RunError, match=rf"{file.name}: not the weights of keras/MobileNetV2"):
            application("MobileNetV2", str(file))
    for name in ("missing.h5", "weights.pt"):
        with pytest.raises(RunError, match=f"{name}: weights of keras/MobileNetV2 are"):
            application("MobileNetV2", str(tmp_path / name))


def test_a_file_that_lacks_one_layer_is_refused(tmp_path: Path) -> None:
    import h5py

    file = tmp_path / "saved.weights.h5"
    inside(application("MobileNetV2")).save_weights(file)
    with h5py.File(file, "a") as stored:
        named = [name for name, layer in stored["layers"].items() if len(layer.get("vars", ()))]
        del stored["layers"][named[-1]]
    with pytest.raises(RunError, match="not the weights of keras/MobileNetV2"):
        application("MobileNetV2", str(file))


def test_keras_is_left_as_it_was() -> None:
    import random

    random.seed(5)
    expected = random.random()
    random.seed(5)
    keras = backend().keras
    before = keras.config.dtype_policy().name
    pixels = keras.Input((32, 32, 3))
    applications.application(pixels, "MobileNet", "none", policy=keras.DTypePolicy("mixed_bfloat16"), seed=0)
    assert random.random() == expected
    assert keras.config.dtype_policy().name == before
